"""What becomes of trials, as the driver writes it down and shows it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from tests.support.trial import Log
from tests.unit.tracking.test_journal_writer import PARENT, FakeRun, FakeServer

import wertune.search.trial_runs
from wertune.base.errors import SearchStorageError, StorageError
from wertune.search.checkpoints import STATE, CheckpointStore
from wertune.search.progress import Progress
from wertune.search.trial_log import EPOCH, FAILURE, LOG, METRIC, NO_ROOM, NUMBER, POINT, WORKERS, Retold, TrialLog
from wertune.search.trial_runs import RecordTrials, TrialRuns, end_finished_trials
from wertune.tracking.journal_writer import JournalWriter
from wertune.training.trial import ADAPTER_ARTIFACT

POINT_OF_TRIAL = {"train.learning_rate": 5e-4, "lora.r": 8, "lora.target_modules": "q_proj", "lora.alpha": 32, "x.y": 1}


class Told:
    """A driver's side of a search: callbacks, runs in memory, and what the terminal shows."""

    def __init__(self, folder: Path) -> None:
        self.server, self.lines = FakeServer(), list[str]()
        self.files = CheckpointStore(folder / "trials")
        self.journal = JournalWriter(folder / "spool", PARENT, self.server, self.lines.append)
        self.trial_runs = TrialRuns(self.journal, self.files, epochs=2)
        self.callback = RecordTrials(self.trial_runs, Progress(4, 2, 6.0, self.lines.append), trials=4)

    def trial(self, number: int = 0) -> Any:
        config = {NUMBER: number, POINT: POINT_OF_TRIAL}
        return SimpleNamespace(config=config, last_result={}, max_failures=2, error_file=None)

    def report(self, trial: Any, epoch: int, failure: str = "", workers: int = 1, **said: Any) -> None:
        whole = json.dumps({"params": {}, "tags": {}, "metrics": []} | said)
        result = {EPOCH: epoch, METRIC: 0.5, LOG: whole, WORKERS: workers, "val_wer": 0.5, "clips_per_s": 3.0}
        trial.last_result = result | ({FAILURE: failure} if failure else {})
        self.callback.on_trial_result(0, [], trial, trial.last_result)

    def runs(self) -> list[FakeRun]:
        self.journal.flush(20)
        return self.server.runs


@pytest.fixture
def told(tmp_path: Path) -> Any:
    driver = Told(tmp_path)
    yield driver
    driver.journal.close()


def test_a_trial_that_completes_has_its_name_values_adapter_and_outcome(told: Told) -> None:
    trial = told.trial(3)
    told.callback.on_trial_start(0, [], trial)
    told.report(trial, 1, params={"lora_r": "8"}, metrics=[[1, {"val_wer": 0.5}]])
    told.report(trial, 2, tags={"wertune.host": "here"}, metrics=[[2, {"val_wer": 0.4}]])
    told.files.put(3, ADAPTER_ARTIFACT, {"adapter_config.json": b"{}"})
    told.files.put(3, STATE, {"state.json": b"{}"})
    told.callback.on_trial_complete(0, [], trial)
    (run,) = told.runs()
    assert (run.status, run.params, run.tags["wertune.outcome"]) == ("FINISHED", {"lora_r": "8"}, "completed")
    assert [(metric.step, metric.value) for metric in run.metrics] == [(1, 0.5), (2, 0.4)]
    assert run.files == {"adapter/adapter_config.json": "{}"}
    assert run.tags["wertune.host"] == "here"
    assert told.files.get(3, STATE) is told.files.get(3, ADAPTER_ARTIFACT) is None


def test_a_trials_name_is_short_and_says_what_it_is(told: Told) -> None:
    told.callback.on_trial_start(0, [], told.trial())
    (run,) = told.runs()
    assert run.name == "trial 01: lr=0.0005 r=8 on=q_proj alpha=32"


def test_an_epoch_that_is_told_again_is_shown_once(told: Told) -> None:
    trial = told.trial()
    told.callback.on_trial_start(0, [], trial)
    for epoch in (1, 1, 2):
        told.report(trial, epoch)
    assert [line.split(":")[-2].split()[-2:] for line in told.lines if " epoch " in line] == [
        ["epoch", "1/2"],
        ["epoch", "2/2"],
    ]


def test_what_a_trial_raises_is_not_forgiven_and_told(told: Told) -> None:
    trial = told.trial()
    told.callback.on_trial_start(0, [], trial)
    told.report(trial, 0, failure="Traceback\nTrainingDiverged: loss is nan")
    assert trial.max_failures == 0
    told.callback.on_trial_complete(0, [], trial)
    (run,) = told.runs()
    assert (run.status, run.tags["mlflow.note.content"]) == ("FAILED", "TrainingDiverged: loss is nan")
    assert "Traceback" in run.files["traceback.txt"]
    assert told.lines[-1] == "trial 01 failed: TrainingDiverged: loss is nan"


