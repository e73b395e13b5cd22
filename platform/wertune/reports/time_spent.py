"""Where a job's time went: the main process's phases, and below them each trial's training and evaluation."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wertune.reports.figures import BEFORE, PALETTE, Figure

MAIN = "main job"
# What is neither training nor evaluation: a worker's start, features, and what ends a trial.
BESIDE = "start, features, waiting"
# Tol's muted colours beside Okabe & Ito's, which are too few.
_PHASES = (PALETTE[0], PALETTE[4], PALETTE[5], PALETTE[3], "#332288", "#882255", "#999933")
_COLOURS = {"training": PALETTE[2], "evaluation": PALETTE[1], BESIDE: BEFORE}
_LINE_PX = 14


@dataclass(frozen=True)
class Span:
    """What a row of the picture did from when to when, in seconds since 1970."""

    row: str
    what: str
    start_s: float
    end_s: float


@dataclass
class Phases:
    """What the main process does, one thing after the other; the last one goes on."""

    _begun: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, what: str) -> None:
        """Ends what is going on."""
        self._begun.append((what, time.time()))

    def spans(self) -> list[Span]:
        """All of them so far."""
        ends = [start for _, start in self._begun[1:]] + [time.time()]
        return [Span(MAIN, what, start, end) for (what, start), end in zip(self._begun, ends, strict=True)]


Dated = Mapping[int, tuple[float, float]]


def trial_spans(row: str, start_s: float, end_s: float, training: Dated, evaluation: Dated) -> list[Span]:
    """A trial's seconds of training and evaluation by epoch, with when each epoch was told of, and what lay between."""
    spans, at_s = list[Span](), start_s
    for epoch in sorted(training.keys() & evaluation.keys()):
        (trained_s, told_s), (evaluated_s, _) = training[epoch], evaluation[epoch]
        scored_at_s = max(at_s, told_s - evaluated_s)
        began_s = max(at_s, scored_at_s - trained_s)
        spans += [Span(row, BESIDE, at_s, began_s), Span(row, "training", began_s, scored_at_s)]
        spans.append(Span(row, "evaluation", scored_at_s, told_s))
        at_s = told_s
    spans.append(Span(row, BESIDE, at_s, max(at_s, end_s)))
    return [span for span in spans if span.end_s > span.start_s]


def time_bars(spans: Sequence[Span]) -> Figure:
    """A line a row from the first moment on; the phases of the main job each in a colour of its own."""
    first_s = min(span.start_s for span in spans)
    rows = list(dict.fromkeys(span.row for span in spans))
    phases = list(dict.fromkeys(span.what for span in spans if span.row == MAIN))
    others = [what for what in _COLOURS if any(span.what == what and span.row != MAIN for span in spans)]
    colours = {what: _PHASES[n % len(_PHASES)] for n, what in enumerate(phases)}
    traces = [
        _trace(what, colour, [span for span in spans if (span.row == MAIN, span.what) == key], rows, first_s)
        for key, what, colour in (
            *(((True, what), what, colours[what]) for what in phases),
            *(((False, what), what, _COLOURS[what]) for what in others),
        )
    ]
    minutes = (max(span.end_s for span in spans) - first_s) / 60
    places = list(range(len(rows)))
    layout = {
        "xaxis": {"title": "minutes", "rangemode": "tozero"},
        "yaxis": {"tickvals": places, "ticktext": rows, "range": [len(rows) - 0.5, -0.5], "automargin": True},
        "height": 170 + 28 * len(rows),
    }
    note = f"From one run, of {minutes:.1f} minutes, on its machine. Trials side by side share its cores."
    return {"title": "Where the time went", "note": note, "data": traces, "layout": layout}


def _trace(what: str, colour: str, spans: Sequence[Span], rows: Sequence[str], first_s: float) -> Figure:
    """Lines with gaps between them."""
    x, y, text = list[float](), list[int | None](), list[str]()
    for span in spans:
        start, end = ((at_s - first_s) / 60 for at_s in (span.start_s, span.end_s))
        x += [start, end, end]
        y += [rows.index(span.row), rows.index(span.row), None]
        text += 3 * [f"{span.row}, {what}: {span.end_s - span.start_s:.0f} s"]
    total_s = sum(span.end_s - span.start_s for span in spans)
    return {
        "name": f"{what}, {total_s:.0f} s", "x": x, "y": y, "text": text, "mode": "lines",
        "line": {"color": colour, "width": _LINE_PX}, "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
