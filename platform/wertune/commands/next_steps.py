"""What to type after `train` and `tune`, each command with its values filled in."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wertune.base import contract
from wertune.base.cli import is_activated, typed
from wertune.base.config import TrialConfig, policy_path
from wertune.tracking.credentials import has_password, how_to_look

if TYPE_CHECKING:
    from wergate.gates.gate import GateResult
    from wertune.jobs.tune import Verdict

# Settings that gates of a kind ask for where they refuse; of other kinds no setting helps.
_FORGETS = frozenset({"forgetting", "u_wer", "formatted_wer", "battery", "loops", "hallucination"})
_LEARNS = frozenset({"wer", "cer", "base", "b_wer", "champion", "slice", "term", "worst_term"})
_IS_LARGE = frozenset({contract.TRAINABLE_PERCENT, contract.ADAPTER_MB, "peak_memory_mb"})
_SAYS_TOO_MUCH = ("precision", "false_terms")


@dataclass(frozen=True)
class Step:
    """One thing to do next: what it is for, and what to type or to open."""

    what: str
    command: str


@dataclass(frozen=True)
class Ended:
    """A `command`, train or tune, that has come to a version; `clip` is a recording that the version was tested on."""

    command: str
    project: Path
    name: str
    version: str
    tracking_uri: str
    clip: Path
    config: TrialConfig
    has_replay: bool


def next_steps(ended: Ended, verdict: "Verdict") -> list[Step]:
    """Towards Production where the version is in Staging; else towards a version that may go there."""
    first = _store(ended.tracking_uri)
    look = Step("look at it", how_to_look(ended.tracking_uri))
    hear = _ours(ended, "wertune", "transcribe", _near(ended.clip), model=ended.version)
    heard = Step("let it write what a recording says: put one of yours in its place", hear)
    onward = _to_production(ended, verdict) if verdict.stage == "Staging" else _once_more(ended, verdict)
    return [*first, look, heard, *onward]


def as_text(steps: Sequence[Step]) -> str:
    """A comment above each command, so that all of it can be given to a shell as it stands."""
    return "\n".join(f"# {step.what}\n{step.command}" for step in steps)


def _to_production(ended: Ended, verdict: "Verdict") -> list[Step]:
    version = ended.version
    others = f", but not {verdict.registrar}'s, who registered it" if verdict.forbid_self and verdict.registrar else ""
    name = "ben" if verdict.registrar.casefold() == "ann" else "ann"
    approve = _ours(ended, "wergate", "approve", version=version, approver=name, comment="read the error report")
    promote = _ours(ended, "wergate", "promote", version=version, to="Production")
    # Of PATH: MLflow starts uvicorn by its plain name.
    serve = typed(f"mlflow models serve -m models:/{ended.name}/{version} --env-manager local --port 5001")
    return [
        Step(f"to Production it goes with a person's word{others}: give their name for {name}", approve),
        Step("then the gates of Production decide", promote),
        Step("serve it", serve),
    ]


def _once_more(ended: Ended, verdict: "Verdict") -> list[Step]:
    steps = []
    if verdict.page:
        run, path = verdict.page
        command = f"{_tool('mlflow')} artifacts download -r {run} -a {path} -d ."
        steps.append(Step("why it was refused, gate by gate, and what would help: the table above, as a page", command))
    if settings := other_settings(verdict.refusals, ended.config, ended.has_replay):
        values = " ".join(f"{key}={value:g}" for key, value in settings.items())
        gates = ", ".join(refusal.name for refusal in verdict.refusals)
        steps.append(Step(f"try other settings, for {gates}", _ours(ended, "wertune", ended.command, set=values)))
    again = _ours(ended, "wergate", "promote", version=ended.version, to="Staging")
    policy = policy_path(ended.name)
    return [*steps, Step(f"the limits stand in {policy}: should they be others, ask the gates again", again)]


def other_settings(refusals: "Sequence[GateResult]", config: TrialConfig, has_replay: bool) -> dict[str, float]:
    """What of a trial's settings to change for the gates that refused; nothing where none of them is about settings."""
    kinds = {refusal.kind for refusal in refusals if not _says_too_much(refusal)}
    settings: dict[str, float] = {}
    if kinds & _FORGETS:
        settings["lora.strength"] = round(0.85 * config.lora.strength, 2)
        if has_replay:
            settings["train.replay_ratio"] = min(4.0, max(0.5, 2 * config.train.replay_ratio))
    if kinds & _LEARNS:
        settings["train.epochs"] = 2 * config.train.epochs
    if any(map(_says_too_much, refusals)) and config.decode.term_boost:
        settings["decode.term_boost"] = round(0.7 * config.decode.term_boost, 2)
    if kinds & _IS_LARGE and config.lora.r > 1:
        settings["lora.r"] = config.lora.r // 2
    return settings


def _says_too_much(refusal: "GateResult") -> bool:
    return any(each in refusal.name for each in _SAYS_TOO_MUCH)


def _ours(ended: Ended, tool: str, *words: str, **options: str) -> str:
    given: Mapping[str, Any] = {"project": _near(ended.project)} | options
    parts = [part for key, value in given.items() for part in (f"--{key}", value)]
    return f"{_tool(tool)} {shlex.join([*words, *parts])}"


def _store(uri: str) -> list[Step]:
    """What every command needs where the store is not the one that they find by themselves in this folder."""
    if has_password(uri) or uri == f"sqlite:///{Path('mlflow.db').resolve()}":
        return []  # who has a password gave it in the environment
    return [Step("in another terminal, first", f"export MLFLOW_TRACKING_URI={shlex.quote(uri)}")]


def _tool(name: str) -> str:
    """How a shell of this folder calls a program of this environment."""
    script = Path(sys.executable).parent / name
    if script.is_file():
        return name if is_activated() else shlex.quote(_near(script))
    roots = os.environ.get("PYTHONPATH")
    return (f"PYTHONPATH={shlex.quote(roots)} " if roots else "") + f"{shlex.quote(sys.executable)} -m {name}"


def _near(path: Path) -> str:
    """The path from this folder, where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
