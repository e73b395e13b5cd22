"""Which report a version is judged by, and how it comes to be."""

from collections.abc import Callable

from wergate.errors import RegistryError
from wergate.gates.policy import Policy
from wergate.trail.shelf import FoundReport, Shelf, Version
from wertune.base.contract import ENGINE_TAG

Evaluate = Callable[[str, str], None]


def find_report(shelf: Shelf, version: Version, policy: Policy) -> FoundReport | None:
    """The newest report of the version on the policy's test set, if it is of the engine that serves the version."""
    return _as_served(shelf.find_report(version, _test_digest(policy)), version)


def _as_served(found: FoundReport | None, version: Version) -> FoundReport | None:
    return found if found and found.report.provenance.engine == version.engine else None


def _test_digest(policy: Policy) -> str:
    """The frozen test set's digest; empty where no gate of the policy freezes one."""
    found = (getattr(gate, "test_digest", None) for gate in (*policy.staging, *policy.production))
    return next((digest for digest in found if digest), "")


def require_report(shelf: Shelf, version: Version, policy: Policy, evaluate: Evaluate) -> FoundReport:
    """The version's report, made now where there is none.

    Where the project's test set is not the frozen one, the report that it has: the provenance gate says so better.
    """
    found = find_report(shelf, version, policy)
    if found:
        return found
    evaluate(shelf.name, version.number)
    found = find_report(shelf, version, policy) or _as_served(shelf.find_report(version, ""), version)
    if found is None:
        raise RegistryError(
            f"{shelf.name}/{version.number} was evaluated, but no finished run newer than the version carries its "
            f"report in the engine {version.engine}; do the clocks of this machine and of the tracking server agree, "
            f"and does the version's tag {ENGINE_TAG} name the engine that is stored with it?"
        )
    return found
