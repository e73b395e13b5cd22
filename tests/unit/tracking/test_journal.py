"""A journal that is cut, or that finds no room."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wertune.tracking.journal_writer import Journal


@given(
    values=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3)), cut=st.integers(0, 10**6)
)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_a_journal_cut_at_any_byte_holds_its_whole_lines_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, str]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    ends = []
    for value in values:
        journal.append([value])
        ends.append(path.stat().st_size)
    journal.close()
    at = cut % (path.stat().st_size + 1)
    path.write_bytes(path.read_bytes()[:at])

    again = Journal(path)
    again.append([{"after": "the cut"}])
    whole = values[: sum(end <= at for end in ends)]
    assert list(again.operations()) == [*whole, {"after": "the cut"}]
    again.close()


def test_of_lines_that_a_full_disk_takes_in_part_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append([{"said": 1}])
    write = os.write

    def in_part(handle: int, rest: memoryview) -> int:
        if len(rest) < 15:
            raise OSError(28, "No space left on device")
        return write(handle, rest[:12])

    with monkeypatch.context() as patch:
        patch.setattr("wertune.tracking.journal_writer.os.write", in_part)
        with pytest.raises(OSError, match="No space left"):
            journal.append([{"lost": 1}, {"lost": 2}])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wertune.tracking.journal_writer.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append([{"lost": "a longer line than the next"}])
    journal.append([{"said": 2}, {"said": 3}])
    assert list(journal.operations()) == [{"said": 1}, {"said": 2}, {"said": 3}]
    journal.close()
