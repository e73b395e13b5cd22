"""Searching for the best adapter: Ray Tune runs trials, Optuna proposes them, ASHA stops them early."""

import logging
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from ray import tune
from ray.tune import Callback, FailureConfig, ResultGrid, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

import wertune
from wertune.baseline import Transcribe, transcribe_with_base
from wertune.config import with_overrides
from wertune.depot import Depot, open_depot, prepared_here
from wertune.errors import ConfigError
from wertune.prepare import Prepared
from wertune.search_space import SearchConfig
from wertune.tracking import OUTCOME_TAG, RunRef, create_child, find_child
from wertune.train import EpochResult, Objective
from wertune.trial import keep_freed_memory, run_trial, short_names

METRIC = "best_objective"
NAMED_VALUES = 4
RAY_SETTINGS = {
    # Ray snapshots a search every 10 s at best; a stale snapshot runs epochs again on resume.
    "TUNE_GLOBAL_CHECKPOINT_S": "5",
    # Its own table and boxes; ours has one line an epoch.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C; finished trials are kept and the search can be resumed."""


@dataclass(frozen=True)
class SearchPlace:
    """Where a search keeps what it needs to be resumed: Ray's state in `folder`, Optuna's study in `storage_url`."""

    folder: Path
    storage_url: str


def search(
    prepared: Prepared,
    config: SearchConfig,
    objective: Objective,
    parent: RunRef,
    place: SearchPlace,
    resume: bool,
) -> optuna.Study:
    """Runs or resumes the trials on the `cluster`, each a child run of `parent`, and returns the study.

    Raises SearchInterrupted after Ctrl-C, with the running trials closed as KILLED.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # With a searcher Ray starts one worker after another, and each imports for a quarter of a minute.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(_trials_at_once(config)))
    trainable = _trainable(prepared, open_depot(prepared), config, objective, parent)
    tuner = _restored(trainable, place) if resume else _tuner(trainable, prepared, config, parent, place)
    results = tuner.fit()
    if _is_interrupted(results, config):
        raise SearchInterrupted
    return optuna.load_study(study_name=parent.run_id, storage=place.storage_url)


@contextmanager
def cluster(address: str | None, config: SearchConfig) -> Iterator[None]:
    """A local Ray with every core and GPU, or the one at `address`, which gets this package sent along.

    It comes before anything that takes long: raises ConfigError when no Ray answers or it lacks the GPUs asked for.
    """
    _start_ray(address)
    try:
        _gpus_per_trial(config)
        yield
    finally:
        ray.shutdown()


def _start_ray(address: str | None) -> None:
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    package = Path(wertune.__file__).parent
    try:
        if address is None:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, runtime_env={"py_modules": [str(package)]})
    except (ConnectionError, RuntimeError, ValueError) as error:
        remedy = "start one with `ray start --head`, or leave ray_address empty for a local Ray"
        raise ConfigError(f"ray_address is {address}, but no Ray cluster answers there ({error}); {remedy}") from None


def transcribe_across(config: SearchConfig) -> Transcribe:
    """`transcribe_with_base` with the cluster's workers, a split each, the largest first."""

    def transcribe(prepared: Prepared, splits: Sequence[str]) -> dict[str, list[str]]:
        resources = {"num_cpus": config.cpus_per_trial, "num_gpus": _gpus_per_trial(config)}
        task = ray.remote(**resources)(_transcribe)
        shared, depot = ray.put(prepared), open_depot(prepared)
        by_size = sorted(splits, key=lambda split: len(prepared.dataset[split]), reverse=True)
        parts = ray.get([task.remote(shared, depot, [split]) for split in by_size])
        return {split: texts for part in parts for split, texts in part.items()}

    return transcribe


def _transcribe(prepared: Prepared, depot: Depot, splits: Sequence[str]) -> dict[str, list[str]]:
    keep_freed_memory()
    return transcribe_with_base(prepared_here(prepared, depot), splits)


def _trainable(prepared: Prepared, depot: Depot, config: SearchConfig, objective: Objective, parent: RunRef) -> Any:
    """The function that a worker runs for each trial, with its resources; the prepared project is sent once a node."""
    run = tune.with_parameters(_run, prepared=prepared, depot=depot, objective=objective, parent=parent)
    return tune.with_resources(run, {"cpu": config.cpus_per_trial, "gpu": _gpus_per_trial(config)})


def _gpus_per_trial(config: SearchConfig) -> float:
    """What is asked for, or one GPU where there is one."""
    gpus = float(ray.cluster_resources().get("GPU", 0))
    share = min(1.0, gpus) if config.gpus_per_trial == "auto" else config.gpus_per_trial
    if share > gpus:
        raise ConfigError(f"gpus_per_trial is {share:g}, but Ray has {gpus:g} GPUs; lower it or set it to auto")
    return share


def _trials_at_once(config: SearchConfig) -> int:
    """How many trials fit the cluster as it is now."""
    cpus, gpus = ray.cluster_resources().get("CPU", 1.0), _gpus_per_trial(config)
    fitting = [cpus / config.cpus_per_trial] if config.cpus_per_trial else []
    fitting += [ray.cluster_resources()["GPU"] / gpus] if gpus else []
    return max(1, int(min(fitting, default=1)))


def _run(point: dict[str, Any], prepared: Prepared, depot: Depot, objective: Objective, parent: RunRef) -> None:
    """One trial in a Ray worker: it appends to the child run that the driver opened for it, and reports each epoch."""
    prepared = prepared_here(prepared, depot)
    config = with_overrides(prepared.project.trial, point, "search.yaml: space")
    best = float("inf")

    def report(result: EpochResult) -> None:
        nonlocal best
        best = min(best, result.objective)
        tune.report(result.metrics() | {METRIC: best})

    child = find_child(parent, tune.get_context().get_trial_id())
    run_trial(config, prepared, objective, child, after_epoch=report)


def _tuner(trainable: Any, prepared: Prepared, config: SearchConfig, parent: RunRef, place: SearchPlace) -> Tuner:
    epochs = prepared.project.trial.train.epochs
    concurrent = None if config.max_concurrent == "auto" else config.max_concurrent
    return Tuner(
        trainable,
        tune_config=TuneConfig(
            num_samples=config.trials,
            max_concurrent_trials=concurrent,
            search_alg=Proposals(config, parent.run_id, place.storage_url, epochs),
            scheduler=AsyncHyperBandScheduler(
                metric=METRIC,
                mode="min",
                max_t=epochs,
                grace_period=min(config.asha.grace_epochs, epochs),
                reduction_factor=config.asha.reduction_factor,
            ),
            # A worker that has imported torch and transformers takes the next trial at once.
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name=place.folder.name,
            storage_path=str(place.folder.parent),
            callbacks=[ChildRuns(parent, epochs)],
            failure_config=FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


def _restored(trainable: Any, place: SearchPlace) -> Tuner:
    if not Tuner.can_restore(str(place.folder)):
        raise ConfigError(f"resume: {place.folder} holds no search that was interrupted; check the run's id")
    return Tuner.restore(str(place.folder), trainable, resume_unfinished=True)


def _is_interrupted(results: ResultGrid, config: SearchConfig) -> bool:
    trials = results._experiment_analysis.trials
    finished = [trial for trial in trials if trial.status in (Trial.TERMINATED, Trial.ERROR)]
    return len(finished) < max(config.trials, len(trials))


class Proposals(OptunaSearch):  # type: ignore[misc]
    """Optuna's proposals by TPE, kept in a database; a trial that ASHA stops is told PRUNED, its last value kept.

    Ray's own class tells it COMPLETE and drops the last epoch.
    """

    def __init__(self, config: SearchConfig, study_name: str, storage_url: str, epochs: int) -> None:
        super().__init__(
            space=config.distributions(),
            metric=METRIC,
            mode="min",
            sampler=TPESampler(multivariate=True, constant_liar=True, seed=config.seed, n_startup_trials=5),
            study_name=study_name,
            storage=RDBStorage(storage_url),
        )
        self._epochs = epochs
        # Ray's points_to_evaluate refuses a point that leaves a key to the sampler.
        for point in config.first_points:
            self._ot_study.enqueue_trial(dict(point))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._ot_trials[trial_id]
        if error or not result or trial_id in self._completed_trials:
            super().on_trial_complete(trial_id, result, error)
            return
        epoch = result["training_iteration"]
        trial.report(result[METRIC], epoch)
        if epoch >= self._epochs:
            super().on_trial_complete(trial_id, result, error)
            return
        self._ot_study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        self._completed_trials.add(trial_id)


class ChildRuns(Callback):  # type: ignore[misc]
    """Opens and ends the MLflow run of each trial, in the driver; the trial itself only appends to it."""

    def __init__(self, parent: RunRef, epochs: int) -> None:
        self._parent = parent
        self._epochs = epochs
        self._open: dict[str, RunRef] = {}
        self._best = math.inf
        self._started = time.time()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = f"trial {trials.index(trial) + 1:02d}: {_describe(trial.config)}"
        self._open[trial.trial_id] = create_child(self._parent, trial.trial_id, name, trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        epoch = result["training_iteration"]
        self._best = min(self._best, result[METRIC])
        retention = f", retention {100 * result['retention_val_wer']:.2f} %" if "retention_val_wer" in result else ""
        print(
            f"{_clock(time.time() - self._started)} trial {trials.index(trial) + 1:02d} epoch {epoch}/{self._epochs}: "
            f"WER {100 * result['val_wer']:.2f} %{retention}, {result['clips_per_s']:.1f} clips/s; "
            f"best objective so far {self._best:.4f}",
            flush=True,
        )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        epoch = trial.last_result.get("training_iteration", 0)
        run = self._open.pop(trial.trial_id)
        run.tags({OUTCOME_TAG: "completed" if epoch >= self._epochs else "pruned", "wertune.epochs": epoch})
        run.end("FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        error = _traceback(trial)
        run = self._open.pop(trial.trial_id, None) or find_child(self._parent, trial.trial_id)
        run.text(error, "traceback.txt")
        run.fail(_last_line(error))
        print(f"trial {trials.index(trial) + 1:02d} failed: {_last_line(error)}", flush=True)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for run in self._open.values():
            run.end("KILLED")
        self._open.clear()


def _traceback(trial: Trial) -> str:
    """What Ray wrote of the failure, without the terminal's colours."""
    if not trial.error_file:
        return "no traceback was left"
    return re.sub(r"\x1b\[[0-9;]*m", "", Path(trial.error_file).read_text(encoding="utf-8"))


def _describe(point: dict[str, Any]) -> str:
    """The first values of a configuration, in search.yaml's order, as the name of its run; all are its parameters."""
    chosen = list(short_names(point).items())[:NAMED_VALUES]
    return " ".join(f"{key}={_short(value)}" for key, value in chosen)


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:d}:{int(seconds) % 60:02d}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
