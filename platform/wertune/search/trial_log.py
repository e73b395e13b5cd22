"""What a trial's worker and the driver say to each other: keys, and the trial's log and state."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from wertune.base.contract import BEST_OBJECTIVE
from wertune.base.files import write_files
from wertune.search.checkpoints import STATE

# Keys of what a trial reports, and of the configuration that it is given.
METRIC, EPOCH, FAILURE, NO_ROOM, LOG = BEST_OBJECTIVE, "epoch", "failure", "no_room", "log"
NUMBER, POINT = "number", "point"


class GatheredLog:
    """What a run of the best configuration says of itself (a RunLog), its adapter too, gathered until it has ended."""

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
        self.files = {file.name: file.read_bytes() for file in folder.iterdir()}


class TrialLog:
    """What a trial says of itself (a RunLog), gathered until its next report takes it to the driver.

    Artifacts and state (it is a TrialStore too) go to the driver's checkpoints at once: they outlive the process.
    """

    def __init__(self, checkpoints: Any, trial: int) -> None:
        self._checkpoints, self._trial = checkpoints, trial
        self._params: dict[str, Any] = {}
        self._tags: dict[str, Any] = {}
        self._metrics: list[tuple[int, dict[str, float]]] = []

    def params(self, values: Mapping[str, Any]) -> None:
        self._params |= {key: str(value) for key, value in values.items()}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._metrics.append((step, {key: float(value) for key, value in values.items()}))

    def tags(self, values: Mapping[str, Any]) -> None:
        self._tags |= {key: str(value) for key, value in values.items()}

    def artifacts(self, folder: Path, name: str) -> None:
        """Keeps all files of the folder under the name; raises SearchStorageError when the driver's disk is full."""
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        try:
            ray.get(self._checkpoints.put.remote(self._trial, name, files))
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
        taken = json.dumps({"params": self._params, "tags": self._tags, "metrics": self._metrics})
        self._params, self._tags, self._metrics = {}, {}, []
        return taken
