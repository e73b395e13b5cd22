"""What trials leave behind."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.errors import StorageError
from wertune.keeper import STATE, Shelf, unpack

FILES = st.dictionaries(
    st.lists(st.text("ab.-é %", min_size=1, max_size=6).filter(lambda part: part not in (".", "..")), min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: path != "source.json"),
    st.binary(max_size=64),
    min_size=1,
    max_size=4,
)


@given(first=FILES, second=FILES)
def test_the_newest_files_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, first, second) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    assert shelf.get(0, STATE) is None
    shelf.put(0, STATE, first)
    shelf.put(0, STATE, second)
    assert shelf.get(0, STATE) == second
    assert shelf.get(1, STATE) is None


def test_a_damaged_newest_gives_way_to_nothing_or_an_older_whole_one(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(3, STATE, {"a": b"whole"})
    (file,) = tmp_path.rglob("a")
    file.write_bytes(b"cut")
    assert shelf.get(3, STATE) is None


def test_a_full_disk_keeps_the_older_state_and_says_what_to_do(tmp_path: Path, disk_full_after) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(0, STATE, {"a": b"old"})
    with disk_full_after(1000), pytest.raises(StorageError, match="state of trial 1 cannot be stored.*resume"):
        shelf.put(0, STATE, {"a": bytes(5000)})
    assert shelf.get(0, STATE) == {"a": b"old"}
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(0, STATE, {"a": b"1"})
    shelf.forget(0, STATE)
    assert shelf.get(0, STATE) is None
    assert not list(tmp_path.rglob("a"))


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x"])
def test_no_file_is_written_outside_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(StorageError, match="leads out of"):
        unpack({path: b""}, tmp_path / "in")
    assert not list(tmp_path.rglob("x"))
