"""What the README says of the code's files and counts is so."""

import re
import tomllib

import pytest
from tests.support.malformed import KINDS, TEXT
from tests.support.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs/security.md").read_text(encoding="utf-8")
PLATFORM, REGISTRY = (
    README.partition("## What is where")[2].partition("## Known limits")[0].split("registry/wergate/", 1)
)


@pytest.mark.parametrize(("folder", "told"), [("platform/wertune", PLATFORM), ("registry/wergate", REGISTRY)])
def test_what_is_where_names_every_room_and_no_other(folder: str, told: str) -> None:
    rooms = {f"{path.parent.name}/" for path in (ROOT / folder).glob("*/__init__.py")}
    files = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    lines = re.findall(r"^  (\w+/|\w+\.py) ", told, re.MULTILINE)
    assert sorted(lines) == sorted({*rooms, *(name for name in files if name in lines)})
    assert sorted(name for name in files if name not in told) == []
    known = {path.name for path in (ROOT / folder).rglob("*.py")}
    assert sorted(set(re.findall(r"\w+\.py\b", told.partition("\nregistry/policies/")[0])) - known) == []


def test_it_counts_the_kinds_of_audio_as_the_tests_do() -> None:
    said = re.search(
        r"Of (\d+) kinds of unusual or malformed audio (\d+) are\s+valid[^,]*, and (\d+) get a 4xx", SECURITY
    )
    assert said is not None
    valid = sum(kind.answer == TEXT for kind in KINDS.values())
    assert [int(count) for count in said.groups()] == [len(KINDS), valid, len(KINDS) - valid]


def test_it_asks_for_the_python_that_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = re.search(r"Python 3\.(\d+) to 3\.(\d+)", README)
    assert said is not None
    assert project["requires-python"] == f">=3.{said[1]},<3.{int(said[2]) + 1}"
