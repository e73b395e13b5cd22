"""A decision for people: a table for the terminal, and one HTML page that needs nothing else."""

from html import escape

from wergate.gates.decision import Decision
from wergate.gates.gate import GateResult
from wergate.gates.units import show, show_ends

FIGURES = ("gate", "value", "interval", "limit", "verdict")


def text_table(decision: Decision) -> str:
    """Verdict and gates as Markdown that also lines up in a terminal, then why each gate refused or warned."""
    cells = [(*_figures(gate), gate.remedy) for gate in decision.gates]
    rows = [tuple(_plain(cell) for cell in row) for row in ((*FIGURES, "what would help"), *cells)]
    widths = [max(len(row[position]) for row in rows) for position in range(len(FIGURES))]
    # The last column is not padded: remedies are long, and most gates have none.
    lines = ["| " + " | ".join((*map(str.ljust, row[:-1], widths), row[-1])) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|---|")
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
    return _PAGE.format(
        style=_STYLE,
        title=escape(headline(decision)),
        outcome="passed" if decision.passed else "refused",
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()),
        header="".join(f'<th scope="col">{escape(name)}</th>' for name in (*FIGURES, "found, and what would help")),
        rows="\n".join(_row(gate) for gate in decision.gates),
    )


def _row(gate: GateResult) -> str:
    name, *figures = _figures(gate)
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in figures)
    remedy = f"<p>What would help: {escape(gate.remedy)}</p>" if gate.remedy else ""
    found = f"<td>{escape(gate.detail)}{remedy}</td>"
    return f'<tr class="{gate.verdict}"><th scope="row">{escape(name)}</th>{cells}{found}</tr>'


_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --line: #d5dae0; --faint: #59636e;
  --passed: #1a6b32; --refused: #b3261e; --warned: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --back: #14171b; --line: #363c44; --faint: #9aa4af;
  --passed: #6fd18c; --refused: #ff8a80; --warned: #f0b95a; } }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: var(--text); background: var(--back);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; border-left: .4rem solid; padding-left: .7rem; }
h1.passed, tr.passed td:nth-of-type(4) { color: var(--passed); }
h1.refused, tr.refused td:nth-of-type(4) { color: var(--refused); }
tr.warned td:nth-of-type(4) { color: var(--warned); }
td:nth-of-type(4) { font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem; border-bottom: 1px solid var(--line); }
td:nth-of-type(-n+2), tbody th { white-space: nowrap; }
td:nth-of-type(5) { min-width: 16rem; }
td p { margin: .3rem 0 0; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; color: var(--faint); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1 class="{outcome}">{title}</h1>
<div class="scroll"><table>
<thead><tr>{header}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<p>Intervals are one-sided confidence ends: each holds by itself. A gate that warns does not stop the move.</p>
<dl>{facts}</dl>
</body>
</html>
"""
