"""What a trial minimises, on sets drawn anew."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.text import TermFinder
from wertune.scores.metrics import Clip, Scores, score
from wertune.training.objective import REDRAWS, Objective

OBJECTIVE = Objective(retention_baseline_wer=0.1, retention_margin=0.05, penalty=0.5)


def _scores(wrong: list[int], words: int = 4) -> Scores:
    """Clips of so many words, of which so many are wrong."""
    clips = [Clip(str(number), " ".join(["right"] * words)) for number in range(len(wrong))]
    texts = [" ".join(["wrong"] * each + ["right"] * (words - each)) for each in wrong]
    return score(clips, texts, str.lower, TermFinder((), str.lower))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_sets_drawn_anew_lie_around_the_value_and_are_the_same_in_every_trial(
    validation: list[int], retention: list[int]
) -> None:
    both = _scores(validation), _scores(retention)
    drawn = OBJECTIVE.redrawn(*both)
    assert drawn == OBJECTIVE.redrawn(*both)
    assert len(drawn) == REDRAWS
    best, worst = (OBJECTIVE(f(validation) / 4, f(retention) / 4) for f in (min, max))
    assert best - 1e-5 <= min(drawn) <= max(drawn) <= worst + 1e-5


@given(st.lists(st.integers(1, 4), min_size=2, max_size=30))
def test_a_trial_with_fewer_errors_in_every_clip_is_the_better_in_every_draw(wrong: list[int]) -> None:
    better = [each - 1 for each in wrong]
    pairs = zip(OBJECTIVE.redrawn(_scores(better), None), OBJECTIVE.redrawn(_scores(wrong), None), strict=True)
    assert all(few < many for few, many in pairs)


def test_draws_have_the_spread_of_the_set() -> None:
    wrong = [0, 4] * 50
    drawn = np.array(OBJECTIVE.redrawn(_scores(wrong), None))
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.std() == pytest.approx(0.05, abs=0.01)  # sqrt(0.25 / 100)
