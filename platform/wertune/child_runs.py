"""The MLflow run of each trial, written by the driver from what trials report."""

import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune import Callback
from ray.tune.experiment import Trial

from wertune.keeper import STATE, KeptTrial, TrialFiles, unpack
from wertune.progress import Progress, short, trial_name
from wertune.proposals import EPOCH, FAILURE, METRIC, NUMBER, POINT, finished
from wertune.spool import Spool
from wertune.tracking import OUTCOME_TAG, POINT_TAG, TRIAL_TAG, children
from wertune.trial import ADAPTER_ARTIFACT

NAMED_VALUES = 4
CAUSE_CHARACTERS = 160  # Ray ends some messages with a page of advice
ABBREVIATIONS = {"learning_rate": "lr", "learning_rate_ratio": "ratio", "target_modules": "on", "dropout": "drop"}
SAID = "said"
EPOCHS_TAG = "wertune.epochs"


class Said:
    """What a trial says of itself (a RunLog), gathered until its next report takes it to the driver.

    Artifacts go to the keeper at once: they outlive the process.
    """

    def __init__(self, kept: KeptTrial) -> None:
        self._kept = kept
        self._params: dict[str, Any] = {}
        self._tags: dict[str, Any] = {}
        self._metrics: list[tuple[int, dict[str, float]]] = []

    def params(self, values: Mapping[str, Any]) -> None:
        self._params |= {key: str(value) for key, value in values.items()}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._metrics.append((step, {key: float(value) for key, value in values.items()}))

    def tags(self, values: Mapping[str, Any]) -> None:
        self._tags |= {key: str(value) for key, value in values.items()}

    def artifacts(self, folder: Path, name: str) -> None:
        self._kept.put(name, folder)

    def take(self) -> str:
        """All of it as JSON: Ray Tune would go through a mapping's values one by one."""
        taken = json.dumps({"params": self._params, "tags": self._tags, "metrics": self._metrics})
        self._params, self._tags, self._metrics = {}, {}, []
        return taken


class Book:
    """How the runs of trials are begun, written and ended."""

    def __init__(self, spool: Spool, files: TrialFiles, epochs: int) -> None:
        self._spool, self._files, self.epochs = spool, files, epochs

    def begin(self, number: int, point: Mapping[str, Any]) -> None:
        """Opens the trial's run, or opens it again."""
        self._spool.open(str(number), f"{trial_name(number)}: {_describe(point)}", {POINT_TAG: json.dumps(point)})

    def write(self, number: int, said: str) -> None:
        """Writes what the trial said."""
        run, what = self._spool.run(str(number)), json.loads(said)
        if what["params"]:
            run.params(what["params"])
        if what["tags"]:
            run.tags(what["tags"])
        for step, values in what["metrics"]:
            run.metrics(values, step)

    def end(self, number: int, epoch: int) -> str:
        """The trial's adapter, its outcome, which is returned, and the end of its run."""
        self._adapter(number)
        outcome = "completed" if epoch >= self.epochs else "pruned"
        run = self._spool.run(str(number))
        run.tags({OUTCOME_TAG: outcome, EPOCHS_TAG: epoch})
        run.end("FINISHED")
        return outcome

    def fail(self, number: int, traceback: str) -> str:
        """The cause of a failure, and the adapter of the epochs before it; returns the cause in one line."""
        self._adapter(number)
        run, cause = self._spool.run(str(number)), _last_line(traceback)
        run.text(traceback, "traceback.txt")
        run.fail(cause)
        return cause

    def interrupt(self, number: int) -> None:
        """Ends the run as KILLED; its trial can go on."""
        self._spool.run(str(number)).end("KILLED")

    def _adapter(self, number: int) -> None:
        files = self._files.get(number, ADAPTER_ARTIFACT)
        if files:
            with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
                unpack(files, Path(scratch))
                self._spool.run(str(number)).artifacts(Path(scratch), ADAPTER_ARTIFACT)
        for name in (ADAPTER_ARTIFACT, STATE):  # the spool has the one, and nobody goes on with the other
            self._files.forget(number, name)


def settle(book: Book, study: optuna.Study, parent: Any) -> None:
    """Ends the runs of trials that finished when nobody was left to say so."""
    known = {trial.number: trial for trial in finished(study)}
    for run in children(parent):
        trial = known.get(int(run.data.tags.get(TRIAL_TAG, -1)))
        if trial is None or OUTCOME_TAG in run.data.tags:
            continue
        if trial.state is TrialState.FAIL:
            book.fail(trial.number, "the trial failed when the search was killed; its cause was lost")
        else:
            book.end(trial.number, max(trial.intermediate_values, default=0))


class ChildRuns(Callback):  # type: ignore[misc]
    """Tells the book and the terminal what becomes of each trial."""

    def __init__(self, book: Book, progress: Progress) -> None:
        self._book, self._progress = book, progress
        self._open: set[int] = set()
        self._last_epoch: dict[int, int] = {}
        self._best = math.inf

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[NUMBER]
        if number not in self._open:  # or its process died and it starts again
            self._book.begin(number, trial.config[POINT])
        self._open.add(number)
        self._progress.started(number, trial.config[POINT])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number, epoch = trial.config[NUMBER], result[EPOCH]
        self._book.write(number, result[SAID])
        if result.get(FAILURE):
            trial.max_failures = 0  # what it raised it would raise again
        if result.get(FAILURE) or epoch <= self._last_epoch.get(number, 0):
            return
        self._last_epoch[number] = epoch
        self._best = min(self._best, result[METRIC])
        retention = result.get("retention_val_wer")
        rate = result["clips_per_s"]
        self._progress.epoch(number, epoch, self._book.epochs, result["val_wer"], retention, rate, self._best)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number, last = trial.config[NUMBER], trial.last_result
        self._open.discard(number)
        if last.get(FAILURE):
            self._progress.ended(number, "failed", self._book.fail(number, last[FAILURE]))
        else:
            self._progress.ended(number, self._book.end(number, last.get(EPOCH, 0)))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        cause = shorten(_last_line(_traceback(trial)), CAUSE_CHARACTERS)
        name = trial_name(trial.config[NUMBER])
        self._progress.say(f"{name} lost its process, goes on from its last epoch: {cause}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[NUMBER]
        if number not in self._open:  # it never came as far as to start
            self._book.begin(number, trial.config[POINT])
        self._open.discard(number)
        traceback = trial.last_result.get(FAILURE) or _traceback(trial)
        self._progress.ended(number, "failed", self._book.fail(number, traceback))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for number in self._open:
            self._book.interrupt(number)
        self._open.clear()


def _traceback(trial: Trial) -> str:
    """What Ray wrote of the failure, without the terminal's colours."""
    if not trial.error_file:
        return "no traceback was left"
    return re.sub(r"\x1b\[[0-9;]*m", "", Path(trial.error_file).read_text(encoding="utf-8"))


def _describe(point: Mapping[str, Any]) -> str:
    """The first values of a configuration, in search.yaml's order, as the name of its run; all are its parameters.

    MLflow's pages show some thirty letters of it.
    """
    names = ((key.rpartition(".")[2], value) for key, value in list(point.items())[:NAMED_VALUES])
    return " ".join(f"{ABBREVIATIONS.get(name, name)}={short(value)}" for name, value in names)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
