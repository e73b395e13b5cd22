"""The registry's command line: exit status, one line of reason, JSON for programs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.fake_model import FakeModel, World, free_lock
from tests.support.places import ROOT

from wergate import __main__ as command_line
from wergate.errors import RegistryError
from wergate.registry import open as opening
from wergate.registry.client import RegistryClient
from wertune.scores.eval_report import EvalReport

POLICY = "staging: [{kind: wer, limit: 0.5}]\nproduction: [{kind: wer, limit: 0.5}]\n"


class Shell:
    """`python -m wergate` in this process, on a registry in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: World) -> None:
        self.world = world
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["wergate", *arguments])
        status = 0
        try:
            command_line.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    make_report: Callable[..., EvalReport],
    make_set: Callable[..., Any],
) -> Shell:
    """Versions 1 and 2, of which the second is bad, in a folder with a project and its policy."""
    world = World()

    def evaluate(name: str, version: str) -> None:
        sets = {"test": make_set([9 if version == "2" else 1] * 12)}
        world.evaluate(make_report(version=version, sets=sets))

    for number in ("1", "2"):
        world.register(number)
    (tmp_path / "registry" / "policies").mkdir(parents=True)
    (tmp_path / "registry" / "policies" / "demo.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr(
        opening, "open_registry", lambda name, say: RegistryClient(FakeModel(world), free_lock, "carol", say=say)
    )
    monkeypatch.setattr(opening, "evaluate_in_a_clean_process", lambda project: evaluate)
    return Shell(monkeypatch, capsys, world)


def test_the_way_to_production_and_back(shell: Shell) -> None:
    status, out, _ = shell("promote", "--model", "demo", "--version", "1", "--to", "staging")
    assert (status, out.splitlines()[-1]) == (0, "demo/1 is in Staging")
    assert "wer_test" in out
    status, out, _ = shell("approve", "--model", "demo", "--version", "1", "--approver", "bob", "--comment", "heard it")
    assert status == 0
    assert out.startswith("demo/1 is approved by bob under policy ")
    status, out, _ = shell("promote", "--model", "demo", "--version", "1", "--to", "Production", "--json")
    assert status == 0
    assert json.loads(out)["moved"]
    assert json.loads(out)["decision"]["transition"] == "production"
    status, out, _ = shell("history", "--model", "demo")
    assert status == 0
    assert len(out.splitlines()) == 4
    status, out, _ = shell("history", "--model", "demo", "--json")
    assert [entry.get("number") for entry in json.loads(out)] == [1, None, 2]
    assert shell("check", "--model", "demo") == (0, "demo is as its audit trail says\n", "")
    status, _, err = shell("rollback", "--model", "demo", "--reason", "loops")
    assert (status, err) == (1, "wergate: demo has no version that was in Production before; promote another one\n")


def test_a_refused_promotion_prints_the_table_and_ends_with_1(shell: Shell) -> None:
    before = shell.world.state()
    status, out, err = shell("promote", "--model", "demo", "--version", "2", "--to", "Staging")
    assert status == 1
    assert "| wer_test" in out
    assert "refused" in out
    assert err.startswith("wergate: demo/2 may not go to Staging: refused by wer_test")
    assert len(err.splitlines()) == 1
    assert shell.world.state() == before
    status, out, _ = shell("promote", "--model", "demo", "--version", "2", "--to", "Staging", "--json")
    assert status == 1
    assert not json.loads(out)["moved"]
    assert json.loads(out)["decision"]["gates"][0]["name"] == "wer_test"


