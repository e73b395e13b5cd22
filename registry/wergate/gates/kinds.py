"""The gates that a policy may ask for: one small class a kind, with its limit, its unit and whether it blocks."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from wertune.base.config import Frozen

SetName = Annotated[str, Field(min_length=1)]
_UNIT = "of the value and of the limit"
_WRONG = "at most: 0.15 is 15 errors in 100 words"


class GateSpec(Frozen):
    """What every gate has; a gate that does not block warns."""

    at_least: ClassVar[bool] = False
    strict: ClassVar[bool] = False
    kind: str
    limit: float
    unit: str
    blocks: bool = Field(True, description="false: a warning")
    name: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$", description="empty: made from the kind and what it looks at")

    @property
    def title(self) -> str:
        """The gate's name in decisions and tags."""
        return self.name or "_".join(part for part in (self.kind, *self._looks_at) if part)

    @property
    def compares(self) -> bool:
        """Whether the value is a difference: 0 where nothing has changed."""
        return self.unit.startswith("difference")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return ()


class _OnSet(GateSpec):
    set: SetName = Field("test", description="the set of clips that is looked at, as the evaluation's report names it")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.set,)


class _Rate(_OnSet):
    """`judge: end` holds the confidence end to the limit, `point` the plain value."""

    judge: Literal["end", "point"] = Field(
        "end", description="what is held to the limit: the less favourable end of the interval, or the value itself"
    )


class WerGate(_Rate):
    """Word error rate at most `limit`."""

    kind: Literal["wer"] = "wer"
    unit: Literal["errors/word"] = Field("errors/word", description=_UNIT)
    limit: float = Field(ge=0, le=1, description=_WRONG)


class CerGate(_Rate):
    """Character error rate at most `limit`."""

    kind: Literal["cer"] = "cer"
    unit: Literal["errors/character"] = Field("errors/character", description=_UNIT)
    limit: float = Field(ge=0, le=1, description="at most: 0.05 is 5 errors in 100 characters")


class LexiconWerGate(_Rate):
    """B-WER: errors on lexicon words, false ones included, over those said (Le et al. 2021, arXiv:2104.02194)."""

    kind: Literal["b_wer"] = "b_wer"
    unit: Literal["errors/word"] = Field("errors/word", description=_UNIT)
    limit: float = Field(ge=0, le=2, description="at most; above 1 where more is written falsely than was said")


class OtherWerGate(_Rate):
    """U-WER: errors on all other words, over all other said words."""

    kind: Literal["u_wer"] = "u_wer"
    unit: Literal["errors/word"] = Field("errors/word", description=_UNIT)
    limit: float = Field(ge=0, le=1, description=_WRONG)


class BaseGate(_OnSet):
    """WER minus the untouched base's below `limit`: 0 asks to be better, -0.1 by ten points, 0.01 not to be worse."""

    strict: ClassVar[bool] = True
    kind: Literal["base"] = "base"
    unit: Literal["difference of errors/word"] = Field("difference of errors/word", description=_UNIT)
    limit: float = Field(0.0, ge=-1, le=1, description="the difference must be below it: -0.1 is ten points better")


class ChampionGate(_OnSet):
    """WER minus present Production's below `limit`: 0 asks to be better, above 0 is a margin of non-inferiority."""

    strict: ClassVar[bool] = True
    kind: Literal["champion"] = "champion"
    unit: Literal["difference of errors/word"] = Field("difference of errors/word", description=_UNIT)
    limit: float = Field(0.0, ge=-1, le=1, description="the difference must be below it: 0.01 is one point worse")


class ForgettingGate(_OnSet):
    """Rise of WER over the untouched base on ordinary speech at most `limit`; a fall is never punished."""

    kind: Literal["forgetting"] = "forgetting"
    unit: Literal["difference of errors/word"] = Field("difference of errors/word", description=_UNIT)
    set: SetName = Field("retention_test", description="the set of everyday speech")
    limit: float = Field(ge=0, le=1, description="rise at most: 0.02 is two points")


