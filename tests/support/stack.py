"""The services of deploy/compose.yaml without containers: its commands and variables, this machine's programs.

moto stands for the S3-compatible store. Like the real one it checks who signs a request; unlike it, it keeps objects in
memory, so that a restart empties it: to have it fail, let it refuse writes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from tests.support.places import ROOT
from tests.support.postgres import postgres_programs, postgres_server
from tests.support.processes import Service, answers, free_port

DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(r"\$\{(\w+)(?::\?[^}]*|:-([^}]*))?\}")
REGION = "us-east-1"


@dataclass(frozen=True)
class Store:
    """The store: a service, its account for MLflow's server, and one that looks after it."""

    service: Service
    url: str
    access_key: str
    secret_key: str
    keeper: Mapping[str, str]

    def client(self, kind: str = "s3") -> Any:
        """boto3's client of the store's keeper."""
        return boto3.client(kind, endpoint_url=self.url, region_name=REGION, **self.keeper)

    def refuse_writes(self) -> None:
        """From now on MLflow's server may read but not write, as on a store that is full or locked."""
        denied = {"Effect": "Deny", "Action": ["s3:PutObject", "s3:CreateMultipartUpload"], "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
        self.client("iam").put_user_policy(UserName="mlflow", PolicyName="refuse", PolicyDocument=document)

    def accept_writes(self) -> None:
        self.client("iam").delete_user_policy(UserName="mlflow", PolicyName="refuse")

    def names(self, bucket: str = "mlflow") -> list[str]:
        """The names of all objects."""
        return [found["Key"] for found in self.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


@dataclass(frozen=True)
class TeamStack:
    """A running stack; each service can be stopped, killed and started again on its port and data."""

    tracking_uri: str
    dashboard_uri: str
    study_storage: str
    secrets: Mapping[str, str]
    postgres: Service
    store: Store
    mlflow: Service
    dashboard: Service

    @property
    def services(self) -> list[Service]:
        return [self.postgres, self.store.service, self.mlflow, self.dashboard]

    def sign_in(self, user: str = "tuner") -> dict[str, str]:
        """The variables of a client: where MLflow is, who one is there, and the study database's password."""
        password = self.secrets["MLFLOW_ADMIN_PASSWORD" if user == "admin" else "TUNER_PASSWORD"]
        return {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password,
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
            "PGPASSWORD": self.secrets["OPTUNA_DB_PASSWORD"],
        }

    def environment(self, user: str = "tuner") -> dict[str, str]:
        """This process's environment for a client's: no AWS_ variable, signed in as the user."""
        return _without_cloud() | self.sign_in(user)


def _without_cloud() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_", "PG"))}


@dataclass(frozen=True)
class Compose:
    """deploy/compose.yaml, read with the values of an env file and with this machine's places for the containers'."""

    services: Mapping[str, Any]
    secrets: Mapping[str, str]
    places: Mapping[str, str]

    def command(self, service: str) -> list[str]:
        """The service's command, run by this Python."""
        program, *arguments = [self._resolve(part) for part in self.services[service]["command"]]
        if program == "python":
            return [sys.executable, *arguments]
        return [str(Path(sys.executable).with_name(program)), *arguments]

    def environment(self, service: str) -> dict[str, str]:
        given = self.services[service]["environment"]
        return _without_cloud() | {name: self._resolve(value) for name, value in given.items()}

    def service(self, name: str, url: str, folder: Path) -> Service:
        """The service, which answers at the URL once it is started, and writes into the folder."""
        return Service(self.command(name), lambda: answers(url), folder / f"{name}.log", self.environment(name))

    def run(self, service: str) -> None:
        """A service that ends by itself."""
        done = subprocess.run(
            self.command(service), env=self.environment(service), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _resolve(self, text: str) -> str:
        settings = {"MLFLOW_WORKERS": "1"} | self.secrets  # each imports for seconds, and there may be two cores
        filled = VARIABLE.sub(lambda found: settings.get(found[1], found[2] or ""), str(text))
        for container, here in self.places.items():
            filled = filled.replace(container, here)
        return filled


def _secrets(folder: Path) -> dict[str, str]:
    """What deploy/make_env writes."""
    deploy = folder / "deploy"
    deploy.mkdir()
    for name in ("make_env", ".env.example"):
        shutil.copy(DEPLOY / name, deploy / name)
    subprocess.run([deploy / "make_env"], check=True, stdout=subprocess.DEVNULL)
    lines = (deploy / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _make_databases(secrets: Mapping[str, str], port: int) -> None:
    """As the image's entry point does it."""
    psql = [postgres_programs() / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-q"]
    environment = os.environ | secrets | {"PGPASSWORD": secrets["POSTGRES_PASSWORD"]}
    subprocess.run([*psql, "-f", DEPLOY / "databases.sql"], env=environment, check=True)


def _refuse_strangers(url: str) -> None:
    """From here on moto checks who asks."""
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).close()


def _account(iam: Any, name: str, actions: str) -> dict[str, str]:
    """boto3's arguments for a new user who may do `actions`."""
    allowed = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="allow", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


@contextmanager
def _store(folder: Path) -> Iterator[Store]:
    """moto with two accounts; after they are made it refuses everyone else."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    environment = _without_cloud() | {"INITIAL_NO_AUTH_ACTION_COUNT": "100"}
    with _started(Service(command, lambda: answers(f"{url}/moto-api/"), folder / "store.log", environment)) as service:
        nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
        iam = boto3.client("iam", endpoint_url=url, region_name=REGION, **nobody)
        server, keeper = _account(iam, "mlflow", "s3:*"), _account(iam, "keeper", "*")
        _refuse_strangers(url)
        yield Store(service, url, server["aws_access_key_id"], server["aws_secret_access_key"], keeper)


@contextmanager
def _started(service: Service) -> Iterator[Service]:
    try:
        service.start()
        yield service
    finally:
        service.kill()


@contextmanager
def team_stack(folder: Path) -> Iterator[TeamStack]:
    """PostgreSQL, the store, MLflow behind sign-in and the dashboard; logs and settings lie in the empty `folder`."""
    pytest.importorskip("flask_wtf", reason="flask-wtf is not installed: `uv sync --group team`")
    secrets = _secrets(folder)
    with postgres_server("postgres", secrets["POSTGRES_PASSWORD"]) as (postgres, port), _store(folder) as store:
        _make_databases(secrets, port)
        secrets |= {"S3_ACCESS_KEY": store.access_key, "S3_SECRET_KEY": store.secret_key}
        ports = {"mlflow": free_port(), "dashboard": free_port()}
        compose = Compose(_services(), secrets, _places(folder, port, store, ports))
        mlflow = compose.service("mlflow", f"http://127.0.0.1:{ports['mlflow']}/health", folder)
        dashboard = compose.service("dashboard", f"http://127.0.0.1:{ports['dashboard']}/api/studies", folder)
        with ExitStack() as stack:
            # Each imports for seconds: the two chains of deploy/compose.yaml's depends_on side by side.
            with ThreadPoolExecutor() as pool:
                stack.callback(mlflow.kill)
                stack.callback(dashboard.kill)
                chains = [
                    pool.submit(_start_mlflow, compose, mlflow),
                    pool.submit(_start_dashboard, compose, dashboard),
                ]
                for chain in chains:
                    chain.result()
            yield TeamStack(
                tracking_uri=f"http://127.0.0.1:{ports['mlflow']}",
                dashboard_uri=f"http://127.0.0.1:{ports['dashboard']}",
                study_storage=f"postgresql+psycopg2://optuna@127.0.0.1:{port}/optuna",
                secrets=secrets,
                postgres=postgres,
                store=store,
                mlflow=mlflow,
                dashboard=dashboard,
            )


def _start_mlflow(compose: Compose, mlflow: Service) -> None:
    compose.run("bucket")
    mlflow.start()
    compose.run("tuner")


def _start_dashboard(compose: Compose, dashboard: Service) -> None:
    compose.run("studies")
    dashboard.start()


def _services() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]


def _places(folder: Path, postgres: int, store: Store, ports: Mapping[str, int]) -> dict[str, str]:
    """What stands here for the containers' addresses, ports and files."""
    settings = (DEPLOY / "basic_auth.ini").read_text(encoding="utf-8")
    (folder / "basic_auth.ini").write_text(settings.replace("postgres:5432", f"127.0.0.1:{postgres}"))
    return {
        "postgres:5432": f"127.0.0.1:{postgres}",
        "http://store:7070": store.url,
        "http://mlflow:5000": f"http://127.0.0.1:{ports['mlflow']}",
        "--port=5000": f"--port={ports['mlflow']}",
        "--port=8080": f"--port={ports['dashboard']}",
        "--host=0.0.0.0": "--host=127.0.0.1",
        "/opt/deploy/basic_auth.ini": str(folder / "basic_auth.ini"),
        "/opt/deploy": str(DEPLOY),
    }
