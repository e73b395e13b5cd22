"""What a job logs beside its metrics: tables, figures, the error report, and a description that links to them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from wertune.base import contract
from wertune.jobs.ablation import Ablation
from wertune.reports.card_text import INTERVALS
from wertune.reports.drawing import figures_page, file_name, picture
from wertune.reports.error_report import ScoredSet, error_report
from wertune.reports.figures import TrialHistory, importances_of, run_figures
from wertune.reports.time_spent import Phases, Span, time_bars, trial_spans
from wertune.scores.comparison import Comparison, markdown_table, metric_name, summary_rows
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, children
from wertune.tracking.versions import VersionCard
from wertune.training.prepare import Prepared
from wertune.training.trial import short_names

ERROR_REPORT = "error_report.html"
FIGURES = "figures.html"
ABLATION = "what_it_brings.json"
LEADERBOARD = {
    "objective": contract.BEST_OBJECTIVE,
    "val_wer": "best_val_wer",
    "retention_val_wer": "best_retention_val_wer",
    "best_epoch": "best_epoch",
    contract.TRAINABLE_PERCENT: contract.TRAINABLE_PERCENT,
    "clips_per_s": "clips_per_s",
}


def log_search(run: RunRef) -> None:
    """The leaderboard and how many trials ended how."""
    rows = leaderboard(run)
    run.table(rows, "leaderboard.json")
    outcomes = [row["outcome"] for row in rows]
    run.metrics({f"trials_{outcome}": outcomes.count(outcome) for outcome in ("completed", "pruned", "failed")})


def leaderboard(parent: RunRef) -> list[dict[str, Any]]:
    """One row a trial, best first: its outcome, figures and run."""
    rows = [
        {"trial": run.info.run_name, "outcome": run.data.tags.get(contract.OUTCOME_TAG, run.info.status.lower())}
        | {column: run.data.metrics.get(metric) for column, metric in LEADERBOARD.items()}
        | {"run_id": run.info.run_id}
        for run in children(parent)
    ]
    return sorted(rows, key=lambda row: (row["objective"] is None, row["objective"]))


def log_figures(
    run: RunRef,
    prepared: Prepared,
    comparisons: Mapping[str, Comparison],
    phases: Phases,
    study: optuna.Study | None = None,
    rungs: Sequence[int] = (),
) -> None:
    """All figures of the run on one page and as pictures; without a study the run itself is its one trial."""
    shares = short_names(importances_of(study)) if study else {}
    title = f"{prepared.project.name}: search and results"
    figures = [*run_figures(_histories(run), comparisons, shares, rungs), time_bars(_spans(run, phases))]
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


def _spans(run: RunRef, phases: Phases) -> list[Span]:
    """The phases of the main job, and the trials that ended below it in them."""
    spans = phases.spans()
    for each in sorted(children(run), key=lambda child: str(child.info.run_name)):
        trial, info = RunRef(run.tracking_uri, each.info.run_id), each.info
        began_s, ended_s = info.start_time / 1000, (info.end_time or 0) / 1000
        if ended_s > spans[0].start_s:  # beside those of before a resumed search's would be a dot
            name = info.run_name.partition(":")[0]
            spans += trial_spans(name, began_s, ended_s, trial.dated("train_s"), trial.dated("evaluation_s"))
    return spans


def log_comparison(run: RunRef, split: str, both: Comparison) -> None:
    """Metrics before and after, and tables of utterances, speakers and terms."""
    run.metrics(both.metrics(split))
    run.table(both.rows(), f"{split}_utterances.json")
    run.table(both.by("speaker"), f"{split}_by_speaker.json")
    if len(by_language := both.by("language")) > 1:
        run.table(by_language, f"{split}_by_language.json")
        named = {metric_name(split, f"wer_{row['language']}"): row for row in by_language}
        run.metrics({name: row["wer_after"] for name, row in named.items()})
        run.metrics({f"baseline_{name}": row["wer_before"] for name, row in named.items()})
    if both.by_term():
        run.table(both.by_term(), f"{split}_terms.json")


def log_error_report(run: RunRef, prepared: Prepared, comparisons: Mapping[str, Comparison], facts: str) -> None:
    """`facts` is the line below the report's title."""
    sets = [ScoredSet(split, prepared.dataset[split], both) for split, both in comparisons.items()]
    title = f"{prepared.project.name}: what is written wrong"
    run.text(error_report(title, facts, sets, prepared.normalise), ERROR_REPORT)


@dataclass(frozen=True)
class Results:
    """Base and adapter by split, and what each part brings; None where no terms are known."""

    comparisons: Mapping[str, Comparison]
    ablation: Ablation | None


def describe(run: RunRef, prepared: Prepared, results: Results, best: str, version: str, verdict: str) -> str:
    """Writes the run's description, true whatever becomes of the version, and returns the tables of results.

    `best` is a link to the best trial.
    """
    table = markdown_table(summary_rows(results.comparisons))
    parts = f"What each part brings:\n\n{results.ablation.table()}" if results.ablation else ""
    name, page = prepared.project.name, run.ui_path
    links = {
        "All trials": run.view_path,
        "Error report": f"{page}/artifacts/{ERROR_REPORT}",
        "Figures": f"{page}/artifacts/{FIGURES}",
        "Model card": VersionCard(run.client, name, version).ui_path,
        f"models:/{name}/{version}": f"#/models/{name}/versions/{version}",
    }
    text = (
        f"## {name} on {prepared.base.spec}\n\n"
        + " · ".join(f"[{title}]({place})" for title, place in links.items())
        + f"\n\n{table}\n\n{INTERVALS}\n\n"
        + (f"{parts}\n\n" if parts else "")
        + f"Best trial: {best}.\n\nWhen it was registered: {verdict}.\n\n"
        "What every column means, with its unit: `docs/metrics.md`.\n"
    )
    run.tags({DESCRIPTION_TAG: text})
    return f"{table}\n\n{parts}".rstrip()
