"""The measurement of a tracking store writes what it says it writes."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from wertune.bench import writes


def test_every_epoch_of_every_trial_and_each_single_write_reach_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "TRIALS", 2)
    monkeypatch.setattr(writes, "EPOCHS", 3)
    monkeypatch.setattr(writes, "SINGLE_WRITES", 4)
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    measured = writes.main(["--tracking", uri])
    assert measured["store"] == uri
    assert min(measured["said_per_s"], measured["replayed_per_s"], measured["single_per_s"]) > 0
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name.startswith("writes ")]
    runs = client.search_runs([experiment.experiment_id])
    steps = sorted(len(client.get_metric_history(run.info.run_id, "metric_9")) for run in runs)
    assert steps == [3, 3, 4]
