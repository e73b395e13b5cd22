"""`python -m tests.trials.load --model-uri models:/sg_gov/1 --clients 50 --seconds 60`: a server under load.

Each client sends one clip of its own, again and again, and compares what comes back with what the model writes for it
when it is asked directly; the server's resident memory is measured before and after.
"""

import argparse
import base64
import http.client
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
from tests.support.places import ROOT
from tests.support.processes import free_port, running

MOST_GROWTH_MB = 300
TIMEOUT_S = 120
ROUNDING = 1e-6


@dataclass(frozen=True)
class Answer:
    """What tells one clip's answer from another's: the model's text, and how sure it is of it."""

    text: str
    avg_logprob: float

    def is_like(self, other: "Answer") -> bool:
        """Whether it is the same but for rounding."""
        return self.text == other.text and math.isclose(self.avg_logprob, other.avg_logprob, abs_tol=ROUNDING)


@dataclass(frozen=True)
class Request:
    """A row, and the body that asks for it with details."""

    row: dict[str, Any]
    body: bytes

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Request":
        return cls(row, json.dumps({"dataframe_records": [row], "params": {"details": True}}).encode())

    def answered_by(self, model: Path | str) -> Answer:
        """The answer without a server."""
        (row,) = _loaded(str(model)).predict([self.row], params={"details": True}).to_dict("records")
        return Answer(row["text"], row["avg_logprob"])


@lru_cache(maxsize=1)
def _loaded(uri: str) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(uri)


@dataclass
class Load:
    """What came of it: latencies of the right answers, statuses or errors of those that failed, and crossed answers."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    crossed: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return len(self.latencies_s)

    def percentile_s(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1]


def run_load(port: int, requests: Sequence[Request], expected: Sequence[Answer], seconds: float) -> Load:
    """A client for each request, all at once, each asking until the time is over and then to its last answer."""
    load, start = Load(), time.monotonic()
    clients = [
        threading.Thread(target=_client, args=(port, request, answer, start + seconds, load))
        for request, answer in zip(requests, expected, strict=True)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    load.seconds = time.monotonic() - start
    return load


def _client(port: int, request: Request, expected: Answer, until: float, load: Load) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    while True:  # at least once each
        start = time.monotonic()
        try:
            connection.request("POST", "/invocations", request.body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            status, text = reply.status, reply.read().decode()
        except (OSError, http.client.HTTPException) as error:
            status, text = 0, repr(error)
            connection.close()
        _judge(status, text, expected, time.monotonic() - start, load)
        if time.monotonic() > until:
            connection.close()
            return


def _judge(status: int, text: str, expected: Answer, latency_s: float, load: Load) -> None:
    if status != 200:
        load.failed.append(f"{status} {text[:200]}")
        return
    (row,) = json.loads(text)["predictions"]
    if Answer(row["text"], row["avg_logprob"]).is_like(expected):
        load.latencies_s.append(latency_s)
    else:
        load.crossed.append(f"{row} came for {expected}")


def memory_mb(pid: int) -> float:
    """Resident memory of the process and of all that it has started."""
    process = psutil.Process(pid)
    found = [process, *process.children(recursive=True)]
    return float(sum(each.memory_info().rss for each in found)) / 1e6


def _demo_requests(model_uri: str, clients: int) -> tuple[list[Request], list[Answer]]:
    """Clips of the demo's test split whose direct answers differ."""
    folder = ROOT / "projects" / "sg_gov" / "manifests"
    found: list[tuple[Request, Answer]] = []
    for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines():
        data = (folder / json.loads(line)["audio_filepath"]).read_bytes()
        request = Request.of({"audio": base64.b64encode(data).decode()})
        answer = request.answered_by(model_uri)
        if not any(answer.is_like(other) for _, other in found):
            found.append((request, answer))
        if len(found) == clients:
            return [request for request, _ in found], [answer for _, answer in found]
    raise SystemExit(f"--clients is {clients}, but the test split has {len(found)} distinct clips; lower it")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-uri", required=True)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    requests, expected = _demo_requests(given.model_uri, given.clients)
    _loaded.cache_clear()
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", given.model_uri, "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running([*command, "--port", str(port), "--host", "127.0.0.1"], port, PATH=path) as server:
        cold_mb = memory_mb(server.pid)
        warm_up = run_load(port, requests, expected, seconds=0)
        before_mb = memory_mb(server.pid)
        load = run_load(port, requests, expected, given.seconds)
        after_mb = memory_mb(server.pid)
    print(
        f"{given.clients} clients, {load.seconds:.0f} s: {load.answered} answered, {load.answered / load.seconds:.1f}/s"
    )
    print(f"latency p50 {load.percentile_s(50):.2f} s, p99 {load.percentile_s(99):.2f} s")
    print(f"failed {len(load.failed + warm_up.failed)}, crossed {len(load.crossed + warm_up.crossed)}")
    print(f"resident memory {cold_mb:.0f} MB loaded, {before_mb:.0f} after a request each, {after_mb:.0f} at the end")
    for problem in (load.failed + load.crossed + warm_up.failed + warm_up.crossed)[:10]:
        print(problem, file=sys.stderr)
    lost = load.failed or load.crossed or warm_up.failed or warm_up.crossed
    return int(bool(lost) or after_mb - before_mb > MOST_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
