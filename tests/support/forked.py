"""Plain commands that need not import for seconds: forks of one process that has imported, shared by all of a run.

What is killed or interrupted, starts Ray or shows what it imports is a process of its own; and so is the first of each
kind of command in a run: what only its own imports can show, shows there. As a script it is what a shell calls:
`python forked.py FOLDER WORDS_OF_PYTHON…`.
"""

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

MOST_BYTES = 2**17  # a kernel may take no more in one message
SOCKET = "socket"
STARTS_RAY = "tune"


@dataclass(frozen=True)
class Forks:
    """Where the server of a run of the tests listens; what it says is in `log` there."""

    folder: Path

    def run(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` of a command of this Python. It sees no GPU: what those do is tests/gpu's."""
        env = {**env, "CUDA_VISIBLE_DEVICES": ""}
        if not self.may_take(command[1:]):
            return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        self.start()
        with Path(os.devnull).open() as nothing, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            status = self.status(command[1:], cwd, env, [each.fileno() for each in (nothing, out, err)])
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, status, out.read(), err.read())

    def may_take(self, words: Sequence[str]) -> bool:
        """Whether a command of that kind has had a process of its own, and starts no Ray."""
        kind = [word for word in words if word != "-P"][:3]
        if STARTS_RAY in kind and "--dry-run" not in words:
            return False
        self.folder.mkdir(exist_ok=True)
        try:
            (self.folder / hashlib.sha256("\0".join(kind).encode()).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return True
        return False

    def start(self) -> None:
        """The server, unless another worker of the run has started it; returns once it listens."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.folder / SOCKET).exists():
                return
            server = self._started()
            while not (self.folder / SOCKET).exists():
                assert server.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)

    def _started(self) -> "subprocess.Popen[bytes]":
        """It ends with the run: with pytest, of which a worker is the child."""
        owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        # A thread that MLflow starts for its own ends would not be in a fork.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.trials.fork_server", str(self.folder), str(owner)],
                cwd=Path(__file__).parents[2],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def status(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], files: Sequence[int]) -> int:
        """The exit status of the words, run by a fork with these standard streams."""
        asked = {"words": list(words), "folder": str(cwd), "environment": dict(env)}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(self.folder / SOCKET))
            socket.send_fds(asking, [encoded(asked)], list(files))
            return int(decoded(asking.recv(MOST_BYTES)))


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def decoded(message: bytes) -> Any:
    return json.loads(message)


def main(folder: Path, words: Sequence[str]) -> int:
    """The command's exit status; what may not fork takes this process' place."""
    forks = Forks(folder)
    if not forks.may_take(words):
        os.execv(sys.executable, [sys.executable, *words])
    return forks.status(words, Path.cwd(), os.environ, (0, 1, 2))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
