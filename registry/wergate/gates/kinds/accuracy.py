"""Error rates: within limits, better than the base and than Production, and no worse on ordinary speech."""

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from wergate.gates.evidence import (
    AGAIN,
    BASE,
    Evidence,
    NoEvidence,
    column,
    enough,
    errors,
    find_set,
    same_clips,
    speakers,
    words,
)
from wergate.gates.gate import UNIT, GateResult, Judge, OnSet, SetName, Size
from wertune.scores.bootstrap import Floats, corpus_rate, paired_difference
from wertune.scores.eval_report import SetReport, UtteranceCounts

Column = Callable[[SetReport], Floats]
_WRONG = "at most: 0.15 is 15 errors in 100 words"
_MORE_CLIPS = "evaluate more clips of more speakers"


def _each(count: Callable[[UtteranceCounts], float]) -> Column:
    return lambda found: column(found, count)


class _ErrorRate(OnSet):
    """Errors over what they are of; `judge: end` holds the confidence end to the limit, `point` the plain value."""

    counts: ClassVar[tuple[Column, Column]] = (errors, words)
    what: ClassVar[str] = "words"
    remedy: ClassVar[str]
    judge: Judge = "end"

    def _evaluate(self, evidence: Evidence) -> GateResult:
        found = evidence.set(self.set)
        part, whole = (count(found) for count in self.counts)
        if not whole.any():
            raise NoEvidence(f"set {self.set} has no {self.what}", f"evaluate a set that has {self.what}")
        detail = f"{self.set}: {part.sum():.0f} errors in {whole.sum():.0f} {self.what}"
        if self.judge == "point":
            return self.judged(float(part.sum() / whole.sum()), detail, self.remedy)
        with enough(f"{self.set}:", _MORE_CLIPS):
            ends = corpus_rate(part, whole, speakers(found), evidence.bootstrap)
        return self.judged_end(ends, detail, self.remedy, Size(float(whole.sum()), self.what))


class _WordRate(_ErrorRate):
    unit: Literal["errors/word"] = Field("errors/word", description=UNIT)


class WerGate(_WordRate):
    """Word error rate at most `limit`."""

    remedy = "train longer or on more domain clips, or evaluate more speakers where only the interval is too wide"
    kind: Literal["wer"] = "wer"
    limit: float = Field(ge=0, le=1, description=_WRONG)


class CerGate(_ErrorRate):
    """Character error rate at most `limit`."""

    counts = _each(lambda clip: clip.character_errors), _each(lambda clip: clip.characters)
    what = "characters"
    remedy = "look at the worst utterances; train longer or on more domain clips"
    kind: Literal["cer"] = "cer"
    unit: Literal["errors/character"] = Field("errors/character", description=UNIT)
    limit: float = Field(ge=0, le=1, description="at most: 0.05 is 5 errors in 100 characters")


class LexiconWerGate(_WordRate):
    """B-WER: errors on lexicon words, false ones included, over those said (Le et al. 2021, arXiv:2104.02194)."""

    counts = _each(lambda clip: clip.lexicon_errors), _each(lambda clip: clip.lexicon_words)
    what = "lexicon words"
    remedy = "add training clips for the lexicon words most often missed or written falsely"
    kind: Literal["b_wer"] = "b_wer"
    limit: float = Field(ge=0, le=2, description="at most; above 1 where more is written falsely than was said")


class OtherWerGate(_WordRate):
    """U-WER: errors on all other words, over all other said words."""

    counts = (
        _each(lambda clip: clip.errors - clip.lexicon_errors),
        _each(lambda clip: clip.words - clip.lexicon_words),
    )
    what = "words outside the lexicon"
    remedy = "add replay clips, or lower lora.strength: words outside the lexicon suffer"
    kind: Literal["u_wer"] = "u_wer"
    limit: float = Field(ge=0, le=1, description=_WRONG)


class Difference(OnSet):
    """Of WER on the same clips, from the untouched base's where a kind says nothing else."""

    remedy: ClassVar[str]
    unit: Literal["difference of errors/word"] = Field("difference of errors/word", description=UNIT)

    def _evaluate(self, evidence: Evidence) -> GateResult:
        return self._compared(evidence, evidence.baseline(self.set), BASE, self.remedy, AGAIN)

    def _compared(self, evidence: Evidence, before: SetReport, owner: str, remedy: str, again: str) -> GateResult:
        """Paired difference of corpus WER; `again` helps where the two were not measured on the same clips."""
        after = evidence.set(self.set)
        before = same_clips(after, before, owner, again)
        wrong, was_wrong, said = errors(after), errors(before), words(after)
        with enough(f"{self.set}:", _MORE_CLIPS):
            ends = paired_difference(wrong, was_wrong, said, speakers(after), evidence.bootstrap)
        detail = f"{self.set}: {wrong.sum():.0f} errors, {owner} {was_wrong.sum():.0f}, in {said.sum():.0f} words"
        return self.judged_end(ends, detail, remedy, Size(float(said.sum()), "words"))


class BaseGate(Difference):
    """WER minus the untouched base's below `limit`: 0 asks to be better, -0.1 by ten points, 0.01 not to be worse."""

    rule = "<"
    remedy = "compare transcripts with the base's; train longer, or on clips nearer to this set"
    kind: Literal["base"] = "base"
    limit: float = Field(0.0, ge=-1, le=1, description="the difference must be below it: -0.1 is ten points better")


class ChampionGate(Difference):
    """WER minus present Production's below `limit`: 0 asks to be better, above 0 is a margin of non-inferiority."""

    rule = "<"
    kind: Literal["champion"] = "champion"
    limit: float = Field(0.0, ge=-1, le=1, description="the difference must be below it: 0.01 is one point worse")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        champion = evidence.champion
        if champion is None:
            return self.waived("nothing is in Production yet")
        owner = f"version {champion.version} in Production"
        again = f"evaluate version {champion.version} again, on the test set of today"
        before = find_set(champion.sets, self.set, owner)
        return self._compared(evidence, before, owner, f"keep {owner}, or train a version that beats it", again)


class ForgettingGate(Difference):
    """Rise of WER over the untouched base on ordinary speech at most `limit`; a fall is never punished."""

    remedy = (
        "lower lora.strength or the learning rate, or raise train.replay_ratio; more retention clips narrow the end"
    )
    kind: Literal["forgetting"] = "forgetting"
    set: SetName = Field("retention_test", description="the set of everyday speech")
    limit: float = Field(ge=0, le=1, description="rise at most: 0.02 is two points")
