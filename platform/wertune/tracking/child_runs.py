"""The runs of a search's trials on the server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from wertune.base.contract import TRIAL_TAG
from wertune.base.errors import TrackingError
from wertune.tracking.runs import RunRef, store_name

# Its `kind`, the key of its `run`, the time `at_ms` at which it was said, and what it says.
Operation = Mapping[str, Any]
OPEN, METRICS, PARAMS, TAGS, END, FILES = "open", "metrics", "params", "tags", "end", "files"
RUNNING = "RUNNING"


@dataclass
class ChildRun:
    """A trial's run as the server has it: its status, and the highest step of each of its metrics."""

    run_id: str
    status: str
    steps: dict[str, int]


class ChildRuns:
    """The children of a search's run, known by keys. Each call is one try, which may be repeated after any failure."""

    def __init__(self, parent: RunRef) -> None:
        self._parent = parent
        self._written: dict[str, ChildRun] = {}
        self.name = store_name(parent.tracking_uri)

    def write(self, operations: Sequence[Operation]) -> None:
        """Operations of one run but uploads, in their order; a metric of which no step as high is there yet."""
        run = self._run(operations)
        steps, metrics, texts = dict(run.steps), list[Metric](), {PARAMS: dict[str, str](), TAGS: dict[str, str]()}
        for operation in operations:
            if operation["kind"] == METRICS:
                metrics += _unwritten(operation, steps)
            elif operation["kind"] in texts:
                texts[operation["kind"]].update(operation["values"])
        if metrics or any(texts.values()):
            self._log(run.run_id, metrics, texts[PARAMS], texts[TAGS])
            run.steps = steps
        for operation in [each for each in operations if each["kind"] in (OPEN, END)][-1:]:
            status = operation.get("status", RUNNING)
            if status != run.status:
                self._set_status(run.run_id, status, operation["at_ms"])
                run.status = status

    def upload(self, key: str, folder: Path, name: str) -> None:
        """All files of the folder as the artifact folder `name` of the run."""
        self._upload(self._known(key).run_id, str(folder), name)

    def _run(self, operations: Sequence[Operation]) -> ChildRun:
        """Their run, made where they open one: looked for first, as an answer may be lost with the process."""
        key, opening = operations[0]["run"], next((each for each in operations if each["kind"] == OPEN), None)
        if opening is None:
            run = self._known(key)
        elif (found := self._find(key)) is not None:
            self._log(found.run_id, [], {}, opening["values"])
            run = found
        else:
            run = ChildRun(self._create(key, opening["name"], opening["values"], opening["at_ms"]), RUNNING, {})
        self._written[key] = run
        return run

    def _known(self, key: str) -> ChildRun:
        run = self._written.get(key) or self._find(key)
        if run is None:
            raise TrackingError(f"{key} has no run: it was never opened, or was deleted")
        return run

    @property
    def _client(self) -> MlflowClient:
        return self._parent.client

    @cached_property
    def _experiment(self) -> str:
        return str(self._client.get_run(self._parent.run_id).info.experiment_id)

    def _find(self, key: str) -> ChildRun | None:
        """The newest child of the trial."""
        query = f"tags.`{TRIAL_TAG}` = '{key}' and tags.mlflow.parentRunId = '{self._parent.run_id}'"
        newest = ["attributes.start_time DESC"]
        found = self._client.search_runs([self._experiment], query, max_results=1, order_by=newest)
        if not found:
            return None
        # The only list of metrics with steps that one call brings.
        steps = {metric.key: int(metric.step) for metric in found[0].data._metric_objs}
        return ChildRun(found[0].info.run_id, found[0].info.status, steps)

    def _create(self, key: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        """A RUNNING child; not to be repeated."""
        ours = {"mlflow.parentRunId": self._parent.run_id, TRIAL_TAG: key}
        run = self._client.create_run(self._experiment, start_ms, {**tags, **ours}, name)
        return str(run.info.run_id)

    def _log(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        self._client.log_batch(
            run_id,
            metrics,
            [Param(name, value) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        )

    def _upload(self, run_id: str, folder: str, name: str) -> None:
        self._client.log_artifacts(run_id, folder, name or None)

    def _set_status(self, run_id: str, status: str, at_ms: int) -> None:
        """RUNNING opens the run again; any other ends it at that time."""
        if status == RUNNING:
            self._client.update_run(run_id, RUNNING)
        else:
            self._client.set_terminated(run_id, status, at_ms)


def _unwritten(operation: Operation, steps: dict[str, int]) -> list[Metric]:
    """The metrics of which no step as high is written; `steps` then holds theirs."""
    step = operation["step"]
    new = [name for name in operation["values"] if step > steps.get(name, -1)]
    steps.update(dict.fromkeys(new, step))
    return [Metric(name, operation["values"][name], operation["at_ms"], step) for name in new]
