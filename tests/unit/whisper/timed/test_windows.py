"""Recordings read window by window: where each begins, what is taken of it, and what the guards have read again."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.whisper.timed.reading import LEAST_READ_S
from wertune.whisper.timed.windows import transcribe_recordings, transcribe_windows
from wertune.whisper.transcription import Segment, Transcript, transcribe_samples
from wertune.whisper.wording import Timed, Written

DECODE = DecodeConfig(batch_size=2)
SYLLABLE = ((0.15, -20.0), (0.05, -45.0))  # seconds, dB


class Reader:
    """Writes for each window what it is told to, for each clip without times the next of `clips`; keeps lengths."""

    device, mel_bins = torch.device("cpu"), 80

    def __init__(self, *windows: Sequence[Timed] | Written, clips: Sequence[str | Written] = ()) -> None:
        self._windows, self._clips = list(windows), list(clips)
        self.lengths_s, self.frames = list[float](), list[int]()

    def generate(
        self,
        features: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]:
        assert len(features) == len(token_limits) <= decode.batch_size
        if not windows_s:
            self.frames += [features.shape[2]] * len(features)
            given = [self._clips.pop(0) if self._clips else "" for _ in features]
            return [each if isinstance(each, Written) else Written(each, (-0.3,)) for each in given]
        assert len(windows_s) == len(features)
        self.lengths_s += windows_s
        found = [self._windows.pop(0) if self._windows else () for _ in windows_s]
        return [each if isinstance(each, Written) else Written("", (-0.5,), tuple(each)) for each in found]


def _noise(seconds: float, db: float, seed: int = 0) -> Samples:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return (10 ** (db / 20) * noise).astype(np.float32)


def _hum(seconds: float) -> Samples:
    """Neither silence nor speech: always equally loud."""
    return _noise(seconds, -30)


def _heard(*parts: tuple[str, float]) -> Samples:
    """Of each kind (`speech`, `pause`) so many seconds."""
    pieces = list[Samples]()
    for kind, lasts_s in parts:
        if kind == "pause":
            pieces.append(_noise(lasts_s, -80))
        else:
            pieces += [_noise(*part, seed=i) for i in range(round(lasts_s / 0.2)) for part in SYLLABLE]
    return np.concatenate(pieces)


def _read(reader: Reader, samples: Samples | float, window_s: float = 30.0) -> Transcript:
    heard = _hum(samples) if isinstance(samples, float) else samples
    (found,) = transcribe_windows(reader, [heard], ContextConfig(), DECODE, window_s)
    return found


def test_the_next_window_begins_where_the_last_segment_ends() -> None:
    reader = Reader([Timed("a", 1.0, 5.0), Timed("b", 6.0, 20.0)], [Timed("c", 0.5, 9.0)])
    found = _read(reader, 40.0)
    assert found.segments == (
        Segment(1.0, 5.0, "a", -0.5), Segment(6.0, 20.0, "b", -0.5), Segment(20.5, 29.0, "c", -0.5),
    )  # fmt: skip
    assert reader.lengths_s == [30.0, 20.0]
    assert [segment.seek_s for segment in found.segments] == [0.0, 0.0, 20.0]
    assert (found.text, found.avg_logprob) == ("a b c", -0.5)
    assert sum(piece.size for piece, _ in found.pieces) == 40 * SAMPLE_RATE_HZ


def test_what_the_window_cuts_off_is_read_with_the_next_one() -> None:
    reader = Reader([Timed("a", 0.0, 10.0), Timed("b and", 25.0, None)], [Timed("b and more", 0.0, 8.0)])
    assert [each.text for each in _read(reader, 40.0).segments] == ["a", "b and more"]
    assert reader.lengths_s == [30.0, 15.0]


def test_what_goes_on_to_the_recording_s_end_ends_there_and_nothing_goes_beyond_it() -> None:
    assert _read(Reader([Timed("a", 3.0, None)]), 8.0).segments == (Segment(3.0, 8.0, "a", -0.5),)
    assert _read(Reader([Timed("a", 3.0, 9.5)]), 8.0).segments == (Segment(3.0, 8.0, "a", -0.5),)


def test_a_window_without_words_or_in_which_nothing_moves_is_left() -> None:
    reader = Reader([], [Timed("", 0.3, None)], [Timed("a", 0.0, 0.9)], [Timed("b", 0.0, 4.0)])
    assert [(each.start_s, each.text) for each in _read(reader, 94.0).segments] == [(60.0, "a"), (90.0, "b")]
    assert reader.lengths_s == [30.0, 30.0, 30.0, 4.0]


def test_recordings_are_read_beside_each_other() -> None:
    reader = Reader([Timed("a", 0.0, 5.0)], [Timed("b", 0.0, 30.0)], [Timed("c", 0.0, 10.0)])
    found = transcribe_windows(reader, [_hum(40.0), _hum(5.0)], ContextConfig(), DECODE)
    assert [each.text for each in found] == ["b c", "a"]


segments = st.lists(
    st.tuples(st.floats(0, 30), st.one_of(st.none(), st.floats(0, 30))).map(
        lambda times: Timed("x", times[0], None if times[1] is None else max(times))
    ),
    max_size=2,
).map(lambda found: sorted(found, key=lambda each: each.start_s))


@given(st.floats(0.1, 200), st.floats(2, 30), st.lists(segments, max_size=60))
def test_every_recording_is_read_to_its_end_whatever_is_written(
    seconds: float, window_s: float, windows: list[list[Timed]]
) -> None:
    reader = Reader(*windows)
    found = _read(reader, seconds, window_s)
    assert len(reader.lengths_s) <= seconds / min(LEAST_READ_S, window_s) + 2
    assert all(0 < length <= window_s + 1e-3 for length in reader.lengths_s)
    assert sum(reader.lengths_s) >= seconds - 1e-3
    assert sum(piece.size for piece, _ in found.pieces) == round(seconds * SAMPLE_RATE_HZ)
    assert all(0 <= each.start_s <= each.end_s <= seconds + 1e-3 for each in found.segments)


def test_nothing_is_nothing() -> None:
    assert transcribe_windows(Reader(), [], ContextConfig(), DECODE) == []
    nothing = _read(Reader(), 0.0)
    assert (nothing.segments, nothing.text, nothing.avg_logprob) == ((), "", None)


def test_a_check_may_end_it() -> None:
    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        transcribe_windows(Reader(), [_hum(5.0)], ContextConfig(), DECODE, check=check)


def test_for_silence_nothing_is_asked_and_nothing_written() -> None:
    silent = np.zeros(40 * SAMPLE_RATE_HZ, np.float32)
    reader = Reader([Timed("Thank you.", 0.0, 2.0)])
    assert (_read(reader, silent).segments, reader.lengths_s) == ((), [])
    faint = _heard(("speech", 2.0), ("pause", 60.0), ("speech", 3.0), ("pause", 45.0))
    said = "one two three four"
    found = _read(Reader([Timed(said, 0.0, 2.0)], [Timed(said, 0.2, 3.2)], [Timed("Thank you.", 0, 9.0)]), faint)
    assert [(round(each.start_s), round(each.end_s)) for each in found.segments] == [(0, 2), (62, 65)]


def test_a_window_begins_where_somebody_speaks_since_no_segment_may_begin_late() -> None:
    reader = Reader([Timed("one two three", 0.2, 3.0)])
    (found,) = _read(reader, _heard(("pause", 50.0), ("speech", 3.0))).segments
    assert found.start_s == pytest.approx(50.0, abs=0.05)
    assert reader.lengths_s == [pytest.approx(3.2)]


def test_what_the_model_itself_takes_for_silence_is_not_written() -> None:
    doubted = Written("you", (-2.0,), (Timed("you", 0.0, 8.0),), no_speech_prob=0.9)
    assert _read(Reader(doubted), 8.0).text == ""
    sure = Written("you", (-0.5,), (Timed("you", 0.0, 8.0),), no_speech_prob=0.9)
    assert _read(Reader(sure), 8.0).text == "you"


# No loop, but more of them than anyone could say in six seconds.
NUMBERS = " ".join(str(number) for number in np.random.default_rng(0).integers(1000, 9999, 90))


@pytest.mark.parametrize(
    "window",
    [
        [Timed("the next stop", 0.0, 4.0), *(Timed("Thank you.", 4.0 + i, 5.0 + i) for i in range(3))],
        [Timed("no way " * 30, 0.0, 29.0)],
        [Timed("the next stop", 0.0, 4.0), Timed(NUMBERS, 24.0, None)],
        [],
    ],
)
def test_a_window_that_loops_or_says_nothing_is_read_again_cut_at_pauses(window: list[Timed]) -> None:
    parts = [("speech", 9.0), ("pause", 0.5)] * 4
    reader = Reader(window, [Timed("seven eight nine ten eleven", 0.0, 9.0)], clips=["one two", "three", "four five"])
    found = _read(reader, _heard(*parts))
    assert [each.text for each in found.segments] == ["one two", "three", "four five", "seven eight nine ten eleven"]
    assert all(1 < one.end_s - one.start_s <= 10 for one in found.segments)
    assert all(one.end_s <= other.start_s for one, other in pairwise(found.segments))
    assert sum(piece.size for piece, _ in found.pieces) == _heard(*parts).size
    assert reader.lengths_s[0] == 30.0
    assert reader.lengths_s[1] < 12.0  # from the last pause on


SAID = "so many words are said in four seconds of a clear voice"


def test_speech_that_no_segment_holds_is_read_again_in_its_place() -> None:
    heard = _heard(("speech", 4.0), ("pause", 0.5), ("speech", 4.0), ("pause", 0.5), ("speech", 4.0))
    reader = Reader([Timed(SAID, 0.0, 4.0), Timed(f"{SAID} too", 9.0, 13.0)], clips=["what was skipped"])
    found = _read(reader, heard)
    assert found.text == f"{SAID} what was skipped {SAID} too"
    assert (found.segments[1].start_s, found.segments[1].end_s) == (pytest.approx(4.5, 0.05), pytest.approx(8.5, 0.05))


@pytest.mark.parametrize(
    "again", ["", "a clear voice", Written("not sure at all", (-1.5,)), "Thank you. " * 20, "so many words"]
)
def test_of_what_is_read_again_no_doubt_no_loop_and_nothing_that_a_neighbour_says_is_taken(
    again: str | Written,
) -> None:
    """Segments' times are wrong at times, and what they pass over is then said before or behind."""
    heard = _heard(("speech", 4.0), ("pause", 0.5), ("speech", 4.0), ("pause", 0.5), ("speech", 4.0))
    reader = Reader([Timed(SAID, 0.0, 4.0), Timed(SAID, 9.0, 13.0)], clips=[again])
    assert _read(reader, heard).text == f"{SAID} {SAID}"
    assert reader.frames


