"""MLflow runs: the only file of this package, beside the served model, that knows MLflow."""

import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import mlflow
import pandas as pd
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.tracking import MlflowClient

from wertune.credentials import split_credentials, without_password
from wertune.errors import TrackingError
from wertune.outage import CREDENTIALS_REMEDY, is_refused_user, is_temporary, patiently, quick_requests, reason, tell

OUTCOME_TAG = "wertune.outcome"
TRIAL_TAG = "wertune.trial"
EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
POINT_TAG = "wertune.point"
DESCRIPTION_TAG = "mlflow.note.content"
MAX_PARAM_CHARACTERS = 6000
MAX_DESCRIPTION_CHARACTERS = 5000
TRAINING_ROWS = "training_rows.json"
PROBE = "wertune-probe"
# What MLflow's UI reads to find the tables of a run.
TABLES_TAG = "mlflow.loggedArtifacts"

Answer = TypeVar("Answer")


class RunLog(Protocol):
    """What a trial says of itself; a fake of it lets tests do without MLflow."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...

    def tags(self, values: Mapping[str, Any]) -> None: ...

    def artifacts(self, folder: Path, name: str) -> None: ...


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

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Written before it returns: MLflow's asynchronous logging was measured to lose half on SQLite."""
        at_ms = now_ms()  # a metric that is written twice with one time is one row
        metrics = [Metric(key, float(value), at_ms, step) for key, value in values.items()]
        self.ask(lambda client: client.log_batch(self.run_id, metrics))

    def latest(self, names: Sequence[str]) -> dict[str, float]:
        """The last values of the metrics that the run has."""
        logged = self.ask(lambda client: client.get_run(self.run_id)).data.metrics
        return {name: logged[name] for name in names if name in logged}

    def tag(self, name: str) -> str | None:
        """The tag's value, if the run has it."""
        tags: dict[str, str] = self.ask(lambda client: client.get_run(self.run_id)).data.tags
        return tags.get(name)

    def history(self, name: str) -> dict[int, float]:
        """A metric's last value at each step."""
        points = self.ask(lambda client: client.get_metric_history(self.run_id, name))
        return {point.step: point.value for point in sorted(points, key=lambda m: (m.step, m.timestamp))}

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

    @property
    def ui_path(self) -> str:
        """The run's page as a link that MLflow's UI follows, wherever it is served."""
        experiment_id = self.ask(lambda client: client.get_run(self.run_id)).info.experiment_id
        return f"#/experiments/{experiment_id}/runs/{self.run_id}"

    def end(self, status: str) -> None:
        """`status` is FINISHED, FAILED or KILLED."""
        at_ms = now_ms()
        self.ask(lambda client: client.set_terminated(self.run_id, checked_status(status), at_ms))

    def fail(self, reason: str) -> None:
        """Ends the run as FAILED with the reason as its description."""
        self.tags({DESCRIPTION_TAG: reason, OUTCOME_TAG: "failed"})
        self.end("FAILED")


def now_ms() -> int:
    return int(time.time() * 1000)


def param_text(value: Any) -> str:
    return str(value)[:MAX_PARAM_CHARACTERS]


def checked_status(status: str) -> str:
    return str(RunStatus.to_string(RunStatus.from_string(status)))


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


@contextmanager
def open_run(experiment: str, name: str, resume: str = "") -> Iterator[RunRef]:
    """The run to `resume`, or the one that `mlflow run` made, or a new one in `experiment`.

    It ends as FINISHED, FAILED or KILLED, the reason in its description.

    Raises TrackingError when the store does not answer.
    """
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    run = RunRef(uri, _start(experiment, name, resume, uri))
    try:
        run.tags({"mlflow.runName": name})
        yield run
    except BaseException as error:
        _close(run, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
        raise
    _close(run, "FINISHED")


def _start(experiment: str, name: str, resume: str, uri: str) -> str:
    try:
        with quick_requests():
            if resume:
                _leave_project_run(resume)
                return str(mlflow.start_run(run_id=resume).info.run_id)
            if "MLFLOW_RUN_ID" not in os.environ:
                mlflow.set_experiment(experiment)
            started = mlflow.start_run(run_name=name)
            _show_as_training(MlflowClient(uri), started.info.experiment_id)
            return str(started.info.run_id)
    except Exception as error:
        if not (isinstance(error, MlflowException) or is_temporary(error)):
            raise
        remedy = "set MLFLOW_TRACKING_URI to a server that answers, or unset it for a local SQLite file"
        remedy = CREDENTIALS_REMEDY if is_refused_user(error) else remedy
        raise TrackingError(f"{store_name(uri)} refused: {reason(error)}; {remedy}") from None


def _show_as_training(client: MlflowClient, experiment_id: str) -> None:
    """Where nobody has chosen, MLflow's UI would open the experiment as one of generative AI, without its metrics."""
    if EXPERIMENT_KIND_TAG not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, EXPERIMENT_KIND_TAG, "custom_model_development")


