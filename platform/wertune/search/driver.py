"""Searching for the best adapter: Ray Tune runs trials, Optuna proposes them, ASHA stops them early."""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import optuna
import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune import FailureConfig, RunConfig, TuneConfig, TuneError, Tuner
from ray.util import remove_placement_group

import wertune
from wertune.base.cli import end_as_interrupted
from wertune.base.config import TrialConfig, TrialPlaces
from wertune.base.errors import ConfigError, WertuneError, WorkersLost, first_line
from wertune.base.files import write_files
from wertune.search import ray_private
from wertune.search.checkpoints import CheckpointStore, Heard, start_on_this_node
from wertune.search.halving import expected_epochs
from wertune.search.places import Reservations, Slots, trial_resources
from wertune.search.progress import Progress, terminal
from wertune.search.search_space import SearchConfig
from wertune.search.shipping import start_file_server
from wertune.search.study import Proposals, asha, finished
from wertune.search.trial_log import Retold
from wertune.search.trial_runs import CAUSE_CHARACTERS, RecordTrials, TrialRuns, end_finished_trials, memory_cause
from wertune.search.worker import Kind, needs, place, run_alone, run_one, transcribe_part
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.outage import patience_s, tell
from wertune.tracking.runs import RunRef
from wertune.training.baseline import Texts, Transcribe, Wanted, base_steps
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.trial import ADAPTER_ARTIFACT, RunLog

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
                takes_over=_kinds(config) if config.take_over else (),
            )
            fit(run, config, study, runs, folder)
        journal.flush(patience_s())
    if len(finished(study)) < config.trials:
        raise SearchInterrupted


def _kinds(places: TrialPlaces) -> list[Kind]:
    """What a worker of a trial may get, as it takes over places."""
    return [(slots.resources, slots.labels) for slots in trial_resources(ray.nodes(), places)]


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
        _own_interrupts(),
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
                callbacks=[RecordTrials(runs, progress, left)],
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
def _own_interrupts() -> Iterator[None]:
    """Ctrl-C is ours again after the block: Ray Tune takes it, and where it did not come loses the next one."""
    own = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # others may set no handler
            signal.signal(signal.SIGINT, own)


@contextmanager
def cluster(address: str | None, places: TrialPlaces) -> Iterator[None]:
    """A local Ray with every core and GPU, or the one at `address`, which gets this package sent along.

    It comes before anything that takes long: raises ConfigError when no Ray answers or it has no place for a trial.
    """
    _start_ray(address)
    try:
        trial_resources(ray.nodes(), places)
        yield
    finally:
        ray.shutdown()
        end_as_interrupted()  # Ray takes SIGTERM back to what ends the process at once


def _start_ray(address: str | None) -> None:
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    ray_private.hush()
    package = Path(wertune.__file__).parent
    remedy = "start one with `ray start --head`, or leave ray_address empty for a local Ray"
    try:
        if address is None:
            # "local": without it Ray would join whatever cluster it finds running on this machine.
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            if _listens(address):
                join = f"`ray start --address={address} --num-cpus=0 --num-gpus=0`"
                remedy = (
                    f"something listens there, but this machine must be a node of that cluster ({join} makes it one on "
                    "which no trial runs); set RAY_AUTH_MODE=token where the cluster has a token"
                )
            ray.init(address=address, log_to_driver=False, runtime_env={"py_modules": [str(package)]})
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = address or "local"
        raise ConfigError(f"ray_address is {place}, but no Ray answers there ({error}); {remedy}") from None
    end_as_interrupted()  # Ray's own handler of SIGTERM leaves runs open and prints its stack


def _listens(address: str) -> bool:
    """Whether it is HOST:PORT; raises ConnectionError where nothing takes connections there.

    Ray itself would try for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    is_place = bool(host) and port.isdecimal()
    if is_place:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(str(error)) from None
    return is_place


def _task(function: Callable[..., Any], places: TrialPlaces) -> Any:
    """The function as a task of the cluster that gets what a trial gets, a GPU where there are any."""
    slots = trial_resources(ray.nodes(), places)[0]
    return ray.remote(function).options(label_selector=dict(slots.labels), **needs(slots.resources))


def transcribe_across(places: TrialPlaces, say: Callable[[str], object]) -> Transcribe:
    """`transcribe_with_base` with the cluster's workers, a split each, the largest first; `say` hears how far it is."""

    def transcribe(prepared: Prepared, wanted: Wanted) -> Texts:
        task = _task(transcribe_part, places)
        shared, files = ray.put(prepared), start_file_server(prepared)
        by_size = sorted(wanted, key=lambda split: len(prepared.dataset[split]), reverse=True)
        steps, seen = base_steps(prepared, wanted, say), 0
        with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
            heard = start_on_this_node(Heard, 1, Path(scratch))
            going = parts = [task.remote(shared, files, {split: wanted[split]}, heard) for split in by_size]
            while going:
                done, going = ray.wait(going, timeout=1)
                said = ray.get(heard.since.remote(seen))
                seen += len(said)
                steps(sum(said))
                _got(done)  # the first that fails ends the others' waiting
            ray.kill(heard)
        return {split: texts for part in _got(parts) for split, texts in part.items()}

    return transcribe


