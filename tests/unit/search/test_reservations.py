"""Which place a trial gets, and what becomes of it when the nodes of its kind are gone."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.air.execution import ResourceManager

import wertune.search.places
from wertune.search.places import LOOK_EVERY_S, Reservations, Slots, trial_resources
from wertune.search.search_space import Range, SearchConfig

CONFIG = SearchConfig(space={"train.learning_rate": Range(low=1e-4, high=1e-3)})
ANY = object()  # whatever a trial asks for


def _node(name: str, cpus: float, gpus: float = 0.0) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}}


GPU_NODE, CPU_NODE = _node("a1", 2, 2), _node("b2", 1)


class Groups(ResourceManager):
    """Placement groups that are there when a test says so, by what they hold."""

    def __init__(self) -> None:
        self.staged, self.there, self.freed = list[str](), list[str](), list[Any]()

    def request_resources(self, resource_request: Any) -> None:
        self.staged.append(_kind(resource_request))

    def cancel_resource_request(self, resource_request: Any) -> None:
        kind = _kind(resource_request)
        (self.staged if kind in self.staged else self.there).remove(kind)

    def has_resources_ready(self, resource_request: Any) -> bool:
        return _kind(resource_request) in self.there

    def acquire_resources(self, resource_request: Any) -> Any:
        self.there.remove(_kind(resource_request))
        return SimpleNamespace(kind=_kind(resource_request))

    def free_resources(self, acquired_resource: Any) -> None:
        self.freed.append(acquired_resource)

    def arrive(self, kind: str) -> None:
        self.staged.remove(kind)
        self.there.append(kind)


def _kind(request: Any) -> str:
    return "gpu" if "GPU" in request.required_resources else "cpu"


class Search:
    """Reservations on nodes that a test moves, as it does the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes, self.now, self.looks = [GPU_NODE, CPU_NODE], 0.0, 0
        self.groups, self.said = Groups(), list[str]()
        monkeypatch.setattr(wertune.search.places.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(wertune.search.places.ray, "nodes", self._look)
        self.reservations = Reservations(trial_resources(self.nodes, CONFIG), CONFIG, self.said.append, self.groups)

    def _look(self) -> list[dict[str, Any]]:
        self.looks += 1
        return self.nodes

    def request(self, count: int) -> None:
        for _ in range(count):
            self.reservations.request_resources(ANY)

    def change(self, *nodes: dict[str, Any]) -> None:
        self.nodes = list(nodes)
        self.now += LOOK_EVERY_S + 1


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    return Search(monkeypatch)


def test_trials_go_where_there_is_a_free_place_gpus_first(search: Search) -> None:
    search.request(4)
    assert search.groups.staged == ["gpu", "gpu", "cpu", "gpu"]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=2), st.integers(0, 20))
def test_kinds_are_filled_in_order_and_none_beyond_its_slots(counts: list[int], trials: int) -> None:
    kinds = tuple(
        Slots(kind, {kind.upper(): 1.0, "CPU": 1.0}, count, {})
        for kind, count in zip(("gpu", "cpu"), counts, strict=False)
    )
    groups = Groups()
    reservations = Reservations(kinds, CONFIG, print, groups)
    for _ in range(trials):
        reservations.request_resources(ANY)
    running = Counter(groups.staged)
    assert running["gpu"] == min(trials, counts[0]) + max(0, trials - sum(counts))
    assert all(running[slots.kind] <= slots.count for slots in kinds[1:])


def test_a_place_that_is_given_back_is_free_again(search: Search) -> None:
    search.request(2)
    search.groups.arrive("gpu")
    held = search.reservations.acquire_resources(ANY)
    search.request(1)
    assert search.groups.staged == ["gpu", "cpu"]
    search.reservations.free_resources(held)
    search.request(1)
    assert search.groups.staged == ["gpu", "cpu", "gpu"]
    assert search.groups.freed == [held]


def test_whatever_place_is_there_is_taken(search: Search) -> None:
    search.request(3)
    assert not search.reservations.has_resources_ready(ANY)
    assert search.reservations.acquire_resources(ANY) is None
    search.groups.arrive("cpu")
    assert search.reservations.has_resources_ready(ANY)
    assert search.reservations.acquire_resources(ANY).kind == "cpu"
    assert not search.reservations.has_resources_ready(ANY)


def test_what_was_asked_for_last_is_cancelled(search: Search) -> None:
    search.request(3)
    search.reservations.cancel_resource_request(ANY)
    assert search.groups.staged == ["gpu", "gpu"]


def test_who_waits_at_a_kind_of_place_that_is_gone_is_moved(search: Search) -> None:
    search.request(4)
    search.change(CPU_NODE)
    assert not search.reservations.has_resources_ready(ANY)
    assert search.groups.staged == ["cpu"] * 4
    search.request(1)
    assert search.groups.staged == ["cpu"] * 5


def test_a_node_that_joins_is_used(search: Search) -> None:
    search.change(CPU_NODE)
    search.request(1)
    search.change(CPU_NODE, GPU_NODE)
    search.request(1)
    assert search.groups.staged == ["cpu", "gpu"]


def test_without_a_node_trials_wait_for_one_and_that_is_told_once(search: Search) -> None:
    search.change()
    search.request(1)
    search.change()
    search.request(1)
    assert search.groups.staged == ["gpu", "gpu"]
    (line,) = search.said
    assert line.startswith("trials wait for a node: cpus_per_trial is 1 and gpus_per_trial is auto")
    search.change(CPU_NODE)
    search.reservations.has_resources_ready(ANY)
    assert search.groups.staged == ["cpu", "cpu"]


def test_ray_is_not_asked_for_its_nodes_at_each_proposal(search: Search) -> None:
    search.request(100)
    assert search.looks == 0
    search.change(GPU_NODE, CPU_NODE)
    search.request(100)
    assert search.looks == 1
