"""What `tune` tells its user."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from wertune.base.config import TrialConfig, TrialPlaces
from wertune.base.errors import ConfigError, TrackingError
from wertune.commands.tune import _places, _search_config, _told, resume_command, train, tune
from wertune.jobs.logged import Results
from wertune.jobs.trials import BestTrial
from wertune.jobs.tune import Registered, Task, Verdict, finish
from wertune.search.search_space import SearchConfig
from wertune.tracking.journal_writer import held

GIVEN = {
    "project": "my own",
    "overrides": ("lora.r=8", "seed=1"),
    "epochs": "3",
    "trials": "",
    "resume": "",
}
FLAGS = {"dry_run": False, "as_json": True}


@pytest.mark.parametrize(
    ("experiment_id", "command"),
    [
        (None, "python -m wertune tune --project 'my own' --epochs 3 --resume 1a2b --set 'lora.r=8 seed=1'"),
        (
            "42",
            "mlflow run . -e tune --env-manager local --experiment-id 42 -P 'project=my own' -P epochs=3 "
            "-P resume=1a2b -P 'set=lora.r=8 seed=1'",
        ),
    ],
)
def test_a_search_is_resumed_with_all_that_it_was_given(
    experiment_id: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert resume_command(GIVEN | FLAGS, experiment_id, "1a2b") == command


class Driver:
    """A `tune` whose long parts only look whether another process could come in between."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.looks = folder / ".wertune" / "searches" / "1a2b", list[str]()
        for module, name in (("jobs.tune", "score_baseline"), ("search.driver", "search"), ("jobs.tune", "finish")):
            monkeypatch.setattr(f"wertune.{module}.{name}", lambda *_, name=name: self.look(name))
        for name in ("objective_of", "log_search", "advise", "best_trial"):
            monkeypatch.setattr(f"wertune.jobs.tune.{name}", lambda *_: None)
        monkeypatch.setattr("wertune.search.study.open_study", lambda *_, **__: object())
        monkeypatch.setattr("wertune.commands.tune._policy", lambda name: None)
        monkeypatch.setattr("wertune.commands.tune._told", lambda *_: {})
        monkeypatch.setattr("wertune.search.driver.cluster", lambda *_: nullcontext())
        monkeypatch.setattr("wertune.jobs.tune.start_experiment", self.start)

    @contextmanager
    def start(self, *_: Any) -> Iterator[Any]:
        yield SimpleNamespace(run_id="1a2b"), None
        self.look("end of the run")

    def look(self, place: str) -> dict[str, Any]:
        with pytest.raises(TrackingError, match="another process; wait for its end, or end it"), held(self.folder):
            pass
        self.looks.append(place)
        return {}


