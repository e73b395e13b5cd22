"""What a trial's worker and the driver say to each other: keys, and the trial's log and state."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayTaskError

from wertune.base.contract import BEST_OBJECTIVE
from wertune.base.files import write_files
from wertune.search.checkpoints import STATE
from wertune.training.trial import RunLog

# Keys of what a trial reports, and of the configuration that it is given.
METRIC, EPOCH, FAILURE, NO_ROOM, LOG, WORKERS = BEST_OBJECTIVE, "epoch", "failure", "no_room", "log", "workers"
REDRAWN = "redrawn"  # METRIC on sets drawn anew
NUMBER, POINT = "number", "point"
RAY_OUT_OF_MEMORY = f"{OutOfMemoryError.__module__}.{OutOfMemoryError.__name__}"  # in what becomes of a lost process


class GatheredLog:
    """What a run says of itself (a RunLog), its adapter too, gathered in its process until somebody takes it."""

    def __init__(self) -> None:
        self.said_params: dict[str, str] = {}
        self.said_tags: dict[str, str] = {}
        self.said_metrics: list[tuple[int, dict[str, float]]] = []
        self.files: dict[str, bytes] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        self.said_params |= {key: str(value) for key, value in values.items()}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.said_metrics.append((step, {key: float(value) for key, value in values.items()}))

    def tags(self, values: Mapping[str, Any]) -> None:
        self.said_tags |= {key: str(value) for key, value in values.items()}

    def artifacts(self, folder: Path, name: str) -> None:
        self.files = _content(folder)


def _content(folder: Path) -> dict[str, bytes]:
    """All files of the folder by their paths in it, as `write_files` takes them."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Retold:
    """Writes what a TrialLog gave into another log; of a resumed trial, which tells its epochs again, each once."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._steps: dict[str, int] = {}  # the highest of each metric

    def write(self, taken: str) -> None:
        said = json.loads(taken)
        self._log.params(said["params"])
        self._log.tags(said["tags"])
        for step, values in said["metrics"]:
            new = {name: value for name, value in values.items() if step > self._steps.get(name, -1)}
            self._steps.update(dict.fromkeys(new, step))
            self._log.metrics(new, step)


class TrialLog(GatheredLog):
    """What a trial says of itself (a RunLog), gathered until its next report takes it to the driver.

    Artifacts and state (it is a TrialStore too) go to the driver's checkpoints at once: they outlive the process.
    """

    def __init__(self, checkpoints: Any, trial: int) -> None:
        super().__init__()
        self._checkpoints, self._trial = checkpoints, trial

    def artifacts(self, folder: Path, name: str) -> None:
        """Keeps all files of the folder under the name; raises SearchStorageError when the driver's disk is full."""
        try:
            ray.get(self._checkpoints.put.remote(self._trial, name, _content(folder)))
        except RayTaskError as error:  # which holds the store's own error and a page of traceback
            raise error.cause from None

    def save(self, folder: Path) -> None:
        """Keeps the trial's state, as `artifacts`."""
        self.artifacts(folder, STATE)

    def load(self, into: Path) -> bool:
        """Writes the trial's last state into a folder; False where there is none."""
        files: dict[str, bytes] | None = ray.get(self._checkpoints.get.remote(self._trial, STATE))
        if files is None:
            return False
        write_files(files, into)
        return True

    def shortages(self) -> list[str]:
        """Why its earlier processes were ended for want of memory, the first one first."""
        causes: list[str] = ray.get(self._checkpoints.shortages.remote(self._trial))
        return causes

    def take(self) -> str:
        """All of it as JSON: Ray Tune would go through a mapping's values one by one."""
        taken = json.dumps({"params": self.said_params, "tags": self.said_tags, "metrics": self.said_metrics})
        self.said_params, self.said_tags, self.said_metrics = {}, {}, []
        return taken
