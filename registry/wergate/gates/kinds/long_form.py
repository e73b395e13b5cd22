"""Recordings of many sentences: words written in them, when they are said to begin and end, and speech left out."""

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from wergate.gates.evidence import (
    AGAIN,
    BASE,
    Evidence,
    NoEvidence,
    column,
    enough,
    find_set,
    same_clips,
    speakers,
    words,
)
from wergate.gates.gate import UNIT, GateResult, Judge, OnSet, SetName, Size
from wergate.gates.kinds.battery import Measure, measured
from wertune.base.contract import ALONE, JOINED_SET
from wertune.scores.bootstrap import Floats, Interval, corpus_rate, interval
from wertune.scores.eval_report import EvalReport, ExportedLong, SetReport

COUNTS_SKIPPED = 3  # the reports' schema since which they count words that are skipped
TOKEN_S = 0.02  # the step of Whisper's timestamps
_CLIPS = "the same clips alone"
_MORE_CLIPS = "evaluate more clips of more speakers"
_WINDOWS = "train on windows of several sentences (train.joined_ratio)"
_ON_SET = Field(JOINED_SET, description="joined: recordings joined of test clips; long: the whole ones of data.long")
_WRONG = Measure(
    lambda clip: clip.errors,
    lambda clip: clip.words,
    "wrong",
    "words",
    "errors/word",
    f"long recordings are written worse than clips: {_WINDOWS}, or let serving cut shorter pieces",
)
_LEFT_OUT = {
    "runs": Measure(
        lambda clip: clip.skipped_words,
        lambda clip: clip.words,
        "words left out three and more in a row",
        "words",
        "share",
        f"speech is skipped: {_WINDOWS}, and keep voices out of the non-speech clips",
    ),
    "deletions": Measure(
        lambda clip: clip.deletions,
        lambda clip: clip.words,
        "words left out",
        "words",
        "share",
        f"words are left out: {_WINDOWS}, and keep voices out of the non-speech clips",
    ),
}


class _BesideClips(OnSet):
    """A gate on clips in their places in long recordings, which may be compared with what is written of them alone."""

    set: SetName = _ON_SET

    def _before(self, evidence: Evidence, after: SetReport, against: str) -> tuple[SetReport, str]:
        """What is compared with, and whose it is."""
        if against == "base":
            return same_clips(after, evidence.baseline(self.set), BASE, AGAIN), BASE
        name = f"{self.set}{ALONE}"
        before = find_set(evidence.candidate.sets, name, "the candidate's report")
        return same_clips(after, before, _CLIPS, "evaluate again"), _CLIPS


class LongFormGate(_BesideClips):
    """WER on long recordings as the version serves them, or as a plain library reads an export of it."""

    kind: Literal["long_form"] = "long_form"
    against: Literal["nothing", "clips", "base"] = Field(
        "nothing", description="nothing: the rate itself; clips: the rise over the same clips alone; base: over its own"
    )
    through: str = Field(
        "",
        pattern=r"^[a-z0-9-]*$",
        description="as `wertune export` measured it: faster-whisper, faster-whisper-no-timestamps, "
        "transformers-chunked, transformers-sequential; empty: as the version serves",
    )
    judge: Judge = "end"
    limit: float = Field(ge=0, le=1, description="at most: 0.15 is 15 errors in 100 words; of a rise 0.01 is one point")
    unit: str = Field("", description="empty: made from against; another than theirs is refused")

    @model_validator(mode="before")
    @classmethod
    def _with_unit(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("through") and values.get("against") == "base":
            raise ValueError("through is given with against: base, whose export nobody has; leave one of them out")
        return _in_unit(values, {"nothing": "errors/word"}, "difference of errors/word")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.through, "" if self.against == "nothing" else self.against, self.set)

    def _evaluate(self, evidence: Evidence) -> GateResult:
        if self.through:
            return self._through(_exported(evidence.candidate, self.through))
        after = evidence.set(self.set)
        point = self.judge == "point"
        if self.against == "nothing":
            return measured(self, _WRONG, evidence, after, None, self.set, point)
        before, owner = self._before(evidence, after, self.against)
        return measured(self, _WRONG, evidence, after, before, self.set, point, owner)

    def _through(self, found: ExportedLong) -> GateResult:
        """By the value: an export is tried on a few recordings."""
        detail = f"{found.library}: {found.errors} errors in {found.words} words, {found.recordings} recordings"
        remedy = f"{_WINDOWS}; export again with more recordings (--recordings), and evaluate again"
        if self.against == "nothing":
            return self.judged(found.wer, detail, remedy)
        if found.clips_errors is None:
            missing = f"{detail}; the clips alone were not measured in this way"
            raise NoEvidence(missing, "hold its WER itself to a limit (against: nothing)")
        rise = (found.errors - found.clips_errors) / found.words
        return self.judged(rise, f"{detail}, {_CLIPS} {found.clips_errors}", remedy)


def _exported(report: EvalReport, name: str) -> ExportedLong:
    """What an export was measured to be, or NoEvidence."""
    if name not in report.exports:
        form = "merged" if name.startswith("transformers") else "ctranslate2"
        known = ", ".join(sorted(report.exports)) or "none"
        export = f"`wertune export --format {form}` tries it and keeps that with the version; then evaluate again"
        raise NoEvidence(f"no export was measured in {name} before this report was made (there are: {known})", export)
    return report.exports[name]


