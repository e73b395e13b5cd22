"""A client of the real registry, and the process that evaluates."""

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from wergate.errors import RegistryError
from wergate.registry.client import RegistryClient
from wergate.registry.locks import database_lock, hold
from wergate.registry.store import open_model, store_uris
from wergate.trail.reports import Evaluate

INTERRUPTED_TOO_S = 2.0


def open_registry(name: str, say: Callable[[str], None]) -> RegistryClient:
    """The model in the registry that MLflow's settings name, with the strongest lock that it offers."""
    model, who = open_model(name), _user()
    owner = f"{who}@{os.uname().nodename}:{os.getpid()}"
    lock = partial(hold, model, database_lock(store_uris()[1], name), owner)
    return RegistryClient(model, lock, who, say=say)


def _user() -> str:
    """Whom the audit trail names; a container's user may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def evaluate_in_a_clean_process(project: Path) -> Evaluate:
    """Scores a version as it serves, in a process that has loaded nothing else, and stores its report as a run."""

    def evaluate(name: str, version: str) -> None:
        command = [sys.executable, "-m", "wertune", "evaluate", "--project", str(project)]
        command += ["--model-uri", f"models:/{name}/{version}"]
        # Without the run of this command, which the evaluation would otherwise take for its own.
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        environment["MLFLOW_TRACKING_URI"], environment["MLFLOW_REGISTRY_URI"] = store_uris()
        if status := _status(subprocess.Popen(command, env=environment, stdout=sys.stderr)):
            raise RegistryError(f"evaluating {name}/{version} {_ended(status)}")

    return evaluate


def _ended(status: int) -> str:
    """What a status that is not 0 means, and what to do; who is killed says nothing."""
    if status > 0:
        return f"ended with status {status}; see its message above"
    killed = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    short = "if memory was short, free some, or let it have fewer cores (taskset -c 0)"
    return f"was ended by {killed} before it was done; {short}, and evaluate again"


def _status(process: "subprocess.Popen[bytes]") -> int:
    """Of a process that is waited for; where that is interrupted, it ends first, and closes its run.

    `subprocess.run` would kill it after a quarter of a second.
    """
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(INTERRUPTED_TOO_S)  # in a terminal Ctrl-C reaches it as well
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise
