"""The MLflow run of each trial, written by the driver from what trials report."""

import functools
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune import Callback
from ray.tune.experiment import Trial

from wertune.base.contract import EPOCHS_TAG, OUTCOME_TAG, POINT_TAG, TRIAL_TAG
from wertune.base.errors import SearchStorageError, WertuneError, WorkersLost
from wertune.search.checkpoints import SHORTAGES, STATE, CheckpointStore
from wertune.search.progress import Epoch, Progress, short_point, trial_name
from wertune.search.study import finished
from wertune.search.trial_log import EPOCH, FAILURE, LOG, METRIC, NO_ROOM, NUMBER, POINT, RAY_OUT_OF_MEMORY, WORKERS
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, children
from wertune.training.trial import ADAPTER_ARTIFACT

NAMED_VALUES = 4
CAUSE_CHARACTERS = 160  # Ray ends some messages with a page of advice
ENDED = ("FINISHED", "FAILED")  # and not KILLED: that one was interrupted


class TrialRuns:
    """How the runs of trials are begun, written and ended."""

    def __init__(self, journal: JournalWriter, checkpoints: CheckpointStore, epochs: int) -> None:
        self._journal, self.checkpoints, self.epochs = journal, checkpoints, epochs

    def begin(self, number: int, point: Mapping[str, Any]) -> None:
        """Opens the trial's run, or opens it again; its name has the first values, in search.yaml's order.

        All are its parameters. MLflow's pages show some thirty letters of a name.
        """
        described = short_point(dict(list(point.items())[:NAMED_VALUES]))
        self._journal.open(str(number), f"{trial_name(number)}: {described}", {POINT_TAG: json.dumps(point)})

    def write(self, number: int, log: str) -> None:
        """Writes what a TrialLog gave."""
        self._journal.log(str(number), **json.loads(log))

    def end(self, number: int, epoch: int) -> str:
        """The trial's adapter, its outcome, which is returned, and the end of its run."""
        self._move_adapter(number)
        outcome = "completed" if epoch >= self.epochs else "pruned"
        self._journal.log(str(number), tags={OUTCOME_TAG: outcome, EPOCHS_TAG: epoch}, status="FINISHED")
        return outcome

    def fail(self, number: int, traceback: str) -> str:
        """The cause of a failure, and the adapter of the epochs before it; returns the cause in one line."""
        self._move_adapter(number)
        cause = memory_cause(traceback) or _last_line(traceback)
        self._journal.artifacts(str(number), {"traceback.txt": traceback.encode()})
        self._journal.log(str(number), tags={DESCRIPTION_TAG: cause, OUTCOME_TAG: "failed"}, status="FAILED")
        return cause

    def close(self, number: int, status: str) -> None:
        """Ends a run of which nothing else is to be said: KILLED where its trial can go on, FINISHED or FAILED."""
        self._journal.log(str(number), status=status)

    def _move_adapter(self, number: int) -> None:
        """From the checkpoints, which nobody goes on with, to the journal."""
        if adapter := self.checkpoints.get(number, ADAPTER_ARTIFACT):
            self._journal.artifacts(str(number), adapter, ADAPTER_ARTIFACT)
        for name in (ADAPTER_ARTIFACT, STATE, SHORTAGES):
            self.checkpoints.forget(number, name)


def end_finished_trials(runs: TrialRuns, study: optuna.Study, parent: RunRef) -> None:
    """Ends the runs of trials that finished when nobody was left to say so."""
    known = {trial.number: trial for trial in finished(study)}
    for run in children(parent):
        trial = known.get(int(run.data.tags.get(TRIAL_TAG, -1)))
        told = OUTCOME_TAG in run.data.tags
        if trial is None or (told and run.info.status in ENDED):
            continue
        failed = trial.state is TrialState.FAIL
        if told:  # and then the process died
            runs.close(trial.number, "FAILED" if failed else "FINISHED")
        elif failed:
            runs.fail(trial.number, "the trial failed when the search was killed; its cause was lost")
        else:
            runs.end(trial.number, max(trial.intermediate_values, default=0))


