"""What gates can show: a version that is equal passes them together, and one that is worse by a margin does not."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.trials.draws import POLICY, SETS, Speech, decisions, harmed, quick

from wergate.gates.policy import load_policy
from wertune.scores.bootstrap import BootstrapSettings

DRAWS = 40
FEW = BootstrapSettings(resamples=200)


def test_an_equal_version_passes_all_gates_of_staging_in_nine_of_ten_draws() -> None:
    found = decisions(quick(load_policy(POLICY), FEW), "staging", DRAWS)
    assert sum(decision.passed for decision in found) >= 0.9 * DRAWS


@pytest.mark.parametrize(
    ("gate", "name", "harm"),
    [
        ("forgetting_retention_test", "retention_test", {"version": 0.012 + 0.025}),
        ("battery_deleted_short_answers", "short_answers", {"deleted": (0.01, 0.01 + 0.04)}),
        ("battery_false_terms", "everyday", {"false_terms": 0.004}),
    ],
)
def test_one_that_is_worse_by_the_margin_is_refused(gate: str, name: str, harm: Mapping[str, Any]) -> None:
    found = decisions(quick(load_policy(POLICY), FEW), "staging", DRAWS, harmed(name, **harm))
    refused = [any(result.name.startswith(gate) for result in decision.refusals) for decision in found]
    assert sum(refused) >= 0.85 * DRAWS  # 95 of 100, and what forty draws leave to chance
    assert isinstance(SETS[name], Speech)
