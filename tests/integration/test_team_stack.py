"""A team's stack as deploy/compose.yaml has it: sign-in, artifacts through the server, restarts, no leaked secret."""

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tests.support.processes import wait_for
from tests.support.stack import TeamStack, team_stack

from wertune.base.errors import TrackingError
from wertune.search.search_space import Range, SearchConfig
from wertune.search.study import Proposals, open_study
from wertune.search.trial_log import EPOCH, METRIC, NUMBER
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.opening import check_artifacts
from wertune.tracking.runs import children, create_run

# What someone runs on a machine of their own: only MLflow's address and their sign-in are known there.
COLLEAGUE = """
import mlflow
mlflow.set_experiment("sg_gov")
with mlflow.start_run() as run:
    mlflow.log_param("r", 16)
    mlflow.log_metric("val_wer", 0.07)
    mlflow.log_text("all passed", "report.txt")
print(run.info.run_id)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamStack]:
    with team_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="module")
def run_id(stack: TeamStack) -> str:
    """A run that a colleague's process has logged."""
    command = [sys.executable, "-c", COLLEAGUE]
    done = subprocess.run(command, env=stack.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def client(stack: TeamStack, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Signed in as the user of searches."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in stack.sign_in().items():
        monkeypatch.setenv(name, value)
    return MlflowClient(stack.tracking_uri)


def _status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_without_credentials_or_with_wrong_ones_everything_but_health_is_refused(
    stack: TeamStack, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = "api/2.0/mlflow"
    for path in (
        f"{api}/experiments/get?experiment_id=0",
        f"{api}-artifacts/artifacts",
        f"{api}/registered-models/search",
    ):
        assert _status(f"{stack.tracking_uri}/{path}") == 401
    assert _status(f"{stack.tracking_uri}/health") == 200
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    with pytest.raises(MlflowException, match="You are not authenticated"):
        client.search_experiments()


def test_a_request_for_another_host_is_refused(stack: TeamStack) -> None:
    """Ray's nodes say mlflow:5000, which MLflow itself would refuse; a page that rebinds its name says its own."""
    url = f"{stack.tracking_uri}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert _status(url, Host="mlflow:5000") == 401
    assert _status(url, Host="elsewhere.example") == 403


def test_a_run_is_logged_over_http_and_its_artifact_lies_in_the_bucket(
    stack: TeamStack, client: MlflowClient, run_id: str, tmp_path: Path
) -> None:
    run = client.get_run(run_id)
    assert (run.data.params, run.data.metrics) == ({"r": "16"}, {"val_wer": 0.07})
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert [name for name in stack.store.names() if name.endswith(f"{run_id}/artifacts/report.txt")]
    assert Path(client.download_artifacts(run_id, "report.txt", str(tmp_path))).read_text() == "all passed"


def test_a_full_store_refuses_an_artifact_and_takes_it_later(
    stack: TeamStack, client: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.store.refuse_writes()
    try:
        with monkeypatch.context() as once:
            once.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            with pytest.raises(MlflowException):
                client.log_text(run_id, "late", "late.txt")
    finally:
        stack.store.accept_writes()
    client.log_text(run_id, "late", "late.txt")
    assert [name for name in stack.store.names() if name.endswith("late.txt")]


def test_files_wait_for_the_store_while_metrics_go_on(stack: TeamStack, client: MlflowClient, tmp_path: Path) -> None:
    parent = create_run(stack.tracking_uri, "files wait")
    with closing(JournalWriter(tmp_path / "journal", parent)) as journal:
        journal.open("0", "trial 01", {})
        stack.store.refuse_writes()
        try:
            journal.artifacts("0", {"weights": b"weights"}, "adapter")
            journal.log("0", metrics=[(1, {"val_wer": 0.1})])
            wait_for(lambda: [child.data.metrics for child in children(parent)] == [{"val_wer": 0.1}])
            with pytest.raises(TrackingError, match="nothing is lost"):
                journal.flush(1.0)
            with pytest.raises(TrackingError, match="a place that this process can write to"):
                check_artifacts(parent)
        finally:
            stack.store.accept_writes()
        journal.flush(60.0)
    assert [name for name in stack.store.names() if name.endswith("adapter/weights")]


def test_the_dashboard_shows_the_study(stack: TeamStack, client: MlflowClient) -> None:
    optuna.create_study(study_name="shown", storage=stack.study_storage).enqueue_trial({"lora.r": 8})
    with urllib.request.urlopen(f"{stack.dashboard_uri}/api/studies") as response:
        assert "shown" in {found["study_name"] for found in json.load(response)["study_summaries"]}


def test_versions_aliases_and_studies_outlive_a_restart_and_a_crash(
    stack: TeamStack, client: MlflowClient, run_id: str, tmp_path: Path
) -> None:
    client.create_registered_model("sg_gov")
    client.create_model_version("sg_gov", source=f"{client.get_run(run_id).info.artifact_uri}/model", run_id=run_id)
    client.set_registered_model_alias("sg_gov", "production", "1")
    study = optuna.create_study(study_name=run_id, storage=stack.study_storage)
    study.optimize(lambda trial: trial.suggest_float("train.learning_rate", 0, 1), n_trials=2)

    stack.postgres.restart()
    assert client.get_model_version_by_alias("sg_gov", "production").run_id == run_id

    stack.mlflow.kill()
    stack.postgres.kill()
    stack.postgres.start()
    stack.mlflow.start()
    assert int(client.get_model_version_by_alias("sg_gov", "production").version) == 1
    assert Path(client.download_artifacts(run_id, "report.txt", str(tmp_path))).read_text() == "all passed"
    assert len(optuna.load_study(study_name=run_id, storage=stack.study_storage).trials) == 2
    wait_for(stack.dashboard.answers)  # a connection that was cut costs it one request


def test_a_search_waits_for_its_study_while_postgresql_restarts(
    stack: TeamStack, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SearchConfig(trials=3, space={"train.learning_rate": Range(low=1e-4, high=1e-2, log=True)})
    study = open_study("waits", stack.study_storage, config, resume=False)
    proposals = Proposals(study, config, 4)
    proposals.suggest("a")
    stack.postgres.stop()
    later = threading.Timer(3.0, stack.postgres.start)
    later.start()
    proposals.on_trial_result("a", {METRIC: 0.5, EPOCH: 1})
    assert proposals.suggest("b")[NUMBER] == 1
    later.join()
    assert "the study's database takes nothing" in capsys.readouterr().out
    assert [trial.intermediate_values for trial in study.get_trials()] == [{1: 0.5}, {}]


def test_no_secret_stands_in_a_run_a_process_title_or_a_log(
    stack: TeamStack, client: MlflowClient, run_id: str
) -> None:
    run = json.dumps(client.get_run(run_id).to_dictionary())
    titles = [part for service in stack.services for process in service.processes for part in process.cmdline()]
    logs = [service.log.read_text(errors="replace") for service in stack.services]
    assert any("optuna@" in title for title in titles)
    for name, secret in stack.secrets.items():
        if name != "CHECKOUT_OWNER":
            assert not [text for text in (run, *titles, *logs) if secret in text], name
