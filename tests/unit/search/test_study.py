"""Optuna's proposals, and what a resumed search knows."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from tests.support.places import ROOT
from tests.trials.recorded import plain_curves, play

from wertune.base.errors import ConfigError
from wertune.search.search_space import AshaConfig, Choices, Range, SearchConfig
from wertune.search.study import Proposals, asha, finished, open_study
from wertune.search.trial_log import EPOCH, FAILURE, METRIC, NUMBER, POINT, REDRAWN

EPOCHS = 4
CONFIG = SearchConfig(
    trials=8,
    asha=AshaConfig(grace_epochs=1, reduction_factor=2),
    space={"train.learning_rate": Range(low=1e-4, high=1e-2, log=True), "lora.r": Choices(choices=(4, 8, 16))},
    first_points=({"train.learning_rate": 1e-3},),
)


def _value(point: dict, epoch: int) -> float:
    return abs(point["train.learning_rate"] - 2e-3) * 100 + 1 / point["lora.r"] / epoch


def _search(url: str, until: int, resume: bool, die_in_epoch: int = 0) -> None:
    """One worker's search, of `until` trials in all; `die_in_epoch` leaves one more trial in the middle."""
    study = open_study("s", url, CONFIG, resume)
    proposals = Proposals(study, CONFIG, EPOCHS)
    scheduler = asha(CONFIG, EPOCHS, finished(study))
    while len(finished(study)) < until:
        _run_trial(proposals, scheduler, EPOCHS)
    if die_in_epoch:
        _run_trial(proposals, scheduler, die_in_epoch, ends=False)


def _run_trial(proposals: Proposals, scheduler, epochs: int, ends: bool = True) -> None:
    proposal = proposals.suggest("x" + str(len(proposals._trials)))
    trial = type("T", (), {"trial_id": f"ray {proposal[NUMBER]}"})()
    scheduler.on_trial_add(None, trial)
    best = float("inf")
    for epoch in range(1, epochs + 1):
        best = min(best, _value(proposal[POINT], epoch))
        redrawn = [best + 0.02 * math.sin(draw + proposal[NUMBER]) for draw in range(20)]
        result = {METRIC: best, EPOCH: epoch, REDRAWN: redrawn}
        action = scheduler.on_trial_result(None, trial, result)
        last = action == TrialScheduler.STOP or epoch == EPOCHS
        if not last:
            proposals.on_trial_result("x" + str(len(proposals._trials) - 1), result)
        elif ends:
            proposals.on_trial_complete("x" + str(len(proposals._trials) - 1), result)
            return


def _trials(url: str) -> list[tuple]:
    study = optuna.load_study(study_name="s", storage=url)
    return [(t.number, t.state, t.params, t.intermediate_values) for t in study.get_trials()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    url = f"sqlite:///{tmp_path_factory.mktemp('unbroken') / 'optuna.db'}"
    _search(url, CONFIG.trials, resume=False)
    return _trials(url)


def test_an_unbroken_search_prunes_some_and_completes_some(unbroken: list[tuple]) -> None:
    assert {state for _, state, _, _ in unbroken} == {TrialState.PRUNED, TrialState.COMPLETE}
    assert unbroken[0][2]["train.learning_rate"] == 1e-3
    assert len({str(params) for _, _, params, _ in unbroken}) == CONFIG.trials


@pytest.mark.parametrize("killed_after", [0, 1, 5, 7])
@pytest.mark.parametrize("die_in_epoch", [0, 1, 2])
def test_a_resumed_search_ends_as_an_unbroken_one(
    tmp_path: Path, unbroken: list[tuple], killed_after: int, die_in_epoch: int
) -> None:
    """The same configurations, each with the same epochs and end: nothing is repeated, nothing is lost."""
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    _search(url, killed_after, resume=False, die_in_epoch=die_in_epoch)
    _search(url, CONFIG.trials, resume=True)
    assert _trials(url) == unbroken


def test_a_trial_that_fails_is_told_so_and_never_offered_again(tmp_path: Path) -> None:
    study = open_study("s", f"sqlite:///{tmp_path / 'optuna.db'}", CONFIG, resume=False)
    proposals = Proposals(study, CONFIG, EPOCHS)
    proposals.suggest("a")
    proposals.on_trial_complete("a", {METRIC: 1e9, EPOCH: 0, FAILURE: "loss is nan"})
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL]
    assert proposals.suggest("b")[NUMBER] == 1


