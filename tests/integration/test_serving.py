"""`mlflow models serve` on a stored version: each form of audio, refusals with reasons, and a server that lives."""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.processes import free_port, running

from wertune.request import AUDIO_FOLDER_VARIABLE

Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory, write_noise: Callable[..., Path]) -> Path:
    """A folder that is served, with a clip and a link to one outside of it."""
    root = tmp_path_factory.mktemp("audio")
    write_noise(root / "served" / "a.wav")
    write_noise(root / "outside.wav", seed=1)
    (root / "served" / "link.wav").symlink_to(root / "outside.wav")
    return root / "served"


@pytest.fixture(scope="module")
def ask(served_folder: Path, audio: Path) -> Iterator[Callable[..., Answer]]:
    """`ask(rows, **params)`: status and answer of the server; other bodies as bytes."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(served_folder), "--env-manager", "local"]
    environment = {
        AUDIO_FOLDER_VARIABLE: str(audio),
        "SERVING_MODEL_CONFIG": json.dumps({"serving": {"max_batch": 3}}),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def post(rows: Any, **params: Any) -> Answer:
        body = rows if isinstance(rows, bytes) else json.dumps({"dataframe_records": rows, "params": params}).encode()
        url, headers = f"http://127.0.0.1:{port}/invocations", {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as reply:
                return int(reply.status), json.load(reply)["predictions"]
        except urllib.error.HTTPError as error:
            text = error.read().decode()  # JSON, but plain text where MLflow's server itself failed
            return error.code, json.loads(text)["message"] if text.startswith("{") else text

    with running([*command, "--port", str(port), "--host", "127.0.0.1"], port, **environment):
        yield post


@pytest.fixture(scope="module")
def encoded(audio: Path) -> str:
    return base64.b64encode((audio / "a.wav").read_bytes()).decode()


def test_each_form_is_answered_and_details_come_on_request(
    ask: Callable[..., Answer], audio: Path, encoded: str
) -> None:
    rows = [{"audio": encoded}, {"path": "a.wav"}, {"path": str(audio / "a.wav")}]
    status, (first, *others) = ask(rows)
    assert (status, list(first)) == (200, ["text"])
    assert all(other == first for other in others)
    status, (detailed,) = ask([{"samples": np.zeros(8000).tolist(), "rate_hz": 8000}], details=True)
    assert (status, sorted(detailed)) == (200, ["avg_logprob", "duration_s", "text"])
    assert (detailed["duration_s"], detailed["avg_logprob"] < 0) == (1.0, True)


def test_bad_requests_are_told_why_and_the_server_lives_on(ask: Callable[..., Answer], encoded: str) -> None:
    good = ask([{"audio": encoded}])
    for rows, reason in [
        ([{"audio": "AAAA"}], "row 1 of 1: the recording's format is not known"),
        ([{"audio": "not base64!"}], "row 1 of 1: audio is not base64"),
        ([{"audio": encoded}] * 5, "the request has 5 rows with audio, path or samples, but must have 1 to 3"),
        ([{"path": "../outside.wav"}], "row 1 of 1: path is '../outside.wav', but must name a file in the server's"),
        ([{"path": "link.wav"}], "row 1 of 1: path is 'link.wav', but must name a file in the server's audio folder"),
        ([{"path": "/etc/passwd"}], "row 1 of 1: path is '/etc/passwd', but must name a file in the server's audio"),
        (b"{", "Invalid input. Ensure that input is a valid JSON"),
        (b'{"dataframe_records": ' + b"[" * 100_000, ""),  # too deep for Python's parser: 500
    ]:
        status, message = ask(rows)
        assert message.startswith(reason)
        assert status == 400 or not reason
        assert ask([{"audio": encoded}]) == good


def test_many_at_once_get_each_their_own(ask: Callable[..., Answer], encoded: str) -> None:
    (_, (expected,)) = ask([{"audio": encoded}])
    bodies = [[{"audio": encoded}], [{"audio": "AAAA"}], [{"path": "a.wav"}]] * 4
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, bodies))
    assert [status for status, _ in answers] == [200, 400, 200] * 4
    assert all(rows == [expected] for status, rows in answers if status == 200)
