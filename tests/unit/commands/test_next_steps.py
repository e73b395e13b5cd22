"""What `train` and `tune` say to type next: commands that can be given, towards Production or past a refusal."""

import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.support.places import ROOT
from tests.support.shown_commands import commands, fault

from wergate.gates.gate import GateResult
from wertune.base.config import TrialConfig, with_overrides
from wertune.commands.next_steps import Ended, Step, as_text, next_steps, other_settings
from wertune.jobs.tune import Verdict


def refusal(kind: str, name: str) -> GateResult:
    return GateResult(
        kind=kind, name=name, value=None, limit=None, unit="", passed=False, detail="", remedy="other settings"
    )


CONFIG = with_overrides(
    TrialConfig(),
    {"lora.strength": 0.8, "train.replay_ratio": 0.75, "train.epochs": 5, "decode.term_boost": 3.0, "lora.r": 16},
    "test",
)
STAGING = Verdict("Staging", "sg_gov/4 is in Staging", registrar="root")
REFUSED = Verdict(
    "None", "refused", refusals=(refusal("forgetting", "forgetting"),), page=("1a2b", "decisions/x-staging.html")
)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Ended:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    uri = f"sqlite:///{ROOT / 'mlflow.db'}"
    clip = ROOT / "projects" / "sg_gov" / "audio" / "a b.opus"
    return Ended("tune", Path("projects/sg_gov"), "sg_gov", "4", uri, clip, CONFIG, has_replay=True)


def _words(step: Step) -> tuple[str, ...]:
    """As a shell reads it, with the programs by their plain names."""
    (words,) = commands(step.command)
    if words[1:2] == ("-m",):
        return words[2:]
    return (Path(words[0]).name, *words[1:])


@pytest.mark.parametrize("verdict", [STAGING, REFUSED, Verdict("None", "refused without a gate")])
@pytest.mark.parametrize("command", ["train", "tune"])
def test_every_command_can_be_given(ended: Ended, verdict: Verdict, command: str) -> None:
    steps = next_steps(replace(ended, command=command), verdict)
    assert len(steps) >= 3
    assert {step.command: fault(_words(step)) for step in steps} == dict.fromkeys((s.command for s in steps), "")
    assert fault(_words(Step("", steps[1].command + " --no-such-option")))


def test_from_staging_it_goes_on_to_production(ended: Ended) -> None:
    look, hear, approve, promote, serve = (_words(step) for step in next_steps(ended, STAGING))
    project = ("--project", "projects/sg_gov")
    assert look == ("mlflow", "ui", "--backend-store-uri", ended.tracking_uri)
    assert hear == ("wertune", "transcribe", "projects/sg_gov/audio/a b.opus", *project, "--model", "4")
    assert approve[:8] == ("wergate", "approve", *project, "--version", "4", "--approver", "ann")
    assert promote == ("wergate", "promote", *project, "--version", "4", "--to", "Production")
    assert serve[:5] == ("mlflow", "models", "serve", "-m", "models:/sg_gov/4")


@pytest.mark.parametrize(
    ("registrar", "forbid_self", "approver", "told"),
    [
        ("root", True, "ann", "a person's word, but not root's, who registered it: give their name for ann"),
        ("Ann", True, "ben", "a person's word, but not Ann's, who registered it: give their name for ben"),
        ("root", False, "ann", "a person's word: give their name for ann"),
    ],
)
def test_who_registered_is_not_asked_to_approve(
    ended: Ended, registrar: str, forbid_self: bool, approver: str, told: str
) -> None:
    steps = next_steps(ended, replace(STAGING, registrar=registrar, forbid_self=forbid_self))
    approve = next(step for step in steps if " approve " in step.command)
    assert shlex.split(approve.command)[-3] == approver
    assert told in approve.what


