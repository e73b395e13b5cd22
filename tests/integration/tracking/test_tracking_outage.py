"""What MLflow holds after its server went away under a writer, or the writer under it; and who may write at all."""

import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.places import TRIALS
from tests.support.processes import free_port, running
from tests.trials import journal_worker

from wertune.base.errors import TrackingError
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.opening import check_artifacts
from wertune.tracking.runs import RunRef, children, create_run

BASIC_AUTH = "basic-auth"
USER, PASSWORD, TOKEN = "ann", "p@ss/w:rd and more", "t0ken-of-ann"


@dataclass(frozen=True)
class Server:
    """A real `mlflow server` on SQLite, to be started, killed and started again."""

    folder: Path
    port: int
    app: str
    tls: str = ""

    @property
    def uri(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What its process and a writer's need to find modules and passwords."""
        return {
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(TRIALS), os.environ.get("PYTHONPATH", "")]),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "GUARD_TOKEN": TOKEN,
        }

    def up(self) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        # `mlflow server` finds other applications among the entry points of what is installed.
        metadata = self.folder / "guarded-1.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: guarded\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text("[mlflow.app]\nguarded = guarded_app:app\n")
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--app-name", self.app]
        command += [
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        command += ["--uvicorn-opts", f"--timeout-graceful-shutdown 1 {self.tls}"]
        return _in_folder(self.folder, command, self.port, self.environment)


@contextmanager
def _in_folder(
    folder: Path, command: list[str], port: int, environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """basic-auth keeps its users in the working directory."""
    with running(["env", "-C", str(folder), *command], port, **environment) as process:
        yield process


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process shows the password."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture(params=["guarded", BASIC_AUTH])
def server(request: pytest.FixtureRequest, tmp_path: Path, lay_store: Callable[[Path], str]) -> Server:
    if request.param == BASIC_AUTH and importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("MLflow's basic-auth needs Flask-WTF: pip install mlflow[auth]")
    lay_store(tmp_path)
    return Server(tmp_path, free_port(), request.param)


def _parent(uri: str) -> RunRef:
    client = MlflowClient(uri)
    return RunRef(uri, client.create_run(client.create_experiment("outage")).info.run_id)


def _steps(server: Server, run_id: str, metric: str) -> list[int]:
    """In the order in which the server wrote them down; MLflow gives a history by the clock."""
    query = "SELECT step FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY rowid"
    with closing(sqlite3.connect(server.folder / "mlflow.db")) as database:
        return [step for (step,) in database.execute(query, (run_id, metric))]


@pytest.mark.usefixtures("known")
def test_a_server_that_is_killed_and_comes_back_has_all_in_order_and_once(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    with server.up() as process:
        parent = _parent(server.uri)
        check_artifacts(parent)
        assert parent.client.list_artifacts(parent.run_id) == []
        journal = JournalWriter(tmp_path / "journal", parent, say=lines.append)
        for key in ("a", "b"):
            journal.open(key, f"trial {key}", {"wertune.point": "{}"})
        for epoch in range(1, 100):
            journal.log("a", metrics=[(epoch, {"val_wer": 1 / epoch})])
        journal.flush(60)
        os.killpg(process.pid, signal.SIGKILL)
    for epoch in range(100, 400):
        for key in ("a", "b"):
            journal.log(key, metrics=[(epoch, {"val_wer": 1 / epoch})])
    journal.artifacts("a", {"outage.txt": b"said while it was down"}, "notes")
    journal.log("a", status="FINISHED")
    with pytest.raises(TrackingError, match=r"602 operations of run .* nothing is lost"):
        journal.flush(3)
    with server.up():
        journal.flush(120)
        journal.close()
        found = {run.info.run_name: run for run in children(parent)}
        assert {name: run.info.status for name, run in found.items()} == {"trial a": "FINISHED", "trial b": "RUNNING"}
        assert _steps(server, found["trial a"].info.run_id, "val_wer") == list(range(1, 400))
        assert _steps(server, found["trial b"].info.run_id, "val_wer") == list(range(100, 400))
        artifacts = parent.client.list_artifacts(found["trial a"].info.run_id, "notes")
        assert [artifact.path for artifact in artifacts] == ["notes/outage.txt"]
    assert ["takes nothing (Connection refused)" in line or "answers again" in line for line in lines] == [True, True]
    assert not (tmp_path / "journal" / "refused.jsonl").exists()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, lay_store: Callable[[Path], str]) -> Iterator[Server]:
    """A guarded server with a certificate of its own, which it asks of its clients too."""
    openssl = shutil.which("openssl") or pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("secured")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True)
    (folder / "client.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    tls = f"--ssl-keyfile {key} --ssl-certfile {certificate} --ssl-ca-certs {certificate} --ssl-cert-reqs 2"
    lay_store(folder)
    server = Server(folder, free_port(), "guarded", tls)
    with server.up():
        yield server


@pytest.mark.usefixtures("known")
def test_a_second_driver_takes_over_from_one_that_was_killed(
    secured: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(secured.folder / "certificate.pem"))
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(secured.folder / "client.pem"))
    parent = _parent(secured.uri)
    command = [sys.executable, str(TRIALS / "journal_worker.py"), str(tmp_path), parent.run_id]
    environment = os.environ | {"MLFLOW_TRACKING_URI": secured.uri}
    for last in (25, 90):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as driver:
            assert driver.stdout is not None
            for _ in range(last):
                assert driver.stdout.readline()
            driver.kill()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    runs = children(parent)
    assert sorted(run.info.run_name for run in runs) == ["trial one", "trial two"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"lora_r": "8"}
        for metric in ("val_wer", "loss"):
            assert _steps(secured, run.info.run_id, metric) == list(range(1, journal_worker.EPOCHS + 1))
        weights = parent.client.download_artifacts(run.info.run_id, "adapter/weights")
        assert Path(weights).read_text() == str(journal_worker.EPOCHS)
    assert not list((tmp_path / "journal" / "files").iterdir())


OPEN = """
import logging; logging.basicConfig(level=logging.DEBUG)
from wertune.base.errors import TrackingError
from wertune.tracking.opening import check_artifacts, open_run
try:
    with open_run("demo", "a run") as run:
        check_artifacts(run)
        run.metrics({"val_wer": 0.1})
        print(run, "wrote to", run.tracking_uri)
except TrackingError as error:
    print("refused:", error)
"""


def test_credentials_reach_the_server_and_nothing_else(secured: Server, forks: Forks) -> None:
    certificate = str(secured.folder / "certificate.pem")
    password = quote(PASSWORD, safe="")
    whole = secured.uri.replace("://", f"://{USER}:{password}@")
    shown = {"MLFLOW_TRACKING_CLIENT_CERT_PATH": str(secured.folder / "client.pem")}
    pinned = {"MLFLOW_TRACKING_SERVER_CERT_PATH": certificate} | shown

    def written(**environment: str) -> str:
        command = [sys.executable, "-c", OPEN]
        done = forks.run(command, secured.folder, os.environ | environment)
        assert done.returncode == 0, done.stderr
        assert not any(secret in done.stdout + done.stderr for secret in (password, PASSWORD, TOKEN))
        return done.stdout

    ok = f"wrote to {secured.uri}"
    assert ok in written(MLFLOW_TRACKING_URI=whole, **pinned)
    assert ok in written(MLFLOW_TRACKING_URI=secured.uri, MLFLOW_TRACKING_TOKEN=TOKEN, **pinned)
    user = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    assert ok in written(MLFLOW_TRACKING_URI=secured.uri, MLFLOW_TRACKING_INSECURE_TLS="true", **user, **shown)
    unknown = written(MLFLOW_TRACKING_URI=secured.uri, **pinned)
    assert "refused: " in unknown
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN" in unknown
    assert "CertVerificationError" in written(MLFLOW_TRACKING_URI=whole, **shown)  # nobody vouches for it
    assert "refused: " in written(MLFLOW_TRACKING_URI=whole, MLFLOW_TRACKING_SERVER_CERT_PATH=certificate)


def test_an_artifact_place_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    run = create_run(f"sqlite:///{tmp_path / 'mlflow.db'}", "demo", tmp_path / "a-file" / "artifacts")
    with pytest.raises(TrackingError, match=r"a-file/artifacts.* which must be a place .* Not a directory; mend its"):
        check_artifacts(run)