def test_a_trial_that_never_started_has_a_run_with_the_cause(told: Told, tmp_path: Path) -> None:
    trial = told.trial()
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text("\x1b[36mray::\x1b[39m\nOutOfMemoryError: a node ran out of memory\n")
    told.callback.on_trial_error(0, [], trial)
    (run,) = told.runs()
    assert (run.status, run.tags["mlflow.note.content"]) == ("FAILED", "OutOfMemoryError: a node ran out of memory")


# As Ray 2.56 words it, without its page of figures and advice.
ENDED_BY_RAY = """ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory. \
Memory on the node (IP: 192.0.2.2, ID: 4e40) was 15.42GB used / 23.54GB limit (0.655237)
OOM kill reason: Memory usage 16928849920B exceeded threshold of 10110607360B (40.0% of 25276518400B limit)
Refer to the documentation on how to address the out of memory issue.
"""


def test_a_trial_that_ray_ended_for_want_of_memory_is_told_so_when_it_goes_on(told: Told, tmp_path: Path) -> None:
    trial = told.trial(2)
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text(ENDED_BY_RAY)
    told.callback.on_trial_start(0, [], trial)
    for _ in range(2):
        told.callback.on_trial_recover(0, [], trial)
    first, second = told.files.shortages(2)
    assert first.startswith("Ray ended its process at ")
    assert first.endswith("for want of memory: 15.42GB used / 23.54GB limit")
    assert first != second
    assert told.lines[-1] == f"trial 03 lost its process, goes on from its last epoch: {second}"
    told.callback.on_trial_error(0, [], trial)
    assert told.runs()[0].tags["mlflow.note.content"].startswith("Ray ended its process at ")
    assert told.files.shortages(2) == []


def test_another_death_is_no_want_of_memory(told: Told, tmp_path: Path) -> None:
    trial = told.trial()
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text("ray.exceptions.ActorDiedError: the process was killed by SIGKILL\n")
    told.callback.on_trial_recover(0, [], trial)
    assert told.files.shortages(0) == []


def test_an_interrupted_search_kills_what_is_open_and_resuming_opens_it_again(told: Told) -> None:
    trial = told.trial()
    told.callback.on_trial_start(0, [], trial)
    told.callback.on_experiment_end([])
    assert [run.status for run in told.runs()] == ["KILLED"]
    told.callback.on_trial_start(0, [], trial)
    assert [run.status for run in told.runs()] == ["RUNNING"]


