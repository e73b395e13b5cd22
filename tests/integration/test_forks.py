"""A fork says what a process of its own says: its words, folder, environment and clock, its faults and its status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.forked import Forks

SAYS = """
import os, sys, threading, time, torch
print(__name__, sys.argv, os.getcwd(), os.environ["GIVEN"], os.environ["CUDA_VISIBLE_DEVICES"], time.tzname)
print(repr(sys.stdin.read()), threading.active_count(), torch.get_num_threads(), torch.ones(9, 9) @ torch.ones(9))
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("-c", SAYS, "a word"),
        ("said.py", "a word", "-P"),
        ("-m", "said", "a word"),
        ("-m", "wertune", "validate", "--project", "nowhere"),
        ("-m", "wergate", "history", "--no-such-option"),
    ],
    ids=" ".join,
)
def test_a_fork_says_what_a_process_of_its_own_says(words: tuple[str, ...], forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "said.py").write_text(SAYS)
    given = os.environ | {"GIVEN": " ".join(words), "TZ": "Asia/Singapore", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *words]
    alone = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    forks.may_take(words)
    assert forks.may_take(words)
    fork = forks.run(command, tmp_path, given)
    assert (fork.returncode, fork.stdout, fork.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert alone.returncode in (1, 2, 3)


def test_the_first_of_a_kind_and_what_starts_ray_are_processes_of_their_own(tmp_path: Path) -> None:
    forks = Forks(tmp_path / "forks")
    assert [forks.may_take(("-m", "wergate", "check", *more)) for more in ((), ("--repair", "true"), ())] == [
        False,
        True,
        True,
    ]
    assert not any(forks.may_take(("-P", "-m", "wertune", "tune", "--project", "p")) for _ in range(2))
    assert [forks.may_take(("-m", "wertune", "tune", "--dry-run")) for _ in range(2)] == [False, True]


def test_an_exception_is_told_and_the_status_is_1(forks: Forks, tmp_path: Path) -> None:
    alone, fork = (forks.run([sys.executable, "-c", "1 / 0"], tmp_path, os.environ) for _ in range(2))
    assert (fork.returncode, alone.returncode) == (1, 1)
    assert fork.stderr.splitlines()[-1] == alone.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
