"""Training one adapter: an epoch loop in plain sight, with generated WER after each epoch."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from wertune.audio import SAMPLE_RATE_HZ
from wertune.augment import augment, mask_features
from wertune.config import TrainConfig, TrialConfig
from wertune.errors import WertuneError
from wertune.evaluate import EvaluationSet, score_set
from wertune.features import ClipCache, context_positions, log_mel, pad_features
from wertune.hallucination import Nonspeech, nonspeech
from wertune.manifest import Recording
from wertune.model import Whisper, adamw, at_strength
from wertune.text import Normalise, TermFinder

LOADER_WORKERS_ON_GPU = 4
DIVERGENCE_REMEDY = "lower train.learning_rate or train.max_grad_norm"


class TrainingDiverged(WertuneError):
    """Loss, gradients or weights are not numbers any more."""


@dataclass(frozen=True)
class TrainingData:
    """What one trial reads; `replay` and `retention` may be empty. Features are worked out anew without a cache."""

    train: Sequence[Recording]
    replay: Sequence[Recording]
    validation: EvaluationSet
    retention: EvaluationSet
    normalise: Normalise
    finder: TermFinder
    cache: ClipCache | None = None


@dataclass(frozen=True)
class Objective:
    """What a trial minimises: validation WER, and a penalty once the retention WER rises above a margin."""

    retention_baseline_wer: float
    retention_margin: float
    penalty: float

    def __call__(self, validation_wer: float, retention_wer: float | None) -> float:
        if retention_wer is None:
            return validation_wer
        excess = retention_wer - self.retention_baseline_wer - self.retention_margin
        return validation_wer + self.penalty * max(0.0, excess)


@dataclass(frozen=True)
class EpochResult:
    """One epoch's figures; WERs are of generated text."""

    epoch: int
    objective: float
    train_loss: float
    validation_loss: float
    validation_wer: float
    validation_cer: float
    validation_term_recall: float
    retention_wer: float | None
    learning_rate: float
    train_s: float
    evaluation_s: float
    clips_per_s: float

    def metrics(self) -> dict[str, float]:
        """As they are logged, with step = epoch."""
        values = {
            "objective": self.objective,
            "train_loss": self.train_loss,
            "val_loss": self.validation_loss,
            "val_wer": self.validation_wer,
            "val_cer": self.validation_cer,
            "val_term_recall": self.validation_term_recall,
            "learning_rate_now": self.learning_rate,
            "train_s": self.train_s,
            "evaluation_s": self.evaluation_s,
            "clips_per_s": self.clips_per_s,
        }
        return values if self.retention_wer is None else {**values, "retention_val_wer": self.retention_wer}

    def line(self) -> str:
        """The epoch in one plain line."""
        return f"epoch {self.epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in self.metrics().items())


@dataclass(frozen=True)
class Trained:
    """What training one epoch gave, before it is scored."""

    epoch: int
    clips: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass
class Batch:
    """Features (clips, mel_bins, frames) and labels (clips, tokens) padded with -100."""

    features: torch.Tensor
    labels: torch.Tensor
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.features)


@dataclass(frozen=True)
class TrainingState:
    """What training goes on from after an epoch: all epochs' results, and tensors by name, on the CPU."""

    results: tuple[EpochResult, ...]
    tensors: Mapping[str, torch.Tensor]


def best_of(results: Sequence[EpochResult]) -> EpochResult:
    """The first epoch with the lowest objective."""
    return min(results, key=lambda result: result.objective)


class MovingAverage:
    """An exponential moving average of parameters over steps (Polyak and Juditsky 1992), warmed up from the first.

    At the small batches that few clips ask for it takes the noise of the last steps out of the adapter.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self.values = [parameter.detach().clone() for parameter in parameters]
        self._decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each step of the optimiser."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for average, parameter in zip(self.values, self._parameters, strict=True):
            average.lerp_(parameter, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are their averages inside the block."""
        if not self._decay:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(self.values, self._parameters, strict=True):
            held = parameter.clone()
            parameter.copy_(average)
            average.copy_(held)


