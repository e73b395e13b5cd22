"""`doctor`: what may stand in the way of a search."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wertune.base.cli import EXIT_REFUSED, print_json
from wertune.commands.options import project_option

if TYPE_CHECKING:
    from wertune.commands.doctor import Finding

EPILOG = "Exit status: 0 nothing stands in the way (! is a word of advice), 1 something must be mended (✗), 2 usage."


@click.command(epilog=EPILOG)
@project_option
@click.option("--ray-address", default="", help="the cluster that `tune` is to use; empty: RAY_ADDRESS, or none")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout instead of the table")
def doctor(project: Path, ray_address: str, as_json: bool) -> None:
    """Checks machine, libraries, servers and project, and says what to do about what is wrong."""
    from wertune.commands.doctor import Site, all_checks, examine
    from wertune.commands.doctor import as_json as document

    checks = all_checks()
    findings = []
    for finding in examine(Site(project, ray_address), checks):
        findings.append(finding)
        if not as_json:
            _print_finding(finding, max(map(len, checks)))
    if as_json:
        print_json(document(findings))
    if any(finding.state == "fail" for finding in findings):
        sys.exit(EXIT_REFUSED)


def _print_finding(finding: "Finding", width: int) -> None:
    """State by sign and colour, the name in so many columns, and a line of remedy below where one is needed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wertune.commands.doctor import SIGNS

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
