"""Before and after, side by side: tables for the terminal, for MLflow's description and for its table view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wertune.bootstrap import Interval
from wertune.intervals import precision_interval, recall_interval, wer_interval
from wertune.metrics import Scores, utterance_row


def logged_metrics(scores: Scores, prefix: str) -> dict[str, float]:
    """The summary as metrics, `test_wer`, …; those of terms only where a term is said.

    MLflow's columns are narrow: `validation` is `val`, in baselines as in trials.
    """
    has_terms = scores.terms.hits + scores.terms.misses > 0
    named = prefix.replace("validation", "val")
    summary = scores.summary().items()
    return {f"{named}_{name}": float(value) for name, value in summary if has_terms or not name.startswith("term_")}


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
        after, before = logged_metrics(self.after, split), logged_metrics(self.before, f"baseline_{split}")
        for name, ends in (("wer", wer_interval(self.after)), ("term_recall", recall_interval(self.after))):
            after |= {f"{split}_{name}_low": ends.low, f"{split}_{name}_high": ends.high} if ends else {}
        rise = 100.0 * (self.after.wer - self.before.wer)
        return after | before | {f"{split}_wer_rise_points": rise, f"{split}_wer_reduction": self.relative_reduction}

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

    def rows(self) -> list[dict[str, Any]]:
        """One row an utterance, the base's transcript and errors beside the adapter's."""
        rows = []
        for before, after in zip(self.before.utterances, self.after.utterances, strict=True):
            base = {"baseline_hypothesis": before.hypothesis, "baseline_errors": before.words.errors}
            rows.append({**utterance_row(after), **base})
        return rows


def summary_rows(comparisons: Mapping[str, Comparison]) -> list[list[str]]:
    """The table that is printed at the end: what, before, after, with 95 % intervals."""
    rows = [["", "untouched base", "best adapter", "change"]]
    for split, both in comparisons.items():
        name = split.replace("_", " ")
        before, after = both.before, both.after
        change = f"{100 * (after.wer - before.wer):+.2f} points ({-100 * both.relative_reduction:+.1f} %)"
        intervals = [wer_interval(scores) for scores in (before, after)]
        rows.append([f"{name} WER", *map(_with_interval, (before.wer, after.wer), intervals), change])
        rows.append([f"{name} CER", _percent(before.cer), _percent(after.cer), ""])
        if before.terms.hits + before.terms.misses:
            for measure, ends in (("recall", recall_interval), ("precision", precision_interval)):
                values = [_with_interval(getattr(s.terms, measure), ends(s)) for s in (before, after)]
                rows.append([f"{name} term {measure}", *values, ""])
    return rows


def _with_interval(value: float, ends: Interval | None) -> str:
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
