"""Every command that README and documentation show is one that can be given."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shown_commands import Shown, commands, fault, pages, shown

EVERY = [each for page in pages() for each in shown(page)]


@pytest.mark.parametrize("each", EVERY, ids=lambda each: f"{each.place}: {' '.join(each.words)[:60]}")
def test_a_shown_command_can_be_given(each: Shown) -> None:
    assert fault(each.words) == "", f"{each.place}: {' '.join(each.words)}"


def test_the_pages_show_each_kind_of_command() -> None:
    kinds = {each.words[:2] if each.words[0] in ("mlflow", "python") else each.words[:1] for each in EVERY}
    assert {("mlflow", "run"), ("python", "-m"), ("wertune",), ("wergate",), ("make",), ("pytest",)} <= kinds


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mlflow run . -e tunes", "no entry point tunes"),
        ("mlflow run . -e tune -P trial=3", "no parameter trial"),
        ("mlflow run . -e import", "needs source"),
        ("mlflow run . -e tune --env local", "No such option"),
        ("wertune tunes", "no command tunes"),
        ("wertune tune --trial-count 3", "No such option"),
        ("python -m wergate promote --to Live", "is not one of"),
        ("make tun", "no target tun"),
        ("pytest tests/unit/test_none.py", "does not exist"),
        ("wertunes validate", "neither"),
    ],
)
def test_a_slip_is_found(command: str, said: str) -> None:
    assert said in fault(next(commands(command)))


def test_assignments_here_documents_and_continued_lines_are_read_as_the_shell_reads_them() -> None:
    script = "A=1 make tune && cd x\ncat > f <<'E'\nno command\nE\nwertune validate \\\n  --project p  # why\n"
    assert list(commands(script)) == [
        ("make", "tune"),
        ("cd", "x"),
        ("cat",),
        ("wertune", "validate", "--project", "p"),
    ]
