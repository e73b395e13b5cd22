"""A verdict and what it rests on: JSON that a registry keeps and a page shows."""

from typing import Self

from pydantic import Field, model_validator

from wergate.gates.power import Power
from wertune.base.config import Frozen


class GateResult(Frozen):
    """One gate: what was measured, what it had to be, and what would help where it refused."""

    name: str
    kind: str
    value: float | None = Field(description="none: it could not be measured")
    interval: tuple[float, float] | None = Field(None, description="one-sided confidence ends")
    rule: str = Field("<=", description="how value, or the named end, must stand to the limit")
    limit: float | None
    unit: str
    blocks: bool = True
    passed: bool
    detail: str
    remedy: str = ""
    power: Power | None = Field(None, description="what the set can show; none: nothing is drawn by chance, or unknown")

    @model_validator(mode="after")
    def _help_where_refused(self) -> Self:
        if not self.passed and not self.remedy:
            raise ValueError(f"gate {self.name} refused without a remedy; say what would help")
        return self

    @property
    def verdict(self) -> str:
        """passed, refused, or warned where it does not block."""
        return "passed" if self.passed else "refused" if self.blocks else "warned"


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
