"""Servers that a test starts, waits for and ends."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