def test_check_tells_drift_with_1_and_repairs_it_when_asked(shell: Shell) -> None:
    shell("promote", "--model", "demo", "--version", "1", "--to", "Staging")
    FakeModel(shell.world).set_alias("staging", "2")
    status, out, err = shell("check", "--model", "demo")
    assert status == 1
    assert out == "wrong: alias staging names 2, the audit trail 1\n"
    assert err == "wergate: demo: alias staging names 2, the audit trail 1\n"
    status, out, _ = shell("check", "--model", "demo", "--repair", "true")
    assert (status, out) == (0, "repaired: alias staging names 2, the audit trail 1\n")


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["promote", "--version", "1", "--to", "Archived"], 2, "'Archived' is not one of"),
        (["promote", "--version", "", "--to", "Staging"], 2, "--version is empty, but must be given"),
        (["approve", "--model", "demo", "--version", "1"], 2, "--approver is empty, but must be given"),
        (["rollback", "--model", "demo"], 2, "--reason is empty, but must be given"),
        (["check", "--model", "demo", "--repair", "perhaps"], 2, "'perhaps' is not a valid boolean"),
        (["history", "--project", "nowhere"], 1, "nowhere/project.yaml does not exist"),
        (["promote", "--model", "other", "--version", "1", "--to", "Staging"], 1, "other.yaml does not exist"),
        (["promote", "--model", "demo", "--version", "7", "--to", "Staging"], 1, "version is '7', but demo has 1, 2"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(shell: Shell, arguments: list[str], status: int, reason: str) -> None:
    ended, out, err = shell(*arguments)
    assert (ended, out) == (status, "")
    assert err.startswith("wergate: ")
    assert reason in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote", "--version", "7", "--to", "Staging"],
        ["promote", "--version", "1", "--to", "Production"],
        ["approve", "--version", "1", "--approver", "bob"],
        ["rollback", "--reason", "loops"],
        ["history", "--project", "nowhere"],
    ],
)
def test_every_refusal_is_a_document(shell: Shell, arguments: list[str]) -> None:
    model = [] if "history" in arguments else ["--model", "demo"]
    status, out, err = shell(*arguments, *model, "--json")
    assert status == 1
    assert err.splitlines()[-1] == f"wergate: {json.loads(out)['error']}"


def test_check_answers_a_program_once_where_something_is_wrong(shell: Shell) -> None:
    shell("promote", "--model", "demo", "--version", "1", "--to", "Staging")
    FakeModel(shell.world).set_alias("staging", "2")
    status, out, _ = shell("check", "--model", "demo", "--json")
    assert (status, json.loads(out)["wrong"]) == (1, ["alias staging names 2, the audit trail 1"])
    status, out, err = shell("check", "--model", "demo", "--repair", "true", "--json")
    assert (status, json.loads(out)["wrong"]) == (0, [])
    assert err.startswith("repaired: ")


def test_help_starts_without_mlflow() -> None:
    program = (
        "import sys; from wergate.__main__ import cli; print(sorted(set(sys.modules) & {'mlflow', 'numpy', 'yaml'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_the_evaluation_is_a_process_of_its_own_that_does_not_take_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def start(command: list[str], env: dict[str, str], **options: Any) -> Any:
        seen.update(command=command, env=env)
        return SimpleNamespace(wait=lambda: 3)

    monkeypatch.setenv("MLFLOW_RUN_ID", "promotion")
    monkeypatch.setattr(opening, "store_uris", lambda: ("sqlite:///runs.db", "sqlite:///registry.db"))
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(RegistryError, match="evaluating demo/1 ended with status 3"):
        opening.evaluate_in_a_clean_process(tmp_path)("demo", "1")
    assert seen["command"][1:4] == ["-m", "wertune", "evaluate"]
    assert seen["command"][-2:] == ["--model-uri", "models:/demo/1"]
    assert "MLFLOW_RUN_ID" not in seen["env"]
    assert seen["env"]["MLFLOW_TRACKING_URI"] == "sqlite:///runs.db"
    assert seen["env"]["MLFLOW_REGISTRY_URI"] == "sqlite:///registry.db"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (1, "evaluating demo/1 ended with status 1; see its message above"),
        (-9, "evaluating demo/1 was ended by SIGKILL before it was done; if memory was short, free some"),
        (-40, "evaluating demo/1 was ended by signal 40"),
    ],
)
def test_who_was_killed_has_said_nothing_that_could_be_read(
    status: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "store_uris", lambda: ("sqlite:///runs.db", "sqlite:///registry.db"))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: SimpleNamespace(wait=lambda: status))
    with pytest.raises(RegistryError) as raised:
        opening.evaluate_in_a_clean_process(tmp_path)("demo", "1")
    assert str(raised.value).startswith(told)
    assert ("above" in str(raised.value)) == (status > 0)


SLOW_TO_END = """
import signal, sys, time
def end(*_):
    time.sleep(0.5)
    print("closed", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


def test_an_interrupted_evaluation_closes_its_run_before_the_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM reaches the command alone, and the evaluation needs longer than the quarter of a second of `run`."""
    monkeypatch.setattr(opening, "INTERRUPTED_TOO_S", 0.1)
    process = subprocess.Popen([sys.executable, "-c", SLOW_TO_END], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    wait, calls = process.wait, iter([KeyboardInterrupt()])

    def interrupted(timeout: float | None = None) -> int:
        for error in calls:
            raise error
        return wait(timeout)

    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opening._status(process)
    assert process.stdout.read() == b"closed\n"
    assert process.returncode == 143
