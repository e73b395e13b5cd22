"""Searching for the best adapter: Ray Tune runs trials, Optuna proposes them, ASHA stops them early."""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune import FailureConfig, RunConfig, TuneConfig, TuneError, Tuner
from ray.util import remove_placement_group

import wertune
from wertune.base.cli import end_as_interrupted
from wertune.base.config import TrialConfig
from wertune.base.errors import ConfigError, WertuneError, WorkersLost
from wertune.search import ray_private
from wertune.search.checkpoints import CheckpointStore, start_on_this_node
from wertune.search.halving import expected_epochs
from wertune.search.places import Reservations, trial_resources
from wertune.search.progress import Progress, terminal
from wertune.search.search_space import SearchConfig
from wertune.search.shipping import start_file_server
from wertune.search.study import Proposals, asha, finished
from wertune.search.trial_log import GatheredLog
from wertune.search.trial_runs import RecordTrials, TrialRuns, end_finished_trials
from wertune.search.worker import Count, needs, place, run_again, run_one, transcribe_part
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.outage import patience_s, tell
from wertune.tracking.runs import RunRef
from wertune.training.baseline import Texts, Transcribe, Wanted, base_steps
from wertune.training.prepare import Prepared
from wertune.training.train import Objective

# Of a trial's process: it goes on from its last epoch. What it raises itself it would raise again.
DEATHS_FORGIVEN = 2
RAY_SETTINGS = {
    # The study and the checkpoints are what a search is resumed from, not Ray's snapshots.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # Its own table and boxes; ours has one line an epoch.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}

# Inside a search's folder.
CHECKPOINTS, JOURNAL = "trials", "spool"


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C; finished trials are kept and the search can be resumed."""


def search(
    prepared: Prepared,
    config: SearchConfig,
    objective: Objective,
    parent: RunRef,
    study: optuna.Study,
    folder: Path,
) -> None:
    """Runs the trials that the study lacks on the `cluster`, each a child run of `parent`.

    What a search is resumed from lies in `folder`, trials' states and unsent log, and in the study's database.

    Raises SearchInterrupted after Ctrl-C, with the running trials closed as KILLED; TrackingError when another process
    is at this search, or MLflow does not take what trials said.
    """
    with closing(JournalWriter(folder / JOURNAL, parent)) as journal:
        runs = TrialRuns(journal, CheckpointStore(folder / CHECKPOINTS), prepared.project.trial.train.epochs)
        journal.flush(patience_s())
        end_finished_trials(runs, study, parent)
        if len(finished(study)) < config.trials:
            files, store = start_file_server(prepared), start_on_this_node(CheckpointStore, 1, folder / CHECKPOINTS)
            run = tune.with_parameters(
                run_one,
                prepared=prepared,
                files=files,
                objective=objective,
                store=store,
                wait_s=config.worker_timeout_s,
            )
            fit(run, config, study, runs, folder)
        journal.flush(patience_s())
    if len(finished(study)) < config.trials:
        raise SearchInterrupted


def fit(run: Any, config: SearchConfig, study: optuna.Study, runs: TrialRuns, folder: Path) -> None:
    """Lets Ray call `run` with a proposal for each trial, until the study has as many as were asked for."""
    slots = trial_resources(ray.nodes(), config)
    at_once = sum(each.count for each in slots)
    # With a searcher Ray starts one worker after another, and each imports for a quarter of a minute.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(at_once))
    past = finished(study)
    wanted = expected_epochs(config.asha, config.trials, runs.epochs, len(config.first_points))
    left = config.trials - len(past)
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir=folder, ignore_cleanup_errors=True) as scratch,
        Progress(left, runs.epochs, wanted.mean * left / config.trials, tell, terminal(sys.stdout)) as progress,
        _own_errors(),
    ):
        ray_private.use(lambda: Reservations(slots, config, progress.say))
        Tuner(
            tune.with_resources(run, slots[0].bundles()),  # Reservations decides
            tune_config=TuneConfig(
                num_samples=left,
                max_concurrent_trials=None if config.max_concurrent == "auto" else config.max_concurrent,
                search_alg=Proposals(study, config, runs.epochs),
                scheduler=asha(config, runs.epochs, past),
                # A worker that has imported torch and transformers takes the next trial at once.
                reuse_actors=True,
            ),
            run_config=RunConfig(
                name="search",
                storage_path=scratch,
                callbacks=[RecordTrials(runs, progress)],
                failure_config=FailureConfig(max_failures=DEATHS_FORGIVEN),
                verbose=0,
            ),
        ).fit()


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises the WertuneError that Ray Tune made a page of traceback of, with its place and remedy."""
    try:
        yield
    except TuneError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, WertuneError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        raise


@contextmanager
def cluster(address: str | None, config: SearchConfig) -> Iterator[None]:
    """A local Ray with every core and GPU, or the one at `address`, which gets this package sent along.

    It comes before anything that takes long: raises ConfigError when no Ray answers or it has no place for a trial.
    """
    _start_ray(address)
    try:
        trial_resources(ray.nodes(), config)
        yield
    finally:
        ray.shutdown()


def _start_ray(address: str | None) -> None:
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    ray_private.hush()
    package = Path(wertune.__file__).parent
    try:
        if address is None:
            # "local": without it Ray would join whatever cluster it finds running on this machine.
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _check_listens(address)
            ray.init(address=address, log_to_driver=False, runtime_env={"py_modules": [str(package)]})
    except (ConnectionError, RuntimeError, ValueError) as error:
        remedy = "start one with `ray start --head`, or leave ray_address empty for a local Ray"
        place = address or "local"
        raise ConfigError(f"ray_address is {place}, but no Ray answers there ({error}); {remedy}") from None
    end_as_interrupted()  # Ray's own handler of SIGTERM leaves runs open and prints its stack


def _check_listens(address: str) -> None:
    """Raises ConnectionError where nothing takes connections at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(str(error)) from None


def _task(function: Callable[..., Any], config: SearchConfig) -> Any:
    """The function as a task of the cluster that gets what a trial gets, a GPU where there are any."""
    slots = trial_resources(ray.nodes(), config)[0]
    return ray.remote(function).options(label_selector=dict(slots.labels), **needs(slots.resources))


def transcribe_across(config: SearchConfig, say: Callable[[str], object]) -> Transcribe:
    """`transcribe_with_base` with the cluster's workers, a split each, the largest first; `say` hears how far it is."""

    def transcribe(prepared: Prepared, wanted: Wanted) -> Texts:
        task = _task(transcribe_part, config)
        shared, files = ray.put(prepared), start_file_server(prepared)
        by_size = sorted(wanted, key=lambda split: len(prepared.dataset[split]), reverse=True)
        count = ray.remote(Count).options(num_cpus=0).remote()
        going = parts = [task.remote(shared, files, {split: wanted[split]}, count) for split in by_size]
        steps = base_steps(prepared, wanted, say)
        while going:
            _, going = ray.wait(going, timeout=1)
            steps(ray.get(count.taken.remote()))
        return {split: texts for part in ray.get(parts) for split, texts in part.items()}

    return transcribe


def train_again(
    prepared: Prepared,
    search: SearchConfig,
    configs: Sequence[TrialConfig],
    objective: Objective,
    say: Callable[[str], object],
) -> Iterator[tuple[TrialConfig, GatheredLog]]:
    """What each run says of itself and its adapter, as they end; one that fails is told, and the others go on."""
    # What is forgiven is a process that dies, or misses another; what a run raises itself it would raise again.
    forgiven = {"max_retries": DEATHS_FORGIVEN, "retry_exceptions": [WorkersLost]}
    shared, files = ray.put(prepared), start_file_server(prepared)
    going: dict[Any, tuple[TrialConfig, Any]] = {}
    for config in configs:
        group = trial_resources(ray.nodes(), search)[0].bundles().to_placement_group()
        task = ray.remote(run_again).options(**place(group, 0), **forgiven)
        going[task.remote(shared, files, config, objective, search.worker_timeout_s)] = config, group
    while going:
        (done,), _ = ray.wait(list(going), num_returns=1)
        config, group = going.pop(done)
        try:
            yield config, ray.get(done)
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            say(f"seed {config.seed} failed, and is left out of the mean: {str(cause).strip().splitlines()[-1]}")
        finally:
            remove_placement_group(group)
