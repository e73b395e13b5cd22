"""Training one adapter: an epoch loop in plain sight, with generated WER after each epoch."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from tqdm.auto import tqdm

from wertune.base.config import TrialConfig
from wertune.base.errors import WertuneError
from wertune.scores.metrics import Scores
from wertune.training.batches import Batch, TrainingData, batches_per_epoch, training_batches
from wertune.training.objective import Objective
from wertune.training.optimizer import Updater
from wertune.training.workers import ALONE, Workers
from wertune.whisper.adapter import at_strength
from wertune.whisper.features import lengthened, pad_features
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet, score_set

DIVERGENCE_REMEDY = "lower train.learning_rate or train.max_grad_norm"


class TrainingDiverged(WertuneError):
    """Loss, gradients or weights are not numbers any more."""


@dataclass(frozen=True)
class EpochResult:
    """One epoch's figures; WERs are of generated text."""

    epoch: int
    objective: float
    train_loss: float
    validation_loss: float
    validation_wer: float
    validation_cer: float
    validation_term_recall: float | None  # where validation says a term
    retention_wer: float | None
    learning_rate: float
    train_s: float
    evaluation_s: float
    clips_per_s: float
    skipped_steps: int | None = None  # since the first epoch, for gradients that overflow float16; else none is
    redrawn: tuple[float, ...] = ()  # the objective on sets drawn anew

    def metrics(self) -> dict[str, float]:
        """As they are logged, with step = epoch."""
        values = {
            "objective": self.objective,
            "train_loss": self.train_loss,
            "val_loss": self.validation_loss,
            "val_wer": self.validation_wer,
            "val_cer": self.validation_cer,
            "learning_rate_now": self.learning_rate,
            "train_s": self.train_s,
            "evaluation_s": self.evaluation_s,
            "clips_per_s": self.clips_per_s,
        }
        where_measured = {
            "val_term_recall": self.validation_term_recall,
            "retention_val_wer": self.retention_wer,
            "skipped_steps": self.skipped_steps,
        }
        return values | {name: value for name, value in where_measured.items() if value is not None}

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


@dataclass(frozen=True)
class TrainingState:
    """What training goes on from after an epoch: the results of those that were scored, and tensors on the CPU."""

    epoch: int
    results: tuple[EpochResult, ...]
    tensors: Mapping[str, torch.Tensor]


def best_of(results: Sequence[EpochResult]) -> EpochResult:
    """The first epoch with the lowest objective."""
    return min(results, key=lambda result: result.objective)


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators: dropout draws from the device's, a loader's workers from the CPU's."""
    states = {"random/cpu": torch.get_rng_state()}
    return states | ({"random/cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random_state(tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda" and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], device)


OnEpoch = Callable[[TrainingState, bool], None]


def train(
    config: TrialConfig,
    whisper: Whisper,
    data: TrainingData,
    objective: Objective,
    on_epoch: OnEpoch,
    state: TrainingState | None = None,
    workers: Workers = ALONE,
) -> EpochResult:
    """Trains the adapters of `whisper` in place, from the start or from a `state`, and returns the best epoch.

    Each of a trial's `workers` calls it with the same, and all come to the same adapter.

    `on_epoch(state, is_best)` is called after each epoch, the adapter at its average and strength: there it is saved,
    the figures are logged, and the trial may be stopped by an exception. An epoch that is not scored is never best.
    Raises TrainingDiverged when a loss, a gradient or a weight is NaN or infinite.
    """
    torch.manual_seed(config.seed)
    per_epoch = math.ceil(batches_per_epoch(config, data) / config.train.accumulation_steps)
    state = state or TrainingState(0, (), {})
    updater = Updater(
        config.train,
        whisper.model,
        per_epoch * config.train.epochs,
        per_epoch * state.epoch,
        state.tensors,
        products=whisper.product_dtype,
    )
    if state.tensors:
        _restore_random_state(state.tensors, whisper.device)
    whisper.checkpoint_layers(config.train.gradient_checkpointing)
    unscored_s = 0.0  # of epochs that were trained since one was scored
    for epoch in range(state.epoch + 1, config.train.epochs + 1):
        trained = _train_epoch(config, whisper, data, epoch, updater, workers)
        tensors = updater.tensors()
        _require_finite_weights(tensors, epoch)
        state = TrainingState(epoch, state.results, tensors | _random_state(whisper.device))
        unscored_s += trained.seconds
        if epoch % config.train.evaluate_every_epochs and epoch < config.train.epochs:
            on_epoch(state, False)
            continue
        with updater.average.applied(), at_strength(whisper, config.lora.strength):
            result = _evaluate_epoch(config, whisper, data, objective, trained, workers)
            result = replace(result, train_s=unscored_s, skipped_steps=updater.skipped_steps)
            unscored_s = 0.0
            state = replace(state, results=(*state.results, result))
            on_epoch(state, result is best_of(state.results))
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
    workers: Workers,
) -> Trained:
    """One pass; its loss is the mean a token."""
    started = time.perf_counter()
    whisper.model.train()
    loss_sum, tokens, clips, step = 0.0, 0, 0, 0
    updates = _Updates(training_batches(config, whisper, data, epoch, workers), config.train.accumulation_steps)
    total = batches_per_epoch(config, data)
    with tqdm(total=total, desc=f"epoch {epoch}", unit="batch", disable=not sys.stderr.isatty()) as bar:
        frames = workers.each(updates.fetch)
        while update := updates.take(frames):
            work = partial(_gradients, whisper, updater, update, epoch, step)
            loss, frames = workers.summed(work, updater.parameters, updates.fetch, updates.batches)
            loss_sum += loss
            step += len(update)
            tokens, clips = tokens + sum(b.tokens for b in update), clips + sum(b.clips for b in update)
            bar.update(len(update))
            _require_finite("gradient norm", updater.step(), f"epoch {epoch}, batch {step}")
            bar.set_postfix(
                loss=f"{loss_sum / tokens:.3f}", clips_per_s=f"{clips / (time.perf_counter() - started):.1f}"
            )
    return Trained(epoch, clips, loss_sum / tokens, updater.learning_rate, time.perf_counter() - started)


