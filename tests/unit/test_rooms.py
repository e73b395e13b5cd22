"""The drawing of the rooms: circles are found, and an arrow is left out where others lead to the same room."""

import importlib.util
from graphlib import CycleError
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "docs" / "rooms.py"
spec = importlib.util.spec_from_file_location("rooms", SOURCE)
assert spec is not None
assert spec.loader is not None
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)


def test_the_drawing_is_of_the_code_as_it_is() -> None:
    assert rooms.main(only_check=True) == ""


def test_each_room_stands_above_what_it_uses() -> None:
    graph = {"a.top": {"a.middle", "a.base"}, "a.middle": {"a.base"}, "a.base": set()}
    assert rooms.floors(graph) == [["a.top"], ["a.middle"], ["a.base"]]
    assert set(rooms.arrows(graph)) == {("a.top", "a.middle"), ("a.middle", "a.base")}


def test_a_circle_is_named_and_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = {"wertune.data": {"wertune.scores"}, "wertune.scores": {"wertune.data"}}
    with pytest.raises(CycleError):
        rooms.floors(graph)
    monkeypatch.setattr(rooms, "rooms", lambda: graph)
    circles = ("wertune.data -> wertune.scores -> wertune.data", "wertune.scores -> wertune.data -> wertune.scores")
    assert any(circle in rooms.main(only_check=True) for circle in circles)
