"""Recordings read window by window: where each begins, and what is taken of it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.whisper.transcription import LEAST_READ_S, Segment, transcribe_windows
from wertune.whisper.wording import Timed, Written

DECODE = DecodeConfig(batch_size=2)


class Reader:
    """Writes for each window what it is told to, and keeps how long each was."""

    mel_bins = 80

    def __init__(self, *windows: Sequence[Timed]) -> None:
        self._windows, self.lengths_s = list(windows), list[float]()

    def generate(
        self,
        features: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]:
        assert len(features) == len(token_limits) == len(windows_s) <= decode.batch_size
        self.lengths_s += windows_s
        each = [tuple(self._windows.pop(0)) if self._windows else () for _ in windows_s]
        return [Written("", (-0.5,), segments) for segments in each]


def _silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)


def _read(reader: Reader, seconds: float, window_s: float = 30.0) -> list[Segment]:
    (found,) = transcribe_windows(reader, [_silence(seconds)], ContextConfig(), DECODE, window_s)
    return found


def test_the_next_window_begins_where_the_last_segment_ends() -> None:
    reader = Reader([Timed("a", 1.0, 5.0), Timed("b", 6.0, 20.0)], [Timed("c", 0.5, 9.0)])
    assert _read(reader, 40.0) == [
        Segment(1.0, 5.0, "a", -0.5), Segment(6.0, 20.0, "b", -0.5), Segment(20.5, 29.0, "c", -0.5),
    ]  # fmt: skip
    assert reader.lengths_s == [30.0, 20.0]


def test_what_the_window_cuts_off_is_read_with_the_next_one() -> None:
    reader = Reader([Timed("a", 0.0, 10.0), Timed("b and", 25.0, None)], [Timed("b and more", 0.0, 8.0)])
    assert [each.text for each in _read(reader, 40.0)] == ["a", "b and more"]
    assert reader.lengths_s == [30.0, 15.0]


def test_what_goes_on_to_the_recording_s_end_ends_there() -> None:
    assert _read(Reader([Timed("a", 3.0, None)]), 8.0) == [Segment(3.0, 8.0, "a", -0.5)]


def test_a_window_without_words_or_in_which_nothing_moves_is_left() -> None:
    reader = Reader([], [Timed("", 0.3, None)], [Timed("a", 0.0, 0.9)], [Timed("b", 0.0, 4.0)])
    assert [(each.start_s, each.text) for each in _read(reader, 94.0)] == [(60.0, "a"), (90.0, "b")]
    assert reader.lengths_s == [30.0, 30.0, 30.0, 4.0]


def test_recordings_are_read_beside_each_other() -> None:
    reader = Reader([Timed("a", 0.0, 5.0)], [Timed("b", 0.0, 30.0)], [Timed("c", 0.0, 10.0)])
    found = transcribe_windows(reader, [_silence(40.0), _silence(5.0)], ContextConfig(), DECODE)
    assert [[each.text for each in spoken] for spoken in found] == [["b", "c"], ["a"]]


segments = st.lists(
    st.tuples(st.floats(0, 30), st.one_of(st.none(), st.floats(0, 30))).map(
        lambda times: Timed("x", times[0], None if times[1] is None else max(times))
    ),
    max_size=4,
).map(lambda found: sorted(found, key=lambda each: each.start_s))


@given(st.floats(0.1, 200), st.floats(2, 30), st.lists(segments, max_size=60))
def test_every_recording_is_read_to_its_end_whatever_is_written(
    seconds: float, window_s: float, windows: list[list[Timed]]
) -> None:
    reader = Reader(*windows)
    _read(reader, seconds, window_s)
    assert len(reader.lengths_s) <= seconds / min(LEAST_READ_S, window_s) + 2
    assert all(0 < length <= window_s + 1e-3 for length in reader.lengths_s)
    assert sum(reader.lengths_s) >= seconds - 1e-3


def test_nothing_is_nothing() -> None:
    assert transcribe_windows(Reader(), [], ContextConfig(), DECODE) == []
    assert _read(Reader(), 0.0) == []


def test_a_check_may_end_it() -> None:
    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        transcribe_windows(Reader(), [_silence(5.0)], ContextConfig(), DECODE, check=check)
