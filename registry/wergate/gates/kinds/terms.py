"""Terms of the lexicon, those of several words included: how many were written, and the worst important one."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from pydantic import Field

from wergate.gates.evidence import Evidence, NoEvidence, enough, speakers
from wergate.gates.gate import UNIT, GateResult, Judge, OnSet, Size
from wertune.scores.bootstrap import Floats, interval, ratio
from wertune.scores.eval_report import SetReport, UtteranceCounts

HIT, MISS, FALSE = 0, 1, 2


# How often hits, misses and false alarms count as wrong, and in what that is out of.
_COUNTED = {"recall": ((0, 1, 0), (1, 1, 0)), "precision": ((0, 0, 1), (1, 0, 1)), "f1": ((0, 1, 1), (2, 1, 1))}
_REMEDIES = {
    "recall": "add training clips for the terms most often missed",
    "precision": "add replay and domain clips without terms: terms are written that nobody said",
    "f1": "look at missed and false terms; add training clips for them",
}


def term_rate(measure: str, sums: Floats) -> Floats:
    """Recall, precision or F1 of sums (m, 3) of hits, misses and false alarms: (m,); 1 where nothing could be wrong."""
    return 1.0 - ratio(sums @ np.array(_COUNTED[measure]).T)


def _counts(utterance: UtteranceCounts, wanted: Callable[[str], bool]) -> tuple[int, int, int]:
    """Hits, misses and false alarms of the wanted terms."""
    chosen = [counts for term, counts in utterance.terms.items() if wanted(term)]
    return sum(c[HIT] for c in chosen), sum(c[MISS] for c in chosen), sum(c[FALSE] for c in chosen)


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


class TermGate(OnSet):
    """Precision, recall or F1 of lexicon terms at least `limit`; `of` picks those seen or not seen in training."""

    rule = ">="
    kind: Literal["term"] = "term"
    unit: Literal["share"] = Field("share", description=UNIT)
    limit: float = Field(ge=0, le=1, description="at least: 0.8 is four of five")
    judge: Judge = "end"
    measure: Literal["precision", "recall", "f1"] = Field(
        description="recall: of terms said, those written; precision: of terms written, those said; f1: both in one"
    )
    of: Literal["all", "seen", "unseen", "several_words"] = Field(
        "all", description="the terms that count: all, those in training or not in it, or those of several words"
    )
    min_occurrences: int = Field(1, ge=0, description="said fewer times: refused, for it cannot be judged")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.measure, "" if self.of == "all" else self.of, self.set)

    def _evaluate(self, evidence: Evidence) -> GateResult:
        found = evidence.set(self.set)
        wanted = self._selection(evidence)
        counts = np.array([_counts(utterance, wanted) for utterance in found.utterances], dtype=np.float64)
        hits, misses, false = (int(total) for total in counts.sum(axis=0))
        which = {"all": "", "several_words": "of several words "}.get(self.of, f"{self.of} in training ")
        detail = f"{self.set}: terms {which}said {hits + misses} times, {misses} missed, {false} written falsely"
        if hits + misses < self.min_occurrences:
            raise NoEvidence(
                f"{detail}, but must be said >= {self.min_occurrences} times",
                f"add clips with such terms to the set {self.set}, or lower min_occurrences",
            )
        measure = partial(term_rate, self.measure)
        if not hits + misses + false:
            return self.waived(f"{detail}: nothing to judge, which min_occurrences 0 allows")
        # With nothing said there is nothing to draw.
        if self.judge == "point" or not hits + misses:
            return self.judged(float(measure(counts.sum(axis=0, keepdims=True))[0]), detail, _REMEDIES[self.measure])
        with enough(f"{detail};", "evaluate more clips with such terms"):
            ends = interval(counts, measure, counts[:, HIT] + counts[:, MISS], speakers(found), evidence.bootstrap)
        return self.judged_end(ends, detail, _REMEDIES[self.measure], Size(hits + misses, "terms said"))

    def _selection(self, evidence: Evidence) -> Callable[[str], bool]:
        training = evidence.candidate.training_terms
        if self.of in ("seen", "unseen") and not training:
            raise NoEvidence("the report does not say which terms training had", "evaluate again, with the lexicon")
        selections: dict[str, Callable[[str], bool]] = {
            "all": lambda term: True,
            "seen": lambda term: training.get(term, 0) > 0,
            "unseen": lambda term: training.get(term, 0) == 0,
            "several_words": lambda term: len(term.split()) > 1,
        }
        return selections[self.of]


class WorstTermGate(OnSet):
    """Recall of the worst important term at least `limit`."""

    rule = ">="
    kind: Literal["worst_term"] = "worst_term"
    unit: Literal["share"] = Field("share", description=UNIT)
    limit: float = Field(ge=0, le=1, description="at least: 0.5 is every other time")
    terms: tuple[str, ...] = Field((), description="as written; none: every term said min_occurrences times")
    min_occurrences: int = Field(2, ge=1, description="a term said fewer times is not judged; one of `terms`: refused")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        """Recall of the worst of the important terms; one that is said too seldom cannot be judged."""
        hits, said = _by_term(evidence.set(self.set))
        rare = [name for name in self.terms if said[name] < self.min_occurrences]
        often = [name for name, count in said.items() if count >= self.min_occurrences]
        if rare or not often:
            raise NoEvidence(
                f"{self.set}: {_listed(rare) or 'every term'} said less than {self.min_occurrences} times",
                "add clips that say it, lower min_occurrences, or mend the term's spelling in the policy",
            )
        recalls = {name: hits[name] / said[name] for name in self.terms or sorted(often)}
        worst = min(recalls.values())
        names = [name for name, value in recalls.items() if value == worst]
        detail = f"{self.set}: {_listed(names)} worst of {len(recalls)} terms"
        return self.judged(worst, detail, f"add training clips that say {_listed(names)}")