class Updater:
    """AdamW, linear warm-up and cosine decay, clipped gradients, and the moving average.

    With the `tensors` that another had after `done` of the steps it goes on in that one's place.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: torch.nn.Module,
        steps: int,
        done: int = 0,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._max_grad_norm = config.max_grad_norm
        self._parameters = list(self._named.values())
        self._optimizer = adamw(model, config)
        self.average = MovingAverage(self._parameters, config.ema_decay)
        if tensors:
            self._restore(tensors)
        for group in self._optimizer.param_groups:  # a schedule that begins in its middle asks for them
            group["initial_lr"] = group["lr"]
        warmup = round(config.warmup_share * steps)
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, warmup, steps, last_epoch=done - 1)

    @property
    def learning_rate(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    def step(self) -> float:
        """One step on the gradients gathered so far; returns their norm before it was clipped."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.average.update()
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy on the CPU of all that steps change: parameters, their averages, AdamW's moments and counts."""
        live: dict[str, torch.Tensor] = {"average_steps": torch.tensor(self.average.steps)}
        for (name, parameter), average in zip(self._named.items(), self.average.values, strict=True):
            live |= {f"parameter/{name}": parameter, f"average/{name}": average}
            live |= {f"adamw.{key}/{name}": value for key, value in self._optimizer.state[parameter].items()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in live.items()}

    @torch.no_grad()
    def _restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for (name, parameter), average in zip(self._named.items(), self.average.values, strict=True):
            parameter.copy_(tensors[f"parameter/{name}"])
            average.copy_(tensors[f"average/{name}"])
        for name, tensor in tensors.items():
            kind, _, of = name.partition("/")
            if kind.startswith("adamw."):
                held = self._named[of]
                self._optimizer.state[held][kind.removeprefix("adamw.")] = tensor.to(held.device, copy=True)
        self.average.steps = int(tensors["average_steps"])


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators: dropout draws from the device's, a loader's workers from the CPU's."""
    states = {"random/cpu": torch.get_rng_state()}
    return states | ({"random/cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random_state(tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda" and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], device)


OnEpoch = Callable[[EpochResult, bool, TrainingState], None]


def train(
    config: TrialConfig,
    whisper: Whisper,
    data: TrainingData,
    objective: Objective,
    on_epoch: OnEpoch,
    state: TrainingState | None = None,
) -> EpochResult:
    """Trains the adapters of `whisper` in place, from the start or from a `state`, and returns the best epoch.

    `on_epoch(result, is_best, state)` is called after each epoch, the adapter at its average and strength: there it is
    saved, the figures are logged, and the trial may be stopped by an exception.
    Raises TrainingDiverged when a loss, a gradient or a weight is NaN or infinite.
    """
    torch.manual_seed(config.seed)
    per_epoch = math.ceil(_batches_per_epoch(config, data) / config.train.accumulation_steps)
    state = state or TrainingState((), {})
    done = len(state.results)
    updater = Updater(config.train, whisper.model, per_epoch * config.train.epochs, per_epoch * done, state.tensors)
    if state.tensors:
        _restore_random_state(state.tensors, whisper.device)
    whisper.checkpoint_layers(config.train.gradient_checkpointing)
    for epoch in range(done + 1, config.train.epochs + 1):
        started = time.perf_counter()
        clips, loss = _train_epoch(config, whisper, data, epoch, updater)
        trained = Trained(epoch, clips, loss, updater.learning_rate, time.perf_counter() - started)
        tensors = updater.tensors()
        _require_finite_weights(tensors, epoch)
        with updater.average.applied(), at_strength(whisper, config.lora.strength):
            result = _evaluate_epoch(config, whisper, data, objective, trained)
            state = TrainingState((*state.results, result), tensors | _random_state(whisper.device))
            on_epoch(result, result is best_of(state.results), state)
    return best_of(state.results)


def _require_finite(what: str, value: float, place: str) -> None:
    if not math.isfinite(value):
        raise TrainingDiverged(f"{place}: {what} is {value}, must be finite; {DIVERGENCE_REMEDY}")


def _require_finite_weights(tensors: Mapping[str, torch.Tensor], epoch: int) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
            _require_finite(name, tensor[~finite][0].item(), f"epoch {epoch}, after its last step")


def _train_epoch(
    config: TrialConfig,
    whisper: Whisper,
    data: TrainingData,
    epoch: int,
    updater: Updater,
) -> tuple[int, float]:
    """One pass; returns the number of clips and the mean loss."""
    whisper.model.train()
    losses, clips = [], 0
    loader = training_batches(config, whisper, data, epoch)
    total = _batches_per_epoch(config, data)
    with tqdm(loader, total=total, desc=f"epoch {epoch}", unit="batch", disable=not sys.stderr.isatty()) as bar:
        for step, batch in enumerate(bar, start=1):
            loss = whisper.loss(batch.features, batch.labels)
            losses.append(loss.item())
            _require_finite("loss", losses[-1], f"epoch {epoch}, batch {step}")
            share = loss / _group_size(step, total, config.train.accumulation_steps)
            share.backward()  # type: ignore[no-untyped-call]
            if step % config.train.accumulation_steps == 0 or step == total:
                _require_finite("gradient norm", updater.step(), f"epoch {epoch}, batch {step}")
            clips += batch.size
            bar.set_postfix(loss=f"{losses[-1]:.3f}", clips_per_s=f"{_rate(clips, bar):.1f}")
    return clips, float(np.mean(losses))


