"""What this project changes of Ray Tune."""

import json
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune import TuneError

import wertune.base.cli
import wertune.search.driver
import wertune.search.worker
from wertune.base.config import TrialConfig, TrialPlaces
from wertune.base.errors import ConfigError, OutOfMemory, StorageError, WorkersLost
from wertune.search.driver import RAY_SETTINGS, _Across, _got, _own_errors, _start_ray, cluster
from wertune.search.ray_private import RAY_OUT_OF_MEMORY, Actors
from wertune.search.trial_log import LOG, NUMBER, POINT
from wertune.search.worker import Spares, run_one
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


def test_of_several_workers_that_end_the_one_that_was_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that misses it ends in order, and perhaps before Ray knows of the other's death."""
    ended = iter(["missed it", "was killed"])

    def wait(waiting: list[str], timeout: float) -> tuple[list[str], list[str]]:
        first = next(ended)
        return [first], [each for each in waiting if each != first]

    def get(reference: str) -> None:
        if reference == "was killed":
            raise OutOfMemoryError("15.42GB used / 23.54GB limit")

    monkeypatch.setattr(wertune.search.worker, "ray", SimpleNamespace(wait=wait, get=get))
    cause = wertune.search.worker._cause(["missed it", "was killed"], size=3)
    assert isinstance(cause, OutOfMemory)


class _Groups:
    """Placement groups as Ray keeps them, in a cluster with room for so many places."""

    def __init__(self, room: int) -> None:
        self.room, self.by_name, self.asked = room, dict[str, Any](), list[int]()

    def make(self, bundles: list[dict[str, float]], strategy: str, name: str) -> Any:
        self.asked.append(len(bundles))
        fits = len(bundles) <= self.room
        self.by_name[name] = SimpleNamespace(id=name, bundle_count=len(bundles), wait=lambda timeout: fits)
        return self.by_name[name]

    def get(self, name: str) -> Any:
        if name not in self.by_name:
            raise ValueError(f"Failed to look up placement group with name: {name}")
        return self.by_name[name]

    def remove(self, group: Any) -> None:
        del self.by_name[group.id]


def _spares(monkeypatch: pytest.MonkeyPatch, groups: _Groups, kinds: Any) -> Spares:
    own = SimpleNamespace(id="own", bundle_count=1, bundle_specs=[{"CPU": 1.0}])
    ray = SimpleNamespace(
        util=SimpleNamespace(get_current_placement_group=lambda: own),
        get=lambda asked: asked,
        put=lambda prepared: prepared,
        wait=lambda going, num_returns, timeout: (going, []),
        available_resources=lambda: {"CPU": 8.0},
        kill=lambda mate: None,
    )
    monkeypatch.setattr(wertune.search.worker, "ray", ray)
    monkeypatch.setattr(wertune.search.worker, "placement_group", groups.make)
    monkeypatch.setattr(wertune.search.worker, "get_placement_group", groups.get)
    monkeypatch.setattr(wertune.search.worker, "remove_placement_group", groups.remove)
    mate = SimpleNamespace(prepare=SimpleNamespace(remote=lambda prepared, files: "ready"))
    monkeypatch.setattr(wertune.search.worker, "_started", lambda group, wait_s: [mate] * group.bundle_count)
    store: Any = SimpleNamespace(may_take_over=SimpleNamespace(remote=lambda: True))
    return Spares(0, "prepared", "files", store, kinds, 1.0)  # type: ignore[arg-type]


ONE_CORE = [({"CPU": 1.0}, {})]


def test_a_trial_asks_for_half_of_the_places_that_it_did_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free cores of nodes of another kind count among those that are free, and are none of a trial's."""
    groups = _Groups(room=2)
    spares = _spares(monkeypatch, groups, ONE_CORE)
    assert [spares.are_ready(7) for _ in range(4)] == [False, False, False, True]
    assert groups.asked == [7, 3, 1]
    assert [group.bundle_count for group in spares.joined] == [1]


def test_what_a_killed_process_of_a_trial_had_taken_over_is_free_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = _Groups(room=8)
    killed = _spares(monkeypatch, groups, ONE_CORE)
    for _ in range(2):
        assert [killed.are_ready(2), killed.are_ready(2)] == [False, True]
    assert len(groups.by_name) == 2
    _spares(monkeypatch, groups, [])  # that of a search that takes nothing over leaves all as it is
    assert len(groups.by_name) == 2
    after = _spares(monkeypatch, groups, ONE_CORE)
    assert not groups.by_name
    assert [after.are_ready(2), after.are_ready(2)] == [False, True]
    after.give_back()
    assert not groups.by_name


def test_a_run_of_the_mean_waits_for_a_node_as_a_search_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found, said = iter([ConfigError("no place"), ConfigError("no place"), ("a place",)]), list[str]()

    def resources(nodes: Any, places: Any) -> Any:
        answer = next(found)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    monkeypatch.setattr(wertune.search.driver, "trial_resources", resources)
    monkeypatch.setattr(wertune.search.driver, "ray", SimpleNamespace(nodes=list))
    monkeypatch.setattr(wertune.search.driver, "time", SimpleNamespace(sleep=lambda s: None))
    across = _Across.__new__(_Across)
    across._places, across._say = TrialPlaces(), said.append
    assert across._room() == "a place"
    assert said == ["waiting for a node: no place"]


def test_what_fails_while_the_base_is_scored_is_told_without_rays_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(tasks: list[Exception]) -> None:
        raise tasks[0]

    monkeypatch.setattr(wertune.search.driver, "ray", SimpleNamespace(get=get))
    fault = StorageError("no room")
    with pytest.raises(StorageError, match=r"^no room$"):
        _got([RayTaskError("transcribe_part", "a page of traceback", fault)])
    with pytest.raises(WorkersLost, match="a process that scores the base is gone: The actor died"):
        _got([RayActorError(error_msg="The actor died\nunexpectedly")])


def test_after_a_cluster_what_ends_a_command_ends_it_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray hands SIGTERM back to the system as it shuts down, of which Python's own record says nothing."""
    before = signal.getsignal(signal.SIGTERM)
    shut_down = partial(signal.signal, signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(wertune.search.driver, "ray", SimpleNamespace(shutdown=shut_down, nodes=list))
    monkeypatch.setattr(wertune.search.driver, "_start_ray", lambda address: None)
    monkeypatch.setattr(wertune.search.driver, "trial_resources", lambda nodes, places: None)
    monkeypatch.setattr(wertune.base.cli, "_ended_by", [])  # what other tests' commands end by
    try:
        with cluster(None, TrialPlaces()):
            pass
        assert callable(signal.getsignal(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