class _Updates:
    """This worker's parts of an epoch's batches, as many at a time as an update has.

    What pads a clip is heard, too: all of a batch is padded alike, whichever worker has its longest. So an update's
    parts are fetched while the one before is summed, which tells all how long each worker's are.
    """

    def __init__(self, loader: Iterator[Batch], batches: int) -> None:
        self.batches, self._loader, self._fetched = batches, loader, list[Batch]()

    def fetch(self) -> list[int]:
        """The frames of this worker's part of each batch of the next update; none at the epoch's end."""
        self._fetched = list(islice(self._loader, self.batches))
        return [batch.features.shape[-1] for batch in self._fetched]

    def take(self, frames: Sequence[Sequence[int]]) -> list[Batch]:
        """What was fetched, as long as the longest of what the workers told."""
        most = map(max, zip(*frames, strict=True))
        return [
            replace(b, features=lengthened(b.features, longest)) for b, longest in zip(self._fetched, most, strict=True)
        ]


def _gradients(whisper: Whisper, updater: Updater, update: Sequence[Batch], epoch: int, step: int) -> float:
    """Leaves with the parameters this worker's gradients of an update after `step` batches; its summed loss."""
    said, loss_sum = sum(batch.tokens for batch in update), 0.0
    for number, batch in enumerate(update, start=step + 1):
        loss = whisper.summed_loss(batch.features, batch.labels, batch.rows, batch.size, batch.before)
        if batch.mirrors:
            loss = 0.0 * loss
        value = loss.item()
        _require_finite("loss", value, f"epoch {epoch}, batch {number}")
        # By tokens over the whole update: what a token weighs does not hang on the batch that it is in.
        updater.scaled(loss / said).backward()  # type: ignore[no-untyped-call]
        loss_sum += value
    return loss_sum


def _evaluate_epoch(
    config: TrialConfig,
    whisper: Whisper,
    data: TrainingData,
    objective: Objective,
    trained: Trained,
    workers: Workers,
) -> EpochResult:
    started = time.perf_counter()
    validation, retention = validation_scores(config, whisper, data, workers)
    loss = validation_loss(whisper, data.validation, config.decode.batch_size, workers)
    _require_finite("validation loss", loss, f"epoch {trained.epoch}")
    return EpochResult(
        epoch=trained.epoch,
        objective=objective(validation.wer, retention.wer if retention else None),
        train_loss=trained.loss,
        validation_loss=loss,
        validation_wer=validation.wer,
        validation_cer=validation.cer,
        validation_term_recall=validation.terms.recall if validation.terms.said else None,
        retention_wer=retention.wer if retention else None,
        learning_rate=trained.learning_rate,
        train_s=trained.seconds,
        evaluation_s=time.perf_counter() - started,
        clips_per_s=trained.clips / trained.seconds,
        redrawn=objective.redrawn(validation, retention),
    )


def validation_scores(
    config: TrialConfig, whisper: Whisper, data: TrainingData, workers: Workers = ALONE
) -> tuple[Scores, Scores | None]:
    """Of validation, and of retention's validation where there is one, with the beams of an epoch's evaluation."""
    whisper.model.eval()
    decode = config.decode.model_copy(update={"num_beams": config.train.evaluation_beams or config.decode.num_beams})
    validation = score_set(whisper, data.validation, decode, data.normalise, data.finder, workers.across)
    if not data.retention.recordings:
        return validation, None
    return validation, score_set(whisper, data.retention, decode, data.normalise, data.finder, workers.across)


@torch.no_grad()
def validation_loss(whisper: Whisper, clips: EvaluationSet, batch_size: int, workers: Workers = ALONE) -> float:
    """Mean teacher-forced loss a token, batches of like length."""
    order = sorted(range(len(clips.features)), key=lambda i: clips.features[i].shape[1])

    def loss(chosen: list[int]) -> tuple[float, int]:
        said = [clips.recordings[i] for i in chosen]
        labels = whisper.pad_labels([whisper.label_ids(each.text, each.language) for each in said])
        summed = whisper.summed_loss(pad_features([clips.features[i] for i in chosen]), labels).item()
        return summed, int((labels != -100).sum())

    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    found = workers.across(batches, loss)
    return sum(summed for summed, _ in found) / sum(tokens for _, tokens in found)
