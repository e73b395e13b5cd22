"""The verdict of the first gate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wergate.decide import decide
from wergate.policy import Policy

rates = st.floats(0, 2)
policies = st.builds(Policy, max_test_wer=st.floats(0.01, 1), min_relative_reduction=st.floats(0, 1))


@pytest.mark.parametrize(
    ("test_wer", "baseline_wer", "passed", "refused_by"),
    [
        (0.10, 0.40, True, []),
        (0.15, 0.40, False, ["test_wer_limit"]),
        (0.10, 0.10, False, ["test_wer_below_baseline"]),
        (0.50, 0.40, False, ["test_wer_limit", "test_wer_below_baseline"]),
    ],
)
def test_below_the_limit_and_below_the_baseline(
    test_wer: float, baseline_wer: float, passed: bool, refused_by: list[str]
) -> None:
    decision = decide(test_wer, baseline_wer, Policy(max_test_wer=0.15))
    assert decision.passed is passed
    assert [gate.name for gate in decision.gates if not gate.passed] == refused_by


def test_the_reasons_give_value_and_limit() -> None:
    assert "test_wer_limit: 0.2000, must be < 0.1500: refused" in decide(0.2, 0.4, Policy(max_test_wer=0.15)).reasons


@given(rates, rates, policies, st.floats(0.1, 1))
def test_a_tighter_limit_never_turns_a_refusal_into_a_pass(
    test_wer: float, baseline_wer: float, policy: Policy, factor: float
) -> None:
    tighter = policy.model_copy(update={"max_test_wer": policy.max_test_wer * factor})
    assert decide(test_wer, baseline_wer, policy).passed or not decide(test_wer, baseline_wer, tighter).passed


@given(rates, rates, policies, st.floats(0, 1))
def test_a_better_adapter_never_loses(test_wer: float, baseline_wer: float, policy: Policy, factor: float) -> None:
    assert not decide(test_wer, baseline_wer, policy).passed or decide(test_wer * factor, baseline_wer, policy).passed
