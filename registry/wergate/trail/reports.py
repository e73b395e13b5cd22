"""Which report a version is judged by, how it comes to be, and where the decisions on it are kept."""

from collections.abc import Callable

from wergate.errors import Refused, RegistryError
from wergate.gates.decision import Decision, summary
from wergate.gates.page import html_page
from wergate.gates.policy import Policy
from wergate.trail.records import DecisionRef, new_token, parse_tag, utc_now
from wergate.trail.registered_model import FoundReport, RegisteredModel, Version
from wertune.base.contract import DECISION_PREFIX, DECISIONS, ENGINE_TAG, VERDICT_PREFIX

Evaluate = Callable[[str, str], None]


def find_report(model: RegisteredModel, version: Version, policy: Policy) -> FoundReport | None:
    """The newest report of the version on the policy's test set, if it is of the engine that serves the version."""
    return _as_served(model.find_report(version, policy.test_digest), version)


def _as_served(found: FoundReport | None, version: Version) -> FoundReport | None:
    return found if found and found.report.provenance.engine == version.engine else None


def require_report(model: RegisteredModel, version: Version, policy: Policy, evaluate: Evaluate) -> FoundReport:
    """The version's report, made now where there is none.

    Where the project's test set is not the frozen one, the report that it has: the provenance gate says so better.
    """
    found = find_report(model, version, policy)
    if found:
        return found
    evaluate(model.name, version.number)
    found = find_report(model, version, policy) or _as_served(model.find_report(version, ""), version)
    if found is None:
        raise RegistryError(
            f"{model.name}/{version.number} was evaluated, but no finished run newer than the version carries its "
            f"report in the engine {version.engine}; do the clocks of this machine and of the tracking server agree, "
            f"and does the version's tag {ENGINE_TAG} name the engine that is stored with it?"
        )
    return found


def record_decision(model: RegisteredModel, run_id: str, decision: Decision) -> DecisionRef:
    """Writes it under a name of its own, so that a later decision on the same report does not replace it."""
    stem = f"{DECISIONS}/{utc_now():%Y%m%dT%H%M%S.%f}-{new_token()}-{decision.transition}"
    model.write_artifact(run_id, f"{stem}.json", decision.model_dump_json(indent=1))
    model.write_artifact(run_id, f"{stem}.html", html_page(decision))
    reference = DecisionRef(
        run_id=run_id,
        artifact=f"{stem}.json",
        passed=decision.passed,
        policy_digest=decision.policy_digest,
        report_digest=decision.report_digest,
        test_digest=decision.test_digest,
        champion_version=decision.champion_version or "",
    )
    model.set_version_tag(decision.version, VERDICT_PREFIX + decision.transition, summary(decision))
    model.set_version_tag(decision.version, DECISION_PREFIX + decision.transition, reference.model_dump_json())
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
