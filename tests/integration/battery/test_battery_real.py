"""The texts of the untouched base that lie with the English battery are what that base writes."""

from pathlib import Path

import pytest
from tests.support.places import DEMO
from tests.support.workspace import take

from wertune.base.config import load_project
from wertune.battery import score
from wertune.battery.shelf import Battery, project_battery
from wertune.training.prepare import Prepared, prepare

EVERY = 45  # of 910 clips, those of no more than four seconds: a dozen


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The demo's settings and base, with a few of its rows: texts of a battery do not hang on them."""
    rows = tmp_path_factory.mktemp("rows") / "test.jsonl"
    take("test", 5, rows)
    return prepare(DEMO, load_project(DEMO), {"test": rows})


@pytest.fixture(scope="module")
def battery(prepared: Prepared) -> Battery:
    found = project_battery(DEMO, prepared.project)
    assert found is not None
    return found


def test_they_are_taken_as_they_lie_there(
    prepared: Prepared, battery: Battery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path))
    monkeypatch.delattr(score, "write_with_base")
    texts = score.base_texts(prepared, battery)
    assert {part: len(written) for part, written in texts.items()} == {
        part: len(rows) for part, rows in battery.by_part.items()
    }


def test_they_are_what_the_base_writes(prepared: Prepared, battery: Battery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_PRODUCTS", "float32")  # as when they were written
    kept = score.base_texts(prepared, battery)
    places = [(row, part, i) for part, rows in battery.by_part.items() for i, row in enumerate(rows)]
    chosen = [each for each in places[::EVERY] if each[0].duration <= 4]
    assert len(chosen) >= 8
    few = Battery(battery.folder, tuple(row for row, _, _ in chosen))
    written = {part: list(texts) for part, texts in score.write_with_base(prepared, few).items()}
    same = [written[part].pop(0) == kept[part][i] for _, part, i in chosen]
    assert sum(same) >= len(same) - 1, same  # processors differ in the last bits: one text may
