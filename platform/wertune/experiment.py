"""The main job, in reading order: baseline, search, best adapter, final evaluation, registered version."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from wertune.assess import assess, score_split
from wertune.baseline import EVALUATION_SPLITS, Transcribe, baseline_scores
from wertune.config import (
    BaseModelConfig,
    ProjectConfig,
    TrialConfig,
    flatten,
    with_overrides,
)
from wertune.error_report import ScoredSet, error_report
from wertune.errors import ConfigError, WertuneError
from wertune.eval_report import ARTEFACT_SET
from wertune.figures import importances, search_figures
from wertune.interactive import TrialHistory, figures_page
from wertune.metrics import Scores
from wertune.model import load_adapter
from wertune.model_card import CardOf, card_page, model_card, shortened
from wertune.prepare import Prepared, load_project, prepare
from wertune.report import Comparison, logged_metrics, markdown_table, summary_rows
from wertune.search_space import SearchConfig
from wertune.serve import load_registered, log_and_register, registered_engine
from wertune.text import normaliser_version
from wertune.tracking import (
    DESCRIPTION_TAG,
    MAX_DESCRIPTION_CHARACTERS,
    OUTCOME_TAG,
    POINT_TAG,
    TRAINING_ROWS,
    RunRef,
    check_artifacts,
    children,
    describe_version,
    open_run,
    production_version,
    registered_version,
    tracking_uri,
)
from wertune.train import Objective
from wertune.trial import ADAPTER_ARTIFACT, BEST_METRICS, SIZE_METRICS, short_names

FINAL_SPLITS = ("test", "retention_test")
EVAL_REPORT = "eval_report.json"
SEARCH_TAG = "wertune.search"
# What changes nothing of a trial: a search may go on with more trials, or on another machine.
FREE_TO_CHANGE = {"trials", "max_concurrent", "gpus_per_trial", "cpus_per_trial"}
ERROR_REPORT = "error_report.html"
FIGURES = "figures.html"
MODEL_CARD = "model_card"


@contextmanager
def start_experiment(
    folder: Path, project: ProjectConfig, run_name: str, resume: str = "", search: SearchConfig | None = None
) -> Iterator[tuple[RunRef, Prepared]]:
    """The project checked and its run opened: whatever is wrong with it ends the run as FAILED with the reason.

    Raises ConfigError when the `search` to `resume` is another than was begun.
    """
    with open_run(project.name, run_name, resume) as run:
        check_artifacts(run)
        prepared = prepare(folder, project)
        if search is not None:
            _bind_search(run, prepared, search, bool(resume))
        log_inputs(run, prepared)
        yield run, prepared


def _bind_search(run: RunRef, prepared: Prepared, search: SearchConfig, resume: bool) -> None:
    """Trials of one search are compared with one another: a resumed one must train the same on the same data."""
    splits = {split: prepared.dataset.digest(split) for split in prepared.dataset.splits}
    settings = prepared.project.trial.model_dump(mode="json"), search.model_dump(mode="json", exclude=FREE_TO_CHANGE)
    digest = hashlib.sha256(json.dumps([settings, splits, prepared.base.digest]).encode()).hexdigest()[:32]
    began = run.tag(SEARCH_TAG)
    if resume and began != digest:
        remedy = "resume with the project, options and data that it began with, or start a new search"
        raise ConfigError(f"resume: the search of run {run.run_id} is {began}, but this one is {digest}; {remedy}")
    run.tags({SEARCH_TAG: digest})


def log_inputs(run: RunRef, prepared: Prepared) -> None:
    """The resolved configuration, the data with their digests, and what the scores depend on."""
    run.text(yaml.safe_dump(prepared.project.model_dump(mode="json"), sort_keys=False), "project.yaml")
    if prepared.dataset.skipped:
        run.text("\n".join(map(str, prepared.dataset.skipped)) + "\n", "skipped_rows.txt")
    run.metrics({"skipped_rows": len(prepared.dataset.skipped)})
    trained_on = [(r.digest, r.row.text) for split in ("train", "replay") for r in prepared.dataset[split]]
    run.text(json.dumps(trained_on, ensure_ascii=False), TRAINING_ROWS)
    for split, recordings in prepared.dataset.splits.items():
        minutes = sum(recording.duration_s for recording in recordings) / 60
        profile = json.dumps({"clips": len(recordings), "minutes": round(minutes, 2)})
        source = json.dumps({"uri": recordings[0].place.rpartition(":")[0]})
        name = f"{prepared.project.name}/{split}"
        run.dataset(name, prepared.dataset.digest(split), source, context=split, profile=profile)
    run.tags(
        {
            "wertune.base_model": prepared.base.spec,
            "wertune.base_model_digest": prepared.base.digest,
            "wertune.normaliser": normaliser_version(prepared.project.language),
        }
    )


def score_baseline(run: RunRef, prepared: Prepared, transcribe: Transcribe | None = None) -> dict[str, Scores]:
    """The untouched base on every evaluation split, logged as `baseline_…`."""
    scores = baseline_scores(prepared, EVALUATION_SPLITS, transcribe)
    for split, values in scores.items():
        run.metrics(logged_metrics(values, f"baseline_{split}"))
    return scores


def objective_of(prepared: Prepared, baseline: Mapping[str, Scores]) -> Objective:
    """Validation WER with the project's price of forgetting."""
    settings = prepared.project.retention
    reference = baseline["retention_validation"].wer if "retention_validation" in baseline else 0.0
    return Objective(reference, settings.margin_wer, settings.penalty)


