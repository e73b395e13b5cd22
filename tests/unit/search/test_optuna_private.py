"""The study's cache tells what its database holds, and asks it for no more than has changed."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from wertune.search.optuna_private import OneWriter, TpeByNumber, _SoFar

SPACE = {"x": FloatDistribution(0, 1)}
which, value = st.integers(0, 5), st.floats(0, 1)
OPERATIONS = st.one_of(
    st.just(("ask",)),
    st.tuples(st.just("enqueue"), value),
    st.tuples(st.just("suggest"), which),
    st.tuples(st.just("report"), which, st.integers(1, 4), value),
    st.tuples(st.sampled_from(["attribute", "system attribute"]), which, value),
    st.tuples(st.just("prune"), which),
    st.tuples(st.just("complete"), which, value),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> RDBStorage:
    """One for all: its tables take longer to make than a study."""
    return RDBStorage(f"sqlite:///{tmp_path_factory.mktemp('studies') / 'optuna.db'}")


names = count()


def _study(storage: Any) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(study_name=f"s{next(names)}", storage=storage, sampler=sampler)


def _apply(study: optuna.Study, asked: list[optuna.Trial], kind: str, *values: Any) -> None:
    if kind == "ask":
        asked.append(study.ask())
    elif kind == "enqueue":
        study.enqueue_trial({"x": values[0]})
    elif asked:
        trial, rest = asked[values[0] % len(asked)], values[1:]
        if study._storage.get_trial(trial._trial_id).state.is_finished():
            return
        if kind == "suggest":
            trial.suggest_float("x", 0, 1)
        elif kind == "report" and rest[0] not in study._storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(rest[1], rest[0])
        elif kind == "attribute":
            trial.set_user_attr("a", rest[0])
        elif kind == "system attribute":
            trial.storage.set_trial_system_attr(trial._trial_id, "b", rest[0])
        elif kind == "prune":
            study.tell(trial, state=TrialState.PRUNED)
        elif kind == "complete":
            study.tell(trial, rest[0])


@settings(max_examples=60)
@given(st.lists(st.lists(OPERATIONS, min_size=1, max_size=4), max_size=10))
def test_what_is_told_is_what_the_database_holds(database: RDBStorage, between: list[list[tuple[Any, ...]]]) -> None:
    """A look after each few operations."""
    study, asked = _study(OneWriter(database)), list[optuna.Trial]()
    for operations in between:
        for operation in operations:
            _apply(study, asked, *operation)
        assert study.get_trials() == optuna.load_study(study_name=study.study_name, storage=database).get_trials()


def test_a_look_reads_what_has_changed_since_the_last(database: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study(OneWriter(database))
    trials = [study.ask(SPACE) for _ in range(8)]
    study.get_trials()
    read: list[int] = []
    get_trials = database._get_trials

    def counted(*arguments: Any) -> Any:
        found = get_trials(*arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(database, "_get_trials", counted)
    study.get_trials()
    trials[3].report(0.5, 1)
    assert study.get_trials()[3].intermediate_values == {1: 0.5}
    study.tell(trials[3], 0.5)
    study.get_trials()
    assert max(read) == 1
    assert read[0] == read[-1] - 1 == 0


@pytest.mark.parametrize("name", ["_create_new_trial", "set_trial_intermediate_value"])
def test_a_write_whose_answer_is_lost_is_seen(database: RDBStorage, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    study = _study(OneWriter(database))
    trial = study.ask(SPACE)
    study.get_trials()
    write: Callable[..., Any] = getattr(database, name)

    def unheard(*arguments: Any, **options: Any) -> None:
        write(*arguments, **options)
        raise ConnectionError("lost")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):  # noqa: PT012
        patch.setattr(database, name, unheard)
        if name == "_create_new_trial":
            study.ask(SPACE)
        else:
            trial.report(0.5, 1)
    assert study.get_trials() == optuna.load_study(study_name=study.study_name, storage=database).get_trials()
    assert len(study.get_trials()) + len(study.get_trials()[0].intermediate_values) == 2


def test_a_study_that_another_process_left_is_read_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    left = optuna.create_study(study_name="left", storage=url)
    left.ask(SPACE).report(0.1, 1)
    left.tell(left.ask(SPACE), 0.2)
    study = optuna.load_study(study_name="left", storage=OneWriter(RDBStorage(url)))
    assert study.get_trials() == left.get_trials()
    trial = optuna.Trial(study, study.get_trials()[0]._trial_id)
    trial.report(0.3, 2)
    assert study.get_trials() == optuna.load_study(study_name="left", storage=url).get_trials()


def _one_runs(sampler: optuna.samplers.TPESampler, epochs: int) -> optuna.Study:
    """Six trials stopped at their first epoch, and one at 0.5 that is better and has told of so many epochs."""
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"x": 0.5})
    best = study.ask(SPACE)
    for x in (0.0, 0.1, 0.2, 0.8, 0.9, 1.0):
        study.enqueue_trial({"x": x})
        stopped = study.ask(SPACE)
        stopped.report(0.5 + x / 10, 1)
        study.tell(stopped, state=TrialState.PRUNED)
    for epoch in range(1, epochs + 1):
        best.report(0.1, epoch)
    return study


@pytest.mark.parametrize(("epochs", "good"), [(0, 1), (1, 0), (2, 0)])
def test_what_runs_and_is_the_best_so_far_is_good_and_no_longer_bad(
    monkeypatch: pytest.MonkeyPatch, epochs: int, good: int
) -> None:
    """The number of the trial that proposals are to be like: the running one, once it has told of an epoch."""
    split = optuna.samplers._tpe.sampler._split_trials
    told: list[list[int]] = []

    def watched(*given: Any) -> Any:
        below, above = split(*given)
        told.append([trial.number for trial in below])
        return below, above

    monkeypatch.setattr(optuna.samplers._tpe.sampler, "_split_trials", watched)
    _one_runs(TpeByNumber(0), epochs).ask(SPACE)
    assert told[-1] == [good]


def test_the_study_itself_stays_as_it_is() -> None:
    study = _one_runs(TpeByNumber(0), epochs=2)
    asked = study.ask(SPACE)
    seen = _SoFar(study)._get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    assert [trial.number for trial in seen] == [0, 1, 2, 3, 4, 5, 6]
    assert study.trials[0].state is study.trials[asked.number].state is TrialState.RUNNING
