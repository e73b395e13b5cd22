"""The runs of a search's trials, as their spool writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from wertune.base.contract import TRIAL_TAG
from wertune.tracking.runs import RunRef, store_name


class Logged(NamedTuple):
    """A metric's value, and when it was said."""

    name: str
    value: float
    at_ms: int
    step: int


@dataclass(frozen=True)
class Child:
    """A trial's run on the server, and the highest step of each of its metrics."""

    run_id: str
    steps: Mapping[str, int]


class ChildStore:
    """The children of a search's run, for its spool: each call is one try, and may be repeated but for `create`."""

    def __init__(self, parent: RunRef) -> None:
        self._parent = parent
        self._experiment_id = ""
        self.name = store_name(parent.tracking_uri)

    @property
    def _client(self) -> MlflowClient:
        return self._parent.client

    @property
    def _experiment(self) -> str:
        if not self._experiment_id:
            self._experiment_id = self._client.get_run(self._parent.run_id).info.experiment_id
        return self._experiment_id

    def find(self, key: str) -> Child | None:
        """The newest child of the trial."""
        query = f"tags.`{TRIAL_TAG}` = '{key}' and tags.mlflow.parentRunId = '{self._parent.run_id}'"
        newest = ["attributes.start_time DESC"]
        found = self._client.search_runs([self._experiment], query, max_results=1, order_by=newest)
        if not found:
            return None
        # The only list of metrics with steps that one call brings.
        steps = {metric.key: int(metric.step) for metric in found[0].data._metric_objs}
        return Child(found[0].info.run_id, steps)

    def create(self, key: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        """A RUNNING child; look with `find` first, since the answer to an earlier try may have been lost."""
        ours = {"mlflow.parentRunId": self._parent.run_id, TRIAL_TAG: key}
        run = self._client.create_run(self._experiment, start_ms, {**tags, **ours}, name)
        return str(run.info.run_id)

    def reopen(self, run_id: str) -> None:
        self._client.update_run(run_id, "RUNNING")

    def log(self, run_id: str, metrics: Sequence[Logged], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        self._client.log_batch(
            run_id,
            [Metric(each.name, each.value, each.at_ms, each.step) for each in metrics],
            [Param(name, value) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        )

    def upload(self, run_id: str, folder: Path, name: str) -> None:
        self._client.log_artifacts(run_id, str(folder), name or None)

    def end(self, run_id: str, status: str, at_ms: int) -> None:
        self._client.set_terminated(run_id, status, at_ms)
