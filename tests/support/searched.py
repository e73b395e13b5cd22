"""Searches in processes of their own, at which faults strike."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from mlflow.tracking import MlflowClient
from tests.support.places import TRIALS

DRIVER = TRIALS / "search_driver.py"
# What befalls a process; and what is to befall it after that, once a line holds the text, if more is.
Fault = Callable[["subprocess.Popen[str]"], "Mapping[str, Fault] | None"]
FIRST, OTHER = "ImplicitFunc", "Mate"  # how Ray names a trial's first worker, and the others


def interrupt(process: "subprocess.Popen[str]") -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)


def terminate(process: "subprocess.Popen[str]") -> None:
    """What a scheduler sends."""
    process.terminate()


def strike(kind: str, with_: signal.Signals) -> Fault:
    """Sends the signal to the workers of a kind."""

    def strike_them(process: "subprocess.Popen[str]") -> None:
        titles = {child: _title(child) for child in psutil.Process(process.pid).children(recursive=True)}
        found = [child for child, title in titles.items() if "ray::" in title and kind in title]
        assert found, titles.values()
        for each in found:
            each.send_signal(with_)

    return strike_them


def then(fault: Fault, others: Mapping[str, Fault]) -> Fault:
    """The fault, and others after it."""

    def strike_and_go_on(process: "subprocess.Popen[str]") -> Mapping[str, Fault]:
        fault(process)
        return others

    return strike_and_go_on


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@dataclass
class Searched:
    """A search's folder, its run and all that its processes printed."""

    folder: Path
    project: Path
    cache: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    server: str = ""
    run_id: str = ""
    printed: str = ""

    @property
    def tracking(self) -> str:
        """The server where one is named, else a database in the folder."""
        return self.server or f"sqlite:///{self.folder / 'mlflow.db'}"

    def drive(self, strikes: Mapping[str, Fault] | None = None) -> int:
        """Starts or resumes the search; each fault strikes once a line holds its text. Returns the exit status."""
        resume = ("--resume", self.run_id) if self.run_id else ()
        command = [sys.executable, str(DRIVER), str(self.folder), str(self.project), self.tracking]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "WERTUNE_CACHE": str(self.cache)} | self.environment
        status, printed = driven([*command, *self.options, *resume], environment, strikes or {})
        self.printed += printed
        known = (line.split()[1] for line in printed.splitlines() if line.startswith("run "))
        self.run_id = self.run_id or next(known, "")
        return status

    def trials(self) -> list[Any]:
        study = optuna.load_study(study_name=self.run_id, storage=f"sqlite:///{self.folder / 'optuna.db'}")
        return [(t.number, t.state, t.params, t.intermediate_values) for t in study.get_trials()]

    def children(self) -> dict[str, Any]:
        """MLflow's child runs by their names, of which no two are the same."""
        client = MlflowClient(self.tracking)
        experiment = client.get_run(self.run_id).info.experiment_id
        children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{self.run_id}'")
        found = {run.info.run_name: run for run in children}
        assert len(found) == len(children), [run.info.run_name for run in children]
        return found

    def runs(self) -> dict[str, Any]:
        """What MLflow holds of each child run, without what the clock says."""
        client = MlflowClient(self.tracking)
        return {name: _told(client, run) for name, run in self.children().items()}


def driven(
    command: Sequence[str], environment: Mapping[str, str], strikes: Mapping[str, Fault], folder: Path | None = None
) -> tuple[int, str]:
    """The command's exit status and what it printed; each fault strikes once a line holds its text."""
    waiting, printed = dict(strikes), ""
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        for text in [text for text in waiting if text in line]:
            waiting |= waiting.pop(text)(process) or {}
    assert not waiting, printed
    return process.wait(), printed


def _told(client: MlflowClient, run: Any) -> Any:
    # MLflow gives a history in no order that its interface promises, in SQLite by the clock.
    steps = {
        name: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
        for name in ("val_wer", "val_loss", "train_loss", "best_objective")
    }
    adapter = Path(client.download_artifacts(run.info.run_id, "adapter")) / "adapter_model.safetensors"
    return run.info.status, run.data.tags["wertune.outcome"], run.data.params, steps, adapter.read_bytes()