def _close(run: RunRef, status: str, error: BaseException | None = None) -> None:
    """Ends the run; what the store does not take of it hides no error of the block's own."""
    at_ms = now_ms()

    def write() -> None:
        if error is not None:
            run.client.set_tag(run.run_id, DESCRIPTION_TAG, _reason(error))
        run.client.set_terminated(run.run_id, status, at_ms)

    try:
        # A store that was waited for in vain is not waited for again.
        patiently(write, store_name(run.tracking_uri), wait_s=0.0 if isinstance(error, TrackingError) else None)
    except TrackingError as refusal:
        if error is None:
            raise
        error.add_note(f"its run stays open: {refusal}")
    finally:
        # Only takes the run off MLflow's stack: its status is written.
        with quick_requests(), suppress(MlflowException):
            mlflow.end_run(status)


def check_artifacts(run: RunRef) -> None:
    """Writes, reads and deletes a file among the run's artifacts: before hours of training, not after them.

    Raises TrackingError when the artifact store does not take it.
    """
    place = run.ask(lambda client: client.get_run(run.run_id)).info.artifact_uri
    try:
        with quick_requests(), tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
            run.client.log_text(run.run_id, run.run_id, f"{PROBE}.txt")
            read = Path(run.client.download_artifacts(run.run_id, f"{PROBE}.txt", scratch)).read_text(encoding="utf-8")
            if read != run.run_id:
                raise OSError(f"gave {read[:80]!r} back for {run.run_id!r}")
    except Exception as error:  # every store has errors of its own
        rule = "must be a place that this process can write to and read from"
        remedy = "mend its rights or credentials, or give the server another --artifacts-destination"
        raise TrackingError(
            f"artifacts of {store_name(run.tracking_uri)} go to {without_password(place)}, which {rule}, "
            f"but: {reason(error)}; {remedy}"
        ) from None
    # A store that forbids deleting keeps a file of 32 bytes.
    with quick_requests(), suppress(Exception):
        get_artifact_repository(place, tracking_uri=run.tracking_uri).delete_artifacts(f"{PROBE}.txt")


def _leave_project_run(resume: str) -> None:
    """`mlflow run` made a run for this command; what it is for goes on in the one that is resumed."""
    made = os.environ.pop("MLFLOW_RUN_ID", None)
    if made:
        MlflowClient(tracking_uri()).set_tag(made, DESCRIPTION_TAG, f"resumed run {resume}")


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "Interrupted" if isinstance(error, KeyboardInterrupt) else text


def fail_project_run(reason: str) -> None:
    """Marks the run that `mlflow run` made FAILED with the reason, when a parameter is refused before it was opened.

    Tried once: the reason may be that the store does not answer.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    run = RunRef(tracking_uri(), run_id)

    def write() -> None:
        run.client.log_batch(run_id, tags=[RunTag(DESCRIPTION_TAG, reason), RunTag(OUTCOME_TAG, "failed")])
        run.client.set_terminated(run_id, "FAILED")

    try:
        patiently(write, store_name(run.tracking_uri), wait_s=0.0)
    except TrackingError as refusal:
        tell(f"run {run_id} stays open: {refusal}")


def create_run(uri: str, experiment: str, artifacts: Path | None = None) -> RunRef:
    """A run in a new experiment of any store, whatever store and run are in use otherwise; artifacts where it says."""
    client = MlflowClient(uri)
    made = client.create_run(client.create_experiment(experiment, artifacts.as_uri() if artifacts else None))
    return RunRef(uri, made.info.run_id)


def children(parent: RunRef) -> list[Any]:
    """All child runs of the search, oldest first."""
    experiment_id = parent.ask(lambda client: client.get_run(parent.run_id)).info.experiment_id
    query = f"tags.mlflow.parentRunId = '{parent.run_id}'"
    runs: list[Any] = []
    token = None
    while True:
        page = parent.ask(
            lambda client, token=token: client.search_runs(  # type: ignore[misc]
                [experiment_id], query, max_results=200, order_by=["attributes.start_time ASC"], page_token=token
            )
        )
        runs += page
        token = page.token
        if not token:
            return runs


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


def production_version(uri: str, name: str) -> RegisteredVersion | None:
    """The version that is in Production, where there is one."""
    versions = MlflowClient(uri).search_model_versions(f"name = '{name}'")
    holders = [each.version for each in versions if each.current_stage == "Production"]
    return registered_version(uri, f"models:/{name}/{holders[0]}") if holders else None


def describe_version(uri: str, name: str, version: str, text: str) -> None:
    """Markdown on the version's page; a database keeps MAX_DESCRIPTION_CHARACTERS of it."""
    MlflowClient(uri).update_model_version(name, version, text[:MAX_DESCRIPTION_CHARACTERS])


def format_traceback(error: BaseException) -> str:
    """The traceback as text, for an artifact."""
    return "".join(traceback.format_exception(error))
