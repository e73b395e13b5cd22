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
        seen = _with_pruned(study)
        yield "optimization_history.png", _figure(plots.plot_optimization_history(seen, target_name="objective"))
        if len(seen.trials) >= 2:
            yield "parallel_coordinates.png", _figure(plots.plot_parallel_coordinate(seen, target_name="objective"))
            yield "param_importances.png", _figure(plots.plot_param_importances(seen, target_name="objective"))


def importances(study: optuna.Study) -> dict[str, float]:
    """Each searched parameter's share of the objective's variance, the greatest first; two trials at least."""
    seen = _with_pruned(study)
    if len(seen.trials) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return dict(optuna.importance.get_param_importances(seen))


def _with_pruned(study: optuna.Study) -> optuna.Study:
    """The study with pruned trials as complete ones, at their last value: Optuna's plots leave them out otherwise."""
    seen = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.value is not None:
            trial.state = TrialState.COMPLETE
            seen.add_trial(trial)
    return seen


def _figure(axes: object) -> Figure:
    figure = axes.figure  # type: ignore[attr-defined]
    assert isinstance(figure, Figure)
    figure.set_size_inches(11, 6)
    figure.tight_layout()
    return figure
