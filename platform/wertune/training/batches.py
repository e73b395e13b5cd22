"""What an epoch trains on: clips drawn, augmented, and put into batches of like length."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, pairwise

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wertune.base.config import Draw, TrialConfig
from wertune.base.text import Normalise, TermFinder
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.augment import augment, mask_features
from wertune.data.manifest import Recording
from wertune.data.nonspeech import Nonspeech, nonspeech
from wertune.training.previous import earlier_in_recording, with_text_before
from wertune.training.windows import Heard, Window, draw_windows, in_blocks
from wertune.training.workers import ALONE, Workers
from wertune.whisper.features import FeatureCache, context_positions, log_mel, pad_features
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet
from wertune.whisper.wording import MAX_TOKENS_BEFORE

LOADER_WORKERS_ON_GPU = 4
IGNORED = -100  # a label of which no loss is taken


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
    """A worker's rows of a batch: features (rows, mel_bins, frames) and labels (rows, tokens) padded with -100.

    `rows` are their places in the whole batch, of `size` rows and `tokens` tokens; a row is a clip, or a window of
    several, `clips` in all. Of a batch of fewer rows than there are workers, those that have none `mirror` its first
    one, at no weight: so all draw the same masks. Where rows have tokens `before` their start, their labels begin with
    as many -100.
    """

    features: torch.Tensor
    labels: torch.Tensor
    rows: Sequence[int]
    size: int
    tokens: int
    clips: int
    mirrors: bool = False
    before: Sequence[Sequence[int]] = ()


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
    """Batches that `training_batches` gives, the last of them perhaps smaller; of windows, some of them larger."""
    batches = sum(clips_per_epoch(config, data.train, data.replay)) / config.train.batch_size
    return max(1, math.floor(batches)) if config.train.joined_ratio else math.ceil(batches)


@dataclass(frozen=True)
class Drawn:
    """A clip of an epoch, and how often it was dealt out before."""

    clip: Recording | Nonspeech
    lap: int = 0
    clips: int = 1

    @property
    def duration_s(self) -> float:
        return self.clip.duration_s

    def label_ids(self, whisper: Whisper) -> list[int]:
        return whisper.label_ids(self.clip.text, self.clip.language)


def _draw(blocks: Sequence[Sequence[Recording]], count: int, seed: int, epoch: int) -> list[Drawn]:
    """The epoch's `count` clips: shuffled passes over all blocks, a clip by its weight, dealt from epoch to epoch."""
    held = [
        [(clip, copy) for clip in block if copy < clip.row.weight]
        for block in blocks
        for copy in range(max(clip.row.weight for clip in block))
    ]
    in_all = sum(map(len, held))
    dealt: list[Drawn] = []
    position = (epoch - 1) * count
    while len(dealt) < count:
        lap, start = divmod(position + len(dealt), in_all)
        order = np.random.default_rng([seed, lap]).permutation(len(held))
        passed = [each for i in order for each in held[int(i)]]
        chosen = passed[start : start + count - len(dealt)]
        dealt += [Drawn(clip, lap * clip.row.weight + copy) for clip, copy in chosen]
    return dealt


