"""The audit trail as people read it."""

from collections.abc import Sequence

from wergate.trail.records import Approval, DecisionRef, Record, approvals_of, trail
from wergate.trail.registered_model import Snapshot
from wertune.scores.final_set import Opening, opened_for, openings, versions_opened

HEADER = ("no", "when (UTC)", "who", "what", "version", "from", "to", "replaced", "approved by", "digests", "reason")
DIGEST_CHARACTERS = 8
Entry = Record | Approval | Opening


def history(snapshot: Snapshot) -> list[Entry]:
    """Every move, and every approval and opening of the final set of the versions that there are, oldest first."""
    approvals = [approval for version in snapshot.versions.values() for approval in approvals_of(version.tags)]
    opened = [opening for version in snapshot.versions.values() for opening in openings(version.tags)]
    entries: list[Entry] = [*trail(snapshot.tags), *approvals, *opened]
    return sorted(entries, key=lambda entry: entry.at)


def history_table(entries: Sequence[Entry]) -> str:
    """One line for each entry, digests shortened; then how often each final set was opened."""
    sets = versions_opened(entry for entry in entries if isinstance(entry, Opening))
    lines = [f"final set {digest[:DIGEST_CHARACTERS]}: {opened_for(len(found))}" for digest, found in sets.items()]
    rows = [_row(entry) for entry in entries]
    return "\n".join([_aligned([HEADER, *rows]), *lines]) if rows else "nothing was moved or approved yet"


def _row(entry: Entry) -> tuple[str, ...]:
    when = f"{entry.at:%Y-%m-%d %H:%M:%S}"
    if isinstance(entry, Record):
        move = entry.move
        approver, digests = move.approval.approver if move.approval else "", _digests(move.decision)
        return (
            str(entry.number), when, move.who, move.kind, move.version,
            move.from_stage, move.to_stage, move.replaced, approver, digests, move.reason,
        )  # fmt: skip
    if isinstance(entry, Approval):
        return ("", when, entry.approver, "approve", entry.version, "", "", "", "", _digests(entry), entry.comment)
    found = f"final set {entry.set_digest[:DIGEST_CHARACTERS]}"
    wer = [f"{100 * entry.figures[name]:.2f} %" for name in ("baseline_final_wer", "final_wer")]
    return ("", when, entry.who, "open", entry.version, "", "", "", "", found, f"WER {' → '.join(wer)}")


def _digests(of: DecisionRef | Approval | None) -> str:
    return f"report {of.report_digest[:DIGEST_CHARACTERS]} policy {of.policy_digest[:DIGEST_CHARACTERS]}" if of else ""


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
