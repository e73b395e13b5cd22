"""Commands that begin at once on a tracking store that nobody has used yet."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from wertune.tracking.opening import open_run

AT_ONCE = 3
PATIENCE_S = 120


def _begin(barrier: Any, number: int) -> None:
    barrier.wait(PATIENCE_S)
    with open_run("counter", f"train {number}") as run:
        barrier.wait(PATIENCE_S)
        run.dataset("train", "0123456789abcdef", "train.jsonl", "training", "{}")


def test_commands_that_begin_at_once_all_get_their_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes the tables of a file that has none, and a data set that a store lacks, in each that looks for it."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    barrier = context.Barrier(AT_ONCE)
    started = [context.Process(target=_begin, args=(barrier, number)) for number in range(AT_ONCE)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * AT_ONCE
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("counter").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [len(run.inputs.dataset_inputs) for run in runs] == [1] * AT_ONCE
