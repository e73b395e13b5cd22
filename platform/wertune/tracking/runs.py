"""A run of a tracking server: what is written to it, read from it, and found below it."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import pandas as pd
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from wertune.base.contract import RESTART_TAG
from wertune.tracking.credentials import split_credentials, without_password
from wertune.tracking.outage import patiently

DESCRIPTION_TAG = "mlflow.note.content"
MAX_PARAM_CHARACTERS = 6000
# Where MLflow's UI looks for a view of an experiment's runs that was shared.
VIEW_TAG, VIEW = "mlflow.sharedViewState.", "wertune"
# What MLflow's UI reads to find the tables of a run.
TABLES_TAG = "mlflow.loggedArtifacts"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RunRef:
    """A run of a tracking server: enough for another process to append to it.

    Its reads and writes wait for a store that does not answer, as `patiently` says.
    """

    tracking_uri: str = field(repr=False)  # a database's holds a password
    run_id: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def ask(self, call: Callable[[MlflowClient], Answer]) -> Answer:
        """The answer to a call that does no harm when it is repeated."""
        return patiently(lambda: call(self.client), store_name(self.tracking_uri))

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters, which MLflow keeps as text of bounded length."""
        texts = [Param(key, param_text(value)) for key, value in values.items()]
        self.ask(lambda client: client.log_batch(self.run_id, params=texts))

    def last_params(self, values: Mapping[str, Any]) -> None:
        """Parameters that a resumed run may have with other values: those are tags then, as MLflow changes none."""
        known = self.ask(lambda client: client.get_run(self.run_id)).data
        self.params({key: value for key, value in values.items() if key not in known.params})
        is_other = {key: known.params.get(key, param_text(value)) != param_text(value) for key, value in values.items()}
        if changed := {key: value for key, value in values.items() if is_other[key] or key in known.tags}:
            self.tags(changed)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Written before it returns: MLflow's asynchronous logging was measured to lose half on SQLite."""
        at_ms = now_ms()  # a metric that is written twice with one time is one row
        metrics = [Metric(key, float(value), at_ms, step) for key, value in values.items()]
        self.ask(lambda client: client.log_batch(self.run_id, metrics))

    def latest(self, names: Sequence[str]) -> dict[str, float]:
        """The last values of the metrics that the run has."""
        logged = self.ask(lambda client: client.get_run(self.run_id)).data.metrics
        return {name: logged[name] for name in names if name in logged}

    def history(self, name: str) -> dict[int, float]:
        """A metric's last value at each step."""
        return {step: value for step, (value, _) in self.dated(name).items()}

    def dated(self, name: str) -> dict[int, tuple[float, float]]:
        """A metric's last value at each step, and when it was logged, in seconds since 1970."""
        points = self.ask(lambda client: client.get_metric_history(self.run_id, name))
        points = sorted(points, key=lambda m: (m.step, m.timestamp))
        return {point.step: (point.value, point.timestamp / 1000) for point in points}

    def tags(self, values: Mapping[str, Any]) -> None:
        texts = [RunTag(key, str(value)) for key, value in values.items()]
        self.ask(lambda client: client.log_batch(self.run_id, tags=texts))

    def artifacts(self, folder: Path, name: str) -> None:
        self.ask(lambda client: client.log_artifacts(self.run_id, str(folder), name))

    def text(self, text: str, name: str) -> None:
        self.ask(lambda client: client.log_text(self.run_id, text, name))

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Rows as an MLflow table (`name` ends in .json), shown by the UI's evaluation tab.

        Not by MLflow's log_table, which appends to the table that is there: said twice, it would hold its rows twice.
        """
        columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
        self.text(pd.DataFrame(columns).to_json(orient="split", index=False, date_format="iso"), name)
        self.ask(lambda client: self._show_table(client, name))

    def _show_table(self, client: MlflowClient, name: str) -> None:
        shown = json.loads(client.get_run(self.run_id).data.tags.get(TABLES_TAG, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in shown:
            client.set_tag(self.run_id, TABLES_TAG, json.dumps([*shown, entry]))

    def figure(self, figure: Any, name: str) -> None:
        self.ask(lambda client: client.log_figure(self.run_id, figure, name))

    def dataset(self, name: str, digest: str, source: str, context: str, profile: str) -> None:
        """A dataset input of the run; MLflow takes 36 characters of digest."""
        entity = DatasetEntity(name, digest[:36], "local", source, profile=profile)
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", context)])]
        self.ask(lambda client: client.log_inputs(self.run_id, inputs))

    def download(self, name: str, folder: Path) -> Path:
        return Path(self.ask(lambda client: client.download_artifacts(self.run_id, name, str(folder))))

    def end(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED."""
        self.ask(lambda client: client.set_terminated(self.run_id, status))

    @property
    def ui_path(self) -> str:
        """The run's page as a link that MLflow's UI follows, wherever it is served."""
        return f"#/experiments/{self._experiment_id}/runs/{self.run_id}"

    @property
    def view_path(self) -> str:
        """The experiment's table of runs with the columns of `share_view`, as a link of the same kind."""
        return f"#/experiments/{self._experiment_id}/runs?viewStateShareKey={VIEW}"

    @property
    def _experiment_id(self) -> str:
        return str(self.ask(lambda client: client.get_run(self.run_id)).info.experiment_id)

    def share_view(self, metrics: Sequence[str], params: Sequence[str], order_by: str) -> None:
        """Columns for the experiment's table of runs: MLflow's UI shows none of them by itself."""
        columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in params]
        order = {"columnOrder": columns, "orderByKey": f"metrics.`{order_by}`", "orderByAsc": True}
        tag = f"{VIEW_TAG}{VIEW}", json.dumps({"selectedColumns": columns, **order})
        self.ask(lambda client: client.set_experiment_tag(self._experiment_id, *tag))


