"""The rule of halving is Ray's own, and the epochs that are expected of a search follow from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers.async_hyperband import _Bracket
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from wertune.search.asha_games import _play, expected_epochs, goes_on
from wertune.search.search_space import AshaConfig


class _Trial:
    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


@given(st.lists(st.floats(0, 2), max_size=20), st.sampled_from([1.5, 2, 3, 4]))
def test_trials_pass_a_rung_where_ray_lets_them(losses: list[float], factor: float) -> None:
    bracket = _Bracket(1, 2, factor, 0)
    seen: list[float] = []
    for number, loss in enumerate(losses):
        theirs = bracket.on_result(_Trial(number), 1, -loss) == TrialScheduler.CONTINUE
        assert goes_on(loss, seen, factor) == theirs
    assert seen == sorted(losses)


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


@pytest.mark.parametrize(
    ("losses", "at_once", "total", "span"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, 7, 7),  # the best comes first: the others end at the first rung
        ([0.4, 0.3, 0.2, 0.1], 1, 16, 16),  # each is better than all before
        ([0.1, 0.2, 0.3, 0.4], 2, 7, 4),
        ([0.1], 3, 4, 4),
    ],
)
def test_games_end_as_the_order_says(losses: list[float], at_once: int, total: int, span: int) -> None:
    assert _play(losses, 4, [1, 2], 2.0, at_once) == (total, span)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), st.sampled_from([2.0, 3.0]))
def test_what_is_expected_lies_between_what_is_possible(trials: int, epochs: int, at_once: int, factor: float) -> None:
    asha = AshaConfig(reduction_factor=factor)
    total, span = expected_epochs(asha, trials, epochs, at_once)
    for found in (total, span):
        assert found.low <= found.mean + 1e-9
        assert found.mean <= found.high + 1e-9 or trials * epochs > found.high
    assert trials <= total.low
    assert total.high <= trials * epochs
    assert max(epochs, total.mean / at_once) - 1e-9 <= span.mean <= total.mean + 1e-9


def test_a_known_good_one_that_comes_first_ends_the_others_early() -> None:
    asha = AshaConfig(reduction_factor=2)
    blind, _ = expected_epochs(asha, 8, 8, 2)
    known, _ = expected_epochs(asha, 8, 8, 2, known_good=1)
    assert known.mean < 0.7 * blind.mean
    assert known.low < blind.low
    assert known.low >= 8 + 7


def test_halving_leaves_out_what_it_promises_to() -> None:
    total, _ = expected_epochs(AshaConfig(reduction_factor=3), 200, 9, 1)
    assert total.mean < 0.5 * 200 * 9
    without, span = expected_epochs(AshaConfig(grace_epochs=9), 10, 9, 2)
    assert (without.low, without.high) == (90, 90)
    assert span.mean == 45
    assert np.isclose(without.times(2.0).mean, 180)
