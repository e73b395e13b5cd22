"""How long two workers of one trial take to be ready, the first time and the next: Ray Train's group, and ours.

`python -m tests.trials.ray_train` prints one JSON object, in seconds: from asking for the workers until each has
imported what a trial needs and has the demo's base at hand. Ours stay for the next trial of their places; Ray Train
ends its group's processes with each `fit`.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import ray
from ray.util import placement_group

from wertune.base.config import load_project
from wertune.search.shipping import start_file_server
from wertune.search.worker import Mate, place
from wertune.training.prepare import Prepared, prepare

TIMES = 2


class Ready(Mate):
    """A mate that only loads."""

    def load(self) -> None:
        _load(self._prepared)


def _load(prepared: Prepared) -> None:
    with prepared.resident_whisper("int8"):
        pass


def _loop(given: dict[str, Any]) -> None:
    import wertune.search.worker  # noqa: F401  as ours have imported it

    _load(ray.get(given["prepared"][0]))


def _ray_train(shared: Any) -> float:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    started = time.perf_counter()
    TorchTrainer(
        _loop,
        train_loop_config={"prepared": [shared]},  # in a list, or Ray would put it in
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
        run_config=RunConfig(name="starts"),
    ).fit()
    return time.perf_counter() - started


def _ours(mates: list[Any], group: Any, prepared: Any, files: Any) -> float:
    started = time.perf_counter()
    if not mates:
        mates += [ray.remote(Ready).options(**place(group, rank)).remote(60.0) for rank in (0, 1)]
    ray.get([mate.prepare.remote(prepared, files) for mate in mates])
    ray.get([mate.load.remote() for mate in mates])
    return time.perf_counter() - started


def main() -> None:
    """Both, one after the other."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    folder = Path("projects/sg_gov")
    prepared = prepare(folder, load_project(folder))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    shared, files, mates = ray.put(prepared), start_file_server(prepared), list[Any]()
    theirs = [_ray_train(shared) for _ in range(TIMES)]
    group = placement_group([{"CPU": 1}] * 2)
    ours = [_ours(mates, group, shared, files) for _ in range(TIMES)]
    print(json.dumps({"ray_train_s": theirs, "ours_s": ours}))
    ray.shutdown()


if __name__ == "__main__":
    main()
