"""The final set, heard nowhere else: opened once for a version, and the opening kept with it."""

from datetime import UTC, datetime
from pathlib import Path

from wertune.base import contract
from wertune.base.config import ProjectConfig, load_project
from wertune.base.errors import ConfigError, ManifestError
from wertune.data.manifest import FINAL_SPLIT
from wertune.jobs.evaluate import served_by_several
from wertune.jobs.measures import leakage, score_split
from wertune.jobs.opening import log_inputs
from wertune.scores.comparison import Comparison
from wertune.scores.final_set import Opening, openings, versions_opened
from wertune.serving.pyfunc import load_registered
from wertune.tracking.opening import open_run
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, tracking_uri
from wertune.tracking.versions import RegisteredVersion, registered_version, tags_of_versions
from wertune.training.baseline import baseline_scores
from wertune.training.prepare import Prepared, prepare


def open_final_set(folder: Path, model_uri: str) -> tuple[Opening, int]:
    """The version's opening, made where there is none yet, and for how many versions the set was opened.

    Raises ConfigError without `data.final` and for what is not registered, ManifestError where the set leaks.
    """
    project = load_project(folder)
    if project.data.final is None:
        remedy = "name a manifest of speakers and sentences that are nowhere else (docs/metrics.md, The final set)"
        raise ConfigError(f"{folder}/project.yaml: data.final is not given, but --final opens it; {remedy}")
    if not model_uri.startswith("models:/"):
        rule = "the final set is opened for registered versions alone, with which the opening is kept"
        remedy = "give a version that `tune` or `train` registered, such as models:/sg_gov/1"
        raise ConfigError(f"--model-uri is {model_uri}, but {rule}; {remedy}")
    version = registered_version(tracking_uri(), model_uri)
    manifest = folder.resolve() / project.data.final
    digest = prepare(folder, project, {FINAL_SPLIT: manifest}).dataset.digest(FINAL_SPLIT)
    opening = _opened(version, digest) or _open(folder, project, version)
    return opening, len(versions_opened([*_openings(version.name, digest), opening])[digest])


def _openings(model: str, digest: str) -> list[Opening]:
    """Of a set, by its digest, for all versions of the model."""
    found = [each for tags in tags_of_versions(tracking_uri(), model) for each in openings(tags)]
    return [each for each in found if each.set_digest == digest]


def _opened(version: RegisteredVersion, digest: str) -> Opening | None:
    return next((each for each in _openings(version.name, digest) if each.version == version.version), None)


def _open(folder: Path, project: ProjectConfig, version: RegisteredVersion) -> Opening:
    with open_run(project.name, f"final set, {version.name} v{version.version}") as run:
        prepared = prepare(folder, project, final=True)
        log_inputs(run, prepared)
        if leaks := leakage(prepared, version.training_rows, FINAL_SPLIT):
            rule = f"data.final may hold nothing that {version.name}/{version.version} was trained on"
            raise ManifestError("\n".join([*leaks, f"but {rule}; remove those rows"]))
        opening = _scored(prepared, version, run)
        if first := _opened(version, opening.set_digest):  # by another, while this one read the set: the first stays
            run.tags({DESCRIPTION_TAG: f"opened meanwhile by run {first.run_id}, whose opening is the one that counts"})
            return first
        kept = (opening.model, opening.version, opening.key, opening.model_dump_json())
        run.ask(lambda client: client.set_model_version_tag(*kept))  # before anybody reads what it says
        run.metrics(opening.figures)
        run.tags({DESCRIPTION_TAG: opening.text, contract.FINAL_DIGEST_TAG: opening.set_digest})
        return opening


def _scored(prepared: Prepared, version: RegisteredVersion, run: RunRef) -> Opening:
    served = load_registered(f"models:/{version.name}/{version.version}")
    base = baseline_scores(prepared, [FINAL_SPLIT])[FINAL_SPLIT]
    with served_by_several(served, len(prepared.dataset[FINAL_SPLIT])) as hands:
        after = score_split(prepared, hands, FINAL_SPLIT, served.context, served.decode, served.longest_piece_s)
    figures = Comparison(base, after).metrics(FINAL_SPLIT)
    return Opening(
        model=version.name,
        version=version.version,
        who=run.ask(lambda client: client.get_run(run.run_id)).data.tags.get("mlflow.user", ""),
        at=datetime.now(UTC),
        set_digest=prepared.dataset.digest(FINAL_SPLIT),
        clips=len(prepared.dataset[FINAL_SPLIT]),
        run_id=run.run_id,
        engine=served.engine,
        figures={name: round(value, 6) for name, value in figures.items()},
    )
