"""`mlflow models serve` on a stored version: each form of audio, refusals with reasons, and a server that lives."""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.malformed import KINDS, TEXT, Kind, lay_files
from tests.support.places import ROOT
from tests.support.processes import free_port, running
from tests.trials.load import MOST_GROWTH_MB, Request, memory_mb, run_load

from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.serving.request import AUDIO_FOLDER_VARIABLE

Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory, write_noise: Callable[..., Path]) -> Path:
    """A folder that is served, with a clip and a link to one outside of it."""
    root = tmp_path_factory.mktemp("audio")
    write_noise(root / "served" / "a.wav")
    write_noise(root / "outside.wav", seed=1)
    (root / "served" / "link.wav").symlink_to(root / "outside.wav")
    lay_files(root / "served")
    return root / "served"


@dataclass(frozen=True)
class Server:
    """Where it listens, and the process that was started."""

    port: int
    pid: int


@pytest.fixture(scope="module")
def server(served_folder: Path, audio: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(served_folder), "--env-manager", "local"]
    environment = {
        AUDIO_FOLDER_VARIABLE: str(audio),
        "SERVING_MODEL_CONFIG": json.dumps({"serving": {"max_batch": 3, "max_duration_s": 60}}),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with running([*command, "--port", str(port), "--host", "127.0.0.1"], port, **environment) as process:
        yield Server(port, process.pid)


@pytest.fixture(scope="module")
def ask(server: Server) -> Callable[..., Answer]:
    """`ask(rows, **params)`: status and answer of the server; other bodies as bytes."""

    def post(rows: Any, **params: Any) -> Answer:
        body = rows if isinstance(rows, bytes) else json.dumps({"dataframe_records": rows, "params": params}).encode()
        url, headers = f"http://127.0.0.1:{server.port}/invocations", {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as reply:
                return int(reply.status), json.load(reply)["predictions"]
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            assert "Traceback" not in text
            return error.code, json.loads(text)["message"]

    return post


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
    status, (silent,) = ask([{"samples": np.zeros(8000).tolist(), "rate_hz": 8000}], details=True)
    assert (status, silent) == (200, {"text": "", "avg_logprob": None, "duration_s": 1.0, "segments": []})
    status, (detailed,) = ask([{"samples": np.full(8000, 0.1).tolist(), "rate_hz": 8000}], details=True)
    assert (status, sorted(detailed)) == (200, ["avg_logprob", "duration_s", "segments", "text"])
    (segment,) = detailed["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0.0, 1.0, detailed["text"])
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
        (b'{"dataframe_records": ' + b"[" * 100_000, "the body cannot be read"),  # too deep for Python's parser
    ]:
        status, message = ask(rows)
        assert message.startswith(reason)
        assert status == 400
        assert ask([{"audio": encoded}]) == good


def test_many_at_once_get_each_their_own(ask: Callable[..., Answer], encoded: str) -> None:
    (_, (expected,)) = ask([{"audio": encoded}])
    bodies = [[{"audio": encoded}], [{"audio": "AAAA"}], [{"path": "a.wav"}]] * 4
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, bodies))
    assert [status for status, _ in answers] == [200, 400, 200] * 4
    assert all(rows == [expected] for status, rows in answers if status == 200)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_malformed_audio_is_refused_by_row_and_rule_and_the_next_request_is_answered(
    ask: Callable[..., Answer], encoded: str, kind: Kind
) -> None:
    status, answer = ask([kind.row])
    if kind.answer == TEXT:
        assert (status, list(answer[0])) == (200, ["text"])
    else:
        assert status == 400
        assert answer.startswith("row 1 of 1: " if kind.says_row else "the request has 0 rows")
        assert str(kind.answer) in answer
    assert ask([{"audio": encoded}])[0] == 200


def test_fifty_clients_lose_nothing_and_each_gets_its_own(server: Server, served_folder: Path) -> None:
    clips = [0.1 * np.random.default_rng(n).standard_normal(8000 + 160 * n) for n in range(50)]
    requests = [Request.of({"samples": clip.round(4).tolist(), "rate_hz": SAMPLE_RATE_HZ}) for clip in clips]
    expected = [request.answered_by(served_folder) for request in requests]
    assert not any(one.is_like(other) for one, other in combinations(expected, 2))  # what the model writes alone
    run_load(server.port, requests, expected, seconds=2)
    before_mb = memory_mb(server.pid)
    load = run_load(server.port, requests, expected, seconds=8)
    assert (load.failed, load.crossed) == ([], [])
    assert load.answered >= len(clips)
    assert memory_mb(server.pid) - before_mb < MOST_GROWTH_MB


def test_the_load_test_itself(served_folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.trials.load",
        "--model-uri",
        str(served_folder),
        "--clients",
        "2",
        "--seconds",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed 0, crossed 0" in done.stdout
