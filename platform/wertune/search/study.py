"""Optuna proposes trials; its study is the search's memory, which outlives the process."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher
from sqlalchemy.exc import DBAPIError

from wertune.base.errors import ConfigError
from wertune.base.files import first_at
from wertune.search.optuna_private import OneWriter, TpeByNumber, taken_up
from wertune.search.search_space import AshaConfig, SearchConfig
from wertune.search.trial_log import EPOCH, FAILURE, METRIC, NO_ROOM, NUMBER, POINT, REDRAWN
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
        self._rungs = config.asha.rungs(epochs)
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
            _patiently(lambda: self._keep(self._trials[trial_id], result))

    def _keep(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        if (redrawn := result.get(REDRAWN)) and result[EPOCH] in self._rungs:  # first: by the value an epoch is known
            trial.set_user_attr(_redrawn(result[EPOCH]), redrawn)
        trial.report(result[METRIC], result[EPOCH])

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


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that stops a trial for what is more than chance: one that might as well have passed the rung goes on.

    Rungs compare what trials reached on few clips. A trial is stopped by the values there if it would be, too, on a
    share `confidence` of sets drawn anew from these clips, the same sets for all trials.
    """

    def __init__(self, config: AshaConfig, epochs: int) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=METRIC,
            mode="min",
            max_t=epochs,
            grace_period=min(config.grace_epochs, epochs),
            reduction_factor=config.reduction_factor,
        )
        self._confidence, self._passing = config.confidence, 100 / config.reduction_factor
        self._rungs: dict[int, dict[str, list[float]]] = {rung: {} for rung in config.rungs(epochs)}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = str(super().on_trial_result(tune_controller, trial, result))
        at_rung = self._rungs.get(result[EPOCH]) if result.get(REDRAWN) else None
        if at_rung is None or trial.trial_id in at_rung:  # one that has lost its process tells its epochs again
            return decision
        if decision == TrialScheduler.STOP and at_rung:
            needed = np.percentile(list(at_rung.values()), self._passing, axis=0)
            if np.mean(np.array(result[REDRAWN]) > needed) < self._confidence:
                decision = str(TrialScheduler.CONTINUE)
        at_rung[trial.trial_id] = result[REDRAWN]
        return decision


def asha(config: SearchConfig, epochs: int, past: list[FrozenTrial]) -> Asha:
    """ASHA whose rungs know what the trials of an earlier process reached."""
    scheduler = Asha(config.asha, epochs)
    for trial in past:
        known = SimpleNamespace(trial_id=f"finished {trial.number}")  # as much of a Ray trial as ASHA looks at
        scheduler.on_trial_add(None, known)
        for epoch, value in sorted(trial.intermediate_values.items()):
            redrawn = trial.user_attrs.get(_redrawn(epoch))
            scheduler.on_trial_result(None, known, {EPOCH: epoch, METRIC: value, REDRAWN: redrawn})
        scheduler.on_trial_remove(None, known)
    return scheduler


def _redrawn(epoch: int) -> str:
    """The name by which the study keeps it."""
    return f"{REDRAWN} {epoch}"
