"""A search in a process of its own, to be killed: `python search_driver.py FOLDER PROJECT RUN_ID|new [TRIALS]`.

No baseline, no final scores: what is left is what a fault can hit. Prints the parent's run id first.
"""

import sys
from pathlib import Path

from wertune.config import with_overrides
from wertune.prepare import load_project, prepare
from wertune.search_space import AshaConfig, Range, SearchConfig
from wertune.tracking import RunRef, create_run
from wertune.train import Objective
from wertune.tune import SearchPlace, cluster, search


def main() -> None:
    """Runs or resumes it."""
    folder, project, run_id = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    config = SearchConfig(
        trials=int(sys.argv[4]) if len(sys.argv) > 4 else 3,
        max_concurrent=1,
        asha=AshaConfig(grace_epochs=1, reduction_factor=2),
        space={"train.learning_rate": Range(low=1e-4, high=1e-2, log=True)},
    )
    settings = with_overrides(load_project(project), {"trial.train.epochs": 3}, "search_driver")
    prepared = prepare(project, settings)
    tracking = f"sqlite:///{folder / 'mlflow.db'}"
    parent = create_run(tracking, "faults", folder / "mlruns") if run_id == "new" else RunRef(tracking, run_id)
    print(f"run {parent.run_id}", flush=True)
    place = SearchPlace(folder / "searches" / parent.run_id, f"sqlite:///{folder / 'optuna.db'}")
    with cluster(None, config):
        search(prepared, config, Objective(0.0, 0.0, 0.0), parent, place, resume=run_id != "new")


if __name__ == "__main__":
    main()