class FormattedWerGate(_OnSet):
    """WER of texts as they are written (case, punctuation, form of numbers) minus the untouched base's."""

    strict: ClassVar[bool] = True
    kind: Literal["formatted_wer"] = "formatted_wer"
    unit: Literal["difference of errors/word"] = Field("difference of errors/word", description=_UNIT)
    limit: float = Field(0.0, ge=-1, le=1, description="the difference must be below it: -0.1 is ten points better")


# Of a rate, and with "difference of" of its difference from the base's.
_BATTERY_UNITS = {
    "deleted": "share",
    "inexact": "share",
    "wer": "errors/word",
    "formatted_wer": "errors/word",
    "wrong_entities": "share",
    "false_terms": "per 1,000 words",
    "loops": "share of clips",
    "made_up": "words/minute",
    "skipped": "s/minute",
}


class BatteryGate(GateSpec):
    """What goes wrong on the platform's battery of ordinary speech: at most `limit` more than by the untouched base.

    deleted: clips of speech with no word written; inexact: clips with an amount, date, number or code not right;
    wer, formatted_wer: wrong words, normalised and as written; wrong_entities: of those said; false_terms: lexicon
    terms written that nobody said; loops: transcripts that repeat themselves; made_up: words that nobody said;
    skipped: seconds of speech of which nothing was written.
    """

    kind: Literal["battery"] = "battery"
    measure: Literal[
        "deleted",
        "inexact",
        "wer",
        "formatted_wer",
        "wrong_entities",
        "false_terms",
        "loops",
        "made_up",
        "skipped",
    ] = Field(description="what is counted")
    parts: tuple[SetName, ...] = Field(
        ("all",),
        min_length=1,
        description="such as short_answers, digits, read_backs; all: the whole battery",
    )
    against: Literal["base", "nothing"] = Field("base", description="base: the rise over it; nothing: the rate itself")
    judge: Literal["end", "point"] = Field(
        "end", description="what is held to the limit: the less favourable end of the interval, or the value itself"
    )
    limit: float = Field(ge=0, description="at most, in the unit of the measure: 0.02 of wer is two points")
    unit: str = Field("", description="empty: made from measure and against; another than theirs is refused")

    @model_validator(mode="before")
    @classmethod
    def _with_unit(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("measure") not in _BATTERY_UNITS:
            return values
        unit = _BATTERY_UNITS[values["measure"]]
        if values.get("against", "base") == "base":
            unit = f"difference of {'shares' if unit.startswith('share') else unit}"
        if values.get("unit") not in (None, "", unit):
            raise ValueError(f"unit is {values['unit']!r}, but {values['measure']} is in {unit!r}; leave it out")
        return values | {"unit": unit}

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.measure, *(() if self.parts == ("all",) else self.parts))


class TermGate(_Rate):
    """Precision, recall or F1 of lexicon terms at least `limit`; `of` picks those seen or not seen in training."""

    at_least: ClassVar[bool] = True
    kind: Literal["term"] = "term"
    unit: Literal["share"] = Field("share", description=_UNIT)
    limit: float = Field(ge=0, le=1, description="at least: 0.8 is four of five")
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


class WorstTermGate(_OnSet):
    """Recall of the worst important term at least `limit`."""

    at_least: ClassVar[bool] = True
    kind: Literal["worst_term"] = "worst_term"
    unit: Literal["share"] = Field("share", description=_UNIT)
    limit: float = Field(ge=0, le=1, description="at least: 0.5 is every other time")
    terms: tuple[str, ...] = Field((), description="as written; none: every term said min_occurrences times")
    min_occurrences: int = Field(2, ge=1, description="a term said fewer times is not judged; one of `terms`: refused")


class HallucinationGate(_OnSet):
    """Words written beyond those said, on clips of silence, noise or less than half a second."""

    kind: Literal["hallucination"] = "hallucination"
    unit: Literal["words/clip", "words/minute"] = Field("words/clip", description=_UNIT)
    set: SetName = Field(description="silence, noise or short, which every evaluation makes, or another")
    limit: float = Field(ge=0, description="at most, over all clips of the set")


