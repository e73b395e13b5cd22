"""The audit trail as people read it."""

from collections.abc import Iterable, Sequence

from wergate.trail.records import Approval, Move, Record, approvals_of, trail
from wergate.trail.registered_model import Snapshot

HEADER = ("no", "when (UTC)", "who", "what", "version", "from", "to", "replaced", "approved by", "digests", "reason")
DIGEST_CHARACTERS = 8


def history(snapshot: Snapshot) -> list[Record | Approval]:
    """Every move and every approval of the versions that there are, oldest first."""
    approvals = [approval for version in snapshot.versions.values() for approval in approvals_of(version.tags)]
    entries: list[Record | Approval] = [*trail(snapshot.tags), *approvals]
    return sorted(entries, key=lambda entry: entry.at)


def history_table(entries: Iterable[Record | Approval]) -> str:
    """One line for each entry; the digests are those of report and policy, shortened."""
    rows = [_approval_row(entry) if isinstance(entry, Approval) else _move_row(entry) for entry in entries]
    return _aligned([HEADER, *rows]) if rows else "nothing was moved or approved yet"


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


def _digests(move: Move) -> str:
    return _short(move.decision.report_digest, move.decision.policy_digest) if move.decision else ""


def _short(report: str, policy: str) -> str:
    return f"report {report[:DIGEST_CHARACTERS]} policy {policy[:DIGEST_CHARACTERS]}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
