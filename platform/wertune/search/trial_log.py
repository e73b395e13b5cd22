"""What a trial's worker and the driver say to each other: keys, and the trial's log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wertune.base.contract import BEST_OBJECTIVE
from wertune.search.checkpoints import TrialCheckpoints

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

    Artifacts go to the checkpoints at once: they outlive the process.
    """

    def __init__(self, checkpoints: TrialCheckpoints) -> None:
        self._checkpoints = checkpoints
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
        self._checkpoints.put(name, folder)

    def take(self) -> str:
        """All of it as JSON: Ray Tune would go through a mapping's values one by one."""
        taken = json.dumps({"params": self._params, "tags": self._tags, "metrics": self._metrics})
        self._params, self._tags, self._metrics = {}, {}, []
        return taken
