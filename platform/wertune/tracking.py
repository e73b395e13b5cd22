"""MLflow runs: the only file of this package, beside the served model, that knows MLflow."""

import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlflow
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.tracking import MlflowClient

from wertune.errors import TrackingError

OUTCOME_TAG = "wertune.outcome"
TRIAL_TAG = "wertune.trial"
POINT_TAG = "wertune.point"
DESCRIPTION_TAG = "mlflow.note.content"
MAX_PARAM_CHARACTERS = 6000
TRAINING_ROWS = "training_rows.json"


class RunLog(Protocol):
    """What a trial says of itself; a fake of it lets tests do without MLflow."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...

    def artifacts(self, folder: Path, name: str) -> None: ...


@dataclass(frozen=True)
class RunRef:
    """A run of a tracking server: enough for another process to append to it."""

    tracking_uri: str
    run_id: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters, which MLflow keeps as text of bounded length."""
        texts = [Param(key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in values.items()]
        self.client.log_batch(self.run_id, params=texts)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Written before it returns: MLflow's asynchronous logging was measured to lose half on SQLite."""
        now_ms = _now_ms()
        self.client.log_batch(self.run_id, [Metric(key, float(value), now_ms, step) for key, value in values.items()])

    def latest(self, names: Sequence[str]) -> dict[str, float]:
        """The last values of the metrics that the run has."""
        logged = self.client.get_run(self.run_id).data.metrics
        return {name: logged[name] for name in names if name in logged}

    def tags(self, values: Mapping[str, Any]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def artifacts(self, folder: Path, name: str) -> None:
        self.client.log_artifacts(self.run_id, str(folder), name)

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.run_id, text, name)

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Rows as an MLflow table (`name` ends in .json), shown by the UI's evaluation tab."""
        columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
        self.client.log_table(self.run_id, columns, name)

    def figure(self, figure: Any, name: str) -> None:
        self.client.log_figure(self.run_id, figure, name)

    def dataset(self, name: str, digest: str, source: str, context: str, profile: str) -> None:
        """A dataset input of the run; MLflow takes 36 characters of digest."""
        entity = DatasetEntity(name, digest[:36], "local", source, profile=profile)
        self.client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def download(self, name: str, folder: Path) -> Path:
        return Path(self.client.download_artifacts(self.run_id, name, str(folder)))

    def end(self, status: str) -> None:
        """`status` is FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, RunStatus.to_string(RunStatus.from_string(status)))

    def fail(self, reason: str) -> None:
        """Ends the run as FAILED with the reason as its description."""
        self.tags({DESCRIPTION_TAG: reason, OUTCOME_TAG: "failed"})
        self.end("FAILED")


def _now_ms() -> int:
    import time

    return int(time.time() * 1000)


def tracking_uri() -> str:
    """The store that MLflow would use, with a relative SQLite path made absolute: workers run elsewhere."""
    uri: str = mlflow.get_tracking_uri()
    prefix = "sqlite:///"
    if uri.startswith(prefix) and not uri.startswith(prefix + "/"):
        uri = prefix + str(Path(uri.removeprefix(prefix)).resolve())
    return uri


@contextmanager
def open_run(experiment: str, name: str, resume: str = "") -> Iterator[RunRef]:
    """The run to `resume`, or the one that `mlflow run` made, or a new one in `experiment`.

    It ends as FINISHED, FAILED or KILLED, the reason in its description.

    Raises TrackingError when the store does not answer.
    """
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        if resume:
            _leave_project_run(resume)
            active = mlflow.start_run(run_id=resume)
        else:
            if "MLFLOW_RUN_ID" not in os.environ:
                mlflow.set_experiment(experiment)
            active = mlflow.start_run(run_name=name)
    except MlflowException as error:
        remedy = "set MLFLOW_TRACKING_URI to a server that answers, or unset it for a local SQLite file"
        raise TrackingError(f"tracking store {without_password(uri)} refused: {error.message}; {remedy}") from None
    run = RunRef(uri, active.info.run_id)
    try:
        run.tags({"mlflow.runName": name})
        yield run
    except BaseException as error:
        killed = isinstance(error, KeyboardInterrupt)
        run.tags({DESCRIPTION_TAG: _reason(error)})
        mlflow.end_run("KILLED" if killed else "FAILED")
        raise
    mlflow.end_run("FINISHED")


def _leave_project_run(resume: str) -> None:
    """`mlflow run` made a run for this command; what it is for goes on in the one that is resumed."""
    made = os.environ.pop("MLFLOW_RUN_ID", None)
    if made:
        RunRef(tracking_uri(), made).tags({DESCRIPTION_TAG: f"resumed run {resume}"})


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "Interrupted" if isinstance(error, KeyboardInterrupt) else text


def without_password(uri: str) -> str:
    """The URI as it may be shown."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def fail_project_run(reason: str) -> None:
    """Marks the run that `mlflow run` made FAILED with the reason, when a parameter is refused before it was opened."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        RunRef(tracking_uri(), run_id).fail(reason)


def create_run(uri: str, experiment: str, artifacts: Path) -> RunRef:
    """A run in a new experiment of any store, whatever store and run are in use otherwise."""
    client = MlflowClient(uri)
    made = client.create_run(client.create_experiment(experiment, artifacts.as_uri()))
    return RunRef(uri, made.info.run_id)


def create_child(parent: RunRef, trial_id: str, name: str, point: Mapping[str, Any]) -> RunRef:
    """A RUNNING child of the search's run, found again by the trial's id."""
    experiment_id = parent.client.get_run(parent.run_id).info.experiment_id
    tags = {"mlflow.parentRunId": parent.run_id, TRIAL_TAG: trial_id, POINT_TAG: json.dumps(point)}
    run = parent.client.create_run(experiment_id, tags=tags, run_name=name)
    return RunRef(parent.tracking_uri, run.info.run_id)


def find_child(parent: RunRef, trial_id: str) -> RunRef:
    """The newest child run of a trial."""
    experiment_id = parent.client.get_run(parent.run_id).info.experiment_id
    query = f"tags.`{TRIAL_TAG}` = '{trial_id}' and tags.mlflow.parentRunId = '{parent.run_id}'"
    found = parent.client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"])
    if not found:
        raise TrackingError(f"trial {trial_id} has no child run under {parent.run_id}; was it deleted?")
    return RunRef(parent.tracking_uri, found[0].info.run_id)


def children(parent: RunRef) -> list[Any]:
    """All child runs of the search, oldest first."""
    experiment_id = parent.client.get_run(parent.run_id).info.experiment_id
    query = f"tags.mlflow.parentRunId = '{parent.run_id}'"
    runs: list[Any] = []
    token = None
    while True:
        page = parent.client.search_runs(
            [experiment_id], query, max_results=200, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, and what the run that registered it says of it."""

    name: str
    version: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    dataset_digests: Mapping[str, str]
    training_rows: tuple[tuple[str, str], ...]


def registered_version(uri: str, model_uri: str) -> RegisteredVersion:
    """What `models:/NAME/VERSION`, `…/STAGE` or `…@ALIAS` stands for at `uri`; TrackingError if nothing."""
    client = MlflowClient(uri)
    try:
        name, number = get_model_name_and_version(client, model_uri)
        run = client.get_run(client.get_model_version(name, number).run_id)
        rows = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{TRAINING_ROWS}"))
    except MlflowException as error:
        rule = "must be a registered version, such as models:/sg_gov/1"
        raise TrackingError(f"model_uri is {model_uri}, but {rule}: {error.message}") from None
    digests = {str(each.dataset.name).rpartition("/")[2]: each.dataset.digest for each in run.inputs.dataset_inputs}
    training = tuple((digest, text) for digest, text in rows)
    return RegisteredVersion(name, str(number), run.data.tags, run.data.params, run.data.metrics, digests, training)


def format_traceback(error: BaseException) -> str:
    """The traceback as text, for an artifact."""
    return "".join(traceback.format_exception(error))
