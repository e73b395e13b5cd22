"""A search at scale without the training: the real driver, scheduler and log, trials that only sleep and report.

`python -m wertune.bench.scale --trials 1000 --gpus 64 --epoch-s 60` prints one JSON object; see docs/scaling.md.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ray

from wertune.base.contract import BEST_OBJECTIVE
from wertune.search.checkpoints import CheckpointStore
from wertune.search.driver import RAY_SETTINGS, fit
from wertune.search.search_space import AshaConfig, Range, SearchConfig
from wertune.search.study import finished, open_study
from wertune.search.trial_runs import TrialRuns
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.outage import patience_s
from wertune.tracking.runs import children, create_run

EPOCHS = 8
METRICS_AN_EPOCH = 16


def simulate(
    trials: int, gpus: int, epoch_s: float, curves: Sequence[Sequence[float]], tracking: str
) -> dict[str, float]:
    """What a search of `trials` took, whose learning curves are drawn from recorded ones, as many at once as GPUs.

    `start_up_s` is until the first trial began: on a machine with few cores most of it are imports of the workers.
    `busy_share` is the share of all GPUs' time since then in which a trial slept as if it trained.
    """
    config = SearchConfig(
        trials=trials,
        cpus_per_trial=1,
        gpus_per_trial=1,
        asha=AshaConfig(grace_epochs=1, reduction_factor=2),
        space={name: Range(low=1e-4, high=1e-2, log=True) for name in DIMENSIONS},
    )
    with tempfile.TemporaryDirectory(prefix="wertune-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        store, place = (tracking, None) if tracking else (f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
        parent = create_run(store, f"scale {folder.name}", place)
        study = open_study(parent.run_id, f"sqlite:///{folder / 'optuna.db'}", config, resume=False)
        with closing(JournalWriter(folder / "journal", parent)) as journal:
            began, started = datetime.now(), time.perf_counter()
            runs_of_trials = TrialRuns(journal, CheckpointStore(folder / "trials"), EPOCHS)
            fit(_stub(curves, epoch_s), config, study, runs_of_trials, folder)
            wall_s = time.perf_counter() - started
            journal.flush(patience_s())
            flush_s = time.perf_counter() - started - wall_s
        ends = [(trial.datetime_complete, max(trial.intermediate_values, default=0)) for trial in finished(study)]
        epochs = sum(count for _, count in ends)
        first = min(end - timedelta(seconds=epoch_s * count) for end, count in ends if end is not None)
        start_up_s = (first - began).total_seconds()
        runs = len(children(parent))
    asked = {"trials": trials, "gpus": gpus, "epoch_s": epoch_s, "epochs": epochs}
    took = {"start_up_s": start_up_s, "wall_s": wall_s, "flush_s": flush_s}
    per_s = epochs / (wall_s - start_up_s)
    return asked | took | {"busy_share": per_s * epoch_s / gpus, "epochs_per_s": per_s, "runs": runs}


DIMENSIONS = ("train.learning_rate", "train.weight_decay", "lora.dropout", "lora.strength", "train.replay_ratio")


def _stub(curves: Sequence[Sequence[float]], epoch_s: float) -> Callable[[dict[str, Any]], None]:
    """A trial that sleeps; nested, so that it travels by value and its workers import nothing heavy."""
    epochs, metrics = EPOCHS, METRICS_AN_EPOCH

    def trial(proposal: dict[str, Any]) -> None:
        import json
        import time

        import numpy as np
        from ray import tune

        draw = np.random.default_rng(proposal["number"])
        curve = curves[int(draw.integers(len(curves)))]
        worse = 1 + draw.gamma(2.0, 0.25)
        best = float("inf")
        for epoch in range(1, epochs + 1):
            time.sleep(epoch_s)
            value = worse * curve[min(epoch, len(curve)) - 1]
            best = min(best, value)
            logged = {f"metric_{i}": value for i in range(metrics)} | {BEST_OBJECTIVE: best}
            tune.report(
                {BEST_OBJECTIVE: best, "epoch": epoch, "val_wer": value, "clips_per_s": 1.0}
                | {"log": json.dumps({"params": {}, "tags": {}, "metrics": [[epoch, logged]]})}
            )

    return trial


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=64, help="simulated: Ray is told that there are so many")
    parser.add_argument("--epoch-s", type=float, default=60.0, help="what an epoch sleeps")
    parser.add_argument("--tracking", default="", help="an MLflow server or database; empty: SQLite")
    parser.add_argument("--curves", type=Path, default=Path("docs/learning_curves.json"))
    given = parser.parse_args()
    curves = json.loads(given.curves.read_text(encoding="utf-8"))["curves"]

    os.environ |= RAY_SETTINGS
    ray.init("local", num_gpus=given.gpus, num_cpus=given.gpus, include_dashboard=False, log_to_driver=False)
    print(json.dumps(simulate(given.trials, given.gpus, given.epoch_s, curves, given.tracking), indent=1))


if __name__ == "__main__":
    main()