@dataclass(frozen=True)
class BestTrial:
    """The child run with the least objective, and the configuration that it ran."""

    run: RunRef
    name: str
    config: TrialConfig


def best_trial(parent: RunRef, prepared: Prepared) -> BestTrial:
    """Raises WertuneError, with the causes, when no trial finished an epoch."""
    runs = children(parent)
    scored = [run for run in runs if "best_objective" in run.data.metrics]
    if not scored:
        causes = sorted({run.data.tags.get(DESCRIPTION_TAG, "no cause recorded") for run in runs})
        raise WertuneError(f"no trial finished an epoch; causes: {'; '.join(causes)}")
    best = min(scored, key=lambda run: run.data.metrics["best_objective"])
    point = json.loads(best.data.tags[POINT_TAG])
    config = with_overrides(prepared.project.trial, point, f"run {best.info.run_id}")
    return BestTrial(RunRef(parent.tracking_uri, best.info.run_id), best.info.run_name, config)


def leaderboard(parent: RunRef) -> list[dict[str, Any]]:
    """One row a trial, best first: its outcome, figures and parameters."""
    rows = []
    for run in children(parent):
        figures = run.data.metrics
        rows.append(
            {
                "trial": run.info.run_name,
                "outcome": run.data.tags.get(OUTCOME_TAG, run.info.status.lower()),
                "objective": figures.get("best_objective"),
                "val_wer": figures.get("best_val_wer"),
                "retention_val_wer": figures.get("best_retention_val_wer"),
                "best_epoch": figures.get("best_epoch"),
                "trainable_percent": figures.get("trainable_percent"),
                "clips_per_s": figures.get("clips_per_s"),
                "run_id": run.info.run_id,
            }
        )
    return sorted(rows, key=lambda row: (row["objective"] is None, row["objective"]))


def log_search(run: RunRef, study: optuna.Study) -> None:
    """The leaderboard and the search's figures."""
    rows = leaderboard(run)
    run.table(rows, "leaderboard.json")
    outcomes = [row["outcome"] for row in rows]
    run.metrics({f"trials_{outcome}": outcomes.count(outcome) for outcome in ("completed", "pruned", "failed")})
    for name, figure in search_figures(study):
        run.figure(figure, f"figures/{name}")


def log_figures(
    run: RunRef,
    prepared: Prepared,
    comparisons: Mapping[str, Comparison],
    study: optuna.Study | None = None,
    rungs: Sequence[int] = (),
) -> None:
    """All figures of the run on one page; without a study those of the run itself as its one trial."""
    runs = children(run) or [run.client.get_run(run.run_id)]
    histories = [
        TrialHistory(
            name=each.info.run_name,
            outcome=each.data.tags.get(OUTCOME_TAG, "completed"),
            val_wer=RunRef(run.tracking_uri, each.info.run_id).history("val_wer"),
            metrics=each.data.metrics,
            point=short_names(json.loads(each.data.tags.get(POINT_TAG, "{}"))),
        )
        for each in sorted(runs, key=lambda run: str(run.info.run_name))
    ]
    shares = short_names(importances(study)) if study else {}
    title = f"{prepared.project.name}: search and results"
    run.text(figures_page(title, histories, comparisons, shares, rungs), FIGURES)


def final_evaluation(
    run: RunRef, prepared: Prepared, baseline: Mapping[str, Scores], best: BestTrial
) -> dict[str, Comparison]:
    """The adapter, loaded back from its artifact onto a fresh base, on test and retention test."""
    config = best.config
    run.params({f"best_{key}": value for key, value in short_names(flatten(config.model_dump(mode="json"))).items()})
    with downloaded_adapter(best.run) as adapter:
        whisper = load_adapter(prepared.whisper(config.quantization), adapter)
        run.metrics(best.run.latest(SIZE_METRICS + BEST_METRICS) | {"adapter_mb": _folder_mb(adapter)})
    comparisons = {}
    for split in FINAL_SPLITS:
        if split in baseline:
            after = score_split(prepared, whisper, split, config.context, config.decode)
            comparisons[split] = Comparison(baseline[split], after)
            _log_comparison(run, split, comparisons[split])
    _log_error_report(run, prepared, comparisons, f"{best.name} on {prepared.base.spec}")
    return comparisons


