"""Confidence ends of corpus rates: a blocked, seeded, vectorised bootstrap.

Percentile bootstrap (Efron 1979) of summed errors over summed words, paired where two systems heard the same clips
(Bisani & Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"). A speaker's clips are
drawn together, for their errors hang together (Liu & Peng 2020, arXiv:1912.09508).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from wertune.base.config import Frozen

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Statistic = Callable[[Floats], Floats]

# Draws in memory at once: 1.6 MB, which stays in a core's cache.
MAX_CELLS = 200_000
MIN_TAIL = 10


class TooFewBlocks(ValueError):
    """So few clips that no interval can be given at the asked confidence."""


class BootstrapSettings(Frozen):
    """How intervals are made; each end holds by itself with `confidence` (one-sided)."""

    resamples: int = Field(10_000, ge=100, le=1_000_000, description="draws behind an interval")
    seed: int = Field(0, ge=0, description="of the draws")
    confidence: float = Field(0.95, ge=0.8, lt=1, description="of each end; closer to 1 asks for more resamples")
    blocks: Literal["speaker", "utterance"] = Field("speaker", description="speaker: where known, else utterance")

    @model_validator(mode="after")
    def _enough_resamples(self) -> Self:
        needed = math.ceil(MIN_TAIL / (1.0 - self.confidence))
        if self.resamples < needed:
            raise ValueError(f"resamples is {self.resamples}, but must be >= {needed} at confidence {self.confidence}")
        return self


@dataclass(frozen=True)
class Interval:
    """A rate on the whole set and its two one-sided confidence ends; `note` says over what was drawn.

    `error` is its standard error, and `quantile` how many of them an end lies from the point where draws are normal.
    """

    point: float
    low: float
    high: float
    note: str
    error: float = 0.0
    quantile: float = 0.0


@dataclass(frozen=True)
class Blocks:
    """`index` (n,) is each clip's block; `effective` is how many equal blocks would weigh as much."""

    index: Integers
    count: int
    effective: float
    note: str
    kind: Literal["speaker", "utterance"] = "utterance"


def interval(
    columns: Floats, statistic: Statistic, weights: Floats, speakers: Sequence[str], settings: BootstrapSettings
) -> Interval:
    """Point and ends of `statistic`, which maps sums (m, k) of the clips' `columns` (n, k) to (m,); TooFewBlocks."""
    blocks = choose_blocks(speakers, weights, settings)
    sums = block_sums(columns, blocks)
    resampled = np.sort(statistic(resampled_sums(sums, settings.resamples, settings.seed)))
    point = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    rank = math.ceil(expanded_level(settings.confidence, blocks.effective) * (settings.resamples - 1))
    low, high = float(resampled[settings.resamples - 1 - rank]), float(resampled[rank])
    error = float(resampled.std()) * stretch(blocks.effective)
    quantile = t_quantile(settings.confidence, blocks.effective - 1.0)
    return Interval(point, min(low, point), max(high, point), blocks.note, error, quantile)


def corpus_rate(errors: Floats, words: Floats, speakers: Sequence[str], settings: BootstrapSettings) -> Interval:
    """Summed errors over summed words, both (n,), with its ends."""
    return interval(np.stack([errors, words], axis=1), ratio, words, speakers, settings)


def paired_difference(
    after: Floats, before: Floats, words: Floats, speakers: Sequence[str], settings: BootstrapSettings
) -> Interval:
    """Corpus WER of `after` minus that of `before`, errors (n,) on the same clips of `words` (n,), with its ends."""
    return corpus_rate(after - before, words, speakers, settings)


def ratio(sums: Floats) -> Floats:
    """First column over second; over nothing it is the sign of the first: 0 where nothing is wrong, as in `metrics`."""
    part, whole = sums[:, 0], sums[:, 1]
    return np.divide(part, whole, out=np.sign(part), where=whole > 0)


