"""All that is taken from Optuna's private names: a sampler, a cache and trials that a resumed search goes on with.

`tests/unit/search/test_private_names.py` names them: an upgrade that moves one fails there.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState


def taken_up(study: Study, running: FrozenTrial, space: Mapping[str, BaseDistribution]) -> Trial:
    """A trial that an earlier process left, with what was not drawn of it yet: as `ask` gives a new one."""
    trial = Trial(study, running._trial_id)
    for name, distribution in space.items():
        trial._suggest(name, distribution)
    return trial


class _SoFar:
    """A study as it would be if each trial that runs, and has told of an epoch, had been stopped there.

    Optuna files what runs among the bad, so that no two draw the same; the best may run the longest, though.
    """

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Sequence[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = map(_as_if_stopped, self._study._get_trials(deepcopy=deepcopy, use_cache=use_cache))
        return [trial for trial in trials if states is None or trial.state in states]


def _as_if_stopped(trial: FrozenTrial) -> FrozenTrial:
    if trial.state is not TrialState.RUNNING or not trial.intermediate_values:
        return trial
    stopped = copy(trial)
    stopped.state = TrialState.PRUNED
    return stopped


class TpeByNumber(TPESampler):  # type: ignore[misc]
    """TPE that draws by seed, trial and earlier results alone: a resumed search proposes what an unbroken one would.

    Of a trial that runs, what it has reached so far is a result.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, n_startup_trials=5)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seeds the draws of the trial, whatever was drawn before."""
        # Independent of one another: the sampler at random must not repeat the draws of TPE.
        for stream, sampler in enumerate((self, self._random_sampler)):
            seeds = np.random.SeedSequence([self._seed, trial.number, stream]).generate_state(4)
            sampler._rng.rng.seed(seeds)
        super().before_trial(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the trial, drawn by all that is known so far."""
        drawn: dict[str, Any] = super().sample_relative(_SoFar(study), trial, search_space)
        return drawn

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value for the trial, likewise."""
        return super().sample_independent(_SoFar(study), trial, param_name, param_distribution)


class OneWriter(_CachedStorage):  # type: ignore[misc]
    """Optuna's cache of a database that reads again only what this process has changed since it read.

    Its own reads every unfinished trial at each look, some five times a proposal, for another process may have
    written: with 64 trials at once that was seven tenths of a driver's work. A search has one driver, which holds its
    folder (journal_writer.py).
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._newest: dict[int, int] = {}  # the last trial that was read, by study
        self._changed: dict[int, set[int]] = {}  # trials that were written to since, by study

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            newest, changed = self._newest.get(study_id, -1), self._changed.get(study_id, set())
            trials = self._backend._get_trials(study_id, None, changed, newest)
            self._studies.setdefault(study_id, _StudyInfo())
            self._add_trials_to_cache(study_id, trials)
            self._newest[study_id] = max([newest, *(trial._trial_id for trial in trials)])
            self._changed[study_id] = set()

    def _changes(self, trial_id: int) -> int:
        """To be said before a write: one whose answer is lost may have been done."""
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        self._changed.setdefault(study_id, set()).add(trial_id)
        return trial_id

    def set_trial_param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        super().set_trial_param(self._changes(trial_id), name, value, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        return bool(super().set_trial_state_values(self._changes(trial_id), state, values))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        super().set_trial_intermediate_value(self._changes(trial_id), step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(self._changes(trial_id), key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(self._changes(trial_id), key, value)