def _folder_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


@contextmanager
def downloaded_adapter(run: RunRef) -> Iterator[Path]:
    """The run's adapter in a folder that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        yield run.download(ADAPTER_ARTIFACT, Path(scratch))


def _log_comparison(run: RunRef, split: str, both: Comparison) -> None:
    run.metrics(both.metrics(split))
    run.table(both.rows(), f"{split}_utterances.json")
    run.table(both.by_speaker(), f"{split}_by_speaker.json")
    terms = both.after.by_term()
    if terms:
        rows = [{"term": t, "hits": c.hits, "misses": c.misses, "false": c.false_alarms} for t, c in terms.items()]
        run.table(rows, f"{split}_terms.json")


def _log_error_report(run: RunRef, prepared: Prepared, comparisons: Mapping[str, Comparison], facts: str) -> None:
    sets = [ScoredSet(split, prepared.dataset[split], both) for split, both in comparisons.items()]
    title = f"{prepared.project.name}: what is written wrong"
    run.text(error_report(title, facts, sets, prepared.normalise), ERROR_REPORT)


def register(run: RunRef, prepared: Prepared, best: BestTrial, comparisons: Mapping[str, Comparison]) -> str:
    """The best adapter as a new version of the project's model, logged to the active run, with its card."""
    name = prepared.project.name
    with downloaded_adapter(best.run) as adapter:
        version = log_and_register(name, adapter, best.config, prepared)
    sizes = run.latest(("trainable_parameters", "trainable_percent", "adapter_mb"))
    card = model_card(
        CardOf(version, run.run_id, best.config, sizes, comparisons, production_version(run.tracking_uri, name)),
        prepared,
    )
    run.text(card, f"{MODEL_CARD}.md")
    run.text(card_page(f"{name} version {version}", card), f"{MODEL_CARD}.html")
    link = f"[The whole card]({run.ui_path}/artifacts/{MODEL_CARD}.html)"
    describe_version(run.tracking_uri, name, version, shortened(card, MAX_DESCRIPTION_CHARACTERS, link))
    return version


def evaluate_manifest(folder: Path, model_uri: str, base: str, manifest: Path | None, engine: str = "") -> Scores:
    """Scores of a registered version as it serves, or of an untouched base at 30 s, on the rows of a manifest."""
    project = load_project(folder)
    if base:
        project = project.model_copy(update={"base_model": BaseModelConfig(source=base)})
    path = manifest or folder / project.data.test
    prepared = prepare(folder, project, {"test": path})
    if base:
        return baseline_scores(prepared, ["test"])["test"]
    served = load_registered(model_uri, engine)
    return score_split(prepared, served.whisper, "test", served.context, served.decode)


@dataclass(frozen=True)
class Evaluated:
    """Test scores of a version by `engine`, and the WER of the 8-bit artefact in torch where that is another one."""

    scores: Scores
    engine: str
    artefact_wer: float | None


def evaluate_version(folder: Path, model_uri: str, engine: str = "") -> Evaluated:
    """Measures a registered version as it serves, or in another `engine`, and keeps its EvalReport as a run."""
    project = load_project(folder)
    version = registered_version(tracking_uri(), model_uri)
    with start_experiment(folder, project, f"evaluate {version.name} v{version.version}") as (run, prepared):
        uri = f"models:/{version.name}/{version.version}"
        served = load_registered(uri, engine)
        report, comparisons = assess(prepared, served, version)
        for split, both in comparisons.items():
            _log_comparison(run, split, both)
        _log_error_report(run, prepared, comparisons, f"{uri} as it serves in {served.engine}, on {prepared.base.spec}")
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
    return Evaluated(comparisons["test"].after, served.engine, artefact.wer if artefact else None)


def describe(
    run: RunRef,
    prepared: Prepared,
    comparisons: Mapping[str, Comparison],
    best: BestTrial,
    version: str,
    stage: str,
) -> str:
    """Writes the run's description and returns the table of results."""
    table = markdown_table(summary_rows(comparisons))
    name = prepared.project.name
    page = run.ui_path
    links = {"Error report": ERROR_REPORT, "Figures": FIGURES, "Model card": f"{MODEL_CARD}.html"}
    text = (
        f"## {name} on {prepared.base.spec}\n\n"
        + " · ".join(f"[{title}]({page}/artifacts/{file})" for title, file in links.items())
        + f" · [models:/{name}/{version}](#/models/{name}/versions/{version}), stage {stage}\n\n{table}\n\n"
        "In brackets: 95 % confidence intervals by a bootstrap over speakers, or over clips where speakers are few. "
        f"Best trial: {best.name}.\n"
    )
    run.tags({DESCRIPTION_TAG: text})
    return table
