"""The verdict: numbers in, passed or refused with reasons out; nothing else is touched."""

from wergate.gates.decision import Decision, GateResult, summary
from wergate.gates.evaluators import evaluate
from wergate.gates.evidence import Evidence
from wergate.gates.policy import Policy
from wertune.scores.eval_report import EvalReport

__all__ = ["Decision", "GateResult", "decide", "summary"]


def decide(candidate: EvalReport, champion: EvalReport | None, policy: Policy, transition: str) -> Decision:
    """Whether `candidate` may make the `transition` (staging, production); what it lacks is a refusal, not an error."""
    evidence = Evidence(candidate, champion, policy.bootstrap)
    test = candidate.sets.get("test")
    return Decision(
        model=candidate.model,
        version=candidate.version,
        transition=transition,
        policy_digest=policy.digest,
        report_digest=candidate.digest,
        test_digest=test.digest if test else "",
        champion_version=champion.version if champion else None,
        engine=candidate.provenance.engine,
        gates=tuple(evaluate(gate, evidence) for gate in policy.gates(transition)),
    )
