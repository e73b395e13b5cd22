"""Opening the run of a command, and ending it with its reason, whatever becomes of the command or the store."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from wertune.base.contract import OUTCOME_TAG
from wertune.base.errors import TrackingError
from wertune.base.files import first_at
from wertune.tracking.credentials import without_password
from wertune.tracking.outage import (
    CREDENTIALS_REMEDY,
    driver_remedy,
    is_refused_user,
    is_temporary,
    patiently,
    proxy_remedy,
    quick_requests,
    reason,
    tell,
)
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, now_ms, read_text, store_name, tracking_uri

EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
PROBE = "wertune-probe"
RESTORE_REMEDY = (
    "restore it with `mlflow experiments restore -x ID` (`mlflow experiments search --view deleted_only` lists them), "
    "or name another: `mlflow run … --experiment-name`, or `name` in project.yaml"
)


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
        _name_commit(run)
        yield run
    except BaseException as error:
        _close(run, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
        raise
    _close(run, "FINISHED")


def _start(experiment: str, name: str, resume: str, uri: str) -> str:
    with _asked_once(uri):
        if resume:
            if made := os.environ.pop("MLFLOW_RUN_ID", None):  # what it is for goes on in the one that is resumed
                MlflowClient(uri).set_tag(made, DESCRIPTION_TAG, f"resumed run {resume}")
            return str(mlflow.start_run(run_id=resume).info.run_id)
        if "MLFLOW_RUN_ID" not in os.environ:
            mlflow.set_experiment(experiment)
        started = mlflow.start_run(run_name=name)
        _show_as_training(MlflowClient(uri), started.info.experiment_id)
        return str(started.info.run_id)


def kept_text(run_id: str, name: str) -> str | None:
    """The text that a run keeps at the top of its artifacts, if it does; TrackingError when the store does not answer.

    Asked once, not `patiently`: nothing has begun that would be lost.
    """
    uri = tracking_uri()
    with _asked_once(uri):
        return read_text(MlflowClient(uri), run_id, name)


@contextmanager
def _asked_once(uri: str) -> Iterator[None]:
    """Before anything has begun, a store that does not answer is told of at once."""
    try:
        with quick_requests(), first_at(uri):
            yield
    except ModuleNotFoundError as error:
        raise TrackingError(f"{store_name(uri)}: its driver {error.name} is missing; {driver_remedy(error)}") from None
    except Exception as error:
        if not (isinstance(error, MlflowException) or is_temporary(error)):
            raise
        remedy = "set MLFLOW_TRACKING_URI to a server that answers, or unset it for a local SQLite file"
        if is_temporary(error):
            remedy = proxy_remedy(uri) or remedy
        if is_refused_user(error):
            remedy = CREDENTIALS_REMEDY
        elif not is_temporary(error):  # it has answered, and says what is wrong
            remedy = RESTORE_REMEDY if "deleted" in str(error) else "mend what it names"
        raise TrackingError(f"{store_name(uri)} refused: {reason(error)}; {remedy}") from None


def _name_commit(run: RunRef) -> None:
    """The commit of this code, where MLflow found none: it looks where the started script lies, such as in `.venv`."""
    if MLFLOW_GIT_COMMIT in run.ask(lambda client: client.get_run(run.run_id)).data.tags:
        return
    commit = get_git_commit(str(Path(__file__).parent))
    if commit:
        run.tags({MLFLOW_GIT_COMMIT: commit})


def _show_as_training(client: MlflowClient, experiment_id: str) -> None:
    """Where nobody has chosen, MLflow's UI would open the experiment as one of generative AI, without its metrics."""
    if EXPERIMENT_KIND_TAG not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, EXPERIMENT_KIND_TAG, "custom_model_development")


def _close(run: RunRef, status: str, error: BaseException | None = None) -> None:
    """Ends the run; what the store does not take of it hides no error of the block's own."""
    at_ms = now_ms()

    def write() -> None:
        if error is not None:
            why = "Interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            run.client.set_tag(run.run_id, DESCRIPTION_TAG, why)
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