def training_batches(
    config: TrialConfig, whisper: Whisper, data: TrainingData, epoch: int, workers: Workers = ALONE
) -> Iterator[Batch]:
    """This worker's part of the epoch's batches: clips with and without words, batched by like length, shuffled."""
    generator = np.random.default_rng([config.seed, epoch])
    domain, replay, speechless = clips_per_epoch(config, data.train, data.replay)
    blocks = [_blocks(split, config) for split in (data.train, data.replay)]
    spoken = _draw(blocks[0], domain, config.seed, epoch) + _draw(blocks[1], replay, config.seed, epoch)
    recordings = [drawn.clip for drawn in spoken if isinstance(drawn.clip, Recording)]
    others = map(Drawn, nonspeech(speechless, recordings, generator))
    follows = {a.place: b.place for block in chain(*blocks) for a, b in pairwise(block)}
    joined = _joined(config, whisper, spoken, epoch, follows) if config.train.joined_ratio else spoken
    if config.train.previous_text_ratio:
        joined = _after_text(config, joined, (data.train, data.replay), epoch)
    examples = [*joined, *others]
    heard = _Augmented(examples, whisper.mel_bins, config, epoch, data.cache)
    count = batches_per_epoch(config, data)
    batches = _batches_of_like_length(examples, config.train.batch_size, count, generator)

    def part(batch: list[int]) -> Batch:
        texts = [examples[i].label_ids(whisper) for i in batch]
        before = _ids_before([examples[i] for i in batch], texts, whisper)
        labels = whisper.pad_labels([[IGNORED] * len(said) + text for said, text in zip(before, texts, strict=True)])
        rows = range(len(batch))[workers.rank :: workers.size]
        mine = rows or range(1)
        features = pad_features([heard[batch[row]] for row in mine])
        clips, tokens = sum(examples[i].clips for i in batch), int((labels != IGNORED).sum())
        read = [before[row] for row in mine] if any(before) else ()
        return Batch(features, labels[list(mine)], mine, len(batch), tokens, clips, not rows, read)

    return iter(
        DataLoader(
            _Parts(batches, part),
            batch_size=None,  # the dataset's items are batches
            num_workers=LOADER_WORKERS_ON_GPU if whisper.device.type == "cuda" else 0,
        )
    )


def _ids_before(examples: Sequence[Drawn | Window], texts: Sequence[list[int]], whisper: Whisper) -> list[list[int]]:
    """Of each example what is read before its text, as far as the decoder has room for both."""
    return [
        each.ids_before(whisper, whisper.most_tokens - len(text)) if isinstance(each, Window) else []
        for each, text in zip(examples, texts, strict=True)
    ]


def with_longest_before(batch: Batch, whisper: Whisper) -> Batch:
    """The batch with as many tokens before each row as any may have."""
    more = max(0, min(MAX_TOKENS_BEFORE + 1, whisper.most_tokens - batch.labels.shape[1]))
    known = batch.before or [()] * len(batch.labels)
    labels = torch.nn.functional.pad(batch.labels, (more, 0), value=IGNORED)
    return replace(batch, labels=labels, before=[[whisper.wording.end] * (more + len(each)) for each in known])


def _blocks(clips: Sequence[Recording], config: TrialConfig) -> Sequence[Sequence[Recording]]:
    """Each clip by itself, but where windows are drawn neighbours in a recording together."""
    return in_blocks(clips, config.train.window_s) if config.train.joined_ratio else [[clip] for clip in clips]


def _joined(
    config: TrialConfig, whisper: Whisper, spoken: Sequence[Drawn], epoch: int, follows: Mapping[str, str]
) -> list[Drawn | Window]:
    """Single clips, then windows of the others, drawn by seed and epoch."""
    clips = [(drawn.clip, drawn.lap) for drawn in spoken if isinstance(drawn.clip, Recording)]
    tokens = [len(drawn.label_ids(whisper)) for drawn in spoken]
    single, windows = draw_windows(clips, tokens, config.train, np.random.default_rng([config.seed, epoch, 2]), follows)
    return [*(spoken[i] for i in single), *windows]


def _after_text(
    config: TrialConfig, examples: Sequence[Drawn | Window], splits: Sequence[Sequence[Recording]], epoch: int
) -> list[Drawn | Window]:
    """A share of the windows with what is said before them, drawn by seed and epoch."""
    windows = [each for each in examples if isinstance(each, Window)]
    earlier = {place: clip for split in splits for place, clip in earlier_in_recording(split).items()}
    generator = np.random.default_rng([config.seed, epoch, 3])
    told = with_text_before(windows, earlier, config.train.previous_text_ratio, generator)
    return [*(each for each in examples if isinstance(each, Drawn)), *told]


