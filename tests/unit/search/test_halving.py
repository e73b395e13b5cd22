"""The epochs that are expected of a search are those that Ray's own ASHA grants trials in random order."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from wertune.search.halving import expected_epochs, one_after_another
from wertune.search.search_space import AshaConfig


class _Trial:
    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


@given(st.integers(1, 4), st.sampled_from([1.5, 2.0, 2.5, 3.0]), st.integers(1, 40))
def test_rungs_are_those_at_which_ray_compares(grace: int, factor: float, epochs: int) -> None:
    grace = min(grace, epochs)
    bracket = _Bracket(grace, epochs, factor, 0)
    compared = []
    for epoch in range(1, epochs):  # at the last one the scheduler ends every trial
        before = sum(len(seen) for _, seen in bracket._rungs)
        bracket.on_result(_Trial(0), epoch, 0.0)
        if sum(len(seen) for _, seen in bracket._rungs) > before:
            compared.append(epoch)
    ours = AshaConfig(grace_epochs=grace, reduction_factor=factor).rungs(epochs)
    # Ray takes the highest rung that a trial has reached: of two within one epoch it sees one an epoch.
    assert set(compared) >= set(ours)


def _granted(asha: AshaConfig, losses: list[float], epochs: int) -> int:
    """By Ray's rule, one trial after another."""
    bracket = _Bracket(asha.grace_epochs, epochs, asha.reduction_factor, 0)
    total = 0
    for number, loss in enumerate(losses):
        for epoch in range(1, epochs + 1):
            total += 1
            if epoch == epochs or bracket.on_result(_Trial(number), epoch, -loss) == TrialScheduler.STOP:
                break
    return total


@pytest.mark.parametrize(
    ("trials", "epochs", "factor", "grace", "known_good"),
    [
        (8, 8, 2.0, 1, 1),
        (8, 8, 2.0, 1, 0),
        (12, 4, 3.0, 1, 0),
        (24, 9, 3.0, 1, 0),
        (16, 8, 1.5, 1, 0),
        (12, 8, 2.0, 2, 2),
    ],
)
def test_what_is_expected_is_what_ray_grants(
    trials: int, epochs: int, factor: float, grace: int, known_good: int
) -> None:
    asha = AshaConfig(grace_epochs=grace, reduction_factor=factor, confidence=0.0)
    draw = np.random.default_rng(0)
    granted = []
    for search in range(80):
        losses = draw.random(trials)
        losses[:known_good] -= search % 4 < 3
        granted.append(_granted(asha, losses.tolist(), epochs))
    found = expected_epochs(asha, trials, epochs, known_good)
    assert found.mean == pytest.approx(statistics.mean(granted), rel=0.12)
    between = sum(found.low <= each <= found.high for each in granted)
    assert 0.7 <= between / len(granted) <= 1


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([1.5, 2.0, 3.0]),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_what_is_expected_lies_between_what_is_possible(
    trials: int, epochs: int, at_once: int, factor: float, grace: int, known_good: int
) -> None:
    found = expected_epochs(AshaConfig(grace_epochs=grace, reduction_factor=factor), trials, epochs, known_good)
    assert trials <= found.low <= found.mean + 1e-9 <= found.high + 2e-9 <= trials * epochs + 3e-9
    span = one_after_another(found.mean, trials, epochs, at_once)
    assert max(epochs, found.mean / at_once) - 1e-9 <= span <= max(epochs, found.mean) + epochs / 2


def test_the_demos_search() -> None:
    """Four trials of six epochs; that of README's table ran 12."""
    found = expected_epochs(AshaConfig(reduction_factor=2), 4, 6, known_good=1)
    assert found.low <= 12 <= found.high
    assert one_after_another(found.mean, 4, 6, 2) < 0.8 * found.mean


def test_a_confidence_lets_more_run_and_never_more_than_all() -> None:
    by_value, half, most = (expected_epochs(AshaConfig(confidence=c), 16, 8).mean for c in (0.0, 0.5, 0.9))
    assert by_value == half < most < 16 * 8
    assert expected_epochs(AshaConfig(confidence=0.9), 2, 8).mean <= 16


def test_halving_leaves_out_what_it_promises_to() -> None:
    assert expected_epochs(AshaConfig(reduction_factor=3), 200, 9).mean < 0.5 * 200 * 9
    without = expected_epochs(AshaConfig(grace_epochs=9), 10, 9)
    assert (without.low, without.mean, without.high) == (90, 90, 90)
    assert one_after_another(90, 10, 9, 1) == 90
