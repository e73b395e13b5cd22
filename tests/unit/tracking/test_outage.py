"""Which faults are waited for, and how long."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST

import wertune.tracking.outage
from wergate.errors import RegistryError
from wergate.registry.store import _answer
from wertune.base.errors import ConfigError, TrackingError
from wertune.tracking.opening import fail_project_run, kept_text
from wertune.tracking.outage import is_temporary, no_answer, patiently, proxy_remedy, quick_requests, reason
from wertune.tracking.versions import registered_version


def _rest(code: str, message: str = "") -> RestException:
    return RestException({"error_code": code, "message": message})


def _upload(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("upload", response=response)


def _database(fault: type[sqlalchemy.exc.DBAPIError]) -> MlflowException:
    return MlflowException(fault("INSERT", {}, Exception("of the driver")), BAD_REQUEST)


TEMPORARY = [
    MlflowException("API request to http://host failed with exception Connection refused"),
    MlflowException("API request to endpoint /x failed with error code 404 != 200. Response body: 'no backend'"),
    _rest("TEMPORARILY_UNAVAILABLE"),
    _rest("REQUEST_LIMIT_EXCEEDED"),
    _rest("UNAUTHENTICATED"),
    _rest("PERMISSION_DENIED"),
    _database(sqlalchemy.exc.InternalError),
    _database(sqlalchemy.exc.InterfaceError),
    sqlalchemy.exc.OperationalError("SELECT", {}, Exception("server closed the connection")),
    MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, …", BAD_REQUEST),
    MlflowException('duplicate key value violates unique constraint "dataset_pk"', BAD_REQUEST),
    _upload(401),
    _upload(503),
    PermissionError(13, "Permission denied"),
    ConnectionResetError(),
]
PERMANENT = [
    _rest("INVALID_PARAMETER_VALUE"),
    _rest("RESOURCE_DOES_NOT_EXIST"),
    MlflowException("API request to endpoint /x failed with error code 413 != 200. Response body: ''"),
    _database(sqlalchemy.exc.DataError),
    _upload(400),
    TypeError("a mistake of ours"),
]


@pytest.mark.parametrize("error", TEMPORARY, ids=repr)
def test_what_an_operator_can_mend_is_waited_for(error: Exception) -> None:
    assert is_temporary(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_what_will_never_go_is_not(error: Exception) -> None:
    assert not is_temporary(error)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that only sleeping moves."""
    clock = SimpleNamespace(now_s=0.0, naps_s=[])

    def sleep(seconds: float) -> None:
        clock.naps_s.append(seconds)
        clock.now_s += seconds

    monkeypatch.setattr(wertune.tracking.outage, "time", SimpleNamespace(monotonic=lambda: clock.now_s, sleep=sleep))
    return clock


def test_a_write_is_repeated_with_growing_pauses_and_the_outage_told_once(clock: SimpleNamespace) -> None:
    lines: list[str] = []

    def write() -> str:
        if clock.now_s < 100:
            raise ConnectionRefusedError(111, "Connection refused")
        return "written"

    assert patiently(write, "the store", lines.append) == "written"
    assert clock.naps_s[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(clock.naps_s) == 30.0
    assert len(lines) == 2
    assert lines[0].startswith("the store takes nothing (Connection refused)")
    assert lines[1] == "the store answers again"


def test_patience_ends_after_its_time_with_a_remedy(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_TRACKING_PATIENCE_S", "45")

    def refused() -> None:
        raise _rest("UNAUTHENTICATED", "You are not authenticated")

    with pytest.raises(TrackingError, match=r"not authenticated; set MLFLOW_TRACKING_USERNAME .* --resume"):
        patiently(refused, "the store", lambda _: None)
    assert clock.now_s == pytest.approx(45)
    monkeypatch.setenv("WERTUNE_TRACKING_PATIENCE_S", "long")
    with pytest.raises(ConfigError, match="WERTUNE_TRACKING_PATIENCE_S is 'long'"):
        patiently(refused, "the store")


def test_what_the_store_refuses_for_good_is_tried_once(clock: SimpleNamespace) -> None:
    def bad() -> None:
        raise _rest("INVALID_PARAMETER_VALUE", "Changing param values is not allowed")

    with pytest.raises(TrackingError, match=r"refused a write for good.*Changing param"):
        patiently(bad, "the store")
    assert clock.naps_s == []


def test_requests_are_quick_while_anyone_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with quick_requests():
        with quick_requests():
            pass
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_run_of_a_store_that_does_not_answer_ends_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    monkeypatch.setattr("wertune.tracking.opening.tracking_uri", lambda: "http://127.0.0.1:1")
    fail_project_run("epochs is 0")
    assert capsys.readouterr().out.startswith(
        "run 0123 stays open: the tracking store http://127.0.0.1:1 takes nothing"
    )


def test_a_driver_that_is_missing_is_named_before_a_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")

    monkeypatch.setattr("wertune.tracking.opening.read_text", without)
    with pytest.raises(TrackingError, match=r"its driver psycopg2 is missing; .*postgresql\+psycopg2://"):
        kept_text("run", "name")


def test_a_model_that_is_not_registered_is_told_with_a_remedy() -> None:
    def get_registered_model(name: str) -> None:
        raise MlflowException(f"Registered Model with name={name} not found", RESOURCE_DOES_NOT_EXIST)

    with pytest.raises(RegistryError, match="name=t3 not found; train or tune first, or name another --model"):
        _answer(get_registered_model, "t3")


def test_a_server_that_takes_connections_and_is_silent_is_told_in_three_words() -> None:
    told = (
        "HTTPConnectionPool(host='mlflow', port=5000): Max retries exceeded with url: /api (Caused by ReadTimeoutError("
    )
    told += "\"HTTPConnectionPool(host='mlflow', port=5000): Read timed out. (read timeout=30)\"))"
    assert reason(MlflowException(told)) == "Read timed out"


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as caught:
        MlflowClient("http://127.0.0.1:9").get_registered_model("sg_gov")
    assert no_answer(caught.value) == (
        "no MLflow server answers at http://127.0.0.1:9; start it, or mend MLFLOW_TRACKING_URI"
    )
    assert no_answer(MlflowException("Registered Model with name=sg_gov not found")) is None
    with pytest.raises(TrackingError, match=r"^no MLflow server answers at http://127.0.0.1:9; start it"):
        registered_version("http://127.0.0.1:9", "models:/sg_gov/1")


def test_a_full_temporary_folder_is_not_the_stores_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert "temporary" not in reason(full)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    assert reason(full) == f"no space left in {tmp_path}, where temporary files go; free some, or set TMPDIR"


def test_a_proxy_that_stands_before_the_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_remedy("http://127.0.0.1:5000") == proxy_remedy("sqlite:///mlflow.db") == ""
    monkeypatch.setenv("http_proxy", "http://ann:secret@proxy:9")
    told = proxy_remedy("http://127.0.0.1:5000")
    assert told.endswith("add 127.0.0.1 to NO_PROXY, or mend the proxy")
    assert "secret" not in told
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert proxy_remedy("http://127.0.0.1:5000") == ""
