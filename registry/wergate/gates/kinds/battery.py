"""Ordinary speech that the platform brings, and texts as they are written: what tuning must not break."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from wergate.gates.evidence import AGAIN, BASE, Evidence, NoEvidence, column, enough, same_clips, speakers
from wergate.gates.gate import Gate, GateResult, Judge, SetName, Size
from wergate.gates.kinds.accuracy import Difference
from wergate.gates.power import counted
from wertune.base.contract import BATTERY_PREFIX
from wertune.scores.bootstrap import corpus_rate
from wertune.scores.eval_report import SetReport, UtteranceCounts

LOOPS = 2.4  # Whisper's own (Radford et al. 2022, 4.5)
Count = Callable[[UtteranceCounts], float]


@dataclass(frozen=True)
class Measure:
    """A rate: `scale` times what is `wrong` over what it is out of (`whole`, as many `of`)."""

    wrong: Count
    whole: Count
    said: str
    of: str
    unit: str  # of the rate, and with "difference of" of its difference from the base's
    remedy: str
    scale: float = 1.0


def _clip_of_speech(clip: UtteranceCounts) -> float:
    return float(clip.words > 0)


def _minutes(clip: UtteranceCounts) -> float:
    return clip.duration_s / 60.0


def _surplus(clip: UtteranceCounts) -> float:
    return max(clip.hypothesis_words - clip.words, 0)


MEASURES: Mapping[str, Measure] = {
    "deleted": Measure(
        lambda clip: float(clip.words > 0 and clip.hypothesis_words == 0),
        _clip_of_speech,
        "without one word",
        "clips of speech",
        "share",
        "short answers are deleted: put short answers into training, and keep voices out of the non-speech clips",
    ),
    "inexact": Measure(
        lambda clip: float(clip.entity_errors > 0),
        lambda clip: float(clip.entities > 0),
        "not exact",
        "clips with numbers or codes",
        "share",
        "numbers are written falsely: train and replay sentences with digits as Whisper writes them, and let "
        "decoding repeat digits (no_repeat_ngram forbids what is read back)",
    ),
    "wer": Measure(
        lambda clip: clip.errors if clip.words else 0,  # what is written for a noise is made up, and counted there
        lambda clip: clip.words,
        "wrong",
        "words",
        "errors/word",
        "everyday speech is forgotten: add replay of such speech by many voices, or lower lora.strength",
    ),
    "formatted_wer": Measure(
        lambda clip: clip.formatted_errors,
        lambda clip: clip.formatted_words,
        "wrong as written",
        "words",
        "errors/word",
        "write training texts as Whisper writes: numbers in digits, case and punctuation; add such sentences to replay",
    ),
    "wrong_entities": Measure(
        lambda clip: clip.entity_errors,
        lambda clip: clip.entities,
        "wrong",
        "amounts, dates, numbers and codes",
        "share",
        "train and replay sentences with amounts, dates and codes as Whisper writes them",
    ),
    # Of speech: what is written where nobody speaks is made up, term or not.
    "false_terms": Measure(
        lambda clip: clip.false_terms if clip.words else 0,
        lambda clip: clip.words,
        "terms that nobody said",
        "words",
        "per 1,000 words",
        "terms of the lexicon are heard where nobody said them: lower decode.term_boost or lora.strength, and replay "
        "sentences that sound like them",
        scale=1000.0,
    ),
    "loops": Measure(
        lambda clip: float(clip.compression_ratio > LOOPS),
        lambda clip: 1.0,
        "repeat themselves",
        "clips",
        "share of clips",
        "lower decode.tokens_per_second, train less long, or lower lora.strength",
    ),
    "made_up": Measure(
        _surplus,
        _minutes,
        "words too many",
        "minutes",
        "words/minute",
        "words are made up: add clips in which nobody speaks, with empty transcripts, to training",
    ),
    "skipped": Measure(
        lambda clip: clip.skipped_s,
        _minutes,
        "seconds of speech without a word",
        "minutes",
        "s/minute",
        "speech is skipped: train and replay longer clips, and keep voices out of the non-speech clips",
    ),
}


Counted = Literal[
    "deleted", "inexact", "wer", "formatted_wer", "wrong_entities", "false_terms", "loops", "made_up", "skipped"
]


class BatteryGate(Gate):
    """What goes wrong on the platform's battery of ordinary speech: at most `limit` more than by the untouched base.

    deleted: clips of speech with no word written; inexact: clips with an amount, date, number or code not right;
    wer, formatted_wer: wrong words, normalised and as written; wrong_entities: of those said; false_terms: lexicon
    terms written that nobody said; loops: transcripts that repeat themselves; made_up: words that nobody said;
    skipped: seconds of speech of which nothing was written.
    """

    kind: Literal["battery"] = "battery"
    measure: Counted = Field(description="what is counted")
    parts: tuple[SetName, ...] = Field(
        ("all",),
        min_length=1,
        description="such as short_answers, digits, read_backs; all: the whole battery",
    )
    against: Literal["base", "nothing"] = Field("base", description="base: the rise over it; nothing: the rate itself")
    judge: Judge = "end"
    limit: float = Field(ge=0, description="at most, in the unit of the measure: 0.02 of wer is two points")
    unit: str = Field("", description="empty: made from measure and against; another than theirs is refused")

    @model_validator(mode="before")
    @classmethod
    def _with_unit(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("measure") not in MEASURES:
            return values
        unit = MEASURES[values["measure"]].unit
        if values.get("against", "base") == "base":
            unit = f"difference of {'shares' if unit.startswith('share') else unit}"
        if values.get("unit") not in (None, "", unit):
            raise ValueError(f"unit is {values['unit']!r}, but {values['measure']} is in {unit!r}; leave it out")
        return values | {"unit": unit}

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.measure, *(() if self.parts == ("all",) else self.parts))

    def _evaluate(self, evidence: Evidence) -> GateResult:
        """The measure over all clips of the parts, its rise over the base's where the gate compares."""
        names = self._sets(evidence)
        after = _joined(map(evidence.set, names))
        before: SetReport | None = None
        if self.against == "base":
            before = _joined(same_clips(evidence.set(name), evidence.baseline(name), BASE, AGAIN) for name in names)
        where = "battery" if self.parts == ("all",) else ", ".join(self.parts)
        return measured(self, MEASURES[self.measure], evidence, after, before, where, self.judge == "point")

    def _sets(self, evidence: Evidence) -> list[str]:
        """The names of the parts' sets; NoEvidence where the whole battery was not measured."""
        there = [name for name in evidence.candidate.sets if name.startswith(BATTERY_PREFIX)]
        if not there:
            raise NoEvidence(
                "the report has no battery: project.yaml named none when it was made",
                "set data.battery (shipped for English; docs/battery.md: another), then `wertune evaluate --model-uri "
                "…`; or take the battery's gates out of the policy",
            )
        return there if "all" in self.parts else [f"{BATTERY_PREFIX}{part}" for part in self.parts]