@pytest.mark.parametrize("options", [[], ["--resume", "1a2b"]])
def test_one_process_is_at_a_search_from_its_beginning_to_its_end(
    small_project: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    driver = Driver(small_project, monkeypatch)
    done = CliRunner().invoke(tune, ["--project", str(small_project), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert driver.looks == ["score_baseline", "search", "finish", "end of the run"]
    with held(driver.folder):
        pass


def test_who_comes_second_leaves_the_run_as_it_was(small_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(small_project, monkeypatch)
    monkeypatch.setattr("wertune.jobs.tune.start_experiment", lambda *_: pytest.fail("the run was touched"))
    with held(driver.folder), pytest.raises(TrackingError, match="another process"):
        CliRunner().invoke(tune, ["--project", str(small_project), "--resume", "1a2b"], catch_exceptions=False)


def test_what_a_program_is_told_holds_no_password(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("log_figures", "register"):
        monkeypatch.setattr(f"wertune.jobs.tune.{name}", lambda *_, **__: "3")
    monkeypatch.setattr("wertune.jobs.tune.evaluated", lambda *_: {})
    monkeypatch.setattr("wertune.jobs.tune.what_brings_it", lambda *_: None)
    monkeypatch.setattr("wertune.jobs.tune.to_staging", lambda *_: Verdict("Staging", "passed"))
    monkeypatch.setattr("wertune.jobs.tune.describe", lambda *_: "a table")
    run: Any = SimpleNamespace(
        run_id="1a2b", ui_path="#/1a2b", tracking_uri="postgresql+psycopg2://mlflow:secret@db:5432/mlflow"
    )
    dataset = {"test": [SimpleNamespace(path=Path("a.wav"))], "replay": []}
    prepared: Any = SimpleNamespace(project=SimpleNamespace(name="small"), dataset=dataset)
    task = Task(Path(), prepared.project, None, print)  # type: ignore[arg-type]
    done = finish(task, run, prepared, {}, BestTrial(run, "trial 01", TrialConfig()))
    assert done == Registered(run, prepared, done.best, Results({}, None), "3", Verdict("Staging", "passed"))
    answer = _told("tune", Path(), done)
    assert answer["tracking_uri"] == "postgresql+psycopg2://db:5432/mlflow"
    printed = capsys.readouterr().out
    assert "secret" not in f"{answer}{printed}"
    assert len(answer["next"]) >= 5
    assert all(f"# {step['what']}\n{step['command']}\n" in printed for step in answer["next"])


@pytest.mark.parametrize(
    ("variables", "begins"),
    [
        ({}, "python -m wertune tune"),
        ({"MLFLOW_EXPERIMENT_ID": "42"}, "python -m wertune tune"),
        (
            {"MLFLOW_EXPERIMENT_ID": "42", "MLFLOW_RUN_ID": "1a2b"},
            "mlflow run . -e tune --env-manager local --experiment-id 42",
        ),
    ],
)
def test_a_search_is_resumed_in_the_way_and_experiment_in_which_it_began(
    small_project: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], begins: str
) -> None:
    Driver(small_project, monkeypatch)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(tune, ["--project", str(small_project)], catch_exceptions=False)
    assert f"go on with: {begins} " in done.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "lora.r=[1"], "--set lora.r is '[1', but must be a value in YAML, such as 8"),
        (["--epochs", "!!python/object:os.system x"], "--epochs is '!!python/object:os.system x', but must be"),
        (["--trials", "[1"], "--trials is '[1', but must be a value in YAML"),
        (["--seed", "99999999999999999999999"], "seed is 99999999999999999999999"),
        (["--set", "lora.r=8 lora.r=16"], "lora.r is given twice, as 8 and by --set as 16; give one of them"),
        (["--set", "train.epochs=2", "--epochs", "3"], "train.epochs is given twice, as 2 and by --epochs as 3"),
        (["--set", 'lora={"r":8}'], "give each value as lora.NAME=VALUE"),
    ],
)
def test_a_value_that_is_none_is_told_before_anything_begins(
    small_project: Path, options: list[str], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(tune, ["--project", str(small_project), *options], catch_exceptions=False)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "--workers is 0, but must be at least 1"),
        (["--workers", "two"], "--workers is 'two', but must be"),
        (["--workers", "2.5"], "--workers is 2.5, but must be"),
        (["--ray-address", "head:6379"], "--ray-address is head:6379, but goes with --workers of two and more"),
        (
            ["--ray-address", "head:6379", "--workers", "1"],
            "--ray-address is head:6379, but goes with --workers of two",
        ),
    ],
)
def test_workers_that_no_training_can_have_are_refused(small_project: Path, options: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(train, ["--project", str(small_project), *options], catch_exceptions=False)
    assert told in str(caught.value)


def test_workers_without_a_core_each_are_refused_before_anything_is_read(
    small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wertune.base.machine.cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(train, ["--project", str(small_project), "--workers", "3"], catch_exceptions=False)
    told = (
        "a trial has 3 workers and cpus_per_trial is 1, but this machine has 2 cores; lower --workers or cpus_per_trial"
    )
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("search", "workers", "places"),
    [
        ("", "", {}),
        ("", "3", {"workers_per_trial": 3}),
        (
            "gpus_per_trial: 0.25\ncpus_per_trial: 2\nworker_timeout_s: 60",
            "4",
            {"workers_per_trial": 4, "cpus_per_trial": 2, "worker_timeout_s": 60},
        ),
        ("gpus_per_trial: 8", "2", {"workers_per_trial": 2}),
        ("gpus_per_trial: 0\nworkers_per_trial: 2", "4", {"workers_per_trial": 4, "gpus_per_trial": 0}),
        ("gpus_per_trial: 8", "", {}),
    ],
)
def test_each_worker_of_a_training_gets_what_search_yaml_says_or_a_gpu_of_its_own(
    tmp_path: Path, search: str, workers: str, places: dict[str, Any]
) -> None:
    if search:
        space = "space: {lora.r: {choices: [8]}}"
        (tmp_path / "search.yaml").write_text(f"{search}\n{space}\n", encoding="utf-8")
    assert _places(tmp_path, workers) == TrialPlaces(**places)


SEARCH = """\
strengths: [0.7, 1.0]
space:
  lora.r: {choices: [2, 4]}
  train.replay_ratio: {low: 0.5, high: 1.0}
first_points: [{lora.r: 4, train.replay_ratio: 0.5}]
"""


def _searched(folder: Path, fixed: dict[str, Any]) -> SearchConfig:
    (folder / "search.yaml").write_text(SEARCH, encoding="utf-8")
    return _search_config(folder, TrialConfig(), fixed, "", "")


@pytest.mark.parametrize(
    ("fixed", "space", "point", "strengths", "said"),
    [
        ({}, {"lora.r", "train.replay_ratio"}, {"lora.r": 4, "train.replay_ratio": 0.5}, (0.7, 1.0), ""),
        ({"lora.r": 8, "seed": 1}, {"train.replay_ratio"}, {"train.replay_ratio": 0.5}, (0.7, 1.0), "lora.r"),
        (
            {"lora.r": 8, "lora.strength": 0.6},
            {"train.replay_ratio"},
            {"train.replay_ratio": 0.5},
            (),
            "lora.r, lora.strength",
        ),
    ],
)
def test_what_is_set_is_not_searched(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fixed: dict[str, Any],
    space: set[str],
    point: dict[str, float],
    strengths: tuple[float, ...],
    said: str,
) -> None:
    found = _searched(tmp_path, fixed)
    assert (set(found.space), found.first_points, found.strengths) == (space, (point,), strengths)
    assert capsys.readouterr().out == (f"not searched, since it has a value: {said}\n" if said else "")


def test_a_search_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora\.r, train\.replay_ratio; leave one out, or use train"):
        _searched(tmp_path, {"lora.r": 8, "train.replay_ratio": 1.0})
