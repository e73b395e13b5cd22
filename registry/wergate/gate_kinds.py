"""The gates that a policy may ask for: one small class a kind, with its limit, its unit and whether it blocks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from wertune.config import Frozen

SetName = Annotated[str, Field(min_length=1)]


class GateSpec(Frozen):
    """What every gate has; a gate that does not block warns."""

    at_least: ClassVar[bool] = False
    strict: ClassVar[bool] = False
    kind: str
    limit: float
    unit: str
    blocks: bool = True
    name: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$", description="empty: made from the kind and what it looks at")

    @property
    def title(self) -> str:
        """The gate's name in decisions and tags."""
        return self.name or "_".join(part for part in (self.kind, *self._looks_at) if part)

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return ()


class _OnSet(GateSpec):
    set: SetName = "test"

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.set,)


class _Rate(_OnSet):
    """`judge: end` holds the confidence end to the limit, `point` the plain value."""

    judge: Literal["end", "point"] = "end"


class WerGate(_Rate):
    """Word error rate at most `limit`."""

    kind: Literal["wer"] = "wer"
    unit: Literal["errors/word"] = "errors/word"
    limit: float = Field(ge=0, le=1)


class CerGate(_Rate):
    """Character error rate at most `limit`."""

    kind: Literal["cer"] = "cer"
    unit: Literal["errors/character"] = "errors/character"
    limit: float = Field(ge=0, le=1)


class LexiconWerGate(_Rate):
    """B-WER: errors on lexicon words, false ones included, over those said (Le et al. 2021, arXiv:2104.02194)."""

    kind: Literal["b_wer"] = "b_wer"
    unit: Literal["errors/word"] = "errors/word"
    limit: float = Field(ge=0, le=2)


class OtherWerGate(_Rate):
    """U-WER: errors on all other words, over all other said words."""

    kind: Literal["u_wer"] = "u_wer"
    unit: Literal["errors/word"] = "errors/word"
    limit: float = Field(ge=0, le=1)


class BaseGate(_OnSet):
    """WER minus the untouched base's below `limit`: 0 asks to be better, -0.1 by ten points, 0.01 not to be worse."""

    strict: ClassVar[bool] = True
    kind: Literal["base"] = "base"
    unit: Literal["difference of errors/word"] = "difference of errors/word"
    limit: float = Field(0.0, ge=-1, le=1)


class ChampionGate(_OnSet):
    """WER minus present Production's below `limit`: 0 asks to be better, above 0 is a margin of non-inferiority."""

    strict: ClassVar[bool] = True
    kind: Literal["champion"] = "champion"
    unit: Literal["difference of errors/word"] = "difference of errors/word"
    limit: float = Field(0.0, ge=-1, le=1)


class ForgettingGate(_OnSet):
    """Rise of WER over the untouched base on ordinary speech at most `limit`; a fall is never punished."""

    kind: Literal["forgetting"] = "forgetting"
    unit: Literal["difference of errors/word"] = "difference of errors/word"
    set: SetName = "retention_test"
    limit: float = Field(ge=0, le=1)


class TermGate(_Rate):
    """Precision, recall or F1 of lexicon terms at least `limit`; `of` picks those seen or not seen in training."""

    at_least: ClassVar[bool] = True
    kind: Literal["term"] = "term"
    unit: Literal["share"] = "share"
    limit: float = Field(ge=0, le=1)
    measure: Literal["precision", "recall", "f1"]
    of: Literal["all", "seen", "unseen", "several_words"] = "all"
    min_occurrences: int = Field(1, ge=0, description="said fewer times: refused, for it cannot be judged")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.measure, "" if self.of == "all" else self.of, self.set)


class WorstTermGate(_OnSet):
    """Recall of the worst important term at least `limit`."""

    at_least: ClassVar[bool] = True
    kind: Literal["worst_term"] = "worst_term"
    unit: Literal["share"] = "share"
    limit: float = Field(ge=0, le=1)
    terms: tuple[str, ...] = Field((), description="as written; none: every term said min_occurrences times")
    min_occurrences: int = Field(2, ge=1)


class HallucinationGate(_OnSet):
    """Words written beyond those said, on clips of silence, noise or less than half a second."""

    kind: Literal["hallucination"] = "hallucination"
    unit: Literal["words/clip", "words/minute"] = "words/clip"
    set: SetName
    limit: float = Field(ge=0)


class LoopGate(GateSpec):
    """Transcripts that zlib shrinks by more than `compression_ratio`; 2.4 is Whisper's (Radford et al. 2022, 4.5)."""

    kind: Literal["loops"] = "loops"
    unit: Literal["clips", "share of clips"] = "clips"
    sets: tuple[SetName, ...] = Field(("test",), min_length=1)
    compression_ratio: float = Field(2.4, gt=1)
    limit: float = Field(ge=0)


class SliceGate(_OnSet):
    """WER of the worst speaker, channel or duration band at most `limit`; smaller slices are not judged."""

    kind: Literal["slice"] = "slice"
    unit: Literal["errors/word"] = "errors/word"
    by: Literal["speaker", "channel", "duration"]
    only: str = Field("", description="one speaker, channel or band such as `2-5 s`; empty: the worst of all")
    edges_s: tuple[float, ...] = Field((2.0, 5.0, 10.0), description="where one duration band ends and the next begins")
    min_words: int = Field(50, ge=1)
    limit: float = Field(ge=0, le=1)

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
    unit: Literal["%"] = "%"
    limit: float = Field(gt=0, le=100)


class AdapterSizeGate(GateSpec):
    """Size of the adapter's file."""

    kind: Literal["adapter_mb"] = "adapter_mb"
    unit: Literal["MB"] = "MB"
    limit: float = Field(gt=0)


class PeakMemoryGate(GateSpec):
    """Most memory held while transcribing."""

    kind: Literal["peak_memory_mb"] = "peak_memory_mb"
    unit: Literal["MB"] = "MB"
    limit: float = Field(gt=0)


class RealTimeFactorGate(GateSpec):
    """Real-time factor relative to the base on the same machine in the same run."""

    kind: Literal["real_time_factor"] = "real_time_factor"
    unit: Literal["x base"] = "x base"
    limit: float = Field(gt=0)


class ProvenanceGate(GateSpec):
    """All origins known, and the test set the frozen one; none given: any test set will do."""

    kind: Literal["provenance"] = "provenance"
    unit: Literal["faults"] = "faults"
    limit: Literal[0] = 0
    test_digest: str | None = Field(None, min_length=1)


class LeakageGate(GateSpec):
    """Clips of the test set that training had."""

    kind: Literal["leakage"] = "leakage"
    unit: Literal["clips"] = "clips"
    limit: float = Field(0, ge=0)


AnyGate = Annotated[
    WerGate
    | CerGate
    | LexiconWerGate
    | OtherWerGate
    | BaseGate
    | ChampionGate
    | ForgettingGate
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
