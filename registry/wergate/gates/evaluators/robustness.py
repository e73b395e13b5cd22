"""Where averages hide faults: words out of nothing, loops, and the worst speaker, channel or duration."""

from bisect import bisect_right
from collections import defaultdict

from wergate.gates.decision import GateResult
from wergate.gates.evaluators.verdict import judged
from wergate.gates.evidence import Evidence, NoEvidence, column
from wergate.gates.kinds import HallucinationGate, LoopGate, SliceGate
from wertune.scores.eval_report import SetReport, UtteranceCounts


def hallucination(gate: HallucinationGate, evidence: Evidence) -> GateResult:
    found = evidence.set(gate.set)
    surplus = column(found, lambda u: max(u.hypothesis_words - u.words, 0)).sum()
    clips, seconds = len(found.utterances), column(found, lambda u: u.duration_s).sum()
    if gate.unit == "words/minute" and not seconds:
        raise NoEvidence(f"set {gate.set} does not say how long its clips are", "evaluate again, with durations")
    value = surplus / clips if gate.unit == "words/clip" else 60.0 * surplus / seconds
    detail = f"{gate.set}: {surplus:.0f} words too many in {clips} clips of {seconds:.0f} s"
    return judged(gate, float(value), detail, "add such clips with empty transcripts to training")


def loops(gate: LoopGate, evidence: Evidence) -> GateResult:
    utterances = [(name, u) for name in gate.sets for u in evidence.set(name).utterances]
    looping = [f"{name}/{u.id}" for name, u in utterances if u.compression_ratio > gate.compression_ratio]
    value = len(looping) / (len(utterances) if gate.unit == "share of clips" else 1)
    such = f", such as {looping[0]}" if looping else ""
    detail = f"{len(looping)} of {len(utterances)} transcripts repeat themselves{such} ({', '.join(gate.sets)})"
    return judged(gate, float(value), detail, "lower decode.tokens_per_second, train less long, or lower lora.strength")


def worst_slice(gate: SliceGate, evidence: Evidence) -> GateResult:
    """Judged on the plain value: the worst of several small slices already leans towards refusing."""
    slices = _slices(gate, evidence.set(gate.set))
    large = {name: counts for name, counts in slices.items() if counts[1] >= gate.min_words}
    small = sorted(slices.keys() - large.keys())
    if not large:
        which = f"{gate.by} {gate.only}" if gate.only else gate.by
        raise NoEvidence(
            f"{gate.set}: no slice by {which} has the {gate.min_words} words it must have",
            f"add clips that name their {gate.by}, or lower min_words",
        )
    rates = {name: wrong / words for name, (wrong, words) in large.items()}
    worst = max(rates, key=lambda name: rates[name])
    wrong, words = large[worst]
    detail = f"{gate.set}: {gate.by} {worst}, {wrong} errors in {words} words"
    if len(large) > 1:
        detail += f", worst of {len(large)}"
    if small:
        detail += f"; under {gate.min_words} words and not judged: {', '.join(small)}"
    return judged(gate, rates[worst], detail, f"add training clips that are like {gate.by} {worst}")


def _slices(gate: SliceGate, found: SetReport) -> dict[str, tuple[int, int]]:
    """Errors and words of each slice; clips that do not name theirs are in none."""
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for utterance in found.utterances:
        name = _slice_of(gate, utterance)
        if name and gate.only in ("", name):
            wrong, words = sums[name]
            sums[name] = (wrong + utterance.errors, words + utterance.words)
    return dict(sorted(sums.items()))


def _slice_of(gate: SliceGate, utterance: UtteranceCounts) -> str:
    if gate.by == "speaker":
        return utterance.speaker
    if gate.by == "channel":
        return utterance.channel
    bounds = ["0", *(f"{edge:g}" for edge in gate.edges_s), "inf"]
    band = bisect_right(gate.edges_s, utterance.duration_s)
    return f"{bounds[band]}-{bounds[band + 1]} s"
