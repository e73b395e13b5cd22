"""All figures of a run on one page that can be zoomed and read off: plotly's script once, nothing fetched."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

from wertune.html_page import fill, json_block, page, template
from wertune.metrics import Scores, Utterance
from wertune.report import Comparison

BEFORE, AFTER = "#8b95a1", "#3a86d8"
# Okabe & Ito's colours, told apart by most eyes; the page draws all else in the colours of its theme.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8b95a1")
DURATIONS_S = (2, 3, 4, 6, 10, 15)
COSTLY = ("quantization", "batch_size", "lora_r", "lora_scope", "lora_target_modules")
SYMBOLS = {"completed": "circle", "pruned": "x", "failed": "triangle-down"}

Figure = dict[str, Any]


@dataclass(frozen=True)
class TrialHistory:
    """A trial as its run tells it: `val_wer` by epoch, last metrics, and the point of the search space."""

    name: str
    outcome: str
    val_wer: Mapping[int, float]
    metrics: Mapping[str, float]
    point: Mapping[str, Any]


def figures_page(
    title: str,
    trials: Sequence[TrialHistory],
    comparisons: Mapping[str, Comparison],
    importances: Mapping[str, float],
    rungs: Sequence[int],
) -> str:
    """The page; a figure that there is nothing for is left out."""
    figures = [*_of_search(trials, importances, rungs), *_of_results(comparisons)]
    body = fill(template("figures.html"), title=escape(title), data=json_block("figures", figures))
    return page(title, body, template("figures.css"), get_plotlyjs() + "\n" + template("figures.js"))


def _of_search(
    trials: Sequence[TrialHistory], importances: Mapping[str, float], rungs: Sequence[int]
) -> Iterator[Figure]:
    if any(trial.val_wer for trial in trials):
        yield learning_curves(trials, rungs)
    scored = [trial for trial in trials if "best_objective" in trial.metrics]
    if len(scored) > 1:
        yield optimisation_history(scored, rungs)
        yield parallel_coordinates(scored)
    if importances:
        yield importance_bars(importances)
    if any("peak_memory_mb" in trial.metrics for trial in trials):
        yield memory_bars([trial for trial in trials if "peak_memory_mb" in trial.metrics])


def _of_results(comparisons: Mapping[str, Comparison]) -> Iterator[Figure]:
    for split, both in comparisons.items():
        name = split.replace("_", " ")
        yield wer_bars(f"WER by speaker, {name}", both, lambda utterance: utterance.speaker or "unknown")
        yield wer_bars(f"WER by duration, {name}", both, _duration_bin)
        if both.before.terms.hits + both.before.terms.misses:
            yield term_recall(f"Recall by term, {name}", both)


def learning_curves(trials: Sequence[TrialHistory], rungs: Sequence[int]) -> Figure:
    """Validation WER by epoch; the last mark says how the trial ended."""
    traces = [
        {
            "name": trial.name.partition(":")[0],
            "x": list(trial.val_wer),
            "y": list(trial.val_wer.values()),
            "mode": "lines+markers",
            "line": {"color": PALETTE[number % len(PALETTE)]},
            "marker": {"symbol": _last_symbol(trial), "size": _last_size(trial)},
            "text": [trial.name] * len(trial.val_wer),
            "hovertemplate": "%{text}<br>epoch %{x}: %{y:.2%}<extra></extra>",
        }
        for number, trial in enumerate(trials)
        if trial.val_wer
    ]
    note = "A cross ends a trial that ASHA stopped, a circle one that went to the end."
    note += " Dashed: ASHA's rungs, where a trial must be among the best to go on." if rungs else ""
    x = {"title": "epoch", "dtick": 1, "rangemode": "tozero"}
    return _figure(
        "Learning curves", note, traces, {"xaxis": x, "yaxis": _percent("validation WER")} | _lines_at(rungs)
    )


def _last_symbol(trial: TrialHistory) -> list[str]:
    return ["circle"] * (len(trial.val_wer) - 1) + [SYMBOLS.get(trial.outcome, "circle")]


def _last_size(trial: TrialHistory) -> list[int]:
    return [4] * (len(trial.val_wer) - 1) + [11]


def _lines_at(rungs: Sequence[int]) -> Figure:
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": BEFORE, "width": 1, "dash": "dash"}}
    return {"shapes": [{**line, "x0": rung, "x1": rung} for rung in rungs]}


def optimisation_history(trials: Sequence[TrialHistory], rungs: Sequence[int]) -> Figure:
    """Each trial's least objective in the order of their start, and the best so far."""
    values = [trial.metrics["best_objective"] for trial in trials]
    numbers = list(range(1, len(trials) + 1))
    traces = [
        {
            "name": outcome,
            "x": [n for n, trial in zip(numbers, trials, strict=True) if trial.outcome == outcome],
            "y": [v for v, trial in zip(values, trials, strict=True) if trial.outcome == outcome],
            "text": [f"{t.name}<br>{_reached(t, rungs)}" for t in trials if t.outcome == outcome],
            "mode": "markers",
            "marker": {"symbol": SYMBOLS.get(outcome, "square"), "size": 11, "color": AFTER},
            "hovertemplate": "%{text}<br>objective %{y:.4f}<extra></extra>",
        }
        for outcome in sorted({trial.outcome for trial in trials})
    ]
    best = [min(values[:count]) for count in numbers]
    line = {"shape": "hv", "color": BEFORE}
    traces.append({"name": "best so far", "x": numbers, "y": best, "mode": "lines", "line": line, "hoverinfo": "skip"})
    label = {"showarrow": False, "yshift": 15, "font": {"size": 11}}
    labels = [
        {**label, "x": number, "y": value, "text": f"epoch {max(trial.val_wer)}"}
        for number, value, trial in zip(numbers, values, trials, strict=True)
        if trial.val_wer
    ]
    note = "Validation WER and the price of forgetting, at each trial's best epoch; above it the last one."
    layout = {"xaxis": {"title": "trial", "dtick": 1}, "yaxis": {"title": "objective"}, "annotations": labels}
    return _figure("Optimisation history", note, traces, layout)