def choose_blocks(speakers: Sequence[str], weights: Floats, settings: BootstrapSettings) -> Blocks:
    """Speakers as blocks where they are known and enough, else utterances; TooFewBlocks if those are too few too.

    With b equal blocks all of them favour the worse of two equal systems by chance with 2^-b: fewer blocks than
    log2(1 / (1 - confidence)), rounded down, can show nothing at that confidence.
    """
    least = math.floor(math.log2(1.0 / (1.0 - settings.confidence)))
    by_clip = _blocks(np.arange(len(weights)), weights, "utterance")
    known = len({speaker for speaker in speakers if speaker})
    if settings.blocks == "speaker" and known:
        # A clip of an unknown speaker is a block of its own.
        names = [speaker or f"\0{position}" for position, speaker in enumerate(speakers)]
        by_speaker = _blocks(np.unique(names, return_inverse=True)[1], weights, "speaker")
        if by_speaker.effective >= least:
            return by_speaker
        few = f" ({known} speakers are too few or too unequal to be blocks: holds for these voices only)"
        by_clip = replace(by_clip, note=by_clip.note + few)
    if by_clip.effective < least:
        raise TooFewBlocks(
            f"{by_clip.count} clip(s) weigh as much as {by_clip.effective:.1f} equal ones, "
            f"but at least {least} are needed for {settings.confidence:.0%} confidence"
        )
    return by_clip


def _blocks(index: Integers, weights: Floats, kind: Literal["speaker", "utterance"]) -> Blocks:
    """Kish's effective number: (sum of weights)^2 / sum of squared weights, over blocks."""
    count = int(index.max()) + 1 if len(index) else 0
    total = np.bincount(index, weights, minlength=count) if count else np.zeros(0)
    effective = float(total.sum() ** 2 / (total**2).sum()) if total.any() else 0.0
    return Blocks(index, count, effective, f"{count} {kind} blocks", kind)


def block_sums(columns: Floats, blocks: Blocks) -> Floats:
    """Columns (n, k) summed within each block: (blocks, k)."""
    sums = [np.bincount(blocks.index, column, minlength=blocks.count) for column in columns.T]
    return np.stack(sums, axis=1)


def draws(blocks: int, resamples: int, seed: int) -> Iterator[Integers]:
    """Indices of blocks drawn with replacement, (chunk, blocks) a time, `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    chunk = max(1, MAX_CELLS // blocks)
    for start in range(0, resamples, chunk):
        yield generator.integers(0, blocks, (min(chunk, resamples - start), blocks))


def resampled_sums(sums: Floats, resamples: int, seed: int) -> Floats:
    """Sums (resamples, k) over blocks drawn with replacement from `sums` (blocks, k)."""
    columns = [np.ascontiguousarray(column) for column in sums.T]
    parts = [
        np.stack([column.take(drawn).sum(axis=1) for column in columns], axis=1)
        for drawn in draws(len(sums), resamples, seed)
    ]
    return np.concatenate(parts)


def expanded_level(confidence: float, blocks: float) -> float:
    """The level of the percentile that holds `confidence` with few blocks (Hesterberg 2015, arXiv:1411.5279).

    The plain percentile is too narrow by sqrt((b - 1) / b) and takes a normal for a t distribution: with six speakers
    it promotes one equal pair in ten instead of one in twenty. Moving the level, and not scaling the deviation, keeps
    an end monotone: fewer errors on any clip never worsen it.
    """
    return NormalDist().cdf(t_quantile(confidence, blocks - 1.0) * stretch(blocks))


def stretch(blocks: float) -> float:
    """What a bootstrap over so many blocks has to be widened by: it divides by b where b - 1 is due."""
    return math.sqrt(blocks / (blocks - 1.0))


def t_quantile(level: float, freedom: float) -> float:
    """Student's t quantile for two and more degrees of freedom, whole or not (Abramowitz & Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(level)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
