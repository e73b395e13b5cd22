"""One worker of one thread against two on the same clips: what the second brings, and what it costs."""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from itertools import product
from multiprocessing import get_context

import torch
import torch.distributed as dist

from wertune.base.config import TrainConfig, with_overrides
from wertune.bench.clips import BATCH, PLAIN_LORA, ROUNDS, fewer_clips
from wertune.bench.rows import Section, rounded
from wertune.scores.comparison import markdown_table
from wertune.training.batches import batches_per_epoch
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult, TrainingState, train
from wertune.training.workers import ALONE, joined
from wertune.whisper.adapter import add_lora

HERE, WAIT_S = "127.0.0.1", 300.0
CLIPS = 64
BATCHES = (BATCH, TrainConfig().batch_size)  # the demo's, and that of a project that says nothing
ONE, TWO, APART = "one worker", "two workers", "two that share nothing"
# Of each way its workers: rank, size, and their part of the batch.
WAYS = {ONE: [(0, 1, 1)], TWO: [(0, 2, 1), (1, 2, 1)], APART: [(0, 1, 2)] * 2}


def section(prepared: Prepared) -> Section:
    """Clips a second of the second epoch of a trial, round by round."""
    few = fewer_clips(prepared, train=CLIPS, validation=BATCH)
    found: dict[str, dict[str, list[float]]] = {f"batches of {batch}": {way: [] for way in WAYS} for batch in BATCHES}
    sent: list[int] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for _, batch, (way, workers) in product(range(ROUNDS), BATCHES, WAYS.items()):
            place = tempfile.mktemp(prefix="wertune-")
            going = [pool.submit(_epoch, few, place, rank, size, batch // part) for rank, size, part in workers]
            each = [future.result() for future in going]
            rates = [rate for rate, _ in each]
            found[f"batches of {batch}"][way].append(sum(rates) if way == APART else min(rates))
            sent += [bytes_ for _, bytes_ in each if bytes_]
    return Section("workers", {"clips_per_s": found, "sent_bytes_an_update": max(sent)}, _in_words(found, max(sent)))


def _epoch(prepared: Prepared, place: str, rank: int, size: int, batch: int) -> tuple[float, int]:
    """Clips a second of a trial's second epoch, and how many bytes this worker has sent an update."""
    torch.set_num_threads(1)
    counts = {"train.batch_size": batch, "train.epochs": 2, "train.nonspeech_ratio": 0, "train.replay_ratio": 0}
    values = {"lora": PLAIN_LORA.model_dump(), **counts}
    config = with_overrides(prepared.project.trial, values, "bench")
    results: list[EpochResult] = []

    def on_epoch(state: TrainingState, is_best: bool) -> None:
        results[:] = state.results

    alone = size == 1
    store = None if alone else dist.FileStore(place, size)  # type: ignore[attr-defined]
    with nullcontext(ALONE) if alone else joined(rank, size, store, WAIT_S, HERE) as workers:
        with prepared.resident_whisper(config.quantization) as base:
            whisper = add_lora(base, config.lora, config.seed)
            data = prepared.training_data(config.context, whisper.mel_bins, workers)
            train(config, whisper, data, Objective(0.0, 0.0, 0.0), on_epoch, workers=workers)
        updates = config.train.epochs * batches_per_epoch(config, data)
        return results[-1].clips_per_s, workers.sent_bytes // updates


def _in_words(found: Mapping[str, Mapping[str, Sequence[float]]], sent_bytes: int) -> str:
    lines = [["", "", "clips/s", "times one worker (least to most)"]]
    for batches, by_way in found.items():
        for way, rates in by_way.items():
            times = [rate / one for rate, one in zip(rates, by_way[ONE], strict=True)]
            told = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
            lines.append([batches, way, rounded(statistics.median(rates)), told])
    return (
        f"Several workers on one trial, each with one thread: a trial's second epoch of {CLIPS} clips. Two that share "
        "nothing, each with a trial of its own of half the batch, are what the machine gives two processes: what two "
        "workers lack of it they wait for each other. That these are not twice as fast as one, either, is the "
        "machine, and what a step costs whatever its clips: the base's 8-bit weights are unpacked in each. Each worker "
        f"sends {sent_bytes / 2**20:.2f} MB an update, the adapters' gradients in one buffer:"
        f"\n\n{markdown_table(lines)}"
    )
