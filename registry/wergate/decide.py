"""The verdict: numbers in, passed or refused with reasons out; nothing else is touched."""

from dataclasses import dataclass

from wergate.policy import Policy


@dataclass(frozen=True)
class Gate:
    """One condition: what was measured, what it had to be."""

    name: str
    value: float
    limit: float
    passed: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.4f}, must be < {self.limit:.4f}: {'passed' if self.passed else 'refused'}"


@dataclass(frozen=True)
class Decision:
    """All gates' results; one refusal refuses the whole."""

    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    @property
    def reasons(self) -> str:
        return "; ".join(map(str, self.gates))


def decide(test_wer: float, baseline_wer: float, policy: Policy) -> Decision:
    """Whether an adapter may go to Staging: below the policy's limit and below the untouched base."""
    needed = baseline_wer * (1.0 - policy.min_relative_reduction)
    return Decision(
        (
            Gate("test_wer_limit", test_wer, policy.max_test_wer, test_wer < policy.max_test_wer),
            Gate("test_wer_below_baseline", test_wer, needed, test_wer < needed),
        )
    )
