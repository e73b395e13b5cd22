"""`mlflow run .` as people type it, with the environment that is there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.places import ROOT
from tests.support.shown_commands import commands, project_command
from tests.support.workspace import Workspace


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


@pytest.fixture(scope="module")
def project(make_tiny_workspace: Callable[[str], Workspace]) -> Path:
    workspace = make_tiny_workspace("sg_gov")  # by whose name the policy is found where `mlflow run` runs
    workspace.write_search({"space": {"train.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}})
    return workspace.project


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("gpus_per_trial=7", "gpus_per_trial is 7"),  # once wertune has taken up the run, and Ray has started
        ("no_such_parameter=1", "no such option"),  # before that
    ],
)
def test_a_refused_parameter_fails_the_run_with_the_reason(
    forks: Forks,
    tmp_path: Path,
    lay_store: Callable[[Path], str],
    project: Path,
    parameter: str,
    reason: str,
) -> None:
    lay_store(tmp_path)
    done, run = _mlflow_run(forks, tmp_path, "-e", "tune", "-P", f"project={project}", "-P", parameter)
    assert done.returncode != 0
    assert run.info.status == "FAILED"
    assert reason.lower() in run.data.tags["mlflow.note.content"].lower()
    assert "Traceback" not in done.stdout


def test_the_command_that_mlflow_gives_tells_its_run_what_was_refused(
    forks: Forks, tmp_path: Path, lay_store: Callable[[Path], str]
) -> None:
    """The words that `mlflow run` makes of an entry point and the run that it would have begun, without MLflow."""
    client = MlflowClient(lay_store(tmp_path))
    run_id = client.create_run("0").info.run_id
    (words,) = commands(project_command("validate", {"project": "nowhere"}))
    environment = os.environ | {"MLFLOW_TRACKING_URI": client.tracking_uri, "MLFLOW_RUN_ID": run_id}
    done = forks.run([sys.executable, *words[1:]], ROOT, environment)
    assert done.returncode == 1
    assert "nowhere/project.yaml does not exist" in client.get_run(run_id).data.tags["mlflow.note.content"]
    assert "Traceback" not in done.stderr
