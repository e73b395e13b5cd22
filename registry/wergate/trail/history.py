"""The audit trail as people read it."""

from collections.abc import Sequence

from wergate.trail.records import Approval, Move, Record, approvals_of, trail
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
    if isinstance(entry, Record):
        return _move_row(entry)
    return _approval_row(entry) if isinstance(entry, Approval) else _opening_row(entry)


def _move_row(record: Record) -> tuple[str, ...]:
    move = record.move
    approver = move.approval.approver if move.approval else ""
    return (
        str(record.number), f"{record.at:%Y-%m-%d %H:%M:%S}", move.who, move.kind, move.version,
        move.from_stage, move.to_stage, move.replaced, approver, _digests(move), move.reason,
    )  # fmt: skip


def _approval_row(approval: Approval) -> tuple[str, ...]:
    digests = _short(approval.report_digest, approval.policy_digest)
    when = f"{approval.at:%Y-%m-%d %H:%M:%S}"
    return ("", when, approval.approver, "approve", approval.version, "", "", "", "", digests, approval.comment)


def _opening_row(opening: Opening) -> tuple[str, ...]:
    found, when = f"final set {opening.set_digest[:DIGEST_CHARACTERS]}", f"{opening.at:%Y-%m-%d %H:%M:%S}"
    wer = [f"{100 * opening.figures[name]:.2f} %" for name in ("baseline_final_wer", "final_wer")]
    return ("", when, opening.who, "open", opening.version, "", "", "", "", found, f"WER {' → '.join(wer)}")


def _digests(move: Move) -> str:
    return _short(move.decision.report_digest, move.decision.policy_digest) if move.decision else ""


def _short(report: str, policy: str) -> str:
    return f"report {report[:DIGEST_CHARACTERS]} policy {policy[:DIGEST_CHARACTERS]}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
