"""The verdict and what it rests on: numbers in, passed or refused with reasons out, as JSON that a registry keeps."""

from pydantic import Field

from wergate.gates.evidence import Evidence
from wergate.gates.gate import GateResult
from wergate.gates.policy import Policy
from wertune.base.config import Frozen
from wertune.scores.eval_report import EvalReport


class Decision(Frozen):
    """All gates' results for one version and one transition, bound to policy, report and test set by digest."""

    model: str
    version: str
    transition: str
    policy_digest: str
    report_digest: str
    test_digest: str = Field(description="empty: the report has no test set")
    champion_version: str | None = None
    engine: str = Field("torch", description="what transcribed, and serves the version")
    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate that blocks passed."""
        return all(gate.passed for gate in self.gates if gate.blocks)

    @property
    def refusals(self) -> tuple[GateResult, ...]:
        return tuple(gate for gate in self.gates if gate.blocks and not gate.passed)

    @property
    def warnings(self) -> tuple[GateResult, ...]:
        return tuple(gate for gate in self.gates if not gate.blocks and not gate.passed)


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
        gates=tuple(gate.evaluate(evidence) for gate in policy.gates(transition)),
    )


def summary(decision: Decision) -> str:
    """The short form for a tag: `refused by wer_test (1 of 14 gates), warned by loops`."""
    text = f"passed {len(decision.gates)} gates"
    if decision.refusals:
        text = f"refused by {_names(decision.refusals)} ({len(decision.refusals)} of {len(decision.gates)} gates)"
    elif decision.warnings:
        text = f"passed {len(decision.gates) - len(decision.warnings)} of {len(decision.gates)} gates"
    return text + (f", warned by {_names(decision.warnings)}" if decision.warnings else "")


def _names(gates: tuple[GateResult, ...]) -> str:
    return ", ".join(gate.name for gate in gates)