def _ending_the_search(hook: Callable[..., None]) -> Callable[..., None]:
    """Raises what the hook raises, and raises it again from each later one: Ray takes some for deaths of the trial."""

    @functools.wraps(hook)
    def call(self: "RecordTrials", *arguments: Any, **named: Any) -> None:
        if self._fault is not None:
            raise self._fault
        try:
            hook(self, *arguments, **named)
        except WertuneError as error:
            self._fault = error
            raise

    return call


class RecordTrials(Callback):  # type: ignore[misc]
    """Writes runs and terminal lines of what becomes of each trial; what the disk does not take ends the search."""

    def __init__(self, runs: TrialRuns, progress: Progress, trials: int) -> None:
        """So many `trials` are to come."""
        self._runs, self._progress, self._trials = runs, progress, trials
        self._fault: WertuneError | None = None
        self._open: set[int] = set()
        self._workers: dict[int, int] = {}  # of each trial that has begun, as it has told

    def __getstate__(self) -> dict[str, Any]:
        return {}

    @_ending_the_search
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[NUMBER]
        if number not in self._open:  # or its process died and it starts again
            self._runs.begin(number, trial.config[POINT])
        self._open.add(number)
        self._workers[number] = 0
        self._runs.checkpoints.tell_last_stage(len(self._workers) >= self._trials)
        self._progress.started(number, trial.config[POINT])

    @_ending_the_search
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get(NO_ROOM):
            raise SearchStorageError(result[NO_ROOM])
        number, epoch = trial.config[NUMBER], result[EPOCH]
        self._runs.write(number, result[LOG])
        if result.get(FAILURE):
            trial.max_failures = 0  # what it raised it would raise again
            return
        workers = result.get(WORKERS, 1)
        if 0 < self._workers[number] < workers:
            self._progress.say(f"{trial_name(number)} has taken over free places: {workers} workers")
        self._workers[number] = workers
        wer, retention, rate = result["val_wer"], result.get("retention_val_wer"), result["clips_per_s"]
        self._progress.epoch(Epoch(number, epoch, self._runs.epochs, wer, retention, rate, result[METRIC]))

    @_ending_the_search
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number, last = trial.config[NUMBER], trial.last_result
        if last.get(FAILURE):
            self._progress.ended(number, "failed", self._runs.fail(number, last[FAILURE]))
        else:
            self._progress.ended(number, self._runs.end(number, last.get(EPOCH, 0)))
        self._open.discard(number)

    @_ending_the_search
    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number, traceback = trial.config[NUMBER], _traceback(trial)
        cause = memory_cause(traceback)
        if cause:  # the trial's next process is to know that Ray ended this one
            self._runs.checkpoints.add_shortage(number, cause)
        why = cause or shorten(_last_line(traceback), CAUSE_CHARACTERS)
        lost = "one of its workers" if why.startswith(WorkersLost.__name__) else "its process"
        self._progress.say(f"{trial_name(number)} lost {lost}, goes on from its last epoch: {why}")

    @_ending_the_search
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[NUMBER]
        if number not in self._open:  # it never came as far as to start
            self._runs.begin(number, trial.config[POINT])
        traceback = trial.last_result.get(FAILURE) or _traceback(trial)
        self._progress.ended(number, "failed", self._runs.fail(number, traceback))
        self._open.discard(number)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for number in self._open:
            self._runs.close(number, "KILLED")
        self._open.clear()


def _traceback(trial: Trial) -> str:
    """What Ray wrote of the failure, without the terminal's colours."""
    if not trial.error_file:
        return "no traceback was left"
    return re.sub(r"\x1b\[[0-9;]*m", "", Path(trial.error_file).read_text(encoding="utf-8"))


def memory_cause(traceback: str) -> str:
    """Why Ray ended the process, if it was for want of memory; the time tells one cause from another."""
    if RAY_OUT_OF_MEMORY not in traceback:
        return ""
    used = re.search(r"[\d.]+GB used / [\d.]+GB limit", traceback)
    at = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return f"Ray ended its process at {at} for want of memory: {used.group() if used else 'no figures given'}"


def _last_line(text: str) -> str:
    """Of a traceback, its error without the modules in front of it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return re.sub(r"^(?:\w+\.)+(?=\w+: )", "", lines[-1]) if lines else "no reason given"
