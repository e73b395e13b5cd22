"""Ordinary speech that the platform brings, and texts as they are written: what tuning must not break."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wergate.gates.decision import GateResult
from wergate.gates.evaluators.verdict import Size, judged, judged_end
from wergate.gates.evidence import Evidence, NoEvidence, column, same_clips, speakers
from wergate.gates.kinds import BatteryGate, FormattedWerGate
from wergate.gates.power import counted
from wertune.base.contract import BATTERY_PREFIX
from wertune.scores.bootstrap import Floats, Interval, TooFewBlocks, interval, ratio
from wertune.scores.eval_report import SetReport, UtteranceCounts

LOOPS = 2.4  # Whisper's own (Radford et al. 2022, 4.5)
Count = Callable[[UtteranceCounts], float]
_AGAIN = "evaluate base and version in one run"


@dataclass(frozen=True)
class Measure:
    """A rate: `scale` times what is `wrong` over what it is out of (`whole`, as many `of`)."""

    wrong: Count
    whole: Count
    said: str
    of: str
    remedy: str
    scale: float = 1.0


def _clip_of_speech(clip: UtteranceCounts) -> float:
    return float(clip.words > 0)


def _minutes(clip: UtteranceCounts) -> float:
    return clip.duration_s / 60.0


def _surplus(clip: UtteranceCounts) -> float:
    return max(clip.hypothesis_words - clip.words, 0)


FORMATTED = Measure(
    lambda clip: clip.formatted_errors,
    lambda clip: clip.formatted_words,
    "wrong as written",
    "words",
    "write training texts as Whisper writes: numbers in digits, case and punctuation; add such sentences to replay",
)
MEASURES: Mapping[str, Measure] = {
    "deleted": Measure(
        lambda clip: float(clip.words > 0 and clip.hypothesis_words == 0),
        _clip_of_speech,
        "without one word",
        "clips of speech",
        "short answers are deleted: put short answers into training, and keep voices out of the non-speech clips",
    ),
    "inexact": Measure(
        lambda clip: float(clip.entity_errors > 0),
        lambda clip: float(clip.entities > 0),
        "not exact",
        "clips with numbers or codes",
        "numbers are written falsely: train and replay sentences with digits as Whisper writes them, and let "
        "decoding repeat digits (no_repeat_ngram forbids what is read back)",
    ),
    "wer": Measure(
        lambda clip: clip.errors if clip.words else 0,  # what is written for a noise is made up, and counted there
        lambda clip: clip.words,
        "wrong",
        "words",
        "everyday speech is forgotten: add replay of such speech by many voices, or lower lora.strength",
    ),
    "formatted_wer": FORMATTED,
    "wrong_entities": Measure(
        lambda clip: clip.entity_errors,
        lambda clip: clip.entities,
        "wrong",
        "amounts, dates, numbers and codes",
        "train and replay sentences with amounts, dates and codes as Whisper writes them",
    ),
    # Of speech: what is written where nobody speaks is made up, term or not.
    "false_terms": Measure(
        lambda clip: clip.false_terms if clip.words else 0,
        lambda clip: clip.words,
        "terms that nobody said",
        "words",
        "terms of the lexicon are heard where nobody said them: lower decode.term_boost or lora.strength, and replay "
        "sentences that sound like them",
        scale=1000.0,
    ),
    "loops": Measure(
        lambda clip: float(clip.compression_ratio > LOOPS),
        lambda clip: 1.0,
        "repeat themselves",
        "clips",
        "lower decode.tokens_per_second, train less long, or lower lora.strength",
    ),
    "made_up": Measure(
        _surplus,
        _minutes,
        "words too many",
        "minutes",
        "words are made up: add clips in which nobody speaks, with empty transcripts, to training",
    ),
    "skipped": Measure(
        lambda clip: clip.skipped_s,
        _minutes,
        "seconds of speech without a word",
        "minutes",
        "speech is skipped: train and replay longer clips, and keep voices out of the non-speech clips",
    ),
}


def battery(gate: BatteryGate, evidence: Evidence) -> GateResult:
    """The measure over all clips of the parts, its rise over the base's where the gate compares."""
    measure = MEASURES[gate.measure]
    names = _sets(gate.parts, evidence)
    where = "battery" if gate.parts == ("all",) else ", ".join(gate.parts)
    after = SetReport(digest="", utterances=tuple(u for name in names for u in evidence.set(name).utterances))
    if gate.against == "base":
        return _compared(gate, evidence, measure, after, _base(names, evidence), where)
    return _held(gate, evidence, measure, after, where)


