"""A search's run with the best of its trials, trained for an epoch on a tiny Whisper."""

from pathlib import Path

import pytest

from wertune.base.config import load_project, with_overrides
from wertune.base.contract import OUTCOME_TAG, POINT_TAG
from wertune.jobs.trials import BestTrial
from wertune.tracking.runs import RunRef, create_run, nested_run
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared, prepare
from wertune.training.trial import run_trial

NO_PENALTY = Objective(0.0, 1.0, 0.0)


@pytest.fixture
def prepared(small_project: Path) -> Prepared:
    return prepare(small_project, with_overrides(load_project(small_project), {"trial.train.epochs": 1}, "test"))


@pytest.fixture
def search(mlflow_store: str) -> RunRef:
    return create_run(mlflow_store, "search")


@pytest.fixture
def best(prepared: Prepared, search: RunRef) -> BestTrial:
    with nested_run(search, "trial 02: lr=0.01", {OUTCOME_TAG: "completed", POINT_TAG: "{}"}) as run:
        run_trial(prepared.project.trial, prepared, NO_PENALTY, run)
    return BestTrial(run, "trial 02: lr=0.01", prepared.project.trial)
