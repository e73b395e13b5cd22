"""Workers of a trial as processes of this machine: what each of them comes to."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tests.support.trial import Log

from wertune.base.config import TrialConfig
from wertune.training.checkpoint import TrialStore
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult
from wertune.training.trial import run_trial
from wertune.training.workers import Workers, joined
from wertune.whisper.model import Whisper

HERE = "127.0.0.1"
Work = Callable[..., Any]


@dataclass(frozen=True)
class Team:
    """As many processes as there may be workers at most, which have imported once for all tests of a file."""

    pool: ProcessPoolExecutor

    def start(self, size: int, work: Work, *given: Any, wait_s: float = 60.0) -> list["Future[Any]"]:
        """`work(workers, *given)` in `size` processes that meet."""
        place = tempfile.mktemp(prefix="meeting-")
        return [self.pool.submit(_meet, rank, size, place, wait_s, work, given) for rank in range(size)]

    def run(self, size: int, work: Work, *given: Any, wait_s: float = 60.0) -> list[Any]:
        """What it returns in each, by rank; the first fault is raised."""
        return [future.result(timeout=300) for future in self.start(size, work, *given, wait_s=wait_s)]

    def faults(self, size: int, work: Work, *given: Any, wait_s: float = 60.0) -> list[BaseException | None]:
        """What is raised in each, by rank."""
        return [each.exception(timeout=300) for each in self.start(size, work, *given, wait_s=wait_s)]


def _meet(rank: int, size: int, place: str, wait_s: float, work: Work, given: Sequence[Any]) -> Any:
    torch.set_num_threads(1)
    os.environ["WERTUNE_PRODUCTS"] = "float32"
    if size == 1:
        return work(Workers(), *given)
    with joined(rank, size, dist.FileStore(place, size), wait_s, HERE) as workers:  # type: ignore[attr-defined]
        return work(workers, *given)


@contextmanager
def team(size: int) -> Iterator[Team]:
    """Processes for so many workers at most."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(size, mp_context=context) as pool:
        yield Team(pool)


@dataclass(frozen=True)
class Fault:
    """What befalls the worker of `rank` at the loss of its training batch `batch`, counted from 1, the first time."""

    rank: int
    batch: int
    kind: str

    def strike(self) -> None:
        """A process that is killed, one that is stopped for a while, and what a batch may raise."""
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "silent":
            time.sleep(12)
        if self.kind == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        raise ValueError(f"{self.kind} of worker {self.rank}")


def trained(
    workers: Workers,
    prepared: Prepared,
    config: TrialConfig,
    cache: Path,
    store: TrialStore | None = None,
    epochs: int = 0,
    fault: Fault | None = None,
) -> tuple[EpochResult, Log, int]:
    """The best epoch, what the first worker says, and the bytes of gradients that each has sent.

    Each worker has a cache of its own, as on a node of its own; after `epochs` the trial ends, if that is not 0.
    """
    os.environ["WERTUNE_CACHE"] = str(cache / str(workers.rank))
    said = Log()
    real = Whisper.summed_loss
    calls = 0

    def loss(self: Whisper, features: torch.Tensor, labels: torch.Tensor, *part: Any) -> torch.Tensor:
        nonlocal calls
        if self.model.training:
            calls += 1
            if fault and workers.rank == fault.rank and calls == fault.batch:
                if fault.kind == "nan":
                    return torch.tensor(float("nan"), requires_grad=True)
                fault.strike()
        return real(self, features, labels, *part)

    def after_epoch(result: EpochResult) -> None:
        if result.epoch == epochs:
            raise InterruptedError("as a search ends a trial")

    Whisper.summed_loss = loss  # type: ignore[method-assign]
    try:
        first = workers.rank == 0
        objective = Objective(0.0, 0.0, 0.0)
        best = run_trial(config, prepared, objective, said, after_epoch, store if first else None, workers)
    finally:
        Whisper.summed_loss = real  # type: ignore[method-assign]
    return best, said, workers.sent_bytes