def now_ms() -> int:
    return int(time.time() * 1000)


def param_text(value: Any) -> str:
    return str(value)[:MAX_PARAM_CHARACTERS]


def store_name(uri: str) -> str:
    """What a message calls the store: never with a password."""
    return f"the tracking store {without_password(uri)}"


def tracking_uri() -> str:
    """The store that MLflow would use, with a relative SQLite path made absolute: workers run elsewhere.

    A server's user and password move from the URI to the environment, where MLflow and processes of this one find them.
    """
    uri: str = mlflow.get_tracking_uri()
    bare, user, password = split_credentials(uri)
    if bare != uri:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = user, password
        mlflow.set_tracking_uri(bare)
    prefix = "sqlite:///"
    if bare.startswith(prefix) and not bare.startswith(prefix + "/"):
        bare = prefix + str(Path(bare.removeprefix(prefix)).resolve())
    return bare


def read_text(client: MlflowClient, run_id: str, name: str) -> str | None:
    """The text at the top of the run's artifacts, if it is there; one try."""
    if name not in {each.path for each in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        return Path(client.download_artifacts(run_id, name, scratch)).read_text(encoding="utf-8")


def create_run(uri: str, experiment: str, artifacts: Path | None = None) -> RunRef:
    """A run in a new experiment of any store, whatever store and run are in use otherwise; artifacts where it says."""
    client = MlflowClient(uri)
    made = client.create_run(client.create_experiment(experiment, artifacts.as_uri() if artifacts else None))
    return RunRef(uri, made.info.run_id)


def children(parent: RunRef) -> list[Any]:
    """The search's trials, oldest first."""
    return [run for run in _nested(parent) if RESTART_TAG not in run.data.tags]


def restarts(parent: RunRef) -> dict[str, Any]:
    """Finished runs made of the best one after the search: from other seeds, their mean, another strength; by tag.

    One that a process which is gone has left behind ends as KILLED.
    """
    found = {}
    for run in _nested(parent):
        if RESTART_TAG in run.data.tags and run.info.status == "FINISHED":
            found[run.data.tags[RESTART_TAG]] = run
        elif RESTART_TAG in run.data.tags and run.info.status == "RUNNING":
            RunRef(parent.tracking_uri, run.info.run_id).end("KILLED")
    return found


@contextmanager
def nested_run(parent: RunRef, name: str, tags: Mapping[str, str], start_ms: int | None = None) -> Iterator[RunRef]:
    """A run below another: FINISHED once the block is through, so that half of one is never taken for a whole.

    `start_ms` since 1970 is when its work began, where that was before it is told.
    """
    nested = {"mlflow.parentRunId": parent.run_id, **tags}
    made = parent.client.create_run(parent._experiment_id, start_ms, tags=nested, run_name=name)
    run, status = RunRef(parent.tracking_uri, made.info.run_id), "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.end(status)


def _nested(parent: RunRef) -> list[Any]:
    experiment_id = parent.ask(lambda client: client.get_run(parent.run_id)).info.experiment_id
    query = f"tags.mlflow.parentRunId = '{parent.run_id}'"
    oldest = {"max_results": 200, "order_by": ["attributes.start_time ASC"]}

    def page(token: str | None) -> Any:
        return parent.ask(lambda client: client.search_runs([experiment_id], query, page_token=token, **oldest))

    return list(all_of(page))


def all_of(page: Callable[[str | None], Any]) -> Iterator[Any]:
    """What MLflow gives in pages, of which each names the next."""
    found = page(None)
    yield from found
    while found.token:
        found = page(found.token)
        yield from found
