"""The main job, in reading order: baseline, search, best adapter, final evaluation, registered version."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from wertune.base import contract
from wertune.base.config import DecodeConfig, TrialConfig, flatten, with_overrides
from wertune.base.errors import WertuneError
from wertune.jobs.ablation import Ablation, ablation, caption, rewritten
from wertune.jobs.assess import score_split
from wertune.reports.card_text import INTERVALS, write_card
from wertune.reports.drawing import figures_page, file_name, picture
from wertune.reports.error_report import ScoredSet, error_report
from wertune.reports.figures import TrialHistory, run_figures
from wertune.reports.importance import importances
from wertune.reports.model_card import CardOf, model_card
from wertune.scores.aliases import alias_writer
from wertune.scores.comparison import Comparison, logged_metrics, markdown_table, summary_rows
from wertune.scores.metrics import Scores
from wertune.serving.pyfunc import log_and_register
from wertune.serving.served import longest_piece_s
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, children
from wertune.tracking.versions import VersionCard, production_version
from wertune.training.baseline import (
    EVALUATION_SPLITS,
    Transcribe,
    Way,
    baseline_scores,
    baseline_texts,
    score_texts,
    ways_of,
)
from wertune.training.prepare import Prepared
from wertune.training.train import Objective
from wertune.training.trial import ADAPTER_ARTIFACT, BEST_METRICS, SIZE_METRICS, short_names
from wertune.whisper.adapter import load_adapter
from wertune.whisper.model import Whisper

FINAL_SPLITS = ("test", "retention_test")
ERROR_REPORT = "error_report.html"
FIGURES = "figures.html"
ABLATION = "what_it_brings.json"


def score_baseline(run: RunRef, prepared: Prepared, transcribe: Transcribe | None = None) -> dict[str, Scores]:
    """The untouched base on every evaluation split, logged as `baseline_…`.

    What else it writes on validation, for the table of what each part brings, is written and kept by the way.
    """
    others = dict.fromkeys(EVALUATION_SPLITS, (Way.PLAIN,))
    baseline_texts(prepared, others | {"validation": ways_of(prepared)}, transcribe)
    scores = baseline_scores(prepared)
    for split, values in scores.items():
        run.metrics(logged_metrics(values, split, "baseline_"))
    return scores


def objective_of(prepared: Prepared, baseline: Mapping[str, Scores]) -> Objective:
    """Validation WER with the project's price of forgetting."""
    settings = prepared.project.retention
    reference = baseline["retention_validation"].wer if "retention_validation" in baseline else 0.0
    return Objective(reference, settings.margin_wer, settings.penalty)


@dataclass(frozen=True)
class BestTrial:
    """The ended child run with the least objective, and the configuration that it ran."""

    run: RunRef
    name: str
    config: TrialConfig


def best_trial(parent: RunRef, prepared: Prepared) -> BestTrial:
    """Raises WertuneError, with the causes, when no trial finished an epoch.

    A trial that was interrupted has kept no adapter with its run yet.
    """
    runs = children(parent)
    told = [run for run in runs if contract.OUTCOME_TAG in run.data.tags]
    scored = [run for run in told if contract.BEST_OBJECTIVE in run.data.metrics]
    if not scored:
        causes = sorted({run.data.tags.get(DESCRIPTION_TAG, "no cause recorded") for run in runs})
        raise WertuneError(f"no trial finished an epoch; causes: {'; '.join(causes)}")
    best = min(scored, key=lambda run: run.data.metrics[contract.BEST_OBJECTIVE])
    point = json.loads(best.data.tags[contract.POINT_TAG])
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
                "outcome": run.data.tags.get(contract.OUTCOME_TAG, run.info.status.lower()),
                "objective": figures.get(contract.BEST_OBJECTIVE),
                "val_wer": figures.get("best_val_wer"),
                "retention_val_wer": figures.get("best_retention_val_wer"),
                "best_epoch": figures.get("best_epoch"),
                contract.TRAINABLE_PERCENT: figures.get(contract.TRAINABLE_PERCENT),
                "clips_per_s": figures.get("clips_per_s"),
                "run_id": run.info.run_id,
            }
        )
    return sorted(rows, key=lambda row: (row["objective"] is None, row["objective"]))


def log_search(run: RunRef) -> None:
    """The leaderboard and how many trials ended how."""
    rows = leaderboard(run)
    run.table(rows, "leaderboard.json")
    outcomes = [row["outcome"] for row in rows]
    run.metrics({f"trials_{outcome}": outcomes.count(outcome) for outcome in ("completed", "pruned", "failed")})


def log_figures(
    run: RunRef,
    prepared: Prepared,
    comparisons: Mapping[str, Comparison],
    study: optuna.Study | None = None,
    rungs: Sequence[int] = (),
) -> None:
    """All figures of the run on one page and as pictures; without a study the run itself is its one trial."""
    shares = short_names(importances(study)) if study else {}
    title = f"{prepared.project.name}: search and results"
    figures = run_figures(_histories(run), comparisons, shares, rungs)
    run.text(figures_page(title, figures), FIGURES)
    for figure in figures:
        run.figure(picture(figure), f"figures/{file_name(figure)}")


def _histories(run: RunRef) -> list[TrialHistory]:
    """Of the run's trials, oldest first; of the run itself where it has none."""
    return [
        TrialHistory(
            number=int(each.data.tags.get(contract.TRIAL_TAG, 0)) + 1,
            name=each.info.run_name,
            outcome=each.data.tags.get(contract.OUTCOME_TAG, "completed"),
            val_wer=RunRef(run.tracking_uri, each.info.run_id).history("val_wer"),
            metrics=each.data.metrics,
            point=short_names(json.loads(each.data.tags.get(contract.POINT_TAG, "{}"))),
        )
        for each in children(run) or [run.client.get_run(run.run_id)]
    ]


