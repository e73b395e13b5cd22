"""Servers that a test starts, waits for and ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

# Python imports a module of this name when it starts.
SHIFT = """
import time
true, true_ns = time.time, time.time_ns
time.time = lambda: true() + {by_s}
time.time_ns = lambda: true_ns() + {by_s} * 10**9
"""


def shifted_clock(folder: Path, by_s: int) -> dict[str, str]:
    """An environment whose Python processes, those of Ray included, tell the time of day so many seconds wrong.

    Preloaded libraries such as faketime break the waits that Python and Ray do on other clocks.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFT.format(by_s=by_s))
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def free_port() -> int:
    """A port of this machine that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], *processes: subprocess.Popen[Any], attempts: int = 900) -> None:
    """Returns once the condition holds; AssertionError where a process ends before or too many looks were in vain."""
    for _ in range(attempts):
        assert all(process.poll() is None for process in processes), "a process ended before it was ready"
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("not ready in time")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether the URL can be read; urllib raises an OSError for an error's status too."""
    try:
        urlopen(url, timeout=10).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[subprocess.Popen[Any]]:
    """The command's process once it listens on the port; ended with all that it started."""
    process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
    try:
        wait_for(lambda: _listens(port), process)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


class Service:
    """A server that a test may stop, kill and start again, on the same port and data; what it writes is in `log`."""

    def __init__(
        self,
        command: Sequence[str],
        answers: Callable[[], bool],
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command, self.answers, self.log = list(command), answers, log
        self._environment = dict(os.environ if environment is None else environment)
        self._user, self._stop_signal = user, stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def processes(self) -> list[psutil.Process]:
        """The server's process and all that it started, as long as they live."""
        if self._process is None or not self.is_running:
            return []
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def start(self) -> None:
        """Returns once it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self._environment,
                user=self._user,
                cwd=self.log.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(self.answers, self._process)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}: {self.log.read_text(errors='replace')[-3000:]}") from None

    def stop(self) -> None:
        """As an administrator stops it; returns once it is gone."""
        if self._process is not None and self.is_running:
            os.killpg(self._process.pid, self._stop_signal)
            self._process.wait()

    def kill(self) -> None:
        """kill -9 of the server and all that it started."""
        processes = self.processes
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)

    def restart(self) -> None:
        self.stop()
        self.start()


def tracking_server(folder: Path, port: int) -> Service:
    """MLflow's server on SQLite in the folder."""
    place = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Service(command, lambda: answers(f"{place}/health"), folder / "server.log", environment)