def _batches_of_like_length(
    examples: Sequence[Drawn | Window], batch_size: int, count: int, generator: np.random.Generator
) -> list[list[int]]:
    """Indices in batches; jittered lengths are sorted, so that batches are tight and differ from epoch to epoch.

    A batch has `batch_size` clips. Where windows have several, the `count` batches share the clips, as even as
    windows, none of which has more than `batch_size`, let them be.
    """
    durations_s = np.array([example.duration_s for example in examples])
    jittered = durations_s * generator.uniform(0.85, 1.15, size=len(durations_s))
    order = [int(i) for i in np.argsort(jittered)]
    before = [0, *accumulate(examples[i].clips for i in order)]
    share = max(batch_size, before[-1] / count)
    batches: list[list[int]] = [[] for _ in range(count)]
    for i, behind in zip(order, before, strict=False):
        batches[int(behind / share)].append(i)
    return [batches[int(i)] for i in generator.permutation(len(batches))]


class _Parts(Dataset[Batch]):
    """A worker's part of each batch, made where a loader's process asks for it."""

    def __init__(self, batches: Sequence[list[int]], part: Callable[[list[int]], Batch]) -> None:
        self._batches, self._part = batches, part

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        return self._part(self._batches[number])


class _Augmented:
    """Features of a clip: its waveform augmented by seed, clip and variant alone, then masked anew in every epoch.

    A window's clips are augmented likewise, at their own speed: their times are to be known. Other clips are around
    them in every epoch, so that no window is kept.
    """

    def __init__(
        self,
        drawn: Sequence[Drawn | Window],
        mel_bins: int,
        config: TrialConfig,
        epoch: int,
        cache: FeatureCache | None,
    ) -> None:
        self._drawn, self._mel_bins, self._config, self._epoch, self._cache = drawn, mel_bins, config, epoch, cache
        self._unhurried = config.augment.model_copy(update={"speed_factor": Draw(low=1.0, high=1.0)})
        masks = ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bins", "variants")
        self._effects = config.augment.model_dump(mode="json", exclude={*masks, "waveform_seed"})
        given = config.augment.waveform_seed
        self._waveform_seed = config.seed if given is None else given

    def __getitem__(self, index: int) -> torch.Tensor:
        seed, drawn = self._config.seed, self._drawn[index]
        anew = np.random.default_rng([seed, self._epoch, index])
        if isinstance(drawn, Window):
            features = self._log_mel(drawn.samples(self._in_window, anew))
        elif isinstance(drawn.clip, Nonspeech):
            features = self._features(drawn.clip, anew)
        else:
            features = self._kept(drawn.clip, drawn.lap)
        generator = np.random.default_rng([seed, self._epoch, index, 1])
        return mask_features(features.float(), self._config.augment, generator)

    def _kept(self, clip: Recording, lap: int) -> torch.Tensor:
        variant, generator = self._drawn_for(clip, lap)
        context, seed = self._config.context.model_dump(), self._waveform_seed
        compute = partial(self._features, clip, generator)
        if self._cache is None:
            return compute()
        return self._cache.get([clip.digest, seed, variant, self._effects, context, self._mel_bins], compute)

    def _features(self, clip: Recording | Nonspeech, generator: np.random.Generator) -> torch.Tensor:
        return self._log_mel(augment(torch.from_numpy(clip.samples()), self._config.augment, generator).numpy())

    def _in_window(self, heard: Heard) -> Samples:
        _, generator = self._drawn_for(heard.clip, heard.lap)
        waveform: Samples = augment(torch.from_numpy(heard.clip.samples()), self._unhurried, generator).numpy()
        return waveform

    def _drawn_for(self, clip: Recording, lap: int) -> tuple[int, np.random.Generator]:
        """Which of its variants the clip is heard in, and what is drawn for that."""
        variant = lap % self._config.augment.variants
        return variant, np.random.default_rng([self._waveform_seed, variant, int(clip.digest[:16], 16)])

    def _log_mel(self, samples: Samples) -> torch.Tensor:
        positions = context_positions(samples.size / SAMPLE_RATE_HZ, self._config.context)
        return log_mel(samples, positions, self._mel_bins).half()
