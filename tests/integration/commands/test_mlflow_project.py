"""`mlflow run .` as people type it, with the environment that is there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.places import ROOT


def _mlflow_run(forks: Forks, store: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """`mlflow run` from the project's root with a store of its own; the process and the run it made."""
    uri = f"sqlite:///{store / 'mlflow.db'}"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", *arguments]
    done = forks.run(command, store, environment)
    runs = MlflowClient(uri).search_runs(["0"])
    return done, runs[0]


def test_validate_passes_on_the_demo(forks: Forks, tmp_path: Path) -> None:
    done, run = _mlflow_run(forks, tmp_path, "-e", "validate")
    assert done.returncode == 0, done.stderr
    assert "train: " in done.stdout
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("entry_point", "parameter", "reason"),
    [
        ("tune", "trials=abc", "trials is 'abc'"),
        ("tune", "set=lora.rank=8", "lora.rank is not a key of the configuration"),
        ("tune", "gpus_per_trial=7", "gpus_per_trial is 7"),
        ("train", "epochs=0", "train.epochs is 0"),
        ("validate", "project=nowhere", "nowhere/project.yaml does not exist"),
        ("tune", "no_such_parameter=1", "no such option"),
    ],
)
def test_a_refused_parameter_fails_the_run_with_the_reason(
    forks: Forks, tmp_path: Path, entry_point: str, parameter: str, reason: str
) -> None:
    done, run = _mlflow_run(forks, tmp_path, "-e", entry_point, "-P", parameter)
    assert done.returncode != 0
    assert run.info.status == "FAILED"
    assert reason.lower() in run.data.tags["mlflow.note.content"].lower()
    assert "Traceback" not in done.stdout
