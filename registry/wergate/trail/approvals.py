"""A person's approval: bound to version, policy and report, good for one move and for so many days."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from wergate.errors import Refused
from wergate.gates.policy import Policy
from wergate.trail.records import Approval, Record, parse_tag
from wergate.trail.shelf import Version
from wertune.base.contract import APPROVAL_PREFIX, REGISTRAR_TAG
from wertune.scores.eval_report import EvalReport


def approvals_of(version: Version) -> list[Approval]:
    """All that were ever given for the version, oldest first."""
    tags = version.tags.items()
    return sorted(
        (parse_tag(Approval, key, text) for key, text in tags if key.startswith(APPROVAL_PREFIX)),
        key=lambda approval: approval.at,
    )


def check_approver(approver: str, registrar: str, policy: Policy) -> None:
    """Refused where the policy forbids it: the approver registered the version, or nobody knows who did."""
    if not policy.approval.forbid_self:
        return
    if not registrar:
        raise Refused(
            "nobody knows who registered the version (its run has no tag mlflow.user), but the policy forbids "
            f"that this is the approver; set the version's tag {REGISTRAR_TAG}"
        )
    if _folded(approver) == _folded(registrar):
        raise Refused(
            f"approver is {approver!r}, who registered the version, but the policy forbids that; ask somebody else"
        )


def _folded(person: str) -> str:
    return " ".join(person.split()).casefold()


def valid_approval(
    version: Version, registrar: str, report: EvalReport, policy: Policy, records: Iterable[Record], now: datetime
) -> Approval:
    """The newest approval that holds for this very move; Refused says of the newest why it does not."""
    given = approvals_of(version)
    used = {record.move.approval.id for record in records if record.move.approval}
    faults = [_fault(approval, version, registrar, report, policy, used, now) for approval in given]
    for approval, fault in zip(reversed(given), reversed(faults), strict=True):
        if not fault:
            return approval
    reason = f"the last approval is void: {faults[-1]}" if given else "it has no approval"
    raise Refused(f"version {version.number} may not go to Production: {reason}; run approve")


def _fault(
    approval: Approval,
    version: Version,
    registrar: str,
    report: EvalReport,
    policy: Policy,
    used: set[str],
    now: datetime,
) -> str:
    """Why the approval does not hold; empty when it does."""
    days = policy.approval.expires_after_days
    if approval.version != version.number:
        return f"it is for version {approval.version}"
    if approval.policy_digest != policy.digest:
        return f"the policy has changed since {approval.approver} approved"
    if approval.report_digest != report.digest:
        return f"the version was evaluated again since {approval.approver} approved"
    if approval.id in used:
        return f"it has served for a move already ({approval.approver}, {approval.at:%Y-%m-%d %H:%M} UTC)"
    if days is not None and now - approval.at > timedelta(days=days):
        return f"it is of {approval.at:%Y-%m-%d} and held for {days:g} days"
    try:
        check_approver(approval.approver, registrar, policy)
    except Refused as refused:
        return str(refused)
    return ""
