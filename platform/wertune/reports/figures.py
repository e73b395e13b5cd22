"""What a run's figures show, as plotly would have it: `drawing.py` makes the page and the pictures of the same."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import optuna
from optuna.trial import TrialState

from wertune.base.contract import BEST_OBJECTIVE, PEAK_MEMORY_MB, TRAINABLE_PERCENT
from wertune.scores.comparison import Comparison
from wertune.scores.metrics import Scores, Utterance

BEFORE, AFTER = "#8b95a1", "#3a86d8"
# Okabe & Ito's colours, told apart by most eyes; all else is drawn in the colours of the page or the paper.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8b95a1")
DURATIONS_S = (2, 3, 4, 6, 10, 15)
COSTLY = ("quantization", "batch_size", "lora_r", "lora_scope", "lora_target_modules")
SYMBOLS = {"completed": "circle", "pruned": "x", "failed": "triangle-down"}

Figure = dict[str, Any]


@dataclass(frozen=True)
class TrialHistory:
    """A trial as its run tells it: its number from 1, `val_wer` by epoch, last metrics, point of the search space."""

    number: int
    name: str
    outcome: str
    val_wer: Mapping[int, float]
    metrics: Mapping[str, float]
    point: Mapping[str, Any]


def run_figures(
    trials: Sequence[TrialHistory],
    comparisons: Mapping[str, Comparison],
    importances: Mapping[str, float],
    rungs: Sequence[int],
) -> list[Figure]:
    """Title, note, data and layout of each; a figure that there is nothing for is left out."""
    scored = [trial for trial in trials if BEST_OBJECTIVE in trial.metrics]
    figures = [learning_curves(trials, rungs)] if any(trial.val_wer for trial in trials) else []
    if len(scored) > 1:
        figures += [optimisation_history(scored, rungs), parallel_coordinates(scored)]
    if importances:
        figures.append(importance_bars(importances))
    if any(PEAK_MEMORY_MB in trial.metrics for trial in trials):
        figures.append(memory_bars(trials))
    for split, both in comparisons.items():
        name = split.replace("_", " ")
        figures.append(wer_bars(f"WER by speaker, {name}", both, lambda utterance: utterance.speaker or "unknown"))
        figures.append(wer_bars(f"WER by duration, {name}", both, _duration_bin))
        if both.before.terms.said:
            figures.append(term_recall(f"Recall by term, {name}", both))
    return figures


def learning_curves(trials: Sequence[TrialHistory], rungs: Sequence[int]) -> Figure:
    """Validation WER by epoch; the last mark says how the trial ended."""
    traces = [
        {
            "name": trial.name.partition(":")[0],
            "x": list(trial.val_wer),
            "y": list(trial.val_wer.values()),
            "mode": "lines+markers",
            "line": {"color": PALETTE[number % 7], "dash": "dot" if number % 14 > 6 else "solid"},
            "marker": {
                "symbol": ["circle"] * (len(trial.val_wer) - 1) + [SYMBOLS.get(trial.outcome, "circle")],
                "size": [4] * (len(trial.val_wer) - 1) + [11],
            },
            "text": [trial.name] * len(trial.val_wer),
            "hovertemplate": "%{text}<br>epoch %{x}: %{y:.2%}<extra></extra>",
        }
        for number, trial in enumerate(trials)
        if trial.val_wer
    ]
    note = "A cross ends a trial that ASHA stopped, a circle one that went to the end."
    note += " Dashed: ASHA's rungs, where a trial must be among the best to go on." if rungs else ""
    x = {"title": "epoch", "dtick": 1, "rangemode": "tozero"}
    layout = {"xaxis": x, "yaxis": _percent("validation WER")} | _lines_at(rungs)
    return _figure("Learning curves", note, traces, layout)


def _lines_at(rungs: Sequence[int]) -> Figure:
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": BEFORE, "width": 1, "dash": "dash"}}
    label = {"textposition": "start", "textangle": 0, "xanchor": "left", "font": {"size": 11}}
    return {
        "shapes": [
            {**line, "x0": rung, "x1": rung, "label": {**label, "text": f"rung {number}"}}
            for number, rung in enumerate(rungs, 1)
        ]
    }


def optimisation_history(trials: Sequence[TrialHistory], rungs: Sequence[int]) -> Figure:
    """Each trial's least objective by its number, by where it ended, and the best so far."""
    trials = sorted(trials, key=lambda trial: trial.number)
    values = [trial.metrics[BEST_OBJECTIVE] for trial in trials]
    numbers = [trial.number for trial in trials]
    ends = [(trial.outcome, max(trial.val_wer, default=0)) for trial in trials]
    traces: list[Figure] = []
    for end in sorted(set(ends), key=lambda end: (end[0] != "completed", end[1])):
        there = [place for place, each in enumerate(ends) if each == end]
        colour = AFTER if end[0] == "completed" else PALETTE[len(traces) % 6]
        traces.append(
            {
                "name": _reached(*end, rungs),
                "x": [numbers[place] for place in there],
                "y": [values[place] for place in there],
                "text": [trials[place].name for place in there],
                "mode": "markers",
                "marker": {"symbol": SYMBOLS.get(end[0], "square"), "size": 11, "color": colour},
                "hovertemplate": "%{text}<br>objective %{y:.4f}<extra>%{fullData.name}</extra>",
            }
        )
    best = list(accumulate(values, min))
    line = {"shape": "hv", "color": BEFORE}
    traces.append({"name": "best so far", "x": numbers, "y": best, "mode": "lines", "line": line, "hoverinfo": "skip"})
    note = "Validation WER and the price of forgetting, at each trial's best epoch. Crosses: stopped by ASHA"
    note += f", whose rungs are after epochs {', '.join(map(str, rungs))}." if rungs else "."
    each = {"dtick": 1} if max(numbers) <= 20 else {}
    layout = {"xaxis": {"title": "trial"} | each, "yaxis": {"title": "objective"}}
    return _figure("Optimisation history", note, traces, layout)


