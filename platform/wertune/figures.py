"""Pictures of a search, by Optuna's own plots."""

import warnings
from collections.abc import Iterator

import matplotlib as mpl
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState


def search_figures(study: optuna.Study) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each: optimisation history, parameter importances, parallel coordinates."""
    mpl.use("Agg")
    from optuna.visualization import matplotlib as plots

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        target = {"target": _value, "target_name": "objective"}
        yield "optimization_history.png", _figure(plots.plot_optimization_history(study, **target))
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if len(finished) < 2:
            return
        yield "parallel_coordinates.png", _figure(plots.plot_parallel_coordinate(study, **target))
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) >= 2:
            yield "param_importances.png", _figure(plots.plot_param_importances(study))


def _value(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.value) if trial.value is not None else float("nan")


def _figure(axes: object) -> Figure:
    figure = axes.figure  # type: ignore[attr-defined]
    assert isinstance(figure, Figure)
    figure.set_size_inches(11, 6)
    figure.tight_layout()
    return figure
