"""What trials leave behind."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wertune.base.errors import StorageError
from wertune.search.checkpoints import STATE, CheckpointStore, Heard

FILES = st.dictionaries(
    st.lists(st.text("ab-é %", min_size=1, max_size=6), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=64),
    min_size=1,
    max_size=4,
)


@given(first=FILES, second=FILES)
def test_the_newest_files_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, first, second) -> None:
    kept = CheckpointStore(tmp_path_factory.mktemp("kept"))
    assert kept.get(0, STATE) is None
    kept.put(0, STATE, first)
    kept.put(0, STATE, second)
    assert kept.get(0, STATE) == second
    assert kept.get(1, STATE) is None


def test_a_damaged_newest_gives_way_to_nothing_or_an_older_whole_one(tmp_path: Path) -> None:
    kept = CheckpointStore(tmp_path)
    kept.put(3, STATE, {"a": b"whole"})
    (file,) = tmp_path.rglob("a")
    file.write_bytes(b"cut")
    assert kept.get(3, STATE) is None


def test_a_full_disk_keeps_the_older_state_and_says_what_to_do(tmp_path: Path, disk_full_after) -> None:
    kept = CheckpointStore(tmp_path)
    kept.put(0, STATE, {"a": b"old"})
    with disk_full_after(1000), pytest.raises(StorageError, match=r"state of trial 1 cannot be stored.*resume"):
        kept.put(0, STATE, {"a": bytes(5000)})
    assert kept.get(0, STATE) == {"a": b"old"}
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    kept = CheckpointStore(tmp_path)
    kept.put(0, STATE, {"a": b"1"})
    kept.forget(0, STATE)
    assert kept.get(0, STATE) is None
    assert not list(tmp_path.rglob("a"))


@example(said=[["one"], [], ["two"]])
@given(said=st.lists(st.lists(st.text(), max_size=12), max_size=4))
def test_what_tasks_say_is_heard_once_and_in_order_whenever_the_actor_starts_anew(
    tmp_path_factory: pytest.TempPathFactory, said: list[list[str]]
) -> None:
    folder, heard = tmp_path_factory.mktemp("heard"), list[str]()
    for each in said:
        for one in each:
            Heard(folder).add(one)
        answer = Heard(folder).since(len(heard))
        assert Heard(folder).since(len(heard)) == answer  # asked again, since the first answer was lost
        heard += answer
    assert heard == [one for each in said for one in each]