def _reached(trial: TrialHistory, rungs: Sequence[int]) -> str:
    last = max(trial.val_wer, default=0)
    at = f", rung {rungs.index(last) + 1} of {len(rungs)}" if last in rungs else ""
    return f"{trial.outcome} at epoch {last}{at}" if trial.outcome == "pruned" else f"{trial.outcome}, {last} epochs"


def parallel_coordinates(trials: Sequence[TrialHistory]) -> Figure:
    """A line a trial across all that was searched, each axis from its least to its greatest value."""
    keys = sorted({key for trial in trials for key in trial.point})
    axes = {key: _positions([trial.point.get(key) for trial in trials]) for key in keys}
    values = [trial.metrics["best_objective"] for trial in trials]
    axes["objective"] = _positions(values)
    ranks = sorted(range(len(trials)), key=lambda each: values[each])
    traces = [
        {
            "name": trial.name.partition(":")[0],
            "x": list(axes),
            "y": [positions[number] for positions in axes.values()],
            "text": [_shown(trial.point.get(key, values[number])) for key in axes],
            "mode": "lines+markers",
            "line": {"color": AFTER if number == ranks[0] else PALETTE[6], "width": 3 if number == ranks[0] else 1.2},
            "opacity": 1.0 if ranks.index(number) < 3 else 0.55,
            "hovertemplate": trial.name.partition(":")[0] + "<br>%{x}: %{text}<extra></extra>",
        }
        for number, trial in enumerate(trials)
    ]
    y = {"tickvals": [0, 1], "ticktext": ["least", "greatest"], "range": [-0.06, 1.06]}
    layout = {"xaxis": {"tickangle": -35, "automargin": True}, "yaxis": y, "showlegend": False, "height": 460}
    note = "Blue: the best trial. Words are in alphabetical order; values are said under the pointer."
    return _figure("Parallel coordinates", note, traces, layout)


