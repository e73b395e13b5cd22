"""Registered versions, what the runs behind them say, and their cards."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.tracking import MlflowClient

from wertune.base.contract import ADAPTER_RUN_TAG, MODEL_CARD, TRAINING_ROWS
from wertune.base.errors import TrackingError
from wertune.tracking.outage import no_answer, reason
from wertune.tracking.runs import RunRef, read_text


class TrainingRow(NamedTuple):
    """A clip that was trained on; versions of before recordings were compared do not say of which it is a part."""

    digest: str
    text: str
    recording: str = ""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, and what the run that registered it says of it."""

    name: str
    version: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    dataset_digests: Mapping[str, str]
    training_rows: tuple[TrainingRow, ...]
    own_tags: Mapping[str, str] = field(default_factory=dict)  # the version's, where `tags` are its run's


def registered_version(uri: str, model_uri: str) -> RegisteredVersion:
    """What `models:/NAME/VERSION`, `…/STAGE` or `…@ALIAS` stands for at `uri`; TrackingError if nothing."""
    client = MlflowClient(uri)
    try:
        name, number = get_model_name_and_version(client, model_uri)
        found = client.get_model_version(name, number)
        run = client.get_run(found.run_id)
        rows = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{TRAINING_ROWS}"))
    except (MlflowException, OSError) as error:
        raise not_loaded(uri, model_uri, error) from None
    digests = {str(each.dataset.name).rpartition("/")[2]: each.dataset.digest for each in run.inputs.dataset_inputs}
    training = tuple(TrainingRow(*row) for row in rows)
    data = run.data
    return RegisteredVersion(
        name, str(number), data.tags, data.params, data.metrics, digests, training, dict(found.tags or {})
    )


def tag_version(uri: str, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    """Keeps the tags with the version; TrackingError where its registry does not take them."""
    client = MlflowClient(uri)
    try:
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.version, key, value)
    except MlflowException as error:
        raise TrackingError(no_answer(error) or f"{reason(error)}; ask for the right to change its tags") from None


def not_loaded(uri: str, model_uri: str, error: Exception, of_model: bool = False) -> TrackingError:
    """Why a version could not be read: no server, no such version, or a version whose files are not where they were.

    Those are `of_model`, or else of the run that registered it.
    """
    if silence := no_answer(error):
        return TrackingError(silence)
    client = MlflowClient(uri)
    try:
        name, number = get_model_name_and_version(client, model_uri)
        found = client.get_model_version(name, number)
        run = client.get_run(found.run_id) if found.run_id else None
    except MlflowException as gone:
        rule = "must be a registered version, such as models:/sg_gov/1"
        return TrackingError(f"model_uri is {model_uri}, but {rule}: {gone.message}")
    place = run.info.artifact_uri if run and not of_model else _model_place(client, found.source)
    deleted = run is not None and run.info.lifecycle_stage == "deleted"
    remedy = f"restore its run, `mlflow runs restore --run-id {found.run_id}`" if deleted else "put them back there"
    problem = f"{name} version {number} is registered, but its files cannot be read at {place} ({reason(error)})"
    return TrackingError(f"{problem}; {remedy}, or register another version")


def _model_place(client: MlflowClient, source: str) -> str:
    """Where the files of a version lie: MLflow 3 keeps them beside runs, and names the model."""
    logged = source.removeprefix("models:/")
    if logged == source:
        return source
    try:
        return str(client.get_logged_model(logged).artifact_location)
    except MlflowException:
        return source


def tags_of_versions(uri: str, name: str) -> list[Mapping[str, str]]:
    """The tags of each version that there is."""
    return [each.tags for each in MlflowClient(uri).search_model_versions(f"name = '{name}'")]


def version_of(run: RunRef, name: str, adapter: RunRef) -> str:
    """The version of `name` that the run has registered of the adapter's run; empty where there is none."""
    found = run.client.search_model_versions(f"name = '{name}' and run_id = '{run.run_id}'")
    return next((str(each.version) for each in found if each.tags.get(ADAPTER_RUN_TAG) == adapter.run_id), "")


@dataclass(frozen=True)
class VersionCard:
    """The card of a registered version: Markdown and HTML on the run that registered it, their beginning on its page.

    Not among the model's files, to which MLflow's UI knows no link. A version without a run has none, and gets none.
    """

    client: MlflowClient
    name: str
    version: str

    @property
    def _run_id(self) -> str:
        return self.client.get_model_version(self.name, self.version).run_id or ""

    @property
    def _stem(self) -> str:
        return f"{MODEL_CARD}{self.version}"

    @property
    def ui_path(self) -> str:
        """The HTML as a link that MLflow's UI follows, wherever it is served."""
        return f"{RunRef(self.client.tracking_uri, self._run_id).ui_path}/artifacts/{self._stem}.html"

    def read(self) -> str | None:
        """The Markdown, if there is any."""
        return read_text(self.client, self._run_id, f"{self._stem}.md") if self._run_id else None

    def write(self, card: str, page: str, beginning: str) -> None:
        """The card as Markdown and as HTML, and as much of it as the version's own page holds."""
        run_id = self._run_id
        self.client.log_text(run_id, card, f"{self._stem}.md")
        self.client.log_text(run_id, page, f"{self._stem}.html")
        self.client.update_model_version(self.name, self.version, beginning)
