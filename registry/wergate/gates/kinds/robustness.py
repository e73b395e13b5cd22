"""Where averages hide faults: words out of nothing, loops, and the worst speaker, channel or duration."""

from bisect import bisect_right
from collections import defaultdict
from typing import Literal

from pydantic import Field, field_validator

from wergate.gates.evidence import Evidence, NoEvidence, column
from wergate.gates.gate import UNIT, Gate, GateResult, OnSet, SetName
from wertune.scores.eval_report import SetReport, UtteranceCounts


class HallucinationGate(OnSet):
    """Words written beyond those said, on clips of silence, noise or less than half a second."""

    kind: Literal["hallucination"] = "hallucination"
    unit: Literal["words/clip", "words/minute"] = Field("words/clip", description=UNIT)
    set: SetName = Field(description="silence, noise or short, which every evaluation makes, or another")
    limit: float = Field(ge=0, description="at most, over all clips of the set")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        found = evidence.set(self.set)
        surplus = column(found, lambda u: max(u.hypothesis_words - u.words, 0)).sum()
        clips, seconds = len(found.utterances), column(found, lambda u: u.duration_s).sum()
        if self.unit == "words/minute" and not seconds:
            raise NoEvidence(f"set {self.set} does not say how long its clips are", "evaluate again, with durations")
        value = surplus / clips if self.unit == "words/clip" else 60.0 * surplus / seconds
        detail = f"{self.set}: {surplus:.0f} words too many in {clips} clips of {seconds:.0f} s"
        return self.judged(float(value), detail, "add such clips with empty transcripts to training")


class LoopGate(Gate):
    """Transcripts that zlib shrinks by more than `compression_ratio`; 2.4 is Whisper's (Radford et al. 2022, 4.5)."""

    kind: Literal["loops"] = "loops"
    unit: Literal["clips", "share of clips"] = Field("clips", description=UNIT)
    sets: tuple[SetName, ...] = Field(("test",), min_length=1, description="the sets of clips that are looked at")
    compression_ratio: float = Field(
        2.4, gt=1, description="bytes of a text over its bytes compressed; above it, a text repeats itself"
    )
    limit: float = Field(ge=0, description="at most, over all the sets")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        utterances = [(name, u) for name in self.sets for u in evidence.set(name).utterances]
        looping = [f"{name}/{u.id}" for name, u in utterances if u.compression_ratio > self.compression_ratio]
        value = len(looping) / (len(utterances) if self.unit == "share of clips" else 1)
        such = f", such as {looping[0]}" if looping else ""
        detail = f"{len(looping)} of {len(utterances)} transcripts repeat themselves{such} ({', '.join(self.sets)})"
        remedy = "train less long, bring more replay, or lower lora.strength"
        return self.judged(float(value), detail, remedy)


class SliceGate(OnSet):
    """WER of the worst speaker, channel, language or duration band at most `limit`; smaller slices are not judged."""

    kind: Literal["slice"] = "slice"
    unit: Literal["errors/word"] = Field("errors/word", description=UNIT)
    by: Literal["speaker", "channel", "language", "duration"] = Field(description="what clips are divided by")
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

    def _evaluate(self, evidence: Evidence) -> GateResult:
        """Judged on the plain value: the worst of several small slices already leans towards refusing."""
        slices = self._slices(evidence.set(self.set))
        large = {name: counts for name, counts in slices.items() if counts[1] >= self.min_words}
        small = sorted(slices.keys() - large.keys())
        if not large:
            which = f"{self.by} {self.only}" if self.only else self.by
            raise NoEvidence(
                f"{self.set}: no slice by {which} has the {self.min_words} words it must have",
                f"add clips that name their {self.by}, or lower min_words",
            )
        rates = {name: wrong / words for name, (wrong, words) in large.items()}
        worst = max(rates, key=lambda name: rates[name])
        wrong, words = large[worst]
        detail = f"{self.set}: {self.by} {worst}, {wrong} errors in {words} words"
        if len(large) > 1:
            detail += f", worst of {len(large)}"
        if small:
            detail += f"; under {self.min_words} words and not judged: {', '.join(small)}"
        return self.judged(rates[worst], detail, f"add training clips that are like {self.by} {worst}")

    def _slices(self, found: SetReport) -> dict[str, tuple[int, int]]:
        """Errors and words of each slice; clips that do not name theirs are in none."""
        sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for utterance in found.utterances:
            name = self._slice_of(utterance)
            if name and self.only in ("", name):
                wrong, words = sums[name]
                sums[name] = (wrong + utterance.errors, words + utterance.words)
        return dict(sorted(sums.items()))

    def _slice_of(self, utterance: UtteranceCounts) -> str:
        if self.by == "speaker":
            return utterance.speaker
        if self.by == "channel":
            return utterance.channel
        if self.by == "language":
            return utterance.language
        bounds = ["0", *(f"{edge:g}" for edge in self.edges_s), "inf"]
        band = bisect_right(self.edges_s, utterance.duration_s)
        return f"{bounds[band]}-{bounds[band + 1]} s"
