"""The best configuration from other seeds: what is logged of it, taken up again, and registered."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tests.unit.jobs.conftest import NO_PENALTY

from wertune.base.config import TrialConfig, TrialPlaces, with_overrides
from wertune.base.contract import BEST_OBJECTIVE, RESTART_TAG, TRAINABLE_PARAMETERS
from wertune.jobs import soup
from wertune.jobs.soup import restarted
from wertune.jobs.trials import BestTrial
from wertune.search.search_space import SearchConfig
from wertune.tracking.runs import RunRef, children, nested_run, restarts
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import TrainingDiverged
from wertune.training.trial import RunLog, run_trial


class Cluster:
    """Trains in this process; the seeds in `failing` fail, and whatever is asked for is remembered."""

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.asked: list[int] = []
        self.configs: list[TrialConfig] = []
        self._failing = failing

    def __call__(
        self,
        prepared: Prepared,
        places: TrialPlaces,
        trials: Sequence[tuple[TrialConfig, RunLog]],
        objective: Objective,
        say: Callable[[str], object],
    ) -> Iterator[tuple[int, Exception | None]]:
        self.asked += [config.seed for config, _ in trials]
        self.configs += [config for config, _ in trials]
        for number, (config, log) in enumerate(trials):
            if config.seed in self._failing:
                yield number, TrainingDiverged("page of advice\nloss is nan")
            else:
                run_trial(config, prepared, objective, log)
                yield number, None


def _restart(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial, cluster: Any, least: float
) -> tuple[BestTrial, list[str]]:
    """Two more runs; the best trial alone has an objective of `least`."""
    monkeypatch.setattr(soup, "train_across", cluster)
    best.run.metrics({BEST_OBJECTIVE: least}, 9)
    said: list[str] = []
    config = SearchConfig.model_validate({"restarts": 2, "space": {"lora.r": {"choices": [2, 4]}}})
    return restarted(search, prepared, config, best, NO_PENALTY, said.append), said


def test_the_mean_is_taken_where_validation_says_so(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    found, said = _restart(monkeypatch, search, prepared, best, Cluster(), least=9.0)
    assert found.name == "mean of 3 runs of trial 02: lr=0.01"
    assert said[0] == "trial 02: lr=0.01 again from 2 other seeds, to take the mean: 0:00 of training each …"
    assert [line.partition(":")[0] for line in said[1:3]] == ["seed 1", "seed 2"]
    nested = restarts(search)
    assert all(run.info.end_time > run.info.start_time for run in nested.values())  # told when all is over
    assert {run.info.run_name for run in nested.values()} == {
        "seed 1 of trial 02: lr=0.01", "seed 2 of trial 02: lr=0.01", found.name,
    }  # fmt: skip
    assert [run.info.run_name for run in children(search)] == [best.name]  # the search's trials stay what they are
    logged = MlflowClient(search.tracking_uri).get_run(found.run.run_id).data
    assert logged.tags[RESTART_TAG] == "mean"
    alone = best.run.latest((TRAINABLE_PARAMETERS,))[TRAINABLE_PARAMETERS]
    assert logged.metrics[TRAINABLE_PARAMETERS] == 2 * alone  # twice the rank
    assert logged.metrics[BEST_OBJECTIVE] == pytest.approx(logged.metrics["best_val_wer"])


def test_the_runs_hear_the_waveforms_of_the_search_and_are_scored_once(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    cluster = Cluster()
    longer = replace(best, config=with_overrides(best.config, {"train.epochs": 3}, "test"))
    _restart(monkeypatch, search, prepared, longer, cluster, least=9.0)
    assert [config.augment.waveform_seed for config in cluster.configs] == 2 * [best.config.seed]
    assert [config.train.evaluate_every_epochs for config in cluster.configs] == [3, 3]
    run = MlflowClient(search.tracking_uri).get_run(next(iter(restarts(search).values())).info.run_id)
    assert run.data.metrics["best_epoch"] == 3


def test_the_best_trial_is_taken_where_it_is_the_better(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    found, said = _restart(monkeypatch, search, prepared, best, Cluster(), least=0.0)
    assert found is best
    assert said[-1].endswith("0.0000 of trial 02: lr=0.01 alone")


def test_an_interrupted_job_takes_up_the_runs_that_ended(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    class Dies(Cluster):
        def __call__(self, *arguments: Any) -> Iterator[tuple[int, Exception | None]]:
            yield next(super().__call__(*arguments))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _restart(monkeypatch, search, prepared, best, Dies(), least=9.0)
    cluster = Cluster()
    found, _ = _restart(monkeypatch, search, prepared, best, cluster, least=9.0)
    assert cluster.asked == [2]
    assert found.name.startswith("mean of 3 runs")
    assert len(restarts(search)) == 3


def test_a_job_that_is_resumed_after_the_mean_takes_that_up_too(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    found, said = _restart(monkeypatch, search, prepared, best, Cluster(), least=9.0)
    again, told = _restart(monkeypatch, search, prepared, best, Cluster(), least=9.0)
    assert again == found
    assert told[-1] == said[-1]
    experiment = search.client.get_run(search.run_id).info.experiment_id
    assert len(search.client.search_runs([experiment], f"tags.`{RESTART_TAG}` = 'mean'")) == 1


@pytest.mark.parametrize(
    ("ending", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_as_its_block_does(search: RunRef, ending: type[BaseException] | None, status: str) -> None:
    with suppress(ValueError, KeyboardInterrupt), nested_run(search, "one", {RESTART_TAG: "key"}):
        if ending:
            raise ending
    (run,) = search.client.search_runs(
        [search.client.get_run(search.run_id).info.experiment_id], "attributes.run_name = 'one'"
    )
    assert run.info.status == status
    assert ("key" in restarts(search)) == (status == "FINISHED")


def test_what_a_killed_process_has_left_running_is_closed_and_never_taken(search: RunRef) -> None:
    experiment = search.client.get_run(search.run_id).info.experiment_id
    left = search.client.create_run(experiment, tags={"mlflow.parentRunId": search.run_id, RESTART_TAG: "key"})
    assert restarts(search) == {}
    assert search.client.get_run(left.info.run_id).info.status == "KILLED"


@pytest.mark.parametrize(("failing", "runs"), [((1,), 2), ((1, 2), 0)])
def test_what_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
    search: RunRef,
    prepared: Prepared,
    best: BestTrial,
    failing: tuple[int, ...],
    runs: int,
) -> None:
    found, _ = _restart(monkeypatch, search, prepared, best, Cluster(failing), least=9.0)
    assert found.name == (f"mean of {runs} runs of {best.name}" if runs else best.name)
