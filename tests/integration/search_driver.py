"""A search in a process of its own, to be killed: no baseline, no final scores. Prints the parent's run id first."""

import argparse
from pathlib import Path

from wertune.config import with_overrides
from wertune.prepare import load_project, prepare
from wertune.search_space import AshaConfig, Range, SearchConfig
from wertune.tracking import RunRef, create_run
from wertune.train import Objective
from wertune.tune import SearchPlace, cluster, search


def main() -> None:
    """Runs or resumes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("--resume", default="")
    parser.add_argument("--address", default=None)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    config = SearchConfig(
        trials=given.trials,
        max_concurrent=given.at_once,
        asha=AshaConfig(grace_epochs=2, reduction_factor=2),
        space={"train.learning_rate": Range(low=1e-4, high=1e-2, log=True)},
    )
    settings = with_overrides(load_project(given.project), {"trial.train.epochs": 3}, "search_driver")
    prepared = prepare(given.project, settings)
    tracking = f"sqlite:///{given.folder / 'mlflow.db'}"
    new = None if given.resume else create_run(tracking, "faults", given.folder / "mlruns")
    parent = new or RunRef(tracking, given.resume)
    print(f"run {parent.run_id}", flush=True)
    place = SearchPlace(given.folder / "searches" / parent.run_id, f"sqlite:///{given.folder / 'optuna.db'}")
    with cluster(given.address, config):
        search(prepared, config, Objective(0.0, 0.0, 0.0), parent, place, resume=bool(given.resume))


if __name__ == "__main__":
    main()
