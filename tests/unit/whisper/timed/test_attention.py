"""Times by what heads attend to."""

from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wertune.base.errors import BaseModelError
from wertune.whisper.timed.attention import alignment_heads, steady_path, token_times


@given(st.integers(1, 4).flatmap(lambda rows: arrays(np.int64, (rows, 7), elements=st.integers(-9, 9))))
def test_the_path_is_the_best_of_all(gains: np.ndarray) -> None:
    rows, columns = gains.shape

    def gain(starts: tuple[int, ...]) -> int:
        ends = (*starts[1:], columns)
        return sum(int(gains[row, start:end].sum()) for row, (start, end) in enumerate(zip(starts, ends, strict=True)))

    found = steady_path(gains.astype(np.float64)).tolist()
    assert found[0] == 0
    assert found[-1] == columns
    assert all(one < other for one, other in pairwise(found))
    best = max(gain((0, *rest)) for rest in combinations(range(1, columns), rows - 1))
    assert gain(tuple(found[:-1])) == best


def test_more_rows_than_columns_share_them() -> None:
    assert steady_path(np.zeros((4, 2))).tolist() == [0, 0, 1, 1, 2]


def test_a_token_is_said_where_the_heads_look() -> None:
    attended = torch.full((2, 3, 100), 0.01)
    for token, (start, end) in enumerate([(0, 20), (20, 50), (50, 80)]):
        attended[:, token, start:end] = 1.0
    times = token_times(attended, positions=80)
    assert times.tolist() == pytest.approx([0.0, 0.4, 1.0, 1.6], abs=0.04)


@pytest.mark.parametrize("heads", [None, [], [[9, 0]], [[0, 1], [0, 9]], "all"])
def test_a_base_without_alignment_heads_is_refused(heads: object) -> None:
    with pytest.raises(BaseModelError, match=r"alignment_heads is .* --ctc"):
        alignment_heads(SimpleNamespace(alignment_heads=heads), layers=4, heads=6)


def test_heads_are_pairs() -> None:
    assert alignment_heads(SimpleNamespace(alignment_heads=[[1, 0], [3, 5]]), 4, 6) == ((1, 0), (3, 5))
