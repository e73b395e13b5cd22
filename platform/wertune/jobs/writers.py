"""Processes that hold one model and write batches beside each other: twice the threads do not write twice as fast."""

import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

import numpy as np
import torch

from wertune.base.config import DecodeConfig
from wertune.base.errors import WertuneError
from wertune.base.machine import cores, free_memory_mb
from wertune.training.memory import peak_memory_mb, process_peak_mb
from wertune.whisper.features import Each, Item
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import Transcriber
from wertune.whisper.wording import Written

CLIPS_EACH = 64  # of fewer a process hardly writes what it takes to start
# Of this process, which holds the model: what one more takes when it writes batches of eight beams.
MEMORY_TIMES = 1.5


class WriterLost(WertuneError):
    """A process that writes has died."""


@dataclass(frozen=True)
class Writers:
    """`whisper` writes what it is given, and may be asked by several threads at once: `across` asks it so."""

    whisper: Transcriber
    processes: int = 1

    def across(self, items: Sequence[Item], work: Callable[[Item], Each]) -> list[Each]:
        """What `work`, which has the model write, makes of each; in order."""
        if self.processes == 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.processes) as threads:
            going = [threads.submit(contextvars.copy_context().run, work, item) for item in items]
            try:
                return [each.result() for each in going]
            finally:  # after an error or Ctrl-C nothing new is begun
                threads.shutdown(wait=False, cancel_futures=True)

    def peak_memory_mb(self) -> float:
        """Of the process that has needed most."""
        if isinstance(self.whisper, _InProcesses):
            return self.whisper.peak_mb
        return peak_memory_mb(self.whisper)


@contextmanager
def writers(whisper: Transcriber, load: Callable[[], Transcriber], clips: int) -> Iterator[Writers]:
    """As many processes as cores, memory and so many clips are worth, each of which loads the model; or `whisper`.

    It alone writes on a GPU, and in engines that divide their work themselves. `load` can be sent to a process.
    """
    processes = min(_room(whisper), clips // CLIPS_EACH)
    if processes <= 1:
        yield Writers(whisper)
        return
    begin = (load, max(1, cores() // processes))
    # Forked from one that has imported what they need: it is imported once, not by each.
    context = get_context("forkserver")
    context.set_forkserver_preload([Whisper.__module__])
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=begin)
    try:
        yield Writers(_InProcesses(whisper, pool, processes), processes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _room(whisper: Transcriber) -> int:
    """How many processes with such a model this machine has cores and memory for."""
    if not isinstance(whisper, Whisper) or whisper.device.type != "cpu":
        return 1
    free_mb = free_memory_mb()
    return cores() if free_mb is None else min(cores(), int(free_mb / (MEMORY_TIMES * process_peak_mb())))


class _InProcesses:
    """A `Transcriber` whose batches are written by whichever process is free."""

    def __init__(self, whisper: Transcriber, pool: ProcessPoolExecutor, processes: int) -> None:
        self.device, self.mel_bins = whisper.device, whisper.mel_bins
        self.peak_mb = 0.0
        self._pool, self._processes = pool, processes

    def generate(
        self,
        features: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]:
        asked = features.numpy(), list(token_limits), decode, language, tuple(windows_s)
        try:
            written, peak_mb = self._pool.submit(_write, *asked).result()
        except BrokenProcessPool:
            remedy = "if memory is short, let it have fewer cores, each of which has a model of its own (taskset -c 0)"
            raise WriterLost(f"one of {self._processes} processes that write texts has died; {remedy}") from None
        self.peak_mb = max(self.peak_mb, peak_mb)
        return written


_load: Callable[[], Transcriber]  # of the process that writes
_whisper: Transcriber | None = None


def _begin(load: Callable[[], Transcriber], threads: int) -> None:
    """Ctrl-C is the first process's, with whose end this one ends, however it comes."""
    global _load
    _load = load
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _write(
    features: np.ndarray[Any, np.dtype[np.float32]],
    token_limits: Sequence[int],
    decode: DecodeConfig,
    language: str,
    windows_s: Sequence[float],
) -> tuple[list[Written], float]:
    """The texts, with times of what is said where they are of windows, and what this process has needed at most."""
    global _whisper
    _whisper = _whisper or _load()
    asked: dict[str, Any] = {"windows_s": windows_s} if windows_s else {}
    written = _whisper.generate(torch.from_numpy(features), token_limits, decode, language, **asked)
    return written, process_peak_mb()
