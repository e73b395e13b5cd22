"""Two real steps of training and a small evaluation on this machine: what a search is planned by. Nothing is kept."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from wertune.base.config import ContextConfig, DecodeConfig, TrialConfig
from wertune.data.manifest import Recording
from wertune.training.baseline import baseline_decode
from wertune.training.batches import Batch, TrainingData, training_batches
from wertune.training.memory import keep_freed_memory, peak_memory_mb, start_memory_peak
from wertune.training.optimizer import Updater
from wertune.training.prepare import Prepared
from wertune.whisper.adapter import add_lora
from wertune.whisper.features import FRAMES_PER_POSITION, context_positions, log_mel, pad_features
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet

STEPS = 2
CLIPS = 8


@dataclass(frozen=True)
class Probe:
    """What was measured; `…_clip_s` are seconds a clip, of training a clip of mean length.

    `share_of_cores` is how much of its cores a CPU trial got: 0.5 means that others are at work, and that the same
    takes half as long on an idle machine. 1 on a GPU, where the processor waits.
    """

    train_clip_s: float
    features_clip_s: float
    evaluation_clip_s: float
    final_clip_s: float
    baseline_clip_s: float
    memory_mb: float
    adapter_mb: float
    mel_bins: int
    share_of_cores: float


def probe(prepared: Prepared, threads: int) -> Probe:
    """Measures with the project's settings, on the GPU or with a trial's threads."""
    trial = prepared.project.trial
    keep_freed_memory()
    with prepared.resident_whisper(trial.quantization) as base, using_threads(threads):
        baseline_s = _evaluation_s(base, prepared, ContextConfig(short=False), baseline_decode(trial.decode))
        start_memory_peak()
        whisper = add_lora(base, trial.lora, trial.seed)
        started, worked = time.perf_counter(), time.process_time()
        features_s, train_s = _training_s(whisper, prepared, trial)
        beams = trial.train.evaluation_beams or trial.decode.num_beams
        each_epoch = trial.decode.model_copy(update={"num_beams": beams})
        evaluation_s = _evaluation_s(whisper, prepared, trial.context, each_epoch, with_loss=True)
        final_s = _evaluation_s(whisper, prepared, trial.context, trial.decode)
        share = (time.process_time() - worked) / (time.perf_counter() - started) / threads
        memory_mb = peak_memory_mb(whisper)
        return Probe(
            train_clip_s=train_s,
            features_clip_s=features_s,
            evaluation_clip_s=evaluation_s,
            final_clip_s=final_s,
            baseline_clip_s=baseline_s,
            memory_mb=memory_mb,
            adapter_mb=sum(p.numel() * p.element_size() for p in _trained(whisper)) / 2**20,
            mel_bins=whisper.mel_bins,
            share_of_cores=1.0 if whisper.device.type == "cuda" else min(1.0, share),
        )


def _trained(whisper: Whisper) -> list[torch.nn.Parameter]:
    return [parameter for parameter in whisper.model.parameters() if parameter.requires_grad]


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """PyTorch computes with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _training_s(whisper: Whisper, prepared: Prepared, trial: TrialConfig) -> tuple[float, float]:
    """Seconds of features, and of training, a clip. A first step on clips of the greatest length warms up."""
    train, replay, nothing = prepared.dataset["train"], prepared.dataset["replay"], EvaluationSet([], [])
    data = TrainingData(train, replay, nothing, nothing, prepared.normalise, prepared.finder)
    started = time.perf_counter()
    batches = list(islice(training_batches(trial, whisper, data, epoch=1), STEPS))
    features_s = (time.perf_counter() - started) / sum(batch.size for batch in batches)
    positions = [context_positions(clip.duration_s, trial.context) for clip in (*train, *replay)]
    updater = Updater(trial.train, whisper.model, STEPS + 1)
    whisper.checkpoint_layers(trial.train.gradient_checkpointing)
    whisper.model.train()
    _step_s(whisper, updater, _stretched(batches[0], FRAMES_PER_POSITION * max(positions)))
    seconds = sum(_step_s(whisper, updater, batch) for batch in batches)
    trained = sum(batch.size * batch.features.shape[-1] / FRAMES_PER_POSITION for batch in batches)
    return features_s, seconds / trained * sum(positions) / len(positions)


def _stretched(batch: Batch, frames: int) -> Batch:
    """The batch as long as the longest clip: a trial's memory is that of its longest batch."""
    missing = max(0, frames - batch.features.shape[-1])
    return Batch(torch.nn.functional.pad(batch.features, (0, missing)), batch.labels)


def _step_s(whisper: Whisper, updater: Updater, batch: Batch) -> float:
    started = time.perf_counter()
    whisper.loss(batch.features, batch.labels).backward()  # type: ignore[no-untyped-call]
    updater.step()
    _wait(whisper)
    return time.perf_counter() - started


def _wait(whisper: Whisper) -> None:
    """A GPU works on after the call."""
    if whisper.device.type == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def _evaluation_s(
    whisper: Whisper, prepared: Prepared, context: ContextConfig, decode: DecodeConfig, with_loss: bool = False
) -> float:
    """Seconds a clip, each written as long as its reference: before it is tuned the model repeats itself."""
    clips = _middle(prepared.dataset["validation"])
    features = pad_features(
        [log_mel(c.samples(), context_positions(c.duration_s, context), whisper.mel_bins) for c in clips]
    )
    labels = [whisper.label_ids(clip.text) for clip in clips]
    whisper.model.eval()
    whisper.generate(features[:1], [2], decode)
    started = time.perf_counter()
    whisper.generate(features, [len(ids) for ids in labels], decode)
    if with_loss:
        whisper.loss(features, whisper.pad_labels(labels))
    _wait(whisper)
    return (time.perf_counter() - started) / len(clips)


def _middle(recordings: Sequence[Recording]) -> Sequence[Recording]:
    """Some of middle length."""
    ordered = sorted(recordings, key=lambda recording: recording.duration_s)
    start = max(0, (len(ordered) - CLIPS) // 2)
    return ordered[start : start + CLIPS]
