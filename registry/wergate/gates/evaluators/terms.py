"""Terms of the lexicon, those of several words included: how many were written, and the worst important one."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from wergate.gates.decision import GateResult
from wergate.gates.evaluators.verdict import Size, judged, judged_end, waived
from wergate.gates.evidence import Evidence, NoEvidence, speakers
from wergate.gates.kinds import TermGate, WorstTermGate
from wertune.scores.bootstrap import Floats, TooFewBlocks, interval, ratio
from wertune.scores.eval_report import SetReport, UtteranceCounts

HIT, MISS, FALSE = 0, 1, 2


def recall(sums: Floats) -> Floats:
    """Share of the said terms that were written; sums (m, 3) of hits, misses and false alarms to (m,)."""
    return 1.0 - ratio(np.stack([sums[:, MISS], sums[:, HIT] + sums[:, MISS]], axis=1))


def precision(sums: Floats) -> Floats:
    """Share of the written terms that were said; 1 where none was written."""
    return 1.0 - ratio(np.stack([sums[:, FALSE], sums[:, HIT] + sums[:, FALSE]], axis=1))


def f1(sums: Floats) -> Floats:
    """Harmonic mean of both; 1 where none was said and none written."""
    wrong = sums[:, MISS] + sums[:, FALSE]
    return 1.0 - ratio(np.stack([wrong, 2 * sums[:, HIT] + wrong], axis=1))


MEASURES: Mapping[str, Callable[[Floats], Floats]] = {"recall": recall, "precision": precision, "f1": f1}
_REMEDIES = {
    "recall": "add training clips for the terms most often missed",
    "precision": "add replay and domain clips without terms: terms are written that nobody said",
    "f1": "look at missed and false terms; add training clips for them",
}


def term(gate: TermGate, evidence: Evidence) -> GateResult:
    found = evidence.set(gate.set)
    wanted = _selection(gate, evidence)
    counts = np.array([_counts(utterance, wanted) for utterance in found.utterances], dtype=np.float64)
    hits, misses, false = (int(total) for total in counts.sum(axis=0))
    which = {"all": "", "several_words": "of several words "}.get(gate.of, f"{gate.of} in training ")
    detail = f"{gate.set}: terms {which}said {hits + misses} times, {misses} missed, {false} written falsely"
    if hits + misses < gate.min_occurrences:
        raise NoEvidence(
            f"{detail}, but must be said >= {gate.min_occurrences} times",
            f"add clips with such terms to the set {gate.set}, or lower min_occurrences",
        )
    measure = MEASURES[gate.measure]
    if not hits + misses + false:
        return waived(gate, f"{detail}: nothing to judge, which min_occurrences 0 allows")
    # With nothing said there is nothing to draw.
    if gate.judge == "point" or not hits + misses:
        return judged(gate, float(measure(counts.sum(axis=0, keepdims=True))[0]), detail, _REMEDIES[gate.measure])
    try:
        ends = interval(counts, measure, counts[:, HIT] + counts[:, MISS], speakers(found), evidence.bootstrap)
    except TooFewBlocks as few:
        raise NoEvidence(f"{detail}; {few}", "evaluate more clips with such terms") from None
    return judged_end(gate, ends, detail, _REMEDIES[gate.measure], Size(hits + misses, "terms said"))


def _selection(gate: TermGate, evidence: Evidence) -> Callable[[str], bool]:
    training = evidence.candidate.training_terms
    if gate.of in ("seen", "unseen") and not training:
        raise NoEvidence("the report does not say which terms training had", "evaluate again, with the lexicon")
    selections: dict[str, Callable[[str], bool]] = {
        "all": lambda term: True,
        "seen": lambda term: training.get(term, 0) > 0,
        "unseen": lambda term: training.get(term, 0) == 0,
        "several_words": lambda term: len(term.split()) > 1,
    }
    return selections[gate.of]


def _counts(utterance: UtteranceCounts, wanted: Callable[[str], bool]) -> tuple[int, int, int]:
    """Hits, misses and false alarms of the wanted terms."""
    chosen = [counts for term, counts in utterance.terms.items() if wanted(term)]
    return sum(c[HIT] for c in chosen), sum(c[MISS] for c in chosen), sum(c[FALSE] for c in chosen)


def worst_term(gate: WorstTermGate, evidence: Evidence) -> GateResult:
    """Recall of the worst of the important terms; one that is said too seldom cannot be judged."""
    hits, said = _by_term(evidence.set(gate.set))
    rare = [name for name in gate.terms if said[name] < gate.min_occurrences]
    often = [name for name, count in said.items() if count >= gate.min_occurrences]
    if rare or not often:
        raise NoEvidence(
            f"{gate.set}: {_listed(rare) or 'every term'} said less than {gate.min_occurrences} times",
            "add clips that say it, lower min_occurrences, or mend the term's spelling in the policy",
        )
    recalls = {name: hits[name] / said[name] for name in gate.terms or sorted(often)}
    worst = min(recalls.values())
    names = [name for name, value in recalls.items() if value == worst]
    detail = f"{gate.set}: {_listed(names)} worst of {len(recalls)} terms"
    return judged(gate, worst, detail, f"add training clips that say {_listed(names)}")


def _by_term(found: SetReport) -> tuple[Counter[str], Counter[str]]:
    """Hits, and how often it was said, of each term."""
    hits: Counter[str] = Counter()
    said: Counter[str] = Counter()
    for utterance in found.utterances:
        for name, counts in utterance.terms.items():
            hits[name] += counts[HIT]
            said[name] += counts[HIT] + counts[MISS]
    return hits, said


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