@dataclass(frozen=True)
class Results:
    """Base and adapter by split, and what each part brings; None where no terms are known."""

    comparisons: Mapping[str, Comparison]
    ablation: Ablation | None


def final_evaluation(run: RunRef, prepared: Prepared, baseline: Mapping[str, Scores], best: BestTrial) -> Results:
    """The adapter, loaded back from its artifact onto a fresh base, on test and retention test."""
    config = best.config
    run.params({f"best_{key}": value for key, value in short_names(flatten(config.model_dump(mode="json"))).items()})
    with downloaded_adapter(best.run) as adapter:
        whisper = load_adapter(prepared.whisper(config.quantization), adapter)
        run.metrics(best.run.latest(SIZE_METRICS + BEST_METRICS) | {contract.ADAPTER_MB: _folder_mb(adapter)})
    comparisons = {}
    for split in FINAL_SPLITS:
        if split in baseline:
            after = score_split(prepared, whisper, split, config.context, config.decode, longest_piece_s(prepared))
            comparisons[split] = Comparison(baseline[split], after)
            log_comparison(run, split, comparisons[split])
    log_error_report(run, prepared, comparisons, f"{best.name} on {prepared.base.spec}")
    found = what_it_brings(prepared, config, whisper, comparisons) if prepared.lexicon.terms else None
    if found:
        run.table(found.artifact(), ABLATION)
        run.metrics(found.metrics())
    return Results(comparisons, found)


def what_it_brings(
    prepared: Prepared, config: TrialConfig, whisper: Whisper, comparisons: Mapping[str, Comparison]
) -> Ablation:
    """The adapter on validation as it is served and without its boost, beside all ways of the base."""
    texts = baseline_texts(prepared, {"validation": ways_of(prepared)})["validation"]
    base = {way: score_texts(prepared, "validation", written) for way, written in texts.items()}

    def on_validation(decode: DecodeConfig) -> Scores:
        return score_split(prepared, whisper, "validation", config.context, decode, longest_piece_s(prepared))

    unboosted = config.decode.model_copy(update={"term_boost": 0.0})
    served, test = on_validation(config.decode), comparisons.get("test")
    write = alias_writer(prepared.lexicon)
    return ablation(
        base,
        on_validation(unboosted) if config.decode.term_boost else None,
        served,
        test,
        lambda scores: rewritten(scores, write, prepared.normalise, prepared.finder),
        caption(served, test.after if test else None, len(whisper.wording.glossary.terms), len(prepared.lexicon.terms)),
    )


def _folder_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


@contextmanager
def downloaded_adapter(run: RunRef) -> Iterator[Path]:
    """The run's adapter in a folder that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        yield run.download(ADAPTER_ARTIFACT, Path(scratch))


def log_comparison(run: RunRef, split: str, both: Comparison) -> None:
    """Metrics before and after, and tables of utterances, speakers and terms."""
    run.metrics(both.metrics(split))
    run.table(both.rows(), f"{split}_utterances.json")
    run.table(both.by_speaker(), f"{split}_by_speaker.json")
    if both.by_term():
        run.table(both.by_term(), f"{split}_terms.json")


def log_error_report(run: RunRef, prepared: Prepared, comparisons: Mapping[str, Comparison], facts: str) -> None:
    """`facts` is the line below the report's title."""
    sets = [ScoredSet(split, prepared.dataset[split], both) for split, both in comparisons.items()]
    title = f"{prepared.project.name}: what is written wrong"
    run.text(error_report(title, facts, sets, prepared.normalise), ERROR_REPORT)


def register(run: RunRef, prepared: Prepared, best: BestTrial, comparisons: Mapping[str, Comparison]) -> str:
    """The best adapter as a new version of the project's model, logged to the active run, with its card."""
    name = prepared.project.name
    with downloaded_adapter(best.run) as adapter:
        version = log_and_register(name, adapter, best.config, prepared)
    sizes = run.latest((contract.TRAINABLE_PARAMETERS, contract.TRAINABLE_PERCENT, contract.ADAPTER_MB))
    card = model_card(
        CardOf(version, run.run_id, best.config, sizes, comparisons, production_version(run.tracking_uri, name)),
        prepared,
    )
    write_card(VersionCard(run.client, name, version), card)
    return version


def describe(
    run: RunRef,
    prepared: Prepared,
    results: Results,
    best: BestTrial,
    version: str,
    verdict: str,
) -> str:
    """Writes the run's description, true whatever becomes of the version, and returns the tables of results."""
    table = markdown_table(summary_rows(results.comparisons))
    parts = f"What each part brings:\n\n{results.ablation.table()}" if results.ablation else ""
    name = prepared.project.name
    page = run.ui_path
    links = {"All trials": run.view_path}
    links |= {"Error report": f"{page}/artifacts/{ERROR_REPORT}", "Figures": f"{page}/artifacts/{FIGURES}"}
    links["Model card"] = VersionCard(run.client, name, version).ui_path
    links[f"models:/{name}/{version}"] = f"#/models/{name}/versions/{version}"
    text = (
        f"## {name} on {prepared.base.spec}\n\n"
        + " · ".join(f"[{title}]({place})" for title, place in links.items())
        + f"\n\n{table}\n\n{INTERVALS}\n\n"
        + (f"{parts}\n\n" if parts else "")
        + f"Best trial: [{best.name}]({best.run.ui_path}).\n\nWhen it was registered: {verdict}.\n\n"
        "What every column means, with its unit: `docs/metrics.md`.\n"
    )
    run.tags({DESCRIPTION_TAG: text})
    return f"{table}\n\n{parts}".rstrip()
