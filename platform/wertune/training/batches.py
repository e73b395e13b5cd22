"""What an epoch trains on: clips drawn, augmented, and put into batches of like length."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wertune.base.config import TrialConfig
from wertune.base.text import Normalise, TermFinder
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.augment import augment, mask_features
from wertune.data.manifest import Recording
from wertune.data.nonspeech import Nonspeech, nonspeech
from wertune.training.workers import ALONE, Workers
from wertune.whisper.features import FeatureCache, context_positions, log_mel, pad_features
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet

LOADER_WORKERS_ON_GPU = 4


@dataclass(frozen=True)
class TrainingData:
    """What one trial reads; `replay` and `retention` may be empty. Features are worked out anew without a cache."""

    train: Sequence[Recording]
    replay: Sequence[Recording]
    validation: EvaluationSet
    retention: EvaluationSet
    normalise: Normalise
    finder: TermFinder
    cache: FeatureCache | None = None


@dataclass(frozen=True)
class Batch:
    """A worker's clips of a batch: features (clips, mel_bins, frames) and labels (clips, tokens) padded with -100.

    `rows` are their places in the whole batch, of `size` clips and `tokens` tokens. Of a batch of fewer clips than
    there are workers, those that have none `mirror` its first one, at no weight: so all draw the same masks.
    """

    features: torch.Tensor
    labels: torch.Tensor
    rows: Sequence[int]
    size: int
    tokens: int
    mirrors: bool = False


def clips_per_epoch(
    config: TrialConfig, train: Sequence[Recording], replay: Sequence[Recording]
) -> tuple[int, int, int]:
    """Domain, replay and nonspeech clips of one epoch: what is asked for, or all there are."""
    domain = min(len(train), config.train.clips_per_epoch or len(train))
    return (
        domain,
        min(len(replay), round(config.train.replay_ratio * domain)),
        round(config.train.nonspeech_ratio * domain),
    )


def batches_per_epoch(config: TrialConfig, data: TrainingData) -> int:
    """Batches that `training_batches` gives, the last of them perhaps smaller."""
    return math.ceil(sum(clips_per_epoch(config, data.train, data.replay)) / config.train.batch_size)


@dataclass(frozen=True)
class Drawn:
    """A clip of an epoch, and how often it was dealt out before."""

    clip: Recording | Nonspeech
    lap: int = 0


def _draw(clips: Sequence[Recording], count: int, seed: int, epoch: int) -> list[Drawn]:
    """The epoch's `count` clips: shuffled passes over all clips, each by its weight, dealt out from epoch to epoch."""
    held = [(clip, copy) for clip in clips for copy in range(clip.row.weight)]
    dealt: list[Drawn] = []
    position = (epoch - 1) * count
    while len(dealt) < count:
        lap, start = divmod(position + len(dealt), len(held))
        order = np.random.default_rng([seed, lap]).permutation(len(held))
        chosen = (held[int(i)] for i in order[start : start + count - len(dealt)])
        dealt += [Drawn(clip, lap * clip.row.weight + copy) for clip, copy in chosen]
    return dealt


def training_batches(
    config: TrialConfig, whisper: Whisper, data: TrainingData, epoch: int, workers: Workers = ALONE
) -> Iterator[Batch]:
    """This worker's part of the epoch's batches: clips with and without words, batched by like length, shuffled."""
    generator = np.random.default_rng([config.seed, epoch])
    domain, replay, speechless = clips_per_epoch(config, data.train, data.replay)
    spoken = _draw(data.train, domain, config.seed, epoch) + _draw(data.replay, replay, config.seed, epoch)
    recordings = [drawn.clip for drawn in spoken if isinstance(drawn.clip, Recording)]
    drawn = [*spoken, *map(Drawn, nonspeech(speechless, recordings, generator))]
    clips = [each.clip for each in drawn]
    heard = _AugmentedClips(drawn, whisper.mel_bins, config, epoch, data.cache)
    batches = _batches_of_like_length([c.duration_s for c in clips], config.train.batch_size, generator)

    def part(batch: list[int]) -> Batch:
        labels = whisper.pad_labels([whisper.label_ids(clips[i].text, clips[i].language) for i in batch])
        rows = range(len(batch))[workers.rank :: workers.size]
        mine = rows or range(1)
        features = pad_features([heard[batch[row]] for row in mine])
        return Batch(features, labels[list(mine)], mine, len(batch), int((labels != -100).sum()), not rows)

    return iter(
        DataLoader(
            _Parts(batches, part),
            batch_size=None,  # the dataset's items are batches
            num_workers=LOADER_WORKERS_ON_GPU if whisper.device.type == "cuda" else 0,
        )
    )


def _batches_of_like_length(
    durations_s: Sequence[float], batch_size: int, generator: np.random.Generator
) -> list[list[int]]:
    """Indices in batches; jittered lengths are sorted, so that batches are tight and differ from epoch to epoch."""
    jittered = np.asarray(durations_s) * generator.uniform(0.85, 1.15, size=len(durations_s))
    order = [int(i) for i in np.argsort(jittered)]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[int(i)] for i in generator.permutation(len(batches))]


class _Parts(Dataset[Batch]):
    """A worker's part of each batch, made where a loader's process asks for it."""

    def __init__(self, batches: Sequence[list[int]], part: Callable[[list[int]], Batch]) -> None:
        self._batches, self._part = batches, part

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        return self._part(self._batches[number])


class _AugmentedClips:
    """Features of a clip: its waveform augmented by seed, clip and variant alone, then masked anew in every epoch."""

    def __init__(
        self, drawn: Sequence[Drawn], mel_bins: int, config: TrialConfig, epoch: int, cache: FeatureCache | None
    ) -> None:
        self._drawn, self._mel_bins, self._config, self._epoch, self._cache = drawn, mel_bins, config, epoch, cache
        masks = ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bins", "variants")
        self._effects = config.augment.model_dump(mode="json", exclude=set(masks))

    def __getitem__(self, index: int) -> torch.Tensor:
        clip, seed = self._drawn[index].clip, self._config.seed
        if isinstance(clip, Nonspeech):
            features = self._features(clip, np.random.default_rng([seed, self._epoch, index]))
        else:
            variant = self._drawn[index].lap % self._config.augment.variants
            generator = np.random.default_rng([seed, variant, int(clip.digest[:16], 16)])
            made_by = [clip.digest, seed, variant, self._effects, self._config.context.model_dump(), self._mel_bins]
            compute = partial(self._features, clip, generator)
            features = self._cache.get(made_by, compute) if self._cache else compute()
        generator = np.random.default_rng([seed, self._epoch, index, 1])
        return mask_features(features.float(), self._config.augment, generator)

    def _features(self, clip: Recording | Nonspeech, generator: np.random.Generator) -> torch.Tensor:
        waveform = augment(torch.from_numpy(clip.samples()), self._config.augment, generator)
        positions = context_positions(len(waveform) / SAMPLE_RATE_HZ, self._config.context)
        return log_mel(waveform.numpy(), positions, self._mel_bins).half()