def _got(tasks: Sequence[Any]) -> list[Any]:
    """What they return; what one raised, or what became of its processes, is told without Ray's traceback."""
    try:
        return list(ray.get(list(tasks)))
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise WorkersLost(f"a process that scores the base is gone: {first_line(error)}") from None


def train_across(
    prepared: Prepared,
    places: TrialPlaces,
    trials: Sequence[tuple[TrialConfig, RunLog]],
    objective: Objective,
    say: Callable[[str], object],
    on_epoch: Callable[[str], object] = lambda line: None,
) -> Iterator[tuple[int, Exception | None]]:
    """Trains each configuration in the cluster, told into its log; the number of each as it ends, and what ended it.

    A process or a node that is lost costs no finished epoch; `on_epoch` hears a line an epoch.
    """
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        across = _Across(prepared, places, [log for _, log in trials], objective, Path(scratch), say)
        going = {across.start(number, config): (number, config) for number, (config, _) in enumerate(trials)}
        while going:
            done, _ = ray.wait(list(going), timeout=1)
            for line in across.hear():
                on_epoch(line)
            for task in done:
                number, config = going.pop(task)
                fault = across.end(number, task)
                if fault and across.forgives(number, config, fault):
                    going[across.start(number, config)] = number, config
                elif isinstance(fault, RayError):
                    lost = f"it has lost its process {DEATHS_FORGIVEN + 1} times, the last time: {first_line(fault)}"
                    yield number, WorkersLost(lost)
                else:
                    yield number, fault


class _Across:
    """What trials of no search leave behind and say, while they run in the cluster."""

    def __init__(
        self,
        prepared: Prepared,
        places: TrialPlaces,
        logs: Sequence[RunLog],
        objective: Objective,
        folder: Path,
        say: Callable[[str], object],
    ) -> None:
        self._places, self._scratch, self._say = places, folder / "adapters", say
        self._logs, self._retold = logs, [Retold(log) for log in logs]
        self._lost, self._groups, self._seen = Counter[int](), dict[int, Any](), 0
        self._kept, store = CheckpointStore(folder), start_on_this_node(CheckpointStore, 1, folder)
        self._heard = start_on_this_node(Heard, 1, folder / "heard")
        files = start_file_server(prepared)
        self._given = ray.put(prepared), files, objective, places.worker_timeout_s, store, self._heard

    def start(self, number: int, config: TrialConfig) -> Any:
        """The trial as a task, whose workers get all of their places or none."""
        group = self._groups[number] = self._room().bundles().to_placement_group()
        return ray.remote(run_alone).options(max_retries=0, **place(group, 0)).remote(number, config, *self._given)

    def _room(self) -> Slots:
        """What a trial gets; waited for where a node that had it is lost, as a search waits."""
        told = False
        while True:
            try:
                return trial_resources(ray.nodes(), self._places)[0]
            except ConfigError as error:
                if not told:
                    self._say(f"waiting for a node: {error}")
                told = True
                time.sleep(1)

    def hear(self) -> list[str]:
        """The lines of what was said since; the rest of it is logged."""
        said = ray.get(self._heard.since.remote(self._seen))
        self._seen += len(said)
        for number, _, taken in said:
            self._retold[number].write(taken)
        return [line for _, line, _ in said]

    def end(self, number: int, task: Any) -> Exception | None:
        """Gives back its places, and logs what is left to log; what it raised, of a task that failed."""
        remove_placement_group(self._groups.pop(number))
        fault: Exception | None = None
        try:
            self._retold[number].write(ray.get(task))
        except RayTaskError as error:
            fault = error.cause
        except RayError as error:
            fault = error
        if fault is None:
            files, adapter = self._kept.get(number, ADAPTER_ARTIFACT), self._scratch / str(number)
            assert files, "a trial that ended has told of its best epoch"
            write_files(files, adapter)
            self._logs[number].artifacts(adapter, ADAPTER_ARTIFACT)
        return fault

    def forgives(self, number: int, config: TrialConfig, fault: Exception) -> bool:
        """Whether the trial may go on from its last epoch, which is told: it has lost a process, not too often yet."""
        if not isinstance(fault, RayError | WorkersLost) or self._lost[number] == DEATHS_FORGIVEN:
            return False
        self._lost[number] += 1
        if cause := memory_cause(f"{type(fault).__module__}.{type(fault).__name__}: {fault}"):
            self._kept.add_shortage(number, cause)  # its next process is to know that Ray ended this one
        why = shorten(cause or str(fault), CAUSE_CHARACTERS)
        self._say(f"the run of seed {config.seed} lost a worker, goes on from its last epoch: {why}")
        return True
