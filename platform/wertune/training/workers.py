"""The workers of one trial, a process each: what is divided among them, and what they tell each other.

All run the same code on the same configuration, and come to the same results: a part of each batch's gradients, of the
clips to write and of the features is one worker's, and what all need is gathered. Only the adapters' gradients travel,
in one buffer an update, by torch.distributed: gloo between CPUs, NCCL between GPUs.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist

from wertune.base.errors import WorkersLost, first_line

Item = TypeVar("Item")
Result = TypeVar("Result")
TIMED_OUT = "imed out"  # as gloo and the store spell it, the first letter in either case


@dataclass
class Workers:
    """This process among a trial's workers: the one of `rank`, counted from 0, of `size`.

    A call that all have to make raises WorkersLost where one of them is gone, or silent for longer than `wait_s`.
    """

    rank: int = 0
    size: int = 1
    wait_s: float = 0.0
    sent_bytes: int = 0  # of gradients, by each worker
    _agreed: Exception | None = None

    def across(self, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """What `work` makes of each item, in order; each worker does its part of them."""
        parts = self.each(lambda: [work(item) for item in items[self.rank :: self.size]])
        return [parts[i % self.size][i // self.size] for i in range(len(items))]

    def each(self, work: Callable[[], Result]) -> list[Result]:
        """What every worker's `work` returns, by rank; what one's raises, all raise."""
        if self.size == 1:
            return [work()]
        done: Result | None = None
        fault: Exception | None = None
        try:
            done = work()
        except Exception as error:
            fault = _portable(error)
        gathered: list[Any] = [None] * self.size
        with self._heard():
            dist.all_gather_object(gathered, (done, fault))
        for _, raised in gathered:
            if raised is not None:
                self._agreed = raised
                raise raised
        return [result for result, _ in gathered]

    def same(self, value: Item) -> Item:
        """The first worker's value."""
        return self.each(lambda: value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def summed(
        self,
        work: Callable[[], float],
        parameters: Sequence[torch.nn.Parameter],
        ahead: Callable[[], list[int]],
        most: int,
    ) -> tuple[float, list[list[int]]]:
        """The sum of what the workers' `work` returns; the gradients that it leaves are summed in place.

        Beside it, by rank, the counts that `ahead` returns, as many in each and `most` at most: what comes next is made
        ready in the same breath, for else the workers would wait for each other twice an update. What either raises in
        one, all raise.
        """
        if self.size == 1:
            return work(), [ahead()]
        value, fault = 0.0, None
        counts: list[int] = []
        try:
            value, counts = work(), ahead()
        except Exception as error:
            fault = error.with_traceback(None)  # whose frames hold what the memory is short of
        held = [torch.zeros_like(p) if fault or p.grad is None else p.grad for p in parameters]
        table = torch.zeros(self.size, most)
        table[self.rank, : len(counts)] = torch.tensor(counts, dtype=torch.float32)
        told = torch.cat([torch.tensor([value, fault is not None]), table.flatten()]).to(held[0].device)
        buffer = torch.cat([*(gradient.flatten() for gradient in held), told])
        sizes = [parameter.numel() for parameter in parameters]
        with self._heard():
            dist.all_reduce(buffer)
            *gradients, told = torch.split(buffer, [*sizes, len(told)])
            value, faults, *numbers = told.tolist()
        if faults:
            self.each(lambda: _raise(fault))
        self.sent_bytes += buffer.nbytes
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return value, [[round(count) for count in numbers[rank * most :][: len(counts)]] for rank in range(self.size)]

    def must_agree(self, error: BaseException) -> None:
        """Raises WorkersLost where this worker alone met the error, and the others wait for it elsewhere."""
        if self.size > 1 and error is not self._agreed:
            raise WorkersLost(f"worker {self.rank + 1} of {self.size}: {error}") from error

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """gloo and NCCL tell in words alone what became of the others."""
        try:
            yield
        except RuntimeError as error:
            cause = first_line(error)
            if TIMED_OUT in cause:
                silent = f"a worker of {self.size} was silent for {self.wait_s:g} s, which worker_timeout_s allows"
                raise WorkersLost(f"{silent} ({cause})", is_silent=True) from None
            raise WorkersLost(f"a worker of {self.size} is gone ({cause})") from None


ALONE = Workers()


def _portable(error: Exception) -> Exception:
    """The error as others can read it, of its kind and its words: some hold what cannot be sent."""
    try:
        made = type(error)(str(error))
    except TypeError:  # its kind asks for more than words
        made = RuntimeError()
    return made if str(made) == str(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _raise(fault: Exception | None) -> None:
    if fault is not None:
        raise fault


@contextmanager
def joined(rank: int, size: int, store: Any, wait_s: float, ip: str) -> Iterator[Workers]:
    """This process as worker `rank` of `size` that all meet at `store`, at its node's address `ip`.

    At the block's end it leaves, and whoever waits for it learns so.
    """
    _speak_at(ip)
    # Else NCCL ends the process of a worker that has waited too long, before it can tell whom it missed.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _forming(size, wait_s):
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=wait_s))
    try:
        yield Workers(rank, size, wait_s)
    finally:
        dist.destroy_process_group()


def meeting_point(size: int, wait_s: float, ip: str, port: int = 0) -> Any:
    """Where a trial's workers find each other, at the first one's address; that one opens it, at any free port."""
    with _forming(size, wait_s):
        return dist.TCPStore(  # type: ignore[attr-defined]
            ip, port, size, is_master=not port, timeout=timedelta(seconds=wait_s), wait_for_workers=False
        )


@contextmanager
def _forming(size: int, wait_s: float) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        cause = first_line(error)
        raise WorkersLost(f"{size} workers did not find each other within {wait_s:g} s ({cause})") from None


def _speak_at(ip: str) -> None:
    """gloo and NCCL take the network that the node's name leads to, which may be this machine alone."""
    found = [name for name, all_ in psutil.net_if_addrs().items() if ip in (each.address for each in all_)]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if found:
            os.environ.setdefault(variable, found[0])
