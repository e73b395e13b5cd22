"""Optuna proposes trials; its study is the search's memory, which outlives the process."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher
from sqlalchemy.exc import DBAPIError

from wertune.base.errors import ConfigError
from wertune.base.files import first_at
from wertune.search.optuna_private import OneWriter, TpeByNumber, taken_up
from wertune.search.search_space import SearchConfig
from wertune.search.trial_log import EPOCH, FAILURE, METRIC, NO_ROOM, NUMBER, POINT
from wertune.tracking.credentials import without_password
from wertune.tracking.outage import patiently, reason

Answer = TypeVar("Answer")


def open_study(name: str, storage_url: str, config: SearchConfig, resume: bool) -> optuna.Study:
    """The search's study: a new one with its first points, or the one that is resumed.

    Raises ConfigError when the database does not answer, or holds no such study to resume.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = without_password(storage_url)
    try:
        options = {} if storage_url.startswith("sqlite") else {"pool_pre_ping": True}
        with first_at(storage_url):
            storage = OneWriter(RDBStorage(storage_url, engine_kwargs=options))
        sampler = TpeByNumber(config.seed)
        if resume:
            return optuna.load_study(study_name=name, storage=storage, sampler=sampler)
        study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, direction="minimize")
    except KeyError:
        raise ConfigError(f"resume: {place} holds no search {name}; check the run's id and study_storage") from None
    except Exception as error:  # a driver that is missing, an address, a password: each an exception of its own
        remedy = "start the database, mend its URL, or leave study_storage empty for a local file"
        raise ConfigError(f"study_storage is {place}, but cannot be used ({reason(error)}); {remedy}") from None
    for point in config.first_points:
        study.enqueue_trial(dict(point))
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that completed, were pruned or failed."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


class Proposals(Searcher):  # type: ignore[misc]
    """Hands Ray the trials that an earlier process left unfinished, then new ones; a trial is known by its number.

    A trial that ASHA stops is told PRUNED, its last value kept: Ray's own OptunaSearch tells it COMPLETE and drops
    that. A database that is away for minutes is waited for.
    """

    def __init__(self, study: optuna.Study, config: SearchConfig, epochs: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._study, self._space, self._epochs = study, config.distributions(), epochs
        self._trials: dict[str, optuna.Trial] = {}  # by Ray's name

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The number and the point of the next trial."""
        trial = self._trials[trial_id] = _patiently(self._next)
        return {NUMBER: trial.number, POINT: trial.params}

    def _next(self) -> optuna.Trial:
        held = {trial.number for trial in self._trials.values()}
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        left = [trial for trial in running if trial.number not in held]
        return taken_up(self._study, left[0], self._space) if left else self._study.ask(self._space)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the epoch's value; one that is told again, by a trial that goes on, is known already."""
        if result.get(FAILURE) or result.get(NO_ROOM):
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*already reported")
            _patiently(lambda: self._trials[trial_id].report(result[METRIC], result[EPOCH]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells how the trial ended."""
        value: float | None = None
        state = TrialState.PRUNED
        if error or not result or result.get(FAILURE):
            state = TrialState.FAIL
        else:
            self.on_trial_result(trial_id, result)
            if result[EPOCH] >= self._epochs:
                value, state = result[METRIC], TrialState.COMPLETE
        trial = self._trials[trial_id]
        _patiently(lambda: self._study.tell(trial, value, state=state, skip_if_finished=True))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is in its database, whose URL may hold a password."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _patiently(call: Callable[[], Answer]) -> Answer:
    faults = (StorageInternalError, DBAPIError)
    return patiently(call, "the study's database", passes=lambda error: isinstance(error, faults))


def asha(config: SearchConfig, epochs: int, past: list[FrozenTrial]) -> AsyncHyperBandScheduler:
    """ASHA whose rungs know what the trials of an earlier process reached."""
    scheduler = AsyncHyperBandScheduler(
        time_attr=EPOCH,
        metric=METRIC,
        mode="min",
        max_t=epochs,
        grace_period=min(config.asha.grace_epochs, epochs),
        reduction_factor=config.asha.reduction_factor,
    )
    for trial in past:
        known = SimpleNamespace(trial_id=f"finished {trial.number}")  # as much of a Ray trial as ASHA looks at
        scheduler.on_trial_add(None, known)
        for epoch, value in sorted(trial.intermediate_values.items()):
            scheduler.on_trial_result(None, known, {EPOCH: epoch, METRIC: value})
        scheduler.on_trial_remove(None, known)
    return scheduler
