"""Before and after, side by side, with two-sided 95 % confidence intervals over speakers where they are enough.

Tables for the terminal, for MLflow's description and for its table view.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from wertune.scores.bootstrap import BootstrapSettings, Floats, Interval, TooFewBlocks, corpus_rate, paired_difference
from wertune.scores.eval_report import EvalReport, SetReport
from wertune.scores.metrics import EditCounts, Scores, TermCounts, Utterance, utterance_row

# Each end by itself holds with 97.5 %, both together with 95 %.
TWO_SIDED = BootstrapSettings(confidence=0.975)
# By their names in `Scores.summary`.
RATES = {"wer": "WER", "cer": "CER", "term_recall": "term recall", "term_precision": "term precision"}

Count = Callable[[Utterance], int]
Value = tuple[float | None, Interval | None]  # a rate for a reader, with its ends where there are any


def _terms(utterance: Utterance) -> TermCounts:
    return sum(utterance.terms.values(), TermCounts())


# What is counted of each clip for a rate, and of how many.
_COUNTS: dict[str, tuple[Count, Count]] = {
    "wer": (lambda u: u.words.errors, lambda u: u.words.length),
    "cer": (lambda u: u.characters.errors, lambda u: u.characters.length),
    "term_recall": (lambda u: _terms(u).hits, lambda u: _terms(u).said),
    "term_precision": (lambda u: _terms(u).hits, lambda u: _terms(u).written),
}


def rate_interval(scores: Scores, rate: str) -> Interval | None:
    """One of `RATES` and its ends; None where the clips are too few for any.

    None too where every draw gives the same rate, as where all or nothing is wrong: no width is not certainty.
    """
    part, whole = (_column(scores, count) for count in _COUNTS[rate])
    try:
        ends = corpus_rate(part, whole, _speakers(scores), TWO_SIDED)
    except TooFewBlocks:
        return None
    return ends if ends.low < ends.high else None


def wer_change(before: Scores, after: Scores) -> Interval | None:
    """Corpus WER of `after` minus that of `before`, on the same clips, and its ends; None where they are too few."""
    errors, words = _COUNTS["wer"]
    now, then = (_column(scores, errors) for scores in (after, before))
    try:
        return paired_difference(now, then, _column(after, words), _speakers(after), TWO_SIDED)
    except TooFewBlocks:
        return None


def _column(scores: Scores, count: Count) -> Floats:
    return np.array([count(utterance) for utterance in scores.utterances], np.float64)


def _speakers(scores: Scores) -> list[str]:
    return [utterance.speaker for utterance in scores.utterances]


def metric_name(split: str, name: str) -> str:
    """The column in MLflow: `test_wer`, `term_recall` (of test), `retention_wer` (of its test), `retention_val_wer`."""
    short = {"validation": "val", "retention_validation": "retention_val", "retention_test": "retention"}
    return name if split == "test" and name.startswith("term_") else f"{short.get(split, split)}_{name}"


def logged_metrics(scores: Scores, split: str, prefix: str = "") -> dict[str, float]:
    """The summary as metrics, `test_wer`, …; those of terms only where a term is said."""
    said = scores.terms.said
    summary = {name: value for name, value in scores.summary().items() if said or not name.startswith("term_")}
    return {prefix + metric_name(split, name): float(value) for name, value in summary.items()}


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
        for name in RATES:
            ends = rate_interval(self.after, name) if metric_name(split, name) in after else None
            changes |= {f"{name}_low": ends.low, f"{name}_high": ends.high} if ends else {}
        return after | before | {metric_name(split, name): value for name, value in changes.items()}

    def rates(self) -> list[tuple[str, Value, Value]]:
        """Name of each rate, its value before and after; of terms only where one is said."""
        told = [name for name in RATES if self.before.terms.said or not name.startswith("term_")]
        return [(RATES[name], _valued(self.before, name), _valued(self.after, name)) for name in told]

    def by(self, name: Literal["speaker", "language"]) -> list[dict[str, Any]]:
        """One row a speaker or language: WER before and after."""
        group = attrgetter(name)
        before, after = self.before.by(group), self.after.by(group)
        return [
            {
                name: each,
                "utterances": len(scores.utterances),
                "wer_before": before[each].wer,
                "wer_after": scores.wer,
                "term_recall_before": before[each].terms.recall,
                "term_recall_after": scores.terms.recall,
            }
            for each, scores in after.items()
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


def _valued(scores: Scores, rate: str) -> Value:
    """A precision is None where no term was written, which is neither right nor wrong."""
    known = rate != "term_precision" or scores.terms.written
    return float(scores.summary()[rate]) if known else None, rate_interval(scores, rate)


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
                language=each.language,
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
        change = 100 * (both.after.wer - both.before.wer)
        changes = {"WER": f"{change:+.2f} points ({0.0 - 100 * both.relative_reduction:+.1f} %)"}
        for name, *values in both.rates():
            cells = [_cell(value, None if name == "CER" else ends) for value, ends in values]
            rows.append([f"{split.replace('_', ' ')} {name}", *cells, changes.get(name, "")])
    return rows


def by_language_table(comparisons: Mapping[str, Comparison]) -> str:
    """WER of each language, before and after, in Markdown; empty where a set has one only."""
    found = {split: both.by("language") for split, both in comparisons.items()}
    rows = [
        [split, row["language"], row["utterances"], f"{row['wer_before']:.2%}", f"{row['wer_after']:.2%}"]
        for split, each in found.items()
        for row in each
        if len(each) > 1
    ]
    return markdown_table([["set", "language", "clips", "WER of the base", "WER"], *rows]) if rows else ""


def _cell(value: float | None, ends: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" + (f" ({100 * ends.low:.1f} to {100 * ends.high:.1f})" if ends else "")


def markdown_table(rows: Sequence[Sequence[object]]) -> str:
    """Rows, the first of them the heading, as a Markdown table whose columns line up in a terminal too.

    Chinese letters count as two, and a bar in a cell would end it.
    """
    from rich.cells import cell_len, set_cell_size

    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(map(set_cell_size, row, widths))} |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
