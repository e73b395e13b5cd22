"""From the scheduler's decision to the first training step, in a Ray worker that must start and in one that has run."""

import logging
from importlib import import_module
from typing import Any

from wertune.bench.clips import ROUNDS
from wertune.bench.rows import Row, Section, timed
from wertune.training.batches import training_batches
from wertune.training.prepare import Prepared
from wertune.whisper.adapter import add_lora


def section(prepared: Prepared) -> Section:
    """Cold: an actor is asked for and starts a process, imports, loads the base. Warm: the same actor's next trial."""
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        actor = ray.remote(num_cpus=1)(Worker)
        shared = ray.put(prepared)
        pairs = [_cold_and_warm(actor, shared) for _ in range(ROUNDS)]
    finally:
        ray.shutdown()
    row = Row.of_pairs("start of a trial: cold worker, warm one", "s", pairs)
    return Section("start_up_s", pairs, TEXT, (row,))


TEXT = (
    "The start of a trial is from the scheduler's decision (an actor of one core is asked for, or called again) to its "
    "first batch: the process, what a search's worker imports, the 8-bit base, adapters, data. Features are on disk in "
    "both. A worker that has run a trial keeps process and base (`reuse_actors`); what is left is mostly PEFT putting "
    "its layers in. Not in it: what Ray Tune and MLflow say to one another between two trials."
)


def _cold_and_warm(actor: Any, shared: Any) -> tuple[float, float]:
    import ray

    workers: list[Any] = []

    def begin() -> None:
        workers.append(actor.remote())
        ray.get(workers[0].first_batch.remote(shared))

    cold = timed(begin)
    ray.get(workers[0].first_batch.remote(shared))  # the second is slower than those that follow
    warm = timed(lambda: ray.get(workers[0].first_batch.remote(shared)))
    ray.kill(workers[0])
    return cold, warm


class Worker:
    """What Ray Tune starts for trials, as far as their first step."""

    def __init__(self) -> None:
        import_module("wertune.search.worker")  # where a search's worker finds what it must run

    def first_batch(self, prepared: Prepared) -> int:
        """What a trial does before its first step: base, adapters, data, first batch; returns the batch's size."""
        config = prepared.project.trial
        with prepared.resident_whisper(config.quantization) as base:
            whisper = add_lora(base, config.lora, config.seed)
            data = prepared.training_data(config.context, whisper.mel_bins)
            return next(training_batches(config, whisper, data, epoch=1)).size
