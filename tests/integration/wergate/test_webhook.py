"""The example receiver against a real MLflow server: it deploys on the alias, and believes no one else."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from mlflow.webhooks.delivery import _generate_hmac_signature
from tests.support.places import ROOT
from tests.support.processes import free_port, running, wait_for
from tests.support.shown_commands import blocks_as_shown, commands

AS_SHOWN = ("registry/examples/README.md", "export")
RECEIVER = ROOT / "registry" / "examples" / "webhook_receiver.py"
SECRET = "a secret of more than sixteen characters"
DEPLOY = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
EVENT = {"entity": "model_version_alias", "action": "created", "data": {"alias": "production", "name": "m"}}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A receiver whose deployment writes the model's URI into a file."""
    port, deployed = free_port(), tmp_path / "deployed"
    command = [sys.executable, str(RECEIVER), "--port", str(port), "--"]
    with running([*command, sys.executable, "-c", DEPLOY, str(deployed)], port, WEBHOOK_SECRET=SECRET) as process:
        lines = lambda: deployed.read_text().splitlines() if deployed.exists() else []  # noqa: E731
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}/", lines=lines, process=process)


def _shown_key() -> str:
    """A key by the command that the page shows."""
    blocks = blocks_as_shown(*AS_SHOWN)
    (code,) = (words[2] for block in blocks for words in commands(block) if words[:2] == ("python", "-c"))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def client(tmp_path: Path, lay_store: Callable[[Path], str]) -> Iterator[MlflowClient]:
    """A client of a server with its own SQLite database that may send to this machine."""
    port = free_port()
    store = ["--backend-store-uri", lay_store(tmp_path), "--artifacts-destination", str(tmp_path)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": _shown_key(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with running([sys.executable, "-m", "mlflow", "server", *store, *options], port, **environment):
        yield MlflowClient(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}")


def test_the_alias_production_deploys_and_a_stage_or_another_alias_does_not(
    client: MlflowClient, receiver: SimpleNamespace
) -> None:
    client.create_registered_model("sg_gov")
    run = client.create_run("0")
    for _ in range(2):
        client.create_model_version("sg_gov", source=f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    webhook = client.create_webhook(
        name="deploy", url=receiver.url, events=["model_version_alias.created"], secret=SECRET
    )
    assert client.test_webhook(webhook.webhook_id).response_status == 204
    client.transition_model_version_stage("sg_gov", "1", "Production")
    client.set_registered_model_alias("sg_gov", "staging", "2")
    for version in ("1", "2"):
        before = len(receiver.lines())
        client.set_registered_model_alias("sg_gov", "production", version)
        wait_for(lambda before=before: len(receiver.lines()) > before, receiver.process)  # type: ignore[misc]
    assert receiver.lines() == ["models:/sg_gov@production"] * 2

    # A webhook with another secret, such as of a server that is not ours, is refused.
    stranger = client.create_webhook(
        name="stranger", url=receiver.url, events=["model_version_alias.created"], secret="another secret entirely"
    )
    assert client.test_webhook(stranger.webhook_id).response_status == 401
    assert len(receiver.lines()) == 2


def _deliver(
    receiver: SimpleNamespace,
    event: Any = EVENT,
    *,
    secret: str = SECRET,
    age_s: float = 0,
    delivery: str = "",
    **changes: str | None,
) -> int:
    """The status of a delivery signed by MLflow's own code; `changes` are headers put over it afterwards."""
    body, delivery, sent = json.dumps(event), delivery or str(uuid.uuid4()), str(int(time.time() - age_s))
    headers: dict[str, str | None] = {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": sent,
        "X-MLflow-Signature": _generate_hmac_signature(secret, delivery, sent, body),
    }
    headers |= {f"X-MLflow-{name.replace('_', '-')}": value for name, value in changes.items()}
    present = {name: value for name, value in headers.items() if value is not None}
    try:
        with urllib.request.urlopen(urllib.request.Request(receiver.url, body.encode(), present)) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_only_a_fresh_delivery_with_the_right_signature_is_believed(receiver: SimpleNamespace) -> None:
    refused = [
        {"secret": "another secret entirely"},
        {"Signature": None},
        {"Signature": ""},
        {"Signature": "v1,AAAA"},
        {"Signature": "é"},
        {"Timestamp": str(int(time.time()) + 100)},  # signed for another second, however slow the machine
        {"Delivery_Id": str(uuid.uuid4())},
        {"Timestamp": None},
        {"age_s": 301},
        {"age_s": -310},
        {"age_s": 10**6},
    ]
    assert [_deliver(receiver, **case) for case in refused] == [401] * len(refused)
    assert [_deliver(receiver, event) for event in ([], {**EVENT, "data": {}}, {**EVENT, "data": 3})] == [400] * 3
    ignored = [{"entity": "model_version", "action": "created", "data": {"name": "m"}}, {}]
    assert [_deliver(receiver, event) for event in ignored] == [204] * 2
    # What was refused cannot have deployed: a good one, sent last, is the only line. Sent twice, it counts once.
    assert [_deliver(receiver, delivery="once", age_s=200) for _ in range(2)] == [204] * 2
    assert _deliver(receiver, {**EVENT, "data": {"alias": "production", "name": "last"}}) == 204
    wait_for(lambda: "models:/last@production" in receiver.lines(), receiver.process)
    assert receiver.lines() == ["models:/m@production", "models:/last@production"]


def test_without_a_secret_it_does_not_start(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WEBHOOK_SECRET"}
    done = subprocess.run(
        [sys.executable, str(RECEIVER), "--", "true"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "WEBHOOK_SECRET must hold at least 16 characters" in done.stderr
