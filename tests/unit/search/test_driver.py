"""What this project changes of Ray Tune."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import TuneError

import wertune.search.driver
import wertune.search.worker
from wertune.base.config import TrialConfig
from wertune.base.errors import StorageError
from wertune.search.driver import RAY_SETTINGS, _own_errors, _start_ray
from wertune.search.ray_private import RAY_OUT_OF_MEMORY, Actors
from wertune.search.trial_log import LOG, NUMBER, POINT
from wertune.search.worker import run_one
from wertune.training.train import TrainingDiverged


def _failed(manager: type[RayActorManager], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a trial's actor is told of the end of its process for want of memory."""
    told: list[Any] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: told.append(error))
    made = manager.__new__(manager)
    made._failed_actor_ids = set()
    monkeypatch.setattr(manager, "_cleanup_actor", lambda self, tracked_actor: None)
    task: Any = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    made._actor_task_failed(task, OutOfMemoryError("killed: 15.42GB used / 23.54GB limit"))
    return told


def test_an_end_for_want_of_memory_is_a_death_that_the_search_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    (error,) = _failed(Actors, monkeypatch)
    assert isinstance(error, RayActorError)
    assert str(error).startswith(RAY_OUT_OF_MEMORY)
    assert "15.42GB used / 23.54GB limit" in str(error)


def test_ray_itself_would_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        _failed(RayActorManager, monkeypatch)


@pytest.mark.parametrize(
    ("assigned", "text"),
    [({"CPU": 1.0}, "1 CPU"), ({"GPU": 0.25, "CPU": 4.0, "memory": 1e9}, "4 CPU, 0.25 GPU"), ({"GPU": 1.0}, "1 GPU")],
)
def test_a_trial_says_what_it_was_given(monkeypatch: pytest.MonkeyPatch, assigned: dict[str, float], text: str) -> None:
    told: list[dict[str, Any]] = []
    context = SimpleNamespace(get_assigned_resources=lambda: assigned)
    monkeypatch.setattr(wertune.search.worker.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(wertune.search.worker, "prepared_here", lambda prepared, files: prepared)
    monkeypatch.setattr(wertune.search.worker.tune, "report", told.append)
    monkeypatch.setattr(wertune.search.worker, "run_trial", _diverges)
    prepared: Any = SimpleNamespace(project=SimpleNamespace(trial=TrialConfig()))
    monkeypatch.setattr(wertune.search.worker.ray.util, "get_current_placement_group", lambda: None)
    run_one({NUMBER: 0, POINT: {}}, prepared, None, None, None, 1.0)  # type: ignore[arg-type]
    assert json.loads(told[0][LOG])["tags"] == {"wertune.resources": text}


def _diverges(*_: Any, **__: Any) -> None:
    raise TrainingDiverged("loss is nan")


def test_nodes_get_this_package_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in Ray's runtime environment is written to its logs and shown on its dashboard."""
    secrets = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "WERTUNE_STUDY_STORAGE")
    for name in (*secrets, *RAY_SETTINGS):
        monkeypatch.setenv(name, "hidden")  # the latter to be put back
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(wertune.search.driver.ray, "init", lambda *_, **named: given.append(named))
    _start_ray("auto")
    (named,) = given
    assert named["runtime_env"] == {"py_modules": [str(Path(wertune.__file__).parent)]}
    assert "hidden" not in str(named)
    _start_ray(None)
    assert "runtime_env" not in given[1]


def _as_ray_raises(error: Exception) -> None:
    """Ray Tune raises what a callback raised as text alone."""
    try:
        raise error
    except Exception:
        raise TuneError("a page of traceback")  # noqa: B904


def test_an_error_of_ours_keeps_its_remedy() -> None:
    with pytest.raises(StorageError, match=r"^the disk is full; make room$"), _own_errors():
        _as_ray_raises(StorageError("the disk is full; make room"))


def test_an_error_of_rays_stays_as_it_is() -> None:
    with pytest.raises(TuneError, match="a page of traceback"), _own_errors():
        _as_ray_raises(ValueError("a metric is missing"))
