"""One registered model in MLflow: versions, stages, aliases, tags, reports; the only file here that knows MLflow."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from wergate.errors import RegistryError
from wergate.trail.registered_model import FoundReport, Snapshot, Version
from wertune.base.config import parse
from wertune.base.contract import EVAL_REPORT, REGISTRAR_TAG, REPORT_DIGEST_TAG, REPORT_FOR_TAG, TEST_DIGEST_TAG
from wertune.base.errors import ConfigError, first_line
from wertune.reports.card_text import write_card
from wertune.scores.eval_report import EvalReport
from wertune.tracking.outage import POSTGRES_REMEDY, driver_remedy, no_answer, reason
from wertune.tracking.runs import all_of, read_text, tracking_uri
from wertune.tracking.versions import VersionCard

# SQLite's "database is locked" and a server's 503: both pass.
RETRIES_S = (0.1, 0.3, 1.0, 3.0)

# What to do where a call is refused because there is no such thing.
NOT_FOUND_REMEDIES = {"get_registered_model": "train or tune first, or name another --model"}

_AGAIN = "put it back as it was written, or evaluate the version again: the newest report counts"

Answer = TypeVar("Answer")


class MlflowModel:
    """A registered model behind `wergate.trail.registered_model.RegisteredModel`."""

    def __init__(self, name: str, uri: str, registry_uri: str) -> None:
        self.name = name
        self._client = MlflowClient(uri, registry_uri)

    def tags(self) -> Mapping[str, str]:
        return dict(self._model().tags)

    def look(self) -> Snapshot:
        """Versions first: an alias that is read later may be newer than its stage, never older."""
        ask = partial(_answer, self._client.search_model_versions, f"name='{self.name}'", 1000)
        versions = {
            str(v.version): Version(
                str(v.version), str(v.current_stage), v.creation_timestamp, v.run_id or "", dict(v.tags)
            )
            for v in all_of(lambda token: ask(page_token=token))
        }
        model = self._model()
        aliases = {alias: str(version) for alias, version in model.aliases.items()}
        return Snapshot(self.name, versions, aliases, dict(model.tags))

    def _model(self) -> Any:
        return _answer(self._client.get_registered_model, self.name)

    def registrar(self, version: Version) -> str:
        """Who ran the run that registered the version, or its tag `wergate.registrar`; empty when neither is known."""
        if version.run_id:
            try:
                user = self._client.get_run(version.run_id).data.tags.get("mlflow.user", "")
            except MlflowException:
                user = ""
            if user:
                return str(user)
        return version.tags.get(REGISTRAR_TAG, "")

    def set_tag(self, key: str, value: str) -> None:
        _answer(self._client.set_registered_model_tag, self.name, key, value)

    def delete_tag(self, key: str) -> None:
        _answer(self._client.delete_registered_model_tag, self.name, key)

    def set_version_tag(self, version: str, key: str, value: str) -> None:
        _answer(self._client.set_model_version_tag, self.name, version, key, value)

    def set_stage(self, version: str, stage: str) -> None:
        """MLflow's archiving of the others is one transaction with the move."""
        alone = stage in ("Staging", "Production")
        with warnings.catch_warnings():
            # Stages are deprecated, and they are what this project's users asked for.
            warnings.simplefilter("ignore", FutureWarning)
            _answer(
                self._client.transition_model_version_stage, self.name, version, stage, archive_existing_versions=alone
            )

    def set_alias(self, alias: str, version: str) -> None:
        _answer(self._client.set_registered_model_alias, self.name, alias, version)

    def delete_alias(self, alias: str) -> None:
        _answer(self._client.delete_registered_model_alias, self.name, alias)

    def find_report(self, version: Version, test_digest: str) -> FoundReport | None:
        """The newest finished report of exactly this version on this test set, or on any where the digest is empty.

        One older than the version is of another that had its number, before the model was deleted and made again.
        """
        query = (
            f"tags.`{REPORT_FOR_TAG}` = '{self.name}/{version.number}'"
            f" and attributes.status = 'FINISHED' and attributes.start_time >= {version.created_ms}"
        )
        if test_digest:
            query += f" and tags.`{TEST_DIGEST_TAG}` = '{test_digest}'"
        experiments = [found.experiment_id for found in _answer(self._client.search_experiments)]
        newest = ["attributes.start_time DESC"]
        runs = _answer(self._client.search_runs, experiments, query, max_results=1, order_by=newest)
        return self._load(runs[0], version.number) if runs else None

    def _load(self, run: Any, version: str) -> FoundReport:
        run_id = run.info.run_id
        place = f"run {run_id}: {EVAL_REPORT}"
        try:
            text = _with_files(lambda: _answer(read_text, self._client, run_id, EVAL_REPORT))
            if text is None:
                raise RegistryError(f"{place} is not there; {_AGAIN}")
            report = parse(EvalReport, json.loads(text), place)
        except ConfigError as error:
            faults = str(error).splitlines()
            more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
            raise RegistryError(f"{faults[0]}{more}; {_AGAIN}") from None
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{place} is not JSON ({first_line(error)}); {_AGAIN}") from None
        promised = run.data.tags.get(REPORT_DIGEST_TAG)
        if (report.model, report.version, report.digest) != (self.name, version, promised):
            raise RegistryError(
                f"run {run_id}: {EVAL_REPORT} is of {report.model}/{report.version} with digest {report.digest}, "
                f"but its tags promise {self.name}/{version} with {promised}; {_AGAIN}"
            )
        return FoundReport(run_id, report)

    def write_artifact(self, run_id: str, path: str, text: str) -> None:
        _with_files(lambda: _answer(self._client.log_text, run_id, text, path))

    def read_card(self, version: Version) -> str | None:
        return _with_files(VersionCard(self._client, self.name, version.number).read)

    def write_card(self, version: Version, card: str) -> None:
        _with_files(partial(write_card, VersionCard(self._client, self.name, version.number), card))


def store_uris() -> tuple[str, str]:
    """Where the runs are, and where the registry is: the same unless MLFLOW_REGISTRY_URI says otherwise."""
    tracking, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    uri = tracking_uri()
    return uri, uri if registry == tracking else registry


def open_model(name: str) -> MlflowModel:
    """The registered model in the store that MLflow's settings name."""
    try:
        return MlflowModel(name, *store_uris())
    except ModuleNotFoundError as error:
        raise RegistryError(f"the store's driver {error.name} is not installed; {driver_remedy(error)}") from None


def _with_files(call: Callable[[], Answer]) -> Answer:
    """The call's answer; every store of artifacts has errors of its own."""
    try:
        return call()
    except (RegistryError, UnicodeDecodeError):  # of the registry itself, and of what the file holds
        raise
    except Exception as error:
        raise RegistryError(f"the artifact store refused it: {reason(error)}") from None


def _answer(call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
    """The call's answer, asked again while the store is only busy; every other failure is a RegistryError."""
    for pause_s in (*RETRIES_S, None):
        try:
            return call(*arguments, **options)
        except MlflowException as error:
            if pause_s is None or error.error_code != "TEMPORARILY_UNAVAILABLE":
                text = " ".join(str(error.message).split())[:500]
                if "psycopg.errors.UndefinedFunction" in text:
                    text = f"MLflow compares numbers with text, which psycopg 3 forbids; {POSTGRES_REMEDY}"
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" and call.__name__ in NOT_FOUND_REMEDIES:
                    text = f"{text}; {NOT_FOUND_REMEDIES[call.__name__]}"
                raise RegistryError(no_answer(error) or f"the registry refused {call.__name__}: {text}") from None
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")
