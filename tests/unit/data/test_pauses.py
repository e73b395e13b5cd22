"""What is too long is cut at its pauses, and where it has none, where it is quietest; no sound is lost."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.levels import levels
from wertune.data.pauses import (
    HEARD_S,
    MAX_SEGMENT_S,
    MIN_REST_S,
    PAD_S,
    PAUSE_S,
    SHORTEST_S,
    pauses,
    split_at_pauses,
    split_where_quietest,
)

Array = npt.NDArray[np.float32]


def _noise(seconds: float, seed: int = 0) -> Array:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return (0.1 * samples).astype(np.float32)


def _talk(*parts_s: float, floor: float = 1e-3) -> Array:
    """Sound and pauses in turn, each so many seconds."""
    level = (1.0, floor)
    return np.concatenate([_noise(each, n) * np.float32(level[n % 2]) for n, each in enumerate(parts_s)])


@settings(max_examples=40)
@given(st.integers(0, 100 * SAMPLE_RATE_HZ), st.integers(0, 5))
def test_pieces_join_back_to_the_recording_and_none_is_over_28_s(size: int, seed: int) -> None:
    whole = np.resize(_noise(3.1, seed), size)
    pieces = split_where_quietest(whole)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert max(piece.size for piece in pieces) <= MAX_SEGMENT_S * SAMPLE_RATE_HZ
    assert all(piece.size >= 20 * SAMPLE_RATE_HZ for piece in pieces[:-1])
    assert len(pieces) == 1 or pieces[-1].size >= SAMPLE_RATE_HZ


@pytest.mark.parametrize("seconds", [0.2, 27.9, 28.0])
def test_a_short_recording_stays_whole(seconds: float) -> None:
    whole = _noise(seconds)
    (piece,) = split_where_quietest(whole)
    np.testing.assert_array_equal(piece, whole)


@pytest.mark.parametrize("pause_s", [20.3, 23.0, 27.5])
def test_the_cut_falls_into_the_pause(pause_s: float) -> None:
    whole = _noise(40.0)
    start = round(pause_s * SAMPLE_RATE_HZ)
    whole[start : start + round(0.3 * SAMPLE_RATE_HZ)] = 0
    first, _ = split_where_quietest(whole)
    assert pause_s < first.size / SAMPLE_RATE_HZ < pause_s + 0.3


def test_one_sample_too_many_is_cut() -> None:
    assert len(split_where_quietest(np.resize(_noise(1.0), round(MAX_SEGMENT_S * SAMPLE_RATE_HZ) + 1))) == 2


@pytest.mark.parametrize("seconds", [28.001, 28.5, 29.0])
def test_a_pause_right_at_the_end_leaves_no_scrap(seconds: float) -> None:
    whole = _noise(seconds)
    whole[round(27.8 * SAMPLE_RATE_HZ) : 28 * SAMPLE_RATE_HZ] = 0
    pieces = split_where_quietest(whole)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert len(pieces) == 2
    assert pieces[-1].size >= SAMPLE_RATE_HZ


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.3, 20), st.floats(0.05, 4)), min_size=1, max_size=12),
    st.floats(5, 28),
    st.sampled_from([1e-4, 1e-2, 0.1]),
)
def test_no_sound_is_lost_and_pieces_are_short_enough(
    turns: list[tuple[float, float]], longest_s: float, floor: float
) -> None:
    whole = _talk(*(each for turn in turns for each in turn), floor=floor)
    pieces = split_at_pauses(whole, longest_s)
    assert sum(piece.size for piece in pieces) == whole.size
    assert all(piece.samples.size <= longest_s * SAMPLE_RATE_HZ + 1 for piece in pieces)
    if len(pieces) > 1:
        assert all(piece.samples.size >= MIN_REST_S * SAMPLE_RATE_HZ - 2 for piece in pieces)
    at_s = 0.0
    for piece in pieces:
        assert 0 <= piece.start_s < piece.end_s <= whole.size / SAMPLE_RATE_HZ
        assert at_s <= piece.start_s + 1e-9
        at_s = piece.end_s
    heard = sum(piece.samples.size for piece in pieces) / SAMPLE_RATE_HZ
    spoken_s = sum(spoken for spoken, _ in turns)
    assert heard >= spoken_s - 0.03 * len(turns)


def test_each_sentence_is_a_piece_with_the_times_of_its_speech() -> None:
    whole = _talk(3.0, 0.5, 4.0, 0.8, 2.5, 0.4, 3.5)
    pieces = split_at_pauses(whole, 10.0)
    spans = [(0.0, 3.0), (3.5, 7.5), (8.3, 10.8), (11.2, 14.7)]
    assert [(piece.start_s, piece.end_s) for piece in pieces] == [pytest.approx(span, abs=0.04) for span in spans]
    first_s, last_s = spans[1]
    heard = pieces[1].samples.size / SAMPLE_RATE_HZ
    assert heard == pytest.approx(last_s - first_s + 2 * PAD_S, abs=0.08)


def test_silence_before_and_behind_it_all_is_not_heard() -> None:
    whole = np.concatenate([np.zeros(SAMPLE_RATE_HZ, np.float32), _talk(3.0, 0.5, 4.0), np.zeros(16000, np.float32)])
    first, last = split_at_pauses(whole, 7.0)
    assert (first.start_s, last.end_s) == (pytest.approx(1.0, abs=0.04), pytest.approx(8.5, abs=0.04))
    assert first.size + last.size == whole.size
    assert (first.samples.size + last.samples.size) / SAMPLE_RATE_HZ < 7.0 + 4 * PAD_S + 0.1


def test_what_fits_is_left_as_it_is() -> None:
    whole = _talk(3.0, 0.5, 4.0)
    (piece,) = split_at_pauses(whole, 10.0)
    assert np.array_equal(piece.samples, whole)
    assert (piece.size, piece.start_s, piece.end_s) == (whole.size, 0.0, 7.5)


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    whole = _noise(40.0)
    assert [piece.size for piece in split_at_pauses(whole)] == [each.size for each in split_where_quietest(whole)]
    assert pauses(levels(whole)) == []
    assert pauses(levels(np.zeros(16000, np.float32))) == []


def test_a_breath_is_no_pause_and_pieces_are_no_scraps() -> None:
    whole = _talk(3.0, PAUSE_S - 0.1, 3.0, 0.5, 1.0, 0.5, 5.0)
    pieces = split_at_pauses(whole, 10.0)
    assert all(b.start_s - a.start_s >= SHORTEST_S - 0.3 for a, b in pairwise(pieces))
    assert pieces[0].end_s == pytest.approx(6.2, abs=0.05)


def test_somebody_far_away_is_heard_and_silence_is_not() -> None:
    far, silence = 10 ** (-40 / 20), 1e-5
    for level, is_heard in ((far, True), (silence, False)):
        whole = np.concatenate([_noise(6.0), _noise(3 * HEARD_S, 1) * np.float32(level), _noise(6.0, 2)])
        heard = sum(piece.samples.size for piece in split_at_pauses(whole, 10.0)) / SAMPLE_RATE_HZ
        assert (heard > 14.9) == is_heard
