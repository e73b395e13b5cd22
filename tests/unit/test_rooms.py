"""The drawing of the rooms: circles are found, and an arrow is left out where others lead to the same room."""

import importlib.util
import subprocess
import sys
from graphlib import CycleError

import pytest
from tests.support.places import ROOT

spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
assert spec is not None
assert spec.loader is not None
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)


def test_the_drawing_is_of_the_code_as_it_is() -> None:
    done = subprocess.run([sys.executable, "docs/rooms.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
