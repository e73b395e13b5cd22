"""The command `approve`: a person's word, bound to version, policy and report, good for one move and so many days."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from wergate.errors import Refused
from wergate.gates.policy import Policy
from wergate.registry.client import RegistryClient
from wergate.trail.records import Approval, Record, approvals_of, clean_note, new_token
from wergate.trail.registered_model import Version
from wergate.trail.reports import find_report, require_staging
from wertune.base.contract import APPROVAL_PREFIX, REGISTRAR_TAG
from wertune.scores.eval_report import EvalReport


def approve(registry: RegistryClient, number: str, approver: str, comment: str, policy: Policy) -> Approval:
    """Records that `approver` has seen the version's report and wants it in Production."""
    approver, comment = clean_note(approver, "approver"), clean_note(comment, "comment")
    if not approver:
        raise Refused("approver is empty, but must name a person; give --approver")
    version = registry.model.look().version(number)
    found = find_report(registry.model, version, policy)
    if found is None:
        raise Refused(f"version {number} has no report on the policy's test set; promote it to Staging first")
    require_staging(version, policy, found)
    _check_approver(approver, registry.model.registrar(version), policy)
    approval = Approval(
        id=new_token(),
        version=number,
        approver=approver,
        at=registry.now(),
        policy_digest=policy.digest,
        report_digest=found.report.digest,
        comment=comment,
    )
    registry.model.set_version_tag(number, APPROVAL_PREFIX + approval.id, approval.model_dump_json())
    return approval


def _check_approver(approver: str, registrar: str, policy: Policy) -> None:
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
    used = {record.move.approval.id for record in records if record.move.approval}
    faults = []
    for approval in reversed(approvals_of(version.tags)):
        fault = _fault(approval, version, registrar, report, policy, used, now)
        if not fault:
            return approval
        faults.append(fault)
    reason = f"the last approval is void: {faults[0]}" if faults else "it has no approval"
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
        _check_approver(approval.approver, registrar, policy)
    except Refused as refused:
        return str(refused)
    return ""
