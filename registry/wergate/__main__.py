"""The registry's command line."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wertune.base.cli import EXIT_STATUS, NamedPath, Tool, json_option, run_tool

if TYPE_CHECKING:
    from wergate.gates.policy import Policy
    from wergate.registry.client import RegistryClient


@click.group(cls=Tool, context_settings={"show_default": True}, epilog=EXIT_STATUS)
def cli() -> None:
    """Moves versions through the registry: only what clears every gate and a person's approval is served."""


def main() -> None:
    """Runs `wergate`."""
    run_tool(cli, "wergate", _end_run)


def _end_run(reason: str) -> None:
    from wertune.tracking.opening import fail_project_run

    fail_project_run(reason)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which model, and whether the answer is for a program."""
    options = [
        click.option("--project", type=NamedPath(), default=Path("projects/sg_gov"), help="its folder"),
        click.option("--model", default="", help="the registered model; empty: the project's name"),
    ]
    command = json_option(command)
    for option in reversed(options):
        command = option(command)
    return command


policy_option = click.option("--policy", default="", help="a YAML file; empty: registry/policies/<model>.yaml")
version_option = click.option("--version", default="", help="the registered version's number, such as 3")


def _model(project: Path, model: str) -> str:
    from wertune.base.config import load_project

    return model or load_project(project).name


def _policy(path: str, model: str) -> "Policy":
    from wergate.gates.policy import load_policy
    from wertune.base.config import policy_path

    return load_policy(Path(path) if path else policy_path(model))


def _registry(model: str) -> "RegistryClient":
    from wergate.registry.open import open_registry

    return open_registry(model, functools.partial(click.echo, err=True))


def _required(value: str, option: str) -> str:
    if not value.strip():
        raise click.UsageError(f"{option} is empty, but must be given")
    return value.strip()


@cli.command()
@model_options
@version_option
@click.option("--to", type=click.Choice(["Staging", "Production"], case_sensitive=False), required=True)
@click.option("--reason", default="", help="kept in the audit trail")
@policy_option
def promote(project: Path, model: str, version: str, to: Any, reason: str, policy: str) -> dict[str, Any]:
    """Evaluates where needed, decides by the policy, and moves the version where every blocking gate passed."""
    version, model = _required(version, "--version"), _model(project, model)
    rules = _policy(policy, model)
    from wergate.commands.promote import promote as run
    from wergate.errors import Refused
    from wergate.gates.page import text_table
    from wergate.registry.open import evaluate_in_a_clean_process

    try:
        outcome = run(_registry(model), version, to, rules, evaluate_in_a_clean_process(project), reason)
    except Refused as refused:
        if refused.table:
            click.echo(refused.table)
        raise
    decision = outcome.decision
    click.echo((text_table(decision) + "\n\n" if decision else "") + outcome.text)
    told = decision.model_dump(mode="json") if decision else None
    return {"moved": outcome.moved, "text": outcome.text, "decision": told}


@cli.command()
@model_options
@version_option
@click.option("--approver", default="", help="who has looked at the decision and wants the version served")
@click.option("--comment", default="", help="kept with the approval")
@policy_option
def approve(project: Path, model: str, version: str, approver: str, comment: str, policy: str) -> dict[str, Any]:
    """Records a person's approval, without which nothing goes to Production."""
    version, approver = _required(version, "--version"), _required(approver, "--approver")
    model = _model(project, model)
    rules = _policy(policy, model)
    from wergate.commands.approve import approve as run

    approval = run(_registry(model), version, approver, comment, rules)
    click.echo(f"{model}/{version} is approved by {approval.approver} under policy {approval.policy_digest[:8]}")
    return approval.model_dump(mode="json")


@cli.command()
@model_options
@click.option("--reason", default="", help="kept in the audit trail; must be given")
def rollback(project: Path, model: str, reason: str) -> dict[str, Any]:
    """Puts the version back into Production that was there before."""
    reason, model = _required(reason, "--reason"), _model(project, model)
    from wergate.commands.rollback import rollback as run

    outcome = run(_registry(model), reason)
    click.echo(outcome.text)
    return {"moved": outcome.moved, "text": outcome.text}


@cli.command()
@model_options
def history(project: Path, model: str) -> list[dict[str, Any]]:
    """Prints every move and approval of the model, and for which versions the final set was opened."""
    from wergate.trail.history import history as entries_of
    from wergate.trail.history import history_table

    entries = entries_of(_registry(_model(project, model)).model.look())
    if table := history_table(entries):
        click.echo(table)
    return [entry.model_dump(mode="json") for entry in entries]


@cli.command()
@model_options
@click.option("--repair", type=click.BOOL, default=False, help="true: brings stages and aliases back to the trail")
def check(project: Path, model: str, repair: bool) -> dict[str, Any]:
    """Compares stages and aliases with the audit trail; status 1 where something remains wrong."""
    model = _model(project, model)
    from wergate.commands.rollback import check as run
    from wergate.errors import RegistryError

    done, left = run(_registry(model), repair)
    lines = [f"repaired: {text}" for text in done] + [f"wrong: {text}" for text in left]
    click.echo("\n".join(lines) or f"{model} is as its audit trail says")
    values = {"repaired": done, "wrong": left}
    if left:
        raise RegistryError(f"{model}: {'; '.join(left)}", values)
    return values


if __name__ == "__main__":
    main()
