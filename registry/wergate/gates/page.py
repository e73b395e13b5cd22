"""A decision for people: a table for the terminal, and one HTML page that needs nothing else."""

from pathlib import Path

from wergate.gates.decision import Decision
from wergate.gates.gate import GateResult
from wergate.gates.units import show, show_ends
from wertune.reports.html_page import rendered
from wertune.scores.comparison import markdown_table

FIGURES = ("gate", "value", "interval", "limit", "verdict")


def text_table(decision: Decision) -> str:
    """Verdict and gates as Markdown that also lines up in a terminal, then why each gate refused or warned."""
    rows = [FIGURES, *(tuple(map(_plain, _figures(gate))) for gate in decision.gates)]
    # Not padded as the others: remedies are long, and most gates have none.
    last = [" what would help |", "---|", *(f" {_plain(gate.remedy)} |" for gate in decision.gates)]
    lines = map(str.__add__, markdown_table(rows).splitlines(), last)
    reasons = [f"- {gate.name} {gate.verdict}: {_plain(gate.detail)}" for gate in decision.gates if not gate.passed]
    return "\n".join(
        [headline(decision), f"scored as served by {decision.engine}", "", *lines, *([""] if reasons else []), *reasons]
    )


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def headline(decision: Decision) -> str:
    """`sg_gov 3 to staging: refused; Production now: none`."""
    verdict = "passed" if decision.passed else "refused"
    return (
        f"{decision.model} version {decision.version} to {decision.transition}: {verdict}; "
        f"in Production now: {decision.champion_version or 'none'}"
    )


def _figures(gate: GateResult) -> tuple[str, ...]:
    limit = f"{gate.rule} {show(gate.limit, gate.unit)}" if gate.limit is not None else ""
    return (gate.name, show(gate.value, gate.unit), show_ends(gate.interval, gate.unit), limit, gate.verdict)


def html_page(decision: Decision) -> str:
    """The whole page; every text in it is escaped."""
    facts = {
        "policy": decision.policy_digest,
        "report": decision.report_digest,
        "test set": decision.test_digest or "none",
        "engine": decision.engine,
    }
    return rendered(
        Path(__file__).with_suffix(".html"),
        title=headline(decision),
        passed=decision.passed,
        facts=facts,
        names=(*FIGURES, "found, and what would help"),
        gates=[(gate, _figures(gate)[1:]) for gate in decision.gates],
    )