def _group_size(step: int, total: int, accumulation_steps: int) -> int:
    """Batches that share the update of batch `step` (from 1); the last of `total` may be fewer than the others."""
    return min(accumulation_steps, total - (step - 1) // accumulation_steps * accumulation_steps)


def _rate(clips: int, bar: Any) -> float:
    elapsed = bar.format_dict["elapsed"]
    return clips / elapsed if elapsed else 0.0


def _evaluate_epoch(
    config: TrialConfig,
    whisper: Whisper,
    data: TrainingData,
    objective: Objective,
    trained: Trained,
) -> EpochResult:
    started = time.perf_counter()
    whisper.model.eval()
    decode = config.decode.model_copy(update={"num_beams": config.train.evaluation_beams or config.decode.num_beams})
    validation = score_set(whisper, data.validation, decode, data.normalise, data.finder)
    retention = None
    if data.retention.recordings:
        retention = score_set(whisper, data.retention, decode, data.normalise, data.finder)
    loss = validation_loss(whisper, data.validation, config.decode.batch_size)
    _require_finite("validation loss", loss, f"epoch {trained.epoch}")
    return EpochResult(
        epoch=trained.epoch,
        objective=objective(validation.wer, retention.wer if retention else None),
        train_loss=trained.loss,
        validation_loss=loss,
        validation_wer=validation.wer,
        validation_cer=validation.cer,
        validation_term_recall=validation.terms.recall,
        retention_wer=retention.wer if retention else None,
        learning_rate=trained.learning_rate,
        train_s=trained.seconds,
        evaluation_s=time.perf_counter() - started,
        clips_per_s=trained.clips / trained.seconds,
    )


@torch.no_grad()
def validation_loss(whisper: Whisper, clips: EvaluationSet, batch_size: int) -> float:
    """Mean teacher-forced loss a batch, batches of like length."""
    order = sorted(range(len(clips.features)), key=lambda i: clips.features[i].shape[1])
    losses = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        labels = whisper.pad_labels([whisper.label_ids(clips.recordings[i].row.text) for i in chosen])
        losses.append(whisper.loss(pad_features([clips.features[i] for i in chosen]), labels).item())
    return float(np.mean(losses))


def _batches_per_epoch(config: TrialConfig, data: TrainingData) -> int:
    return math.ceil(sum(clips_per_epoch(config, data.train, data.replay)) / config.train.batch_size)


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


def training_batches(config: TrialConfig, whisper: Whisper, data: TrainingData, epoch: int) -> Iterator[Batch]:
    """The epoch's batches: its clips with and without words, batched with clips of like length, shuffled."""
    generator = np.random.default_rng([config.seed, epoch])
    domain, replay, speechless = clips_per_epoch(config, data.train, data.replay)
    spoken = _draw(data.train, domain, config.seed, epoch) + _draw(data.replay, replay, config.seed, epoch)
    recordings = [drawn.clip for drawn in spoken if isinstance(drawn.clip, Recording)]
    drawn = [*spoken, *map(Drawn, nonspeech(speechless, recordings, generator))]
    clips = [each.clip for each in drawn]
    dataset = _AugmentedClips(drawn, whisper.mel_bins, config, epoch, data.cache)

    def collate(items: list[tuple[int, torch.Tensor]]) -> Batch:
        labels = [whisper.label_ids(clips[i].text) for i, _ in items]
        return Batch(pad_features([f for _, f in items]), whisper.pad_labels(labels))

    return iter(
        DataLoader(
            dataset,
            batch_sampler=_batches_of_like_length([c.duration_s for c in clips], config.train.batch_size, generator),
            collate_fn=collate,
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


class _AugmentedClips(Dataset[tuple[int, torch.Tensor]]):
    """Features of a clip: its waveform augmented by seed, clip and variant alone, then masked anew in every epoch."""

    def __init__(
        self, drawn: Sequence[Drawn], mel_bins: int, config: TrialConfig, epoch: int, cache: ClipCache | None
    ) -> None:
        self._drawn, self._mel_bins, self._config, self._epoch, self._cache = drawn, mel_bins, config, epoch, cache
        masks = ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bins", "variants")
        self._effects = config.augment.model_dump(mode="json", exclude=set(masks))

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
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
        return index, mask_features(features.float(), self._config.augment, generator)

    def _features(self, clip: Recording | Nonspeech, generator: np.random.Generator) -> torch.Tensor:
        waveform = augment(torch.from_numpy(clip.samples()), self._config.augment, generator)
        positions = context_positions(len(waveform) / SAMPLE_RATE_HZ, self._config.context)
        return log_mel(waveform.numpy(), positions, self._mel_bins).half()
