"""Before and after, side by side: tables for the terminal, for MLflow's description and for its table view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wertune.scores.bootstrap import Interval
from wertune.scores.eval_report import EvalReport, SetReport
from wertune.scores.intervals import cer_interval, precision_interval, recall_interval, wer_interval
from wertune.scores.metrics import EditCounts, Scores, TermCounts, Utterance, utterance_row

INTERVALS = {
    "wer": wer_interval, "cer": cer_interval, "term_recall": recall_interval, "term_precision": precision_interval,
}  # fmt: skip


def metric_name(split: str, name: str) -> str:
    """The column in MLflow: `test_wer`, `term_recall` (of test), `retention_wer` (of its test), `retention_val_wer`."""
    short = {"validation": "val", "retention_validation": "retention_val", "retention_test": "retention"}
    return name if split == "test" and name.startswith("term_") else f"{short.get(split, split)}_{name}"


def logged_metrics(scores: Scores, split: str, prefix: str = "") -> dict[str, float]:
    """The summary as metrics, `test_wer`, …; those of terms only where a term is said."""
    has_terms = scores.terms.hits + scores.terms.misses > 0
    summary = scores.summary().items()
    return {
        prefix + metric_name(split, name): float(value)
        for name, value in summary
        if has_terms or not name.startswith("term_")
    }


@dataclass(frozen=True)
class Comparison:
    """The untouched base and the adapter on the same clips."""

    before: Scores
    after: Scores

    @property
    def relative_reduction(self) -> float:
        """How much of the base's WER is gone; 0 when it had none."""
        return 1.0 - self.after.wer / self.before.wer if self.before.wer else 0.0

    def metrics(self, split: str) -> dict[str, float]:
        """As logged: `test_wer` with its interval, `baseline_test_wer`, …; the rise of WER is in points."""
        after, before = logged_metrics(self.after, split), logged_metrics(self.before, split, "baseline_")
        changes = {
            "wer_rise_points": 100.0 * (self.after.wer - self.before.wer),
            "wer_reduction": self.relative_reduction,
        }
        for name, interval in INTERVALS.items():
            ends = interval(self.after) if metric_name(split, name) in after else None
            changes |= {f"{name}_low": ends.low, f"{name}_high": ends.high} if ends else {}
        return after | before | {metric_name(split, name): value for name, value in changes.items()}

    def by_speaker(self) -> list[dict[str, Any]]:
        """One row a speaker: WER before and after."""
        before, after = self.before.by(lambda u: u.speaker), self.after.by(lambda u: u.speaker)
        return [
            {
                "speaker": speaker,
                "utterances": len(scores.utterances),
                "wer_before": before[speaker].wer,
                "wer_after": scores.wer,
                "term_recall_before": before[speaker].terms.recall,
                "term_recall_after": scores.terms.recall,
            }
            for speaker, scores in after.items()
        ]

    def by_term(self) -> list[dict[str, Any]]:
        """One row a term that was said or written: the base's counts, then the adapter's."""
        before, after = self.before.by_term(), self.after.by_term()
        return [
            {"term": term}
            | _term_counts(before.get(term, TermCounts()), "base_")
            | _term_counts(after.get(term, TermCounts()))
            for term in sorted(before | after)
        ]

    def rows(self) -> list[dict[str, Any]]:
        """One row an utterance, the base's transcript and errors beside the adapter's."""
        rows = []
        for before, after in zip(self.before.utterances, self.after.utterances, strict=True):
            base = {"baseline_hypothesis": before.hypothesis, "baseline_errors": before.words.errors}
            rows.append({**utterance_row(after), **base})
        return rows


def _term_counts(counts: TermCounts, prefix: str = "") -> dict[str, int]:
    return {f"{prefix}hits": counts.hits, f"{prefix}misses": counts.misses, f"{prefix}false": counts.false_alarms}


def scores_of(report: SetReport) -> Scores:
    """The scores that a set's counts were of; of characters only their sum is known."""
    return Scores(
        tuple(
            Utterance(
                id=each.id,
                reference=each.reference,
                hypothesis=each.hypothesis,
                words=EditCounts(each.substitutions, each.deletions, each.insertions, each.words),
                characters=EditCounts(substitutions=each.character_errors, length=each.characters),
                terms={term: TermCounts(*counts) for term, counts in each.terms.items()},
                speaker=each.speaker,
                channel=each.channel,
                duration_s=each.duration_s,
            )
            for each in report.utterances
        )
    )


def comparisons_of(after: EvalReport, before: Mapping[str, SetReport]) -> dict[str, Comparison]:
    """The report's sets beside those of `before` that are of the very same clips."""
    return {
        split: Comparison(scores_of(before[split]), scores_of(after.sets[split]))
        for split in before
        if split in after.sets and after.sets[split].digest == before[split].digest
    }


def summary_rows(
    comparisons: Mapping[str, Comparison], before: str = "untouched base", after: str = "best adapter"
) -> list[list[str]]:
    """The table that is printed at the end: what, before, after, with 95 % intervals."""
    rows = [["", before, after, "change"]]
    for split, both in comparisons.items():
        name = split.replace("_", " ")
        base, tuned = both.before, both.after
        change = f"{100 * (tuned.wer - base.wer):+.2f} points ({0.0 - 100 * both.relative_reduction:+.1f} %)"
        intervals = [wer_interval(scores) for scores in (base, tuned)]
        rows.append([f"{name} WER", *map(_with_interval, (base.wer, tuned.wer), intervals), change])
        rows.append([f"{name} CER", _percent(base.cer), _percent(tuned.cer), ""])
        if base.terms.hits + base.terms.misses:
            for measure, ends in (("recall", recall_interval), ("precision", precision_interval)):
                values = [_with_interval(shown_rate(s.terms, measure), ends(s)) for s in (base, tuned)]
                rows.append([f"{name} term {measure}", *values, ""])
    return rows


def shown_rate(terms: TermCounts, measure: str) -> float | None:
    """`recall` or `precision` for a reader: None where no term was written, which is neither right nor wrong."""
    return None if measure == "precision" and not terms.written else float(getattr(terms, measure))


def _with_interval(value: float | None, ends: Interval | None) -> str:
    if value is None:
        return "–"
    return _percent(value) + (f" ({100 * ends.low:.1f} to {100 * ends.high:.1f})" if ends else "")


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the heading, as an aligned Markdown table, readable in a terminal too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