def _reached(outcome: str, epoch: int, rungs: Sequence[int]) -> str:
    """`stopped at rung 2 (epoch 2)`, `completed (epoch 8)`."""
    at = f"rung {rungs.index(epoch) + 1} (epoch {epoch})" if epoch in rungs else f"epoch {epoch}"
    return f"stopped at {at}" if outcome == "pruned" else f"{outcome} (epoch {epoch})"


def parallel_coordinates(trials: Sequence[TrialHistory]) -> Figure:
    """A line a trial across all that was searched, each axis from its least to its greatest value."""
    keys = sorted({key for trial in trials for key in trial.point})
    axes = {key: _positions([trial.point.get(key) for trial in trials]) for key in keys}
    values = [trial.metrics[BEST_OBJECTIVE] for trial in trials]
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
    named = {key: [trial.point.get(key) for trial in trials] for key in keys} | {"objective": values}
    labels = [label for key in axes for label in _labels(key, named[key], axes[key])]
    x = {"tickangle": -25, "automargin": True, "range": [-0.3, len(axes) - 0.2]}
    y = {"tickvals": [], "range": [-0.15, 1.12], "zeroline": False}
    layout = {"xaxis": x, "yaxis": y, "showlegend": False, "height": 500, "annotations": labels}
    note = "Blue: the best trial. Each axis from its least value to its greatest, in logarithm where that is over ten "
    note += "times as much; words in alphabetical order."
    return _figure("Parallel coordinates", note, traces, layout)


def _labels(key: str, values: Sequence[Any], positions: Sequence[float | None]) -> Iterator[Figure]:
    """What stands at the places of an axis: every word, of numbers the least and the greatest."""
    shown = {place: _shown(value) for value, place in zip(values, positions, strict=True) if place is not None}
    numbers = all(isinstance(value, (int, float)) for value in values if value is not None)
    for place in {min(shown), max(shown)} if numbers and shown else shown:
        text = shown[place].replace(",", ",<br>")
        yield {"x": key, "y": place, "text": text, "xanchor": "left", "align": "left", "xshift": 5, "showarrow": False,
               "font": {"size": 10}}  # fmt: skip


