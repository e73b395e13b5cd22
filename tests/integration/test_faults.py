"""A search that is killed, interrupted and robbed of its workers ends as one that nothing happened to.

One worker each, on real tiny.en; both searches run at once, on one cache.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient
from tests.integration.conftest import Workspace

DRIVER = Path(__file__).with_name("search_driver.py")
Fault = Callable[["subprocess.Popen[str]"], None]


@dataclass
class Searched:
    """A search's folder, its run and all that its processes printed."""

    folder: Path
    project: Path
    cache: Path
    run_id: str = "new"
    printed: str = ""

    def drive(self, at: str = "", fault: Fault | None = None) -> int:
        """Starts or resumes the search; `fault` strikes once a line holds `at`. Returns the exit status."""
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(self.folder), str(self.project), self.run_id],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "WERTUNE_CACHE": str(self.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            self.printed += line
            if line.startswith("run "):
                self.run_id = line.split()[1]
            if fault and at in line:
                fault(process)
                fault = None
        assert fault is None, self.printed
        return process.wait()

    def trials(self) -> list[Any]:
        study = optuna.load_study(study_name=self.run_id, storage=f"sqlite:///{self.folder / 'optuna.db'}")
        return [(t.number, t.state, t.params, t.intermediate_values) for t in study.get_trials()]

    def runs(self) -> dict[str, Any]:
        """What MLflow holds of each child run, without what the clock says."""
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        experiment = client.get_run(self.run_id).info.experiment_id
        children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{self.run_id}'")
        found = {run.info.run_name: _told(client, run) for run in children}
        assert len(found) == len(children), [run.info.run_name for run in children]
        return found


def _told(client: MlflowClient, run: Any) -> Any:
    steps = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in ("val_wer", "val_loss", "train_loss", "best_objective")
    }
    adapter = Path(client.download_artifacts(run.info.run_id, "adapter")) / "adapter_model.safetensors"
    return run.info.status, run.data.tags["wertune.outcome"], run.data.params, steps, adapter.read_bytes()


def _kill(process: "subprocess.Popen[str]") -> None:
    process.kill()


def _interrupt_twice(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    threading.Timer(1.0, process.send_signal, [signal.SIGINT]).start()


def _kill_worker(process: "subprocess.Popen[str]") -> None:
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "ray::" in _title(child)]
    trials = [worker for worker in workers if "ImplicitFunc" in _title(worker)]
    assert trials, [_title(worker) for worker in workers]
    for trial in trials:
        trial.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def both(
    make_workspace: Callable[[str], Workspace], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Searched, Searched]:
    """The unbroken search, and the one that everything happened to."""
    project, cache = make_workspace("faults").project, tmp_path_factory.mktemp("one-cache")
    unbroken = Searched(tmp_path_factory.mktemp("unbroken"), project, cache)
    struck = Searched(tmp_path_factory.mktemp("struck"), project, cache)
    status: list[int] = []
    beside = threading.Thread(target=lambda: status.append(unbroken.drive()))
    beside.start()
    try:
        assert struck.drive("trial 01 epoch 1/", _kill) == -signal.SIGKILL
        assert struck.drive("trial 02 epoch 1/", _interrupt_twice) != 0
        assert struck.drive("trial 03 epoch 1/", _kill_worker) == 0, struck.printed
    finally:
        beside.join()
    assert status == [0], unbroken.printed
    return unbroken, struck


def test_the_same_configurations_finish_with_the_same_epochs(both: tuple[Searched, Searched]) -> None:
    unbroken, struck = both
    assert struck.trials() == unbroken.trials()
    assert all(state.is_finished() for _, state, _, _ in struck.trials())


def test_no_run_is_doubled_no_metric_lost_or_repeated_and_the_adapters_are_the_same(
    both: tuple[Searched, Searched],
) -> None:
    unbroken, struck = both
    assert struck.runs() == unbroken.runs()
    assert {status for status, *_ in struck.runs().values()} == {"FINISHED"}


def test_the_loss_of_a_worker_is_told(both: tuple[Searched, Searched]) -> None:
    assert "trial 03 lost its process, goes on from its last epoch" in both[1].printed