class FormattedWerGate(Difference):
    """WER of texts as they are written (case, punctuation, form of numbers) minus the untouched base's."""

    rule = "<"
    kind: Literal["formatted_wer"] = "formatted_wer"
    limit: float = Field(0.0, ge=-1, le=1, description="the difference must be below it: -0.1 is ten points better")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        after = evidence.set(self.set)
        before = same_clips(after, evidence.baseline(self.set), BASE, AGAIN)
        return measured(self, MEASURES["formatted_wer"], evidence, after, before, self.set)


def _joined(sets: Iterable[SetReport]) -> SetReport:
    return SetReport(digest="", utterances=tuple(clip for found in sets for clip in found.utterances))


def measured(
    gate: Gate,
    measure: Measure,
    evidence: Evidence,
    after: SetReport,
    before: SetReport | None,
    where: str,
    point: bool = False,
    owner: str = BASE,
) -> GateResult:
    """What goes wrong, or how much more often than `before`, the `owner`'s: paired, on the same clips and draws."""
    whole, wrong = column(after, measure.whole), column(after, measure.wrong)
    if not whole.any():
        raise NoEvidence(f"{where}: the report counts no {measure.of}", "evaluate again, with a set that has some")
    size = float(whole.sum())
    detail = f"{where}: {wrong.sum():.5g} {measure.said}, in {size:.5g} {measure.of}"
    if before:
        then = column(before, measure.wrong)
        detail = f"{where}: {wrong.sum():.4g} {measure.said}, {owner} {then.sum():.4g}, of {size:.4g} {measure.of}"
        wrong = wrong - then
    if point:
        rate = measure.scale * float(wrong.sum()) / size
        power = None if before else counted(gate, rate, size, measure.of, measure.scale)
        return gate.judged(rate, detail, measure.remedy, power)
    with enough(f"{detail};", "evaluate more such clips of more speakers"):
        ends = corpus_rate(measure.scale * wrong, whole, speakers(after), evidence.bootstrap)
    return gate.judged_end(ends, detail, measure.remedy, Size(size, measure.of, measure.scale))
