"""Where a decision is kept: JSON and a page beside the report, its short form and place as tags of the version."""

from wergate.errors import Refused
from wergate.gates.decision import Decision, summary
from wergate.gates.page import html_page
from wergate.gates.policy import Policy
from wergate.trail.records import DecisionRef, new_token, parse_tag, utc_now
from wergate.trail.shelf import FoundReport, Shelf, Version
from wertune.base.contract import DECISION_PREFIX, DECISIONS, VERDICT_PREFIX


def record_decision(shelf: Shelf, run_id: str, decision: Decision) -> DecisionRef:
    """Writes it under a name of its own, so that a later decision on the same report does not replace it."""
    stem = f"{DECISIONS}/{utc_now():%Y%m%dT%H%M%S.%f}-{new_token()}-{decision.transition}"
    shelf.write_artifact(run_id, f"{stem}.json", decision.model_dump_json(indent=1))
    shelf.write_artifact(run_id, f"{stem}.html", html_page(decision))
    reference = DecisionRef(
        run_id=run_id,
        artifact=f"{stem}.json",
        passed=decision.passed,
        policy_digest=decision.policy_digest,
        report_digest=decision.report_digest,
        test_digest=decision.test_digest,
        champion_version=decision.champion_version or "",
    )
    shelf.set_version_tag(decision.version, VERDICT_PREFIX + decision.transition, summary(decision))
    shelf.set_version_tag(decision.version, DECISION_PREFIX + decision.transition, reference.model_dump_json())
    return reference


def last_decision(version: Version, transition: str) -> DecisionRef | None:
    """Where the newest decision on the version's transition (staging, production) lies."""
    key = DECISION_PREFIX + transition
    text = version.tags.get(key)
    return parse_tag(DecisionRef, key, text) if text else None


def page_of(decision: DecisionRef) -> str:
    """The decision as a page, beside its JSON."""
    return f"{decision.artifact.removesuffix('.json')}.html"


def require_staging(version: Version, policy: Policy, found: FoundReport) -> None:
    """Refused unless the version passed the gates of Staging with this report and policy.

    Where it stands now does not matter: a newer candidate may have taken its place in Staging meanwhile.
    """
    decision = last_decision(version, "staging")
    bound = (policy.digest, found.report.digest)
    if decision is None or not decision.passed or (decision.policy_digest, decision.report_digest) != bound:
        raise Refused(
            f"version {version.number} has not passed the gates of Staging with the present policy and report; "
            "promote it to Staging first"
        )
