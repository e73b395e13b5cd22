"""1, 2 and 4 trials as processes on one GPU: clips a second of all of them together."""

import multiprocessing
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty

import torch

from wertune.bench.clips import BATCH, PLAIN_LORA
from wertune.bench.gpu.ways import trainer
from wertune.whisper.adapter import add_lora
from wertune.whisper.model import load_whisper

COUNTS = {True: (1, 2, 4), False: (1, 2)}  # on a GPU, and on a CPU
WAIT_S = 180.0  # until all have imported, loaded and taken their first step

Said = tuple[int, int, float, float]  # trials at once, steps, seconds, and the GPU's MB of this one


def measure(folder: Path, phase_s: float) -> dict[str, dict[str, float]]:
    """By how many train at once, each for so many seconds: `clips_per_s` of all, and `peak_mb` of the largest.

    Raises RuntimeError where one of the processes ends before its time.
    """
    context, counts = multiprocessing.get_context("spawn"), COUNTS[torch.cuda.is_available()]
    barrier, said = context.Barrier(max(counts)), context.Queue()
    threads = max(1, torch.get_num_threads() // max(counts))
    workers = [
        context.Process(target=_work, args=(place, counts, folder, phase_s, threads, barrier, said), daemon=True)
        for place in range(max(counts))
    ]
    for worker in workers:
        worker.start()
    try:
        heard = _heard(workers, sum(counts), said)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    of = {count: [each for each in heard if each[0] == count] for count in counts}
    return {
        str(count): {
            "clips_per_s": sum(BATCH * steps / seconds for _, steps, seconds, _ in each),
            "peak_mb": max(peak_mb for *_, peak_mb in each),
        }
        for count, each in of.items()
    }


def _heard(workers: Sequence[BaseProcess], most: int, said: "Queue[Said]") -> list[Said]:
    heard: list[Said] = []
    while len(heard) < most:
        codes = [worker.exitcode for worker in workers]
        if any(codes):
            raise RuntimeError(f"trials side by side ended with {codes}, must end with 0; see what they say above")
        with suppress(Empty):
            heard.append(said.get(timeout=0.1))
    return heard


def _work(
    place: int,
    counts: Sequence[int],
    folder: Path,
    phase_s: float,
    threads: int,
    barrier: Barrier,
    said: "Queue[Said]",
) -> None:
    torch.set_num_threads(threads)
    whisper = add_lora(load_whisper(folder, "en", "int8"), PLAIN_LORA, seed=place)
    step = trainer(whisper)
    step()
    for count in counts:
        barrier.wait(WAIT_S)
        if place >= count:
            continue
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < phase_s:
            step()
            steps += 1
        if whisper.device.type == "cuda":
            torch.cuda.synchronize()
        peak_mb = torch.cuda.max_memory_allocated() / 2**20 if whisper.device.type == "cuda" else 0.0
        said.put((count, steps, time.perf_counter() - started, peak_mb))
