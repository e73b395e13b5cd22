"""Scores of a registered version as it serves, for the gates or on any manifest, or of an untouched base."""

from dataclasses import dataclass
from pathlib import Path

from wertune.base.config import BaseModelConfig, load_project
from wertune.battery.shelf import project_battery
from wertune.battery.table import metrics as battery_metrics
from wertune.battery.table import table
from wertune.jobs.assess import assess, score_split
from wertune.jobs.final_set import refuse_final_manifest
from wertune.jobs.opening import start_experiment
from wertune.jobs.tune import log_comparison, log_error_report
from wertune.scores.eval_report import ARTEFACT_SET
from wertune.scores.metrics import Scores
from wertune.serving.pyfunc import load_registered, registered_engine
from wertune.tracking.runs import DESCRIPTION_TAG, tracking_uri
from wertune.tracking.versions import registered_version
from wertune.training.baseline import baseline_scores
from wertune.training.prepare import prepare

EVAL_REPORT = "eval_report.json"


def evaluate_manifest(folder: Path, model_uri: str, base: str, manifest: Path | None, engine: str = "") -> Scores:
    """Scores of a registered version as it serves, or of an untouched base at 30 s, on the rows of a manifest."""
    project = load_project(folder)
    if base:
        project = project.model_copy(update={"base_model": BaseModelConfig(source=base)})
    path = manifest or folder / project.data.test
    refuse_final_manifest(folder, project, model_uri, path)
    prepared = prepare(folder, project, {"test": path})
    if base:
        return baseline_scores(prepared, ["test"])["test"]
    served = load_registered(model_uri, engine)
    return score_split(prepared, served.whisper, "test", served.context, served.decode, served.longest_piece_s)


@dataclass(frozen=True)
class Evaluated:
    """Test scores of a version by `engine`, and the WER of the 8-bit artefact in torch where that is another one.

    `battery` is a table of ordinary speech beside the base's, empty where the project has none.
    """

    scores: Scores
    engine: str
    artefact_wer: float | None
    battery: str


def evaluate_version(folder: Path, model_uri: str, engine: str = "") -> Evaluated:
    """Measures a registered version as it serves, or in another `engine`, and keeps its EvalReport as a run."""
    project = load_project(folder)
    version = registered_version(tracking_uri(), model_uri)
    with start_experiment(folder, project, f"evaluate {version.name} v{version.version}") as (run, prepared):
        uri = f"models:/{version.name}/{version.version}"
        served = load_registered(uri, engine)
        battery = project_battery(folder, project)
        report, comparisons = assess(prepared, served, version, battery)
        told = table(report.sets, report.baseline) if battery else ""
        run.metrics(battery_metrics(report.sets) | battery_metrics(report.baseline, "baseline_"))
        for split, both in comparisons.items():
            log_comparison(run, split, both)
        log_error_report(run, prepared, comparisons, f"{uri} as it serves in {served.engine}, on {prepared.base.spec}")
        artefact = report.sets.get(ARTEFACT_SET)
        if artefact:
            run.metrics({f"{ARTEFACT_SET}_wer": artefact.wer})
        run.text(report.model_dump_json(indent=1), EVAL_REPORT)
        # The gates find a report by this tag: one of an engine that does not serve the version is none of theirs.
        is_served = served.engine == registered_engine(uri)
        run.tags(
            {
                "wergate.report_for" if is_served else "wertune.report_in_another_engine_for": uri.removeprefix(
                    "models:/"
                ),
                "wergate.test_digest": report.sets["test"].digest,
                "wergate.report_digest": report.digest,
                "wertune.engine": served.engine,
                DESCRIPTION_TAG: f"`{uri}` as it serves in {served.engine}, beside the untouched base.",
            }
        )
    return Evaluated(comparisons["test"].after, served.engine, artefact.wer if artefact else None, told)
