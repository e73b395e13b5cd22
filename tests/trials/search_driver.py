"""A search in a process of its own, to be killed: no baseline, no final scores. Prints the parent's run id first."""

import argparse
import signal
from pathlib import Path

from wertune.base.config import load_project, with_overrides
from wertune.search.driver import cluster, search
from wertune.search.search_space import AshaConfig, Range, SearchConfig
from wertune.search.study import open_study
from wertune.tracking.runs import RunRef, create_run
from wertune.training.objective import Objective
from wertune.training.prepare import prepare


def main() -> None:
    """Runs or resumes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("tracking")
    parser.add_argument("--resume", default="")
    parser.add_argument("--address", default=None)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--worker-timeout-s", type=float, default=600.0)
    parser.add_argument("--take-over", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    config = SearchConfig(
        trials=given.trials,
        max_concurrent=given.at_once,
        workers_per_trial=given.workers,
        worker_timeout_s=given.worker_timeout_s,
        take_over=given.take_over,
        asha=AshaConfig(grace_epochs=2, reduction_factor=2),
        space={"train.learning_rate": Range(low=1e-4, high=1e-2, log=True)},
    )
    settings = with_overrides(load_project(given.project), {"trial.train.epochs": given.epochs}, "search_driver")
    prepared = prepare(given.project, settings)
    artifacts = given.folder / "mlruns" if given.tracking.startswith("sqlite:") else None
    new = None if given.resume else create_run(given.tracking, "faults", artifacts)
    parent = new or RunRef(given.tracking, given.resume)
    print(f"run {parent.run_id}", flush=True)
    study = open_study(parent.run_id, f"sqlite:///{given.folder / 'optuna.db'}", config, bool(given.resume))
    with cluster(given.address, config):
        search(prepared, config, Objective(0.0, 0.0, 0.0), parent, study, given.folder / "searches" / parent.run_id)
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("Ctrl-C is heard after the search", flush=True)


if __name__ == "__main__":
    main()
