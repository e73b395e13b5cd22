"""What may stand in the way of a search, each with what to do about it: looked for before it costs a night."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
SIGNS: dict[State, tuple[str, str]] = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and where it is not as it should be, what to do."""

    name: str
    state: State
    found: str
    remedy: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)  # for a program, beside what a person reads


def ok(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", found)


def warn(name: str, found: str, remedy: str) -> Finding:
    """A search would run; something is slower, unsafe or missing."""
    return Finding(name, "warn", found, remedy)


def fail(name: str, found: str, remedy: str) -> Finding:
    """A search would not come to its end."""
    return Finding(name, "fail", found, remedy)


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


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """The findings, and whether a search would run."""
    found = list(findings)
    return {"fit": all(each.state != "fail" for each in found), "checks": [asdict(each) for each in found]}
