"""Shown commands that are cheap to run: UI, audit, fuzzer, Ray's token, and what make and pytest would do."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.support.places import ROOT
from tests.support.processes import free_port, running
from tests.support.shown_commands import commands, fault, pages, shown

BIN = Path(sys.executable).parent
TESTS_NAMED = sorted({each.words[1:] for page in pages() for each in shown(page) if each.words[0] == "pytest"})
TARGETS = sorted({each.words[1:] for page in pages() for each in shown(page) if each.words[0] == "make"})


def _done(*command: str | Path, **options: object) -> str:
    """What a command that must end well says."""
    # Under `make test`, what make hands to a make below it would be heard as well ("Entering directory ...").
    options["env"] = options.get("env") or {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_the_ui_opens_a_store(tmp_path: Path) -> None:
    port, store = free_port(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        running([*command, "--port", str(port), "--workers", "1"], port, **environment),
        urlopen(f"http://127.0.0.1:{port}") as answer,
    ):
        assert b"<title>MLflow</title>" in answer.read()


def test_the_audit_says_what_it_asked_and_finds_no_fault() -> None:
    if not (BIN / "uv").exists():
        pytest.skip("uv is not beside this Python")
    said = _done(*["make", "-o", ".venv/.ready", f"BIN={BIN}", "audit"])
    assert said.splitlines()[-1].endswith("the lock checked; no faults")


def test_the_fuzzer_reads_and_finds_nothing() -> None:
    said = _done(*[sys.executable, "-m", "tests.trials.fuzz", "--seconds", "1"]).splitlines()
    assert len(said) >= 2
    assert all(line.endswith("files read, no finding") for line in said)


def test_rays_token_is_made_once(tmp_path: Path) -> None:
    kept = {"HOME": str(tmp_path), "PATH": str(BIN)}
    for _ in range(2):
        said = _done(*["ray", "get-auth-token", "--generate"], env=kept).split()[-1]
        assert len(said) >= 32
        assert (tmp_path / ".ray" / "auth_token").read_text() == said


@pytest.mark.parametrize("words", TARGETS, ids=" ".join)
def test_what_make_would_do_can_be_given(words: tuple[str, ...]) -> None:
    """Every line of its recipes, the environment's among them, is a command that is there.

    `gpu` makes none: on a bare machine it takes what is there.
    """
    read = list(commands(_done(*["make", "-n", "-W", "pyproject.toml", *words])))
    assert (("touch", ".venv/.ready") in read) == (words != ("gpu",))
    assert [found for each in read if (found := fault(each))] == []


def test_the_tests_that_pages_name_are_there() -> None:
    """A file or folder is there; where a page chooses by name, pytest finds tests, or parameters, of that name."""
    for words in TESTS_NAMED:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/")), words
        if "-k" in words:
            _done(*[sys.executable, "-m", "pytest", "--collect-only", *words])  # where there is none it ends with 5