def formatted_wer(gate: FormattedWerGate, evidence: Evidence) -> GateResult:
    after = evidence.set(gate.set)
    before = same_clips(after, evidence.baseline(gate.set), "the untouched base", _AGAIN)
    return _compared(gate, evidence, FORMATTED, after, before, gate.set)


def _sets(parts: tuple[str, ...], evidence: Evidence) -> list[str]:
    """The names of the parts' sets; NoEvidence where a part, or the whole battery, was not measured."""
    there = [name for name in evidence.candidate.sets if name.startswith(BATTERY_PREFIX)]
    if not there:
        raise NoEvidence(
            "the report has no battery: project.yaml named none when it was made",
            "set data.battery (shipped for English; docs/battery.md: another), then `wertune evaluate --model-uri …`; "
            "or take the battery's gates out of the policy",
        )
    if "all" in parts:
        return there
    return [f"{BATTERY_PREFIX}{part}" for part in parts]


def _base(names: list[str], evidence: Evidence) -> SetReport:
    """The untouched base's clips of the sets, in the order of the candidate's."""
    found = [
        same_clips(evidence.set(name), evidence.baseline(name), "the untouched base", _AGAIN).utterances
        for name in names
    ]
    return SetReport(digest="", utterances=tuple(utterance for clips in found for utterance in clips))


def _whole(measure: Measure, clips: SetReport, where: str) -> Floats:
    whole = column(clips, measure.whole)
    if not whole.any():
        raise NoEvidence(f"{where}: the report counts no {measure.of}", "evaluate again, with a set that has some")
    return whole


def _compared(
    gate: BatteryGate | FormattedWerGate,
    evidence: Evidence,
    measure: Measure,
    after: SetReport,
    before: SetReport,
    where: str,
) -> GateResult:
    """Paired: what went wrong more often than by the base, on the same clips in the same draws."""
    whole = _whole(measure, after, where)
    now, then = column(after, measure.wrong), column(before, measure.wrong)
    counts = f"{now.sum():.4g} {measure.said}, the untouched base {then.sum():.4g}"
    detail = f"{where}: {counts}, of {whole.sum():.4g} {measure.of}"
    return _judged(gate, evidence, measure, now - then, whole, after, detail)


def _held(gate: BatteryGate, evidence: Evidence, measure: Measure, found: SetReport, where: str) -> GateResult:
    whole, wrong = _whole(measure, found, where), column(found, measure.wrong)
    detail = f"{where}: {wrong.sum():.5g} {measure.said}, in {whole.sum():.5g} {measure.of}"
    if gate.judge == "point":
        rate, size = measure.scale * float(wrong.sum() / whole.sum()), float(whole.sum())
        power = counted(gate, rate, size, measure.of, measure.scale)
        return judged(gate, rate, detail, measure.remedy, power)
    return _judged(gate, evidence, measure, wrong, whole, found, detail)


def _judged(
    gate: BatteryGate | FormattedWerGate,
    evidence: Evidence,
    measure: Measure,
    wrong: Floats,
    whole: Floats,
    clips: SetReport,
    detail: str,
) -> GateResult:
    size = Size(float(whole.sum()), measure.of, measure.scale)
    if isinstance(gate, BatteryGate) and gate.judge == "point":
        return judged(gate, measure.scale * float(wrong.sum() / whole.sum()), detail, measure.remedy)
    ends = _ends(evidence, measure.scale * wrong, whole, clips, detail)
    return judged_end(gate, ends, detail, measure.remedy, size)


def _ends(evidence: Evidence, wrong: Floats, whole: Floats, clips: SetReport, detail: str) -> Interval:
    columns = np.stack([wrong, whole], axis=1)
    try:
        return interval(columns, ratio, whole, speakers(clips), evidence.bootstrap)
    except TooFewBlocks as few:
        raise NoEvidence(f"{detail}; {few}", "evaluate more such clips of more speakers") from None
