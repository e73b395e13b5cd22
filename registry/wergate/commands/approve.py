"""The command `approve`: a person's word is written down, bound to what the person saw."""

from wergate.errors import Refused
from wergate.gates.policy import Policy
from wergate.registry.desk import Desk
from wergate.trail.approvals import check_approver
from wergate.trail.decisions import require_staging
from wergate.trail.records import Approval, clean_note, new_token
from wergate.trail.reports import find_report
from wertune.base.contract import APPROVAL_PREFIX


def approve(desk: Desk, version: str, approver: str, comment: str, policy: Policy) -> Approval:
    """Records that `approver` has seen the version's report and wants it in Production."""
    approver, comment = clean_note(approver, "approver"), clean_note(comment, "comment")
    if not approver:
        raise Refused("approver is empty, but must name a person; give --approver")
    found_version = desk.shelf.look().version(version)
    found = find_report(desk.shelf, found_version, policy)
    if found is None:
        raise Refused(f"version {version} has no report on the policy's test set; promote it to Staging first")
    require_staging(found_version, policy, found)
    check_approver(approver, desk.shelf.registrar(found_version), policy)
    approval = Approval(
        id=new_token(),
        version=version,
        approver=approver,
        at=desk.now(),
        policy_digest=policy.digest,
        report_digest=found.report.digest,
        comment=comment,
    )
    desk.shelf.set_version_tag(version, APPROVAL_PREFIX + approval.id, approval.model_dump_json())
    return approval
