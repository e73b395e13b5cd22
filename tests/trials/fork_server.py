"""`python -m tests.trials.fork_server FOLDER OWNER`: imports what commands need, then forks for each.

tests/support/forked.py asks it. It ends with the process OWNER, the tests. What it imports may start no thread: a fork
would not have it.
"""

import gc
import os
import runpy
import shutil
import signal
import socket
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tests.support.forked import MOST_BYTES, SOCKET, decoded, encoded

# Libraries alone: what is ours costs little beside them, and changes its names.
PRELOADED = (
    "mlflow.cli",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "bitsandbytes",
    "optuna",
    "peft",
    "soundfile",
    "torchaudio",
    "transformers.models.whisper.modeling_whisper",
)

KNOWS_FORKS = {"jemalloc_bg_thd"}  # pyarrow's allocator does without it in a child


def main(folder: Path, owner: int) -> None:
    """Serves; returns in a child whose command has ended, and in the server with the tests."""
    for name in PRELOADED:
        import_module(name)
    started = threads() - KNOWS_FORKS
    assert not started, f"importing {', '.join(PRELOADED)} started {started}, which forks would not have"
    gc.collect()
    gc.freeze()  # else a child's collections would touch, and so copy, all that it shares
    if words := _next_command(folder, owner):
        run_as_python(words)


def threads() -> set[str]:
    """Names of all threads of this process, Python's or not, but for the first."""
    others = (task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid()))
    return {(task / "comm").read_text().strip() for task in others}


def _next_command(folder: Path, owner: int) -> list[str]:
    """The words of a command, in the child that is to run it; none in the server, once nobody is left to ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "binding"))
        listener.listen()
        listener.settimeout(1.0)
        (folder / "binding").rename(folder / SOCKET)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
        while _lives(owner):
            try:
                asking, _ = listener.accept()
            except TimeoutError:
                continue
            with asking:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    listener.close()
                    return _received(asking)
    shutil.rmtree(folder, ignore_errors=True)
    return []


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _received(asking: socket.socket) -> list[str]:
    """The words, in a child of this keeper, which waits for it and tells its status: never returns here."""
    asking.setblocking(True)
    message, files, _, _ = socket.recv_fds(asking, MOST_BYTES, 3)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        asking.send(encoded(os.waitstatus_to_exitcode(status)))
        os._exit(0)
    asked = decoded(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    return list(asked["words"])


def run_as_python(words: list[str]) -> None:
    """What `python` does with these words: `-P` or not, then a module, code or a file."""
    is_safe = words[0] == "-P"
    words = words[1:] if is_safe else words
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    match words:
        case ["-m", module, *rest]:
            sys.path[:0] = [] if is_safe else [str(Path.cwd())]
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.path[:0] = [] if is_safe else [""]
            sys.argv = ["-c", *rest]
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
        case [file, *rest]:
            sys.path[:0] = [] if is_safe else [str(Path(file).resolve().parent)]
            sys.argv = [file, *rest]
            runpy.run_path(file, run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
