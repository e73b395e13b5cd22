"""`doctor`: what may stand in the way of a search, each with what to do about it, before it costs a night."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from wertune.base.cli import EXIT_REFUSED, print_json
from wertune.commands.options import project_option

EPILOG = "Exit status: 0 nothing stands in the way (! is a word of advice), 1 something must be mended (✗), 2 usage."
State = Literal["ok", "warn", "fail"]
SIGNS: dict[State, tuple[str, str]] = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and where it is not as it should be, what to do."""

    name: str
    state: State = field(kw_only=True)
    found: str
    remedy: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)  # for a program, beside what a person reads


ok = partial(Finding, state="ok")
warn = partial(Finding, state="warn")  # a search would run; something is slower, unsafe or missing
fail = partial(Finding, state="fail")  # a search would not come to its end


@dataclass(frozen=True)
class Site:
    """What is looked at: a project's folder, and a Ray cluster where one is meant to be used."""

    project: Path
    ray_address: str = ""


Check = Callable[[Site], Finding]


def all_checks() -> dict[str, Check]:
    """Every check by its name, in the order in which they are told."""
    from wertune.commands.doctor import machine, project, services, sets

    return machine.CHECKS | services.CHECKS | project.CHECKS | sets.CHECKS


def examine(site: Site, checks: dict[str, Check]) -> Iterable[Finding]:
    """Each check's finding, as it comes."""
    for name, check in checks.items():
        try:
            yield check(site)
        except Exception as error:  # a check that breaks is a finding like any other, and not the last one
            yield fail(name, f"{type(error).__name__}: {error}", "mend what this says, and run `wertune doctor` again")


@click.command(epilog=EPILOG)
@project_option
@click.option("--ray-address", default="", help="the cluster that `tune` is to use; empty: RAY_ADDRESS, or none")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout instead of the table")
def doctor(project: Path, ray_address: str, as_json: bool) -> None:
    """Checks machine, libraries, servers and project, and says what to do about what is wrong."""
    checks = all_checks()
    findings = []
    for finding in examine(Site(project, ray_address), checks):
        findings.append(finding)
        if not as_json:
            _print_finding(finding, max(map(len, checks)))
    broken = any(finding.state == "fail" for finding in findings)
    if as_json:
        print_json({"fit": not broken, "checks": [asdict(finding) for finding in findings]})
    if broken:
        sys.exit(EXIT_REFUSED)


def _print_finding(finding: Finding, width: int) -> None:
    """State by sign and colour, the name in so many columns, and a line of remedy below where one is needed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sign, colour = SIGNS[finding.state]
    told = Text(finding.found)
    if finding.remedy:
        told.append(f"\n→ {finding.remedy}", style=colour)
    row = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, min_width=width)
    row.add_column(overflow="fold")
    row.add_row(Text(sign, style=f"bold {colour}"), finding.name, told)
    Console().print(row)