def test_past_a_refusal_stand_its_reasons_other_settings_and_the_gates_again(ended: Ended) -> None:
    *_, why, again, gates = next_steps(ended, REFUSED)
    assert _words(why) == ("mlflow", "artifacts", "download", "-r", "1a2b", "-a", "decisions/x-staging.html", "-d", ".")
    assert _words(again) == (
        "wertune", "tune", "--project", "projects/sg_gov", "--set", "lora.strength=0.68 train.replay_ratio=1.5",
    )  # fmt: skip
    assert again.what.endswith("for forgetting")
    assert _words(gates)[-4:] == ("--version", "4", "--to", "Staging")
    assert "registry/policies/sg_gov.yaml" in gates.what


@pytest.mark.parametrize(
    ("gates", "settings"),
    [
        ([("forgetting", "forgetting")], {"lora.strength": 0.68, "train.replay_ratio": 1.5}),
        ([("wer", "wer_test"), ("term", "term_recall")], {"train.epochs": 10}),
        ([("term", "term_precision")], {"decode.term_boost": 2.1}),
        ([("battery", "battery_false_terms")], {"decode.term_boost": 2.1}),
        ([("adapter_mb", "adapter_mb")], {"lora.r": 8}),
        ([("provenance", "provenance"), ("leakage", "leakage")], {}),
        ([], {}),
    ],
)
def test_each_kind_of_gate_asks_for_its_own_settings(gates: list[tuple[str, str]], settings: dict[str, float]) -> None:
    found = other_settings([refusal(*gate) for gate in gates], CONFIG, has_replay=True)
    assert found == settings
    assert with_overrides(CONFIG, dict(found), "test") == with_overrides(CONFIG, dict(settings), "test")


def test_no_replay_is_asked_for_where_there_is_none_and_no_limit_is_passed() -> None:
    refusals = [refusal(kind, kind) for kind in ("forgetting", "adapter_mb")]
    assert list(other_settings(refusals, CONFIG, has_replay=False)) == ["lora.strength", "lora.r"]
    most = with_overrides(CONFIG, {"train.replay_ratio": 3.5, "lora.r": 1}, "test")
    found = other_settings(refusals, most, has_replay=True)
    assert found == {"lora.strength": 0.68, "train.replay_ratio": 4.0}
    with_overrides(most, dict(found), "test")


@pytest.mark.parametrize(
    ("uri", "first"),
    [
        ("sqlite:////srv/my runs/mlflow.db", "export MLFLOW_TRACKING_URI='sqlite:////srv/my runs/mlflow.db'"),
        ("http://mlflow:5000", "export MLFLOW_TRACKING_URI=http://mlflow:5000"),
    ],
)
def test_another_store_than_this_folders_is_named_first(ended: Ended, uri: str, first: str) -> None:
    assert next_steps(replace(ended, tracking_uri=uri), STAGING)[0].command == first


def test_no_password_is_printed(ended: Ended) -> None:
    steps = next_steps(replace(ended, tracking_uri="postgresql+psycopg2://ann:secret@db/mlflow"), STAGING)
    assert "secret" not in json.dumps([asdict(step) for step in steps])
    assert steps[0].what == "look at it"


def test_programs_are_called_as_a_shell_of_this_folder_finds_them(
    ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hear() -> str:
        (step,) = (step for step in next_steps(ended, STAGING) if " transcribe " in step.command)
        return step.command.partition(" transcribe")[0]

    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PYTHONPATH", "platform:registry")
    assert hear() == f"PYTHONPATH=platform:registry {scripts / 'python'} -m wertune"
    (scripts / "wertune").touch()
    assert hear() == str(scripts / "wertune")
    monkeypatch.chdir(tmp_path)
    assert hear() == ".venv/bin/wertune"
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert hear() == "wertune"


def test_all_of_it_can_be_given_to_a_shell(ended: Ended) -> None:
    steps = next_steps(ended, REFUSED)
    assert len(list(commands(as_text(steps)))) == len(steps)
    assert all(line.startswith("# ") for line in as_text(steps).splitlines()[::2])
