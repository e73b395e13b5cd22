"""Memory of a trial: measured, given back, and its batches halved where they do not fit."""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

import torch

from wertune.base.config import TrialConfig
from wertune.base.errors import OutOfMemory
from wertune.whisper.transcription import Transcriber

MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")  # c10's allocators; CUDA's driver
ONEDNN = "could not create a primitive"  # though it can do what is asked, or it would miss "a primitive descriptor"
REMEDY = "lower train.batch_size, set train.gradient_checkpointing: true, or give each trial more memory"
# proc(5): writing 5 begins a new peak of resident memory, VmHWM in status.
CLEAR_REFS, RESET_PEAK_RSS = Path("/proc/self/clear_refs"), "5"
STATUS = Path("/proc/self/status")
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # as malloc.h numbers them


def is_out_of_memory(error: BaseException) -> bool:
    """Whether more memory would have helped: torch says so by class on GPUs, on CPUs by the text alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (text == ONEDNN or any(message in text for message in MESSAGES))


def halved(config: TrialConfig) -> TrialConfig:
    """Half as many clips a batch and as many batches more an update: as many clips an update, or as near as can be."""
    train = config.train
    size = train.batch_size // 2
    steps = round(train.batch_size * train.accumulation_steps / size)
    return config.model_copy(
        update={"train": train.model_copy(update={"batch_size": size, "accumulation_steps": steps})}
    )


def halved_once(config: TrialConfig, is_halved: bool, place: str, cause: str) -> TrialConfig:
    """`config` with its batch halved; OutOfMemory where that was done before, or a batch is a single clip."""
    if is_halved or config.train.batch_size == 1:
        known = "halved already" if is_halved else "which cannot be halved"
        size = f"train.batch_size is {config.train.batch_size}, {known}"
        raise OutOfMemory(f"{place}: {size}, but a trial must fit the memory ({cause}); {REMEDY}")
    return halved(config)


def start_memory_peak() -> None:
    """Begins a new peak: a worker goes from trial to trial, and each is charged with its own."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    give_back_memory()
    if os.access(CLEAR_REFS, os.W_OK):  # some containers mount /proc read-only
        CLEAR_REFS.write_text(RESET_PEAK_RSS)


def keep_freed_memory() -> None:
    """glibc gives every large activation back to the system and takes it again: a third of a CPU trial's time.

    For processes that train or transcribe in bulk; one that evaluates a version as it serves is to stay as small.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            libc.mallopt(parameter, 2**31 - 1)


def give_back_memory() -> None:
    """Returns freed activations to the system: a worker that kept them grew by a gigabyte a trial.

    Between trials and after one ran out of memory: else nothing grows, and it costs a second of every epoch.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
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
