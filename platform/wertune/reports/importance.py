"""What mattered in a search."""

import warnings

import optuna
from optuna.trial import TrialState


def importances(study: optuna.Study) -> dict[str, float]:
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