def _positions(values: Sequence[Any]) -> list[float | None]:
    """Each value's place between the least (0) and the greatest (1); None where there is none.

    By the logarithm where positive values span more than a decade, as a learning rate is searched.
    """
    known = [value for value in values if value is not None]
    if all(isinstance(value, (int, float)) for value in known):
        scale = math.log if 0 < 10 * min(known) < max(known) else float
        low, high = scale(min(known)), scale(max(known))
        return [None if v is None else (scale(v) - low) / (high - low) if high > low else 0.5 for v in values]
    names = sorted({str(value) for value in known})
    return [None if v is None else names.index(str(v)) / max(1, len(names) - 1) for v in values]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def importances_of(study: optuna.Study) -> dict[str, float]:
    """Each searched parameter's share of the objective's variance (fANOVA), the greatest first; {} for one trial."""
    seen = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.value is not None:
            trial.state = TrialState.COMPLETE  # a pruned one at its last value: Optuna would leave it out
            seen.add_trial(trial)
    if len(seen.trials) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return dict(optuna.importance.get_param_importances(seen))


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
    """The highest peak of each configuration that trials shared, beside what it trained."""
    groups: dict[str, list[TrialHistory]] = {}
    for trial in sorted(trials, key=lambda trial: trial.metrics.get(PEAK_MEMORY_MB, 0.0)):
        if PEAK_MEMORY_MB in trial.metrics:
            groups.setdefault(_configuration(trial), []).append(trial)
    ordered = sorted(groups.items(), key=lambda group: group[1][-1].metrics[PEAK_MEMORY_MB])
    bars = {
        "type": "bar", "orientation": "h", "y": [configuration for configuration, _ in ordered],
        "x": [members[-1].metrics[PEAK_MEMORY_MB] for _, members in ordered],
        "text": [_of_trials(members) for _, members in ordered], "marker": {"color": AFTER}, "textposition": "auto",
        "hovertemplate": "%{y}: %{x:.0f} MiB<br>%{text}<extra></extra>",
    }  # fmt: skip
    layout = {"xaxis": {"title": "peak memory, MiB"}, "yaxis": {"automargin": True}, "height": 120 + 30 * len(ordered)}
    note = "A process's largest resident size on a CPU, CUDA's allocations on a GPU; longer trials meet longer clips."
    return _figure("Memory by configuration", note, [bars], layout)


def _configuration(trial: TrialHistory) -> str:
    """`lora_r=16, q_proj,v_proj`: what of the point costs memory."""
    chosen = [(key, trial.point[key]) for key in COSTLY if key in trial.point]
    texts = [value if isinstance(value, str) else f"{key}={_shown(value)}" for key, value in chosen]
    return ", ".join(texts) or "as project.yaml says"


def _of_trials(members: Sequence[TrialHistory]) -> str:
    names = [member.name.partition(":")[0] for member in sorted(members, key=lambda member: member.number)]
    percent = members[0].metrics.get(TRAINABLE_PERCENT)
    trained = f"{percent:.2f} % trained; " if percent is not None else ""
    return trained + (", ".join(names) if len(names) <= 3 else f"{len(names)} trials")


def wer_bars(title: str, both: Comparison, key: Any) -> Figure:
    """WER before and after in each group that `key` names."""
    before, after = both.before.by(key), both.after.by(key)
    names = sorted(before, key=_natural)
    traces = [
        {
            "type": "bar", "name": name, "x": [f"{group}<br>{_clips(scores[group])}" for group in names],
            "y": [scores[group].wer for group in names], "marker": {"color": colour},
            "hovertemplate": f"{name}, %{{x}}: %{{y:.2%}}<extra></extra>",
        }
        for name, scores, colour in (("untouched base", before, BEFORE), ("adapter", after, AFTER))
    ]  # fmt: skip
    return _figure(title, "", traces, {"barmode": "group", "yaxis": _percent("WER"), "xaxis": {"automargin": True}})


def _clips(scores: Scores) -> str:
    count = len(scores.utterances)
    return f"{count} clip{'s' if count != 1 else ''}"


def _natural(name: str) -> list[Any]:
    """Sorts `voice 2` before `voice 10`, and `3 to 4 s` before `15 s and more`."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]


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
    return _figure(title, "The hardest for the adapter at the top.", traces, layout)


def _recalls(scores: Scores) -> dict[str, tuple[float, int, int]]:
    return {term: (each.recall, each.hits, each.said) for term, each in scores.by_term().items() if each.said}


def _percent(title: str) -> Figure:
    return {"title": title, "tickformat": ".0%", "rangemode": "tozero"}


def _figure(title: str, note: str, traces: Sequence[Figure], layout: Figure) -> Figure:
    return {"title": title, "note": note, "data": list(traces), "layout": layout}
