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
    if fault := _approver_fault(approver, registry.model.registrar(version), policy):
        raise Refused(fault)
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


def _approver_fault(approver: str, registrar: str, policy: Policy) -> str:
    """Why the policy forbids it: the approver registered the version, or nobody knows who did; empty where it may."""
    if not policy.approval.forbid_self:
        return ""
    if not registrar:
        return (
            "nobody knows who registered the version (its run has no tag mlflow.user), but the policy forbids "
            f"that this is the approver; set the version's tag {REGISTRAR_TAG}"
        )
    if _folded(approver) == _folded(registrar):
        return f"approver is {approver!r}, who registered the version, but the policy forbids that; ask somebody else"
    return ""


def _folded(person: str) -> str:
    return " ".join(person.split()).casefold()


def valid_approval(
    version: Version, registrar: str, report: EvalReport, policy: Policy, records: Iterable[Record], now: datetime
) -> Approval:
    """The newest approval that holds for this very move; Refused says of the newest why it does not."""
    used = {record.move.approval.id for record in records if record.move.approval}
    days = policy.approval.expires_after_days
    faults = []
    for approval in reversed(approvals_of(version.tags)):
        who, at = approval.approver, approval.at
        expired = days is not None and now - at > timedelta(days=days)
        void = {
            f"it is for version {approval.version}": approval.version != version.number,
            f"the policy has changed since {who} approved": approval.policy_digest != policy.digest,
            f"the version was evaluated again since {who} approved": approval.report_digest != report.digest,
            f"it has served for a move already ({who}, {at:%Y-%m-%d %H:%M} UTC)": approval.id in used,
            f"it is of {at:%Y-%m-%d} and held for {days or 0:g} days": expired,
        }
        fault = next((why for why, is_so in void.items() if is_so), "") or _approver_fault(who, registrar, policy)
        if not fault:
            return approval
        faults.append(fault)
    reason = f"the last approval is void: {faults[0]}" if faults else "it has no approval"
    raise Refused(f"version {version.number} may not go to Production: {reason}; run approve")