class TimestampsGate(OnSet):
    """How far the starts and ends of segments are from those of what is said in long recordings."""

    kind: Literal["timestamps"] = "timestamps"
    unit: Literal["s"] = Field("s", description=UNIT)
    set: SetName = _ON_SET
    measure: Literal["median", "percentile_95"] = Field(
        description="of all starts and ends, the error that half of them, or 95 of 100, are within"
    )
    judge: Judge = "end"
    limit: float = Field(gt=0, description="at most, in seconds")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.measure, self.set)

    def _evaluate(self, evidence: Evidence) -> GateResult:
        found = evidence.set(self.set)
        values = _border_errors_s(found)
        if not values.size:
            raise NoEvidence(
                f"{self.set}: no times were written: segments are the pieces that recordings were cut into",
                "tune with train.joined_ratio and train.timestamps_ratio above 0, then evaluate again",
            )
        at = 0.5 if self.measure == "median" else 0.95
        detail = f"{self.set}: {values.size} starts and ends, {np.mean(values <= self.limit):.0%} within the limit"
        if (theirs := _border_errors_s(evidence.candidate.baseline.get(self.set))).size:
            detail += f", {BASE} {np.quantile(theirs, at):.3g} s"
        remedy = "train on more windows with times (train.joined_ratio, train.timestamps_ratio), or longer"
        if self.judge == "point":
            return self.judged(float(np.quantile(values, at)), detail, remedy)
        with enough(f"{detail};", _MORE_CLIPS):
            ends = _quantile_ends(found, values, at, evidence)
        return self.judged_end(ends, detail, remedy, Size(values.size, "starts and ends", TOKEN_S))


def _border_errors_s(found: SetReport | None) -> Floats:
    return np.array(
        [error for clip in (found.utterances if found else ()) for error in clip.border_errors_s], np.float64
    )


def _quantile_ends(found: SetReport, values: Floats, at: float, evidence: Evidence) -> Interval:
    """A quantile with its ends, which are those of the share that lies below it (Woodruff 1952)."""
    point = float(np.quantile(values, at))
    below = column(found, lambda clip: sum(error <= point for error in clip.border_errors_s))
    every = column(found, lambda clip: len(clip.border_errors_s))
    share = corpus_rate(below, every, speakers(found), evidence.bootstrap)
    low, high = (
        float(np.quantile(values, np.clip(each, 0.0, 1.0)))
        for each in (at - (share.high - share.point), at + (share.point - share.low))
    )
    low, high = min(low, point), max(high, point)
    return Interval(point, low, high, share.note, (high - point) / share.quantile, share.quantile)


class SkippedSpeechGate(_BesideClips):
    """Words of long recordings that are left out: three and more in a row, or all that are."""

    kind: Literal["skipped_speech"] = "skipped_speech"
    measure: Literal["runs", "deletions"] = Field(
        "runs", description="runs: words left out three and more in a row; deletions: all words left out"
    )
    against: Literal["nothing", "base", "clips"] = Field(
        "nothing",
        description="nothing: the share of words; base: its rise over the base's; clips: how many times as many as of "
        "the same clips alone, of which none count as one",
    )
    judge: Judge = "end"
    limit: float = Field(ge=0, description="at most, in the unit: 0.01 is one word in 100, of clips 2 is twice as many")
    unit: str = Field("", description="empty: made from against; another than theirs is refused")

    @model_validator(mode="before")
    @classmethod
    def _with_unit(cls, values: Any) -> Any:
        units = {"nothing": "share", "clips": "x clips"}
        return _in_unit(values, units, "difference of shares") if isinstance(values, dict) else values

    @property
    def _looks_at(self) -> tuple[str, ...]:
        which = "" if self.measure == "runs" else self.measure
        return (which, "" if self.against == "nothing" else self.against, self.set)

    def _evaluate(self, evidence: Evidence) -> GateResult:
        if self.measure == "runs" and evidence.candidate.schema_version < COUNTS_SKIPPED:
            raise NoEvidence("the report is from before words in runs were counted", "evaluate again")
        after, point = evidence.set(self.set), self.judge == "point"
        measure = _LEFT_OUT[self.measure]
        if self.against == "nothing":
            return measured(self, measure, evidence, after, None, self.set, point)
        before, owner = self._before(evidence, after, self.against)
        if self.against == "base":
            return measured(self, measure, evidence, after, before, self.set, point, owner)
        return self._times(evidence, measure, after, before)

    def _times(self, evidence: Evidence, measure: Measure, after: SetReport, before: SetReport) -> GateResult:
        """How many times as many as of the clips alone: paired, on the same clips in the same draws."""
        both = np.stack([column(after, measure.wrong), column(before, measure.wrong)], axis=1)
        said = words(after)
        sums = both.sum(axis=0)
        detail = f"{self.set}: {sums[0]:.0f} {measure.said}, {_CLIPS} {sums[1]:.0f}, of {said.sum():.0f} words"
        if self.judge == "point":
            return self.judged(float(_times_as_many(sums[None])[0]), detail, measure.remedy)
        with enough(f"{detail};", _MORE_CLIPS):
            ends = interval(both, _times_as_many, said, speakers(after), evidence.bootstrap)
        return self.judged_end(ends, detail, measure.remedy)


def _times_as_many(sums: Floats) -> Floats:
    """First column over second, (m, 2) to (m,); none counts as one."""
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.float64)


def _in_unit(values: dict[str, Any], units: dict[str, str], other: str) -> dict[str, Any]:
    """The gate's values with the unit that `against` makes; ValueError for another one."""
    unit = units.get(values.get("against", "nothing"), other)
    if values.get("unit") not in (None, "", unit):
        raise ValueError(f"unit is {values['unit']!r}, but it is {unit!r} then; leave it out")
    return values | {"unit": unit}