class LoopGate(GateSpec):
    """Transcripts that zlib shrinks by more than `compression_ratio`; 2.4 is Whisper's (Radford et al. 2022, 4.5)."""

    kind: Literal["loops"] = "loops"
    unit: Literal["clips", "share of clips"] = Field("clips", description=_UNIT)
    sets: tuple[SetName, ...] = Field(("test",), min_length=1, description="the sets of clips that are looked at")
    compression_ratio: float = Field(
        2.4, gt=1, description="bytes of a text over its bytes compressed; above it, a text repeats itself"
    )
    limit: float = Field(ge=0, description="at most, over all the sets")


class SliceGate(_OnSet):
    """WER of the worst speaker, channel or duration band at most `limit`; smaller slices are not judged."""

    kind: Literal["slice"] = "slice"
    unit: Literal["errors/word"] = Field("errors/word", description=_UNIT)
    by: Literal["speaker", "channel", "duration"] = Field(description="what clips are divided by")
    only: str = Field("", description="one speaker, channel or band such as `2-5 s`; empty: the worst of all")
    edges_s: tuple[float, ...] = Field((2.0, 5.0, 10.0), description="where one duration band ends and the next begins")
    min_words: int = Field(50, ge=1, description="said in a slice; a smaller one is not judged")
    limit: float = Field(ge=0, le=1, description="at most, of the worst slice; the value itself, no interval")

    @field_validator("edges_s")
    @classmethod
    def _rising(cls, edges_s: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges_s) != sorted(set(edges_s)) or min(edges_s, default=1.0) <= 0:
            raise ValueError("must rise from above 0; sort the edges")
        return edges_s

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.by, "".join(c if c.isalnum() or c in "_.-" else "_" for c in self.only), self.set)


class TrainableGate(GateSpec):
    """Share of the parameters that were trained."""

    kind: Literal["trainable_percent"] = "trainable_percent"
    unit: Literal["%"] = Field("%", description=_UNIT)
    limit: float = Field(gt=0, le=100, description="at most; lora.r and lora.target_modules make it")


class AdapterSizeGate(GateSpec):
    """Size of the adapter's file."""

    kind: Literal["adapter_mb"] = "adapter_mb"
    unit: Literal["MB"] = Field("MB", description=_UNIT)
    limit: float = Field(gt=0, description="at most")


class PeakMemoryGate(GateSpec):
    """Most memory held while transcribing."""

    kind: Literal["peak_memory_mb"] = "peak_memory_mb"
    unit: Literal["MB"] = Field("MB", description=_UNIT)
    limit: float = Field(gt=0, description="at most; refused where it was not measured")


class RealTimeFactorGate(GateSpec):
    """Real-time factor relative to the base on the same machine in the same run."""

    kind: Literal["real_time_factor"] = "real_time_factor"
    unit: Literal["x base"] = Field("x base", description=_UNIT)
    limit: float = Field(gt=0, description="at most: 1.5 is half as long again as the base takes")


class ProvenanceGate(GateSpec):
    """All origins known, and the test set the frozen one; none given: any test set will do."""

    kind: Literal["provenance"] = "provenance"
    unit: Literal["faults"] = Field("faults", description=_UNIT)
    limit: Literal[0] = Field(0, description="origins that are not known, or another test set: none")
    test_digest: str | None = Field(None, min_length=1, description="of the frozen test set; a decision names it")


class LeakageGate(GateSpec):
    """Clips of the test set that training had."""

    kind: Literal["leakage"] = "leakage"
    unit: Literal["clips"] = Field("clips", description=_UNIT)
    limit: float = Field(0, ge=0, description="at most")


AnyGate = Annotated[
    WerGate
    | CerGate
    | LexiconWerGate
    | OtherWerGate
    | BaseGate
    | ChampionGate
    | ForgettingGate
    | FormattedWerGate
    | BatteryGate
    | TermGate
    | WorstTermGate
    | HallucinationGate
    | LoopGate
    | SliceGate
    | TrainableGate
    | AdapterSizeGate
    | PeakMemoryGate
    | RealTimeFactorGate
    | ProvenanceGate
    | LeakageGate,
    Field(discriminator="kind"),
]
