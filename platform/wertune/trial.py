"""One trial: a configuration, a base model and data in; a logged, saved adapter and its best epoch out."""

import ctypes
import gc
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wertune.config import TrialConfig, flatten
from wertune.evaluate import Transcriber
from wertune.model import ModelSize, Whisper, add_lora, save_adapter
from wertune.prepare import Prepared
from wertune.tracking import RunLog
from wertune.train import EpochResult, Objective, train

ADAPTER_ARTIFACT = "adapter"
# proc(5): writing 5 begins a new peak of resident memory, VmHWM in status.
CLEAR_REFS, RESET_PEAK_RSS = Path("/proc/self/clear_refs"), "5"
STATUS = Path("/proc/self/status")
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # as malloc.h numbers them

AfterEpoch = Callable[[EpochResult], None]


def run_trial(
    config: TrialConfig, prepared: Prepared, objective: Objective, log: RunLog, after_epoch: AfterEpoch | None = None
) -> EpochResult:
    """Trains one adapter and returns its best epoch; the log then holds parameters, metrics and the best adapter.

    `after_epoch` is called once the epoch is logged, and may end the trial by raising.
    """
    keep_freed_memory()
    start_memory_peak()
    log.params(short_names(flatten(config.model_dump(mode="json"))))
    with prepared.resident_whisper(config.quantization) as base:
        return _train(config, prepared, add_lora(base, config.lora, config.seed), objective, log, after_epoch)


def _train(
    config: TrialConfig,
    prepared: Prepared,
    whisper: Whisper,
    objective: Objective,
    log: RunLog,
    after_epoch: AfterEpoch | None,
) -> EpochResult:
    data = prepared.training_data(config.context, whisper.mel_bins)
    log.metrics(size_metrics(whisper.size()))

    def on_epoch(result: EpochResult, is_best: bool) -> None:
        if is_best:
            _log_adapter(whisper, config.lora.strength, prepared, log)
            log.metrics(best_metrics(result), step=result.epoch)
        log.metrics(result.metrics() | {"peak_memory_mb": peak_memory_mb(whisper)}, step=result.epoch)
        if after_epoch is not None:
            after_epoch(result)

    return train(config, whisper, data, objective, on_epoch)


def best_metrics(result: EpochResult) -> dict[str, float]:
    """What is known of the epoch whose adapter is kept; a pruned trial has it too."""
    chosen = {name: value for name, value in result.metrics().items() if name == "objective" or "_wer" in name}
    return {f"best_{name}": value for name, value in chosen.items()} | {"best_epoch": result.epoch}


def _log_adapter(whisper: Whisper, strength: float, prepared: Prepared, log: RunLog) -> None:
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        folder = Path(scratch) / ADAPTER_ARTIFACT
        save_adapter(whisper, folder, prepared.base.spec, strength)
        log.artifacts(folder, ADAPTER_ARTIFACT)


def short_names(values: dict[str, Any]) -> dict[str, Any]:
    """`lora.r` as `lora_r`, `train.learning_rate` as `learning_rate`: what stands in MLflow's columns."""
    return {key.removeprefix("train.").replace(".", "_"): value for key, value in values.items()}


SIZE_METRICS = (
    "trainable_parameters",
    "total_parameters",
    "trainable_percent",
    "reduction_percent",
    "int8_layers",
    "weight_memory_mb",
)


# Of the trial that a search registers, on the search's own run too: sorted there, runs of searches compare.
BEST_METRICS = (
    "best_objective",
    "best_val_wer",
    "best_retention_val_wer",
    "best_epoch",
    "clips_per_s",
    "peak_memory_mb",
)


def size_metrics(size: ModelSize) -> dict[str, float]:
    """Counts of the model as metrics, so that trials can be sorted by them."""
    return {name: getattr(size, name) for name in SIZE_METRICS}


def start_memory_peak() -> None:
    """Begins a new peak: a worker goes from trial to trial, and each is charged with its own."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    _give_back_memory()
    if os.access(CLEAR_REFS, os.W_OK):  # some containers mount /proc read-only
        CLEAR_REFS.write_text(RESET_PEAK_RSS)


def keep_freed_memory() -> None:
    """glibc gives every large activation back to the system and takes it again: a third of a CPU trial's time.

    For processes that train or transcribe in bulk; one that evaluates a version as it serves is to stay as small.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            libc.mallopt(parameter, 2**31 - 1)


def _give_back_memory() -> None:
    """Returns freed activations to the system: a worker that kept them grew by a gigabyte a trial.

    Between trials alone: within one nothing grows, and to give back and take again is a second of every epoch.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def peak_memory_mb(whisper: Transcriber) -> float:
    """What CUDA's allocator gave out at most, or this process's largest resident size on a CPU."""
    if whisper.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return process_peak_mb()


def process_peak_mb() -> float:
    """This process's largest resident size since its peak was last begun, or ever where no peak can be begun."""
    if STATUS.exists():
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 1024
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 2**20
