"""A run knows the commit of the code, whichever script started it."""

import subprocess

import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from tests.support.places import ROOT

import wertune.tracking.opening
from wertune.tracking.opening import open_run


def _commit(uri: str, run_id: str) -> str:
    return str(MlflowClient(uri).get_run(run_id).data.tags.get(MLFLOW_GIT_COMMIT, ""))


def test_the_commit_is_that_of_the_code_where_the_script_lies_in_an_ignored_folder(mlflow_store: str) -> None:
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("the tests run outside a git checkout")
    with open_run("demo", "a run") as run:
        assert _commit(mlflow_store, run.run_id) == head.stdout.strip()


def test_what_is_known_already_stays(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run("demo", "a run") as run:
        run.tags({MLFLOW_GIT_COMMIT: "of mlflow run"})
    monkeypatch.setattr(wertune.tracking.opening, "get_git_commit", lambda path: "another")
    with open_run("demo", "a run", resume=run.run_id):
        assert _commit(mlflow_store, run.run_id) == "of mlflow run"


def test_code_outside_a_checkout_has_none(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wertune.tracking.opening, "get_git_commit", lambda path: None)
    monkeypatch.setattr("mlflow.tracking.context.git_context._get_git_commit", lambda path: None, raising=False)
    with open_run("demo", "a run") as run:
        assert _commit(mlflow_store, run.run_id) == ""
