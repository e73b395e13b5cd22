"""Two real steps of training and a small evaluation on this machine: what a search is planned by. Nothing is kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from wertune.base.config import ContextConfig, DecodeConfig, TrialConfig
from wertune.training.baseline import FULL_CONTEXT, baseline_decode
from wertune.training.batches import Batch, TrainingData, training_batches, with_longest_before
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
    beams = trial.train.evaluation_beams or trial.decode.num_beams
    keep_freed_memory()
    with prepared.resident_whisper(trial.quantization) as base, using_threads(threads):
        baseline_s = _evaluation_s(base, prepared, FULL_CONTEXT, baseline_decode(trial.decode))
        start_memory_peak()
        whisper = add_lora(base, trial.lora, trial.seed)
        started, worked = time.perf_counter(), time.process_time()
        features_s, train_s = _training_s(whisper, prepared, trial)
        each_epoch = trial.decode.model_copy(update={"num_beams": beams})
        evaluation_s = _evaluation_s(whisper, prepared, trial.context, each_epoch, with_loss=True)
        final_s = _evaluation_s(whisper, prepared, trial.context, trial.decode)
        share = (time.process_time() - worked) / (time.perf_counter() - started) / threads
        trained = (p for p in whisper.model.parameters() if p.requires_grad)
        return Probe(
            train_clip_s=train_s,
            features_clip_s=features_s,
            evaluation_clip_s=evaluation_s,
            final_clip_s=final_s,
            baseline_clip_s=baseline_s,
            memory_mb=peak_memory_mb(whisper),
            adapter_mb=sum(p.numel() * p.element_size() for p in trained) / 2**20,
            mel_bins=whisper.mel_bins,
            share_of_cores=1.0 if whisper.device.type == "cuda" else min(1.0, share),
        )


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
    updater = Updater(trial.train, whisper.model, STEPS + 1, products=whisper.product_dtype)
    whisper.checkpoint_layers(trial.train.gradient_checkpointing)
    whisper.model.train()

    def step(batch: Batch, longer: int = 0) -> None:
        features = torch.nn.functional.pad(batch.features, (0, longer))
        loss = whisper.loss(features, batch.labels, batch.before)
        updater.scaled(loss).backward()  # type: ignore[no-untyped-call]
        updater.step()

    # As long as the longest clip, and as the longest text before it: a trial's memory is that of its longest batch.
    longest = with_longest_before(batches[0], whisper) if trial.train.previous_text_ratio else batches[0]
    step(longest, max(0, FRAMES_PER_POSITION * max(positions) - batches[0].features.shape[-1]))
    seconds = sum(seconds_of(whisper.device, partial(step, batch)) for batch in batches)
    trained = sum(batch.size * batch.features.shape[-1] / FRAMES_PER_POSITION for batch in batches)
    return features_s, seconds / trained * sum(positions) / len(positions)


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Of the work, to its end: a GPU works on after the call."""
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


@torch.no_grad()
def _evaluation_s(
    whisper: Whisper, prepared: Prepared, context: ContextConfig, decode: DecodeConfig, with_loss: bool = False
) -> float:
    """Seconds a clip of middle length, each written as long as its reference: untuned, the model repeats itself."""
    ordered = sorted(prepared.dataset["validation"], key=lambda clip: clip.duration_s)
    clips = ordered[max(0, (len(ordered) - CLIPS) // 2) :][:CLIPS]
    features = pad_features(
        [log_mel(c.samples(), context_positions(c.duration_s, context), whisper.mel_bins) for c in clips]
    )
    labels = [whisper.label_ids(clip.text) for clip in clips]
    whisper.model.eval()
    whisper.generate(features[:1], [2], decode)
    seconds = seconds_of(whisper.device, lambda: whisper.generate(features, [len(ids) for ids in labels], decode))
    if with_loss:
        seconds += seconds_of(whisper.device, lambda: whisper.loss(features, whisper.pad_labels(labels)))
    return seconds / len(clips)
