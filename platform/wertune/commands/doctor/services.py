"""Checks of what answers over a connection: MLflow's tracking server and its artifacts, and Ray."""

import os
import re
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from wertune.base.machine import existing
from wertune.commands.doctor import Check, Finding, Site, fail, ok
from wertune.tracking.credentials import without_password
from wertune.tracking.outage import driver_remedy
from wertune.tracking.runs import tracking_uri

CONNECT_S = 5.0
# MLflow would wait for minutes.
QUICKLY = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(CONNECT_S)), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
# Where `ray start` leaves the address that `auto` stands for.
RAY_CURRENT_CLUSTER = Path("/tmp/ray/ray_current_cluster")
RAY_PORT = 6379


def tracking(site: Site) -> Finding:
    """The store answers and lets us in; a SQLite file that is not there yet is not made."""
    uri = tracking_uri()
    shown = without_password(uri)
    if (new := _new_sqlite_file(uri)) is not None:
        if not os.access(existing(new.parent), os.W_OK):
            return fail("tracking", f"{shown} cannot be made: {new.parent}", "run from a folder that you can write to")
        return ok("tracking", f"{shown}, made by the first run")
    from mlflow.tracking import MlflowClient

    try:
        with patch.dict(os.environ, QUICKLY):
            MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, SQLAlchemy's, Alembic's
        problem = _first_line(error).replace(uri, shown)
        return fail("tracking", f"{shown}: {problem}", _tracking_remedy(error))
    return ok("tracking", shown)


def artifacts(site: Site) -> Finding:
    """Where the runs of the default experiment keep their files can be listed, or written where it is a folder."""
    if _new_sqlite_file(uri := tracking_uri()) is not None:
        return ok("artifacts", f"{Path.cwd() / 'mlruns'}, made by the first run")
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracking import MlflowClient

    try:
        with patch.dict(os.environ, QUICKLY):
            location = MlflowClient(uri).search_experiments(max_results=1)[0].artifact_location
            parts = urlsplit(location)
            folder = Path(parts.path) if parts.scheme in ("", "file") else None
            if folder is None:
                get_artifact_repository(location, tracking_uri=uri).list_artifacts()
    except Exception as error:  # each store has errors of its own: MLflow's, boto's, requests', Azure's
        remedy = "check the store's credentials in this shell (AWS_…, MLFLOW_S3_ENDPOINT_URL), and the server's own"
        return fail("artifacts", _first_line(error).replace(uri, without_password(uri)), remedy)
    if folder is not None and not os.access(existing(folder), os.W_OK):
        remedy = "give yourself the right to write there, or start the server with `--serve-artifacts`"
        return fail("artifacts", f"{folder} cannot be written", remedy)
    return ok("artifacts", str(folder or without_password(location)))


def ray_cluster(site: Site) -> Finding:
    """Ray is installed, and something listens at the address where one is given."""
    try:
        found = f"Ray {version('ray')}"
    except PackageNotFoundError:
        return fail("Ray", "not installed", "pip install 'ray[tune]==2.60.0'")
    address = site.ray_address or os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return ok("Ray", f"{found}, started on this machine by `tune`")
    remedy = "start one with `ray start --head`, open its port to this machine, or leave the address empty"
    if address == "auto":
        if not RAY_CURRENT_CLUSTER.exists():
            return fail("Ray", f"{found}; no cluster was started on this machine, which `auto` means", remedy)
        address = RAY_CURRENT_CLUSTER.read_text().strip()
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection((place.hostname or "", place.port or RAY_PORT), CONNECT_S):
            return ok("Ray", f"{found}, {address} answers")
    except (OSError, ValueError) as error:
        return fail("Ray", f"{found}; nothing answers at {address}: {error}", remedy)


def _new_sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store that does not exist yet."""
    prefix = "sqlite:///"
    file = Path(uri.removeprefix(prefix))
    return file if uri.startswith(prefix) and not file.exists() else None


def _tracking_remedy(error: Exception) -> str:
    problem = str(error)
    if isinstance(error, ModuleNotFoundError):
        return driver_remedy(error)
    if re.search(r"\b40[13]\b", problem) or "authenticat" in problem.lower():  # a port may hold these digits, too
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if "schema" in problem:
        return "bring the database up to this MLflow: `mlflow db upgrade URI`, after a copy"
    return "set MLFLOW_TRACKING_URI to a server that answers, or unset it for a local SQLite file"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


CHECKS: dict[str, Check] = {"tracking": tracking, "artifacts": artifacts, "Ray": ray_cluster}