def _positions(values: Sequence[Any]) -> list[float | None]:
    """Each value's place between the least (0) and the greatest (1); None where there is none."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, (int, float)) for value in known):
        low, high = min(known), max(known)
        return [None if v is None else (v - low) / (high - low) if high > low else 0.5 for v in values]
    names = sorted({str(value) for value in known})
    return [None if v is None else names.index(str(v)) / max(1, len(names) - 1) for v in values]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def importance_bars(importances: Mapping[str, float]) -> Figure:
    """Shares of the objective's variance, by Optuna's fANOVA."""
    names = list(importances)[::-1]
    bars = {
        "type": "bar", "orientation": "h", "y": names, "x": [importances[name] for name in names],
        "marker": {"color": AFTER}, "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }  # fmt: skip
    layout = {"xaxis": _percent("share of the objective's variance"), "yaxis": {"automargin": True}}
    note = "By fANOVA over the trials that there are: with few of them a hint, no more."
    return _figure("Parameter importances", note, [bars], layout | {"height": 120 + 26 * len(names)})


def memory_bars(trials: Sequence[TrialHistory]) -> Figure:
    """Peak memory of each trial beside what it trained."""
    ordered = sorted(trials, key=lambda trial: trial.metrics["peak_memory_mb"])
    bars = {
        "type": "bar", "orientation": "h", "y": [trial.name.partition(":")[0] for trial in ordered],
        "x": [trial.metrics["peak_memory_mb"] for trial in ordered],
        "text": [_configuration(trial) for trial in ordered], "marker": {"color": AFTER}, "textposition": "auto",
        "hovertemplate": "%{y}: %{x:.0f} MB<br>%{text}<extra></extra>",
    }  # fmt: skip
    layout = {"xaxis": {"title": "peak memory, MB"}, "yaxis": {"automargin": True}, "height": 120 + 30 * len(ordered)}
    note = "A process's largest resident size on a CPU, CUDA's allocations on a GPU; longer trials meet longer clips."
    return _figure("Memory by configuration", note, [bars], layout)


def _configuration(trial: TrialHistory) -> str:
    chosen = [f"{key}={_shown(trial.point[key])}" for key in COSTLY if key in trial.point]
    percent = trial.metrics.get("trainable_percent")
    return ", ".join(chosen + ([f"{percent:.2f} % trained"] if percent is not None else []))


def wer_bars(title: str, both: Comparison, key: Any) -> Figure:
    """WER before and after in each group that `key` names."""
    before, after = both.before.by(key), both.after.by(key)
    names = sorted(before, key=_number_first)
    traces = [
        {
            "type": "bar", "name": name, "x": [f"{group}<br>{len(scores[group].utterances)} clips" for group in names],
            "y": [scores[group].wer for group in names], "marker": {"color": colour},
            "hovertemplate": f"{name}, %{{x}}: %{{y:.2%}}<extra></extra>",
        }
        for name, scores, colour in (("untouched base", before, BEFORE), ("adapter", after, AFTER))
    ]  # fmt: skip
    return _figure(title, "", traces, {"barmode": "group", "yaxis": _percent("WER"), "xaxis": {"automargin": True}})


def _number_first(name: str) -> tuple[int, str]:
    digits = name.partition(" ")[0]
    return (int(digits) if digits.isdigit() else -1, name)


def _duration_bin(utterance: Utterance) -> str:
    """`3 to 4 s`, or `15 s and more`."""
    low = max((edge for edge in DURATIONS_S if utterance.duration_s >= edge), default=0)
    high = next((edge for edge in DURATIONS_S if utterance.duration_s < edge), None)
    return f"{low} to {high} s" if high else f"{low} s and more"


def term_recall(title: str, both: Comparison) -> Figure:
    """Recall of each term that is said, before and after; the hardest for the adapter at the top."""
    before, after = _recalls(both.before), _recalls(both.after)
    terms = sorted(before, key=lambda term: (after[term][0], before[term][0], term), reverse=True)
    traces = [
        {
            "name": name, "x": [recalls[term][0] for term in terms], "y": terms, "mode": "markers",
            "text": [f"{recalls[term][1]} of {recalls[term][2]}" for term in terms],
            "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.5, "color": colour}},
            "hovertemplate": f"{name}, %{{y}}: %{{text}}<extra></extra>",
        }
        for name, recalls, colour, symbol, size in (
            ("untouched base", before, BEFORE, "square-open", 10), ("adapter", after, AFTER, "circle", 7)
        )
    ]  # fmt: skip
    x = _percent("recall") | {"range": [-0.03, 1.03]}
    y = {"automargin": True, "dtick": 1, "range": [-0.7, len(terms) - 0.3]}
    layout = {"xaxis": x, "yaxis": y, "height": 140 + 17 * len(terms)}
    return _figure(title, "The hardest at the top; the pointer says how often a term was said.", traces, layout)


def _recalls(scores: Scores) -> dict[str, tuple[float, int, int]]:
    counts = {term: each for term, each in scores.by_term().items() if each.hits + each.misses}
    return {term: (each.recall, each.hits, each.hits + each.misses) for term, each in counts.items()}


def _percent(title: str) -> Figure:
    return {"title": title, "tickformat": ".0%", "rangemode": "tozero"}


def _figure(title: str, note: str, traces: Sequence[Figure], layout: Figure) -> Figure:
    return {"title": title, "note": note, "data": list(traces), "layout": layout}