def test_what_cannot_be_resumed_or_opened_is_told_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no search nothing"):
        open_study("nothing", f"sqlite:///{tmp_path / 'optuna.db'}", CONFIG, resume=True)
    with pytest.raises(ConfigError, match=r"study_storage is .*cannot be used") as raised:
        open_study("s", "postgresql+psycopg2://me:secret@127.0.0.1:1/x", CONFIG, resume=False)
    assert "secret" not in str(raised.value)


def test_a_database_that_is_away_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch, capsys) -> None:
    study = open_study("s", f"sqlite:///{tmp_path / 'optuna.db'}", CONFIG, resume=False)
    proposals = Proposals(study, CONFIG, EPOCHS)
    ask, faults = study.ask, iter([True, True, True, False])

    def away(*arguments):
        if next(faults):
            raise optuna.exceptions.StorageInternalError("connection refused")
        return ask(*arguments)

    monkeypatch.setattr(study, "ask", away)
    monkeypatch.setattr("wertune.tracking.outage.time.sleep", lambda seconds: None)
    assert proposals.suggest("a")[NUMBER] == 0
    assert "database takes nothing (connection refused)" in capsys.readouterr().out


def _at_first_rung(values: list[float], redrawn: list[list[float]], confidence: float) -> list[str]:
    """What becomes of trials that come one after another, of which half go on."""
    config = CONFIG.model_copy(update={"asha": AshaConfig(grace_epochs=1, reduction_factor=2, confidence=confidence)})
    scheduler, decisions = asha(config, EPOCHS, []), []
    for number, (value, drawn) in enumerate(zip(values, redrawn, strict=True)):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        decisions.append(scheduler.on_trial_result(None, trial, {METRIC: value, EPOCH: 1, REDRAWN: drawn}))
    return decisions


def test_a_trial_that_is_behind_by_chance_goes_on_and_one_that_is_worse_is_stopped() -> None:
    """Of ten sets drawn anew the second is as good in three, the third in none."""
    good, chance, worse = [0.10] * 10, [0.10] * 3 + [0.12] * 7, [0.2] * 10
    values = [0.10, 0.114, 0.2]
    go_on, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert _at_first_rung(values, [good, chance, worse], 0.0) == [go_on, stop, stop]
    assert _at_first_rung(values, [good, chance, worse], 0.7) == [go_on, stop, stop]
    assert _at_first_rung(values, [good, chance, worse], 0.8) == [go_on, go_on, stop]


def test_without_confidence_or_redrawn_sets_the_value_alone_decides() -> None:
    nothing = [[], [], []]
    assert _at_first_rung([0.10, 0.11, 0.12], nothing, 0.9) == [TrialScheduler.CONTINUE, *[TrialScheduler.STOP] * 2]


def test_a_trial_that_tells_its_epochs_again_is_compared_once() -> None:
    scheduler = asha(CONFIG, EPOCHS, [])
    trial = SimpleNamespace(trial_id="again")
    scheduler.on_trial_add(None, trial)
    result = {METRIC: 0.1, EPOCH: 1, REDRAWN: [0.1] * 10}
    assert [scheduler.on_trial_result(None, trial, result) for _ in range(2)] == [TrialScheduler.CONTINUE] * 2
    assert len(scheduler._rungs[1]) == 1


def test_fewer_of_the_best_are_stopped_by_chance() -> None:
    """Of recorded learning curves, as docs/experiments.md has it of all orders."""
    most, stopped, granted = 5, [], []
    curves = plain_curves(ROOT / "docs" / "learning_curves.json", 0.0065)
    for confidence in (0.0, 0.95):
        config = AshaConfig(grace_epochs=1, reduction_factor=2, confidence=confidence)
        orders = [np.random.default_rng(seed).permutation(len(curves)) for seed in range(8)]
        played = [play([curves[i] for i in order], config, most) for order in orders]
        stopped.append(sum(each.false_stops for each in played) / sum(each.good for each in played))
        granted.append(sum(each.epochs for each in played))
    assert stopped[1] < stopped[0] / 2
    assert granted[0] < granted[1] < most * len(curves) * len(orders)
