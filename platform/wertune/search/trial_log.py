"""What a trial's worker and the driver say to each other: keys, and all that the trial says of itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wertune.base.contract import BEST_OBJECTIVE
from wertune.search.checkpoints import KeptTrial

# Keys of what a trial reports, and of the configuration that it is given.
METRIC, EPOCH, FAILURE, NO_ROOM, SAID = BEST_OBJECTIVE, "epoch", "failure", "no_room", "said"
NUMBER, POINT = "number", "point"


class Said:
    """What a trial says of itself (a RunLog), gathered until its next report takes it to the driver.

    Artifacts go to the keeper at once: they outlive the process.
    """

    def __init__(self, kept: KeptTrial) -> None:
        self._kept = kept
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
        self._kept.put(name, folder)

    def take(self) -> str:
        """All of it as JSON: Ray Tune would go through a mapping's values one by one."""
        taken = json.dumps({"params": self._params, "tags": self._tags, "metrics": self._metrics})
        self._params, self._tags, self._metrics = {}, {}, []
        return taken