def test_a_segment_too_short_for_its_speech_gives_way_to_more_words_but_not_to_as_few() -> None:
    heard = _heard(("speech", 12.0))
    for again, kept in ((f"{SAID} {SAID}", f"{SAID} {SAID}"), ("It begin", "It begins.")):
        assert _read(Reader([Timed("It begins.", 0.0, 12.0)], clips=[again, ""]), heard).text == kept


TALK = _heard(*[("speech", 3.0), ("pause", 0.4), ("speech", 6.0), ("pause", 2.5)] * 6)
spoken = st.sampled_from([SAID, "Thank you.", "no " * 60, "", "one two three four five six seven"])
windows = st.lists(
    st.tuples(st.floats(0, 30), st.one_of(st.none(), st.floats(0, 30)), spoken).map(
        lambda given: Timed(given[2], given[0], None if given[1] is None else max(given[:2]))
    ),
    max_size=4,
).map(lambda found: sorted(found, key=lambda each: each.start_s))


@settings(max_examples=40, deadline=None)
@given(st.lists(windows, max_size=20), st.lists(spoken, max_size=20))
def test_whatever_is_written_talk_is_read_to_its_end_and_told_in_order(
    read: list[list[Timed]], clips: list[str]
) -> None:
    reader = Reader(*read, clips=clips)
    found = _read(reader, TALK)
    assert sum(piece.size for piece, _ in found.pieces) == TALK.size
    assert len(reader.lengths_s) < 4 * TALK.size / SAMPLE_RATE_HZ
    starts = [each.start_s for each in found.segments]
    assert starts == sorted(starts)
    assert all(0 <= each.start_s <= each.end_s <= TALK.size / SAMPLE_RATE_HZ for each in found.segments)
    assert all(each.text for each in found.segments)


def test_where_all_is_said_nothing_is_read_again() -> None:
    heard = _heard(("speech", 4.0), ("pause", 0.5), ("speech", 4.0))
    reader = Reader([Timed(SAID, 0.0, 3.4), Timed(SAID, 5.0, 8.5)])
    _read(reader, heard)
    assert not reader.frames


def test_what_fits_in_a_window_is_written_as_ever_and_all_is_where_there_are_no_windows() -> None:
    clips = [_hum(4.0), _hum(29.0), _hum(31.0)]
    said = ["one", "two", "three", "four", "five", "six", "seven"]
    as_ever = transcribe_samples(Reader(clips=said), clips, ContextConfig(), DECODE, longest_s=10.0)
    short = transcribe_samples(Reader(clips=said), clips[:2], ContextConfig(), DECODE, longest_s=10.0)
    given = (clips, ContextConfig(), DECODE, 10.0)
    read = transcribe_recordings(Reader([Timed("long", 0.0, 30.0)], [], clips=said), *given, window_s=30.0)
    assert read[:2] == short
    assert read[2].segments == (Segment(0.0, 30.0, "long", -0.5),)
    assert transcribe_recordings(Reader(clips=said), *given, window_s=None) == as_ever