def test_a_full_disk_ends_the_search_and_not_the_trial(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray takes what `on_trial_complete` raises for the death of a trial that Optuna holds as finished."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    trial = told.trial()
    told.callback.on_trial_start(0, [], trial)
    told.report(trial, 2)
    told.files.put(0, ADAPTER_ARTIFACT, {"adapter_config.json": b"{}"})
    with monkeypatch.context() as disk:
        disk.setattr("wertune.tracking.journal_writer.sync", full)
        with pytest.raises(StorageError, match=r"No space left on device\); make room, then resume the search"):
            told.callback.on_trial_complete(0, [], trial)
    before = list(told.lines)
    with pytest.raises(StorageError, match="make room, then resume the search"):
        told.callback.on_trial_recover(0, [], trial)
    assert told.lines == before
    told.callback.on_experiment_end([])
    assert [run.status for run in told.runs()] == ["KILLED"]
    told.trial_runs.end(0, 2)  # what `end_finished_trials` does when the search is resumed
    (run,) = told.runs()
    assert (run.status, run.files) == ("FINISHED", {"adapter/adapter_config.json": "{}"})


def test_a_trial_whose_state_finds_no_room_ends_the_search_and_can_go_on(told: Told) -> None:
    trial = told.trial()
    told.callback.on_trial_start(0, [], trial)
    told.report(trial, 1)
    with pytest.raises(SearchStorageError, match=r"^the disk is full; resume it$"):
        told.callback.on_trial_result(0, [], trial, {NO_ROOM: "the disk is full; resume it", EPOCH: 1, METRIC: 0.5})
    with pytest.raises(SearchStorageError):  # what Ray calls next, of the same trial
        told.callback.on_trial_complete(0, [], trial)
    told.callback.on_experiment_end([])
    assert [run.status for run in told.runs()] == ["KILLED"]


def test_runs_of_trials_that_ended_when_nobody_was_left_are_settled(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study()
    for number, state in enumerate(("COMPLETE", "PRUNED", "FAIL", None)):
        told.trial_runs.begin(number, POINT_OF_TRIAL)
        trial = study.ask()
        if state != "FAIL":
            for epoch in range(1, 3 if state == "COMPLETE" else 2):
                trial.report(0.5, epoch)
        if state:
            study.tell(trial, 0.5 if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])
    monkeypatch.setattr(wertune.search.trial_runs, "children", lambda parent: _as_mlflow_has(told.runs()))
    end_finished_trials(told.trial_runs, study, PARENT)
    outcomes = [(run.status, run.tags.get("wertune.outcome")) for run in told.runs()]
    assert outcomes == [("FINISHED", "completed"), ("FINISHED", "pruned"), ("FAILED", "failed"), ("RUNNING", None)]


def _as_mlflow_has(runs: list[FakeRun]) -> list[Any]:
    return [
        SimpleNamespace(
            info=SimpleNamespace(status=run.status), data=SimpleNamespace(tags={"wertune.trial": run.key} | run.tags)
        )
        for run in runs
    ]


@pytest.mark.parametrize(
    ("state", "outcome", "ended"), [("PRUNED", "pruned", "FINISHED"), ("FAIL", "failed", "FAILED")]
)
@pytest.mark.parametrize("left", ["RUNNING", "KILLED"])
def test_a_run_whose_end_was_cut_short_behind_its_outcome_is_ended(
    told: Told, monkeypatch: pytest.MonkeyPatch, left: str, state: str, outcome: str, ended: str
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    told.trial_runs.begin(0, POINT_OF_TRIAL)
    told.journal.log("0", tags={"wertune.outcome": outcome, "mlflow.note.content": "why"})
    if left == "KILLED":
        told.trial_runs.close(0, "KILLED")
    trial.report(0.5, 1)
    study.tell(trial, state=optuna.trial.TrialState[state])
    monkeypatch.setattr(wertune.search.trial_runs, "children", lambda parent: _as_mlflow_has(told.runs()))
    end_finished_trials(told.trial_runs, study, PARENT)
    (run,) = told.runs()
    assert (run.status, run.tags["wertune.outcome"], run.tags["mlflow.note.content"]) == (ended, outcome, "why")


def test_a_run_that_has_ended_is_not_touched(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    trial = study.ask()
    told.trial_runs.begin(0, POINT_OF_TRIAL)
    told.trial_runs.end(0, 1)
    trial.report(0.5, 1)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    monkeypatch.setattr(wertune.search.trial_runs, "children", lambda parent: _as_mlflow_has(told.runs()))
    monkeypatch.setattr(told.trial_runs, "end", lambda *_: pytest.fail("it was ended again"))
    end_finished_trials(told.trial_runs, study, PARENT)


def test_what_a_trial_says_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[int, str, dict[str, bytes]]] = []
    put = SimpleNamespace(remote=lambda trial, name, files: kept.append((trial, name, files)))
    monkeypatch.setattr("wertune.search.trial_log.ray.get", lambda answer: answer)
    (tmp_path / "weights").write_text("new")
    said = TrialLog(SimpleNamespace(put=put), 3)
    said.params({"r": 8})
    said.metrics({"val_wer": 0.5}, step=1)
    said.tags({"host": "here"})
    said.artifacts(tmp_path, "adapter")
    assert json.loads(said.take()) == {
        "params": {"r": "8"},
        "tags": {"host": "here"},
        "metrics": [[1, {"val_wer": 0.5}]],
    }
    assert json.loads(said.take()) == {"params": {}, "tags": {}, "metrics": []}
    assert kept == [(3, "adapter", {"weights": b"new"})]


def test_a_trial_that_takes_over_free_places_is_told_once(told: Told) -> None:
    trial = told.trial(0)
    told.callback.on_trial_start(0, [], trial)
    for epoch, workers in enumerate((1, 3, 3), 1):
        told.report(trial, epoch, workers=workers)
    told.callback.on_trial_start(0, [], trial)  # it has lost its process, and them with it
    told.report(trial, 3)
    told.report(trial, 4, workers=2)
    assert [line for line in told.lines if "taken over" in line] == [
        "trial 01 has taken over free places: 3 workers",
        "trial 01 has taken over free places: 2 workers",
    ]


def test_places_may_be_taken_over_once_the_last_trial_has_begun(told: Told) -> None:
    for number in (0, 1, 2, 2, 3):
        assert not told.files.may_take_over()
        told.callback.on_trial_start(0, [], told.trial(number))
    assert told.files.may_take_over()
    told.files.tell_last_stage(is_last=False)  # a search that is resumed with more trials
    assert not told.files.may_take_over()


def test_a_resumed_trial_is_retold_each_epoch_once() -> None:
    log, log_of_trial = Log(), TrialLog(None, 0)
    retold = Retold(log)
    for epochs in ((0, 1, 2), (0, 1, 2, 3)):  # the size of its model is metrics of step 0
        log_of_trial.params({"lora_r": 8})
        log_of_trial.tags({"wertune.device": f"of process {len(epochs)}"})
        for epoch in epochs:
            log_of_trial.metrics({"val_wer": len(epochs) + epoch / 10}, epoch)
        retold.write(log_of_trial.take())
    assert log.logged == {"lora_r": "8"}
    assert log.tagged == {"wertune.device": "of process 4"}
    assert log.steps == {0: {"val_wer": 3.0}, 1: {"val_wer": 3.1}, 2: {"val_wer": 3.2}, 3: {"val_wer": 4.3}}
