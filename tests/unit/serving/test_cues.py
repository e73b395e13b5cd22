"""Cues that can be read: none overlaps, all words come in order, and no cue is larger than it may be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.serving.cues import LINE_CHARACTERS, LINES, LONGEST_S, SHORTEST_S, cues, width
from wertune.whisper.timed.words import spans
from wertune.whisper.transcription import Segment, Word

words = st.text("abc我กé,.?)(-", min_size=1, max_size=9) | st.sampled_from(["x" * 100, "Yes.", "no,", "我" * 30, "..."])
said = st.lists(
    st.tuples(st.floats(0, 3), st.floats(0, 30), st.lists(words, max_size=25), st.booleans(), st.integers(0, 9)),
    max_size=5,
)


def _segments(parts: list[tuple[float, float, list[str], bool, int]]) -> list[Segment]:
    """Segments one after the other, some with words whose times are drawn."""
    at_s, found = 0.0, list[Segment]()
    for pause_s, lasts_s, texts, has_words, seed in parts:
        start_s, text = at_s + pause_s, " ".join(texts)
        at_s = start_s + lasts_s
        places = spans(text)
        share = [((i * (seed + 3)) % 7 + 1) for i in range(2 * len(places))]
        marks = [start_s + lasts_s * sum(share[:i]) / max(1, sum(share)) for i in range(len(share) + 1)]
        timed = [Word(text[first:last], marks[2 * i], marks[2 * i + 1], 0.9) for i, (first, last) in enumerate(places)]
        found.append(Segment(start_s, at_s, text, -0.5, words=tuple(timed) if has_words else ()))
    return found


@given(said)
def test_all_words_are_in_cues_in_order_that_are_short_and_do_not_overlap(
    parts: list[tuple[float, float, list[str], bool, int]],
) -> None:
    segments = _segments(parts)
    found = cues(segments)
    shown = "".join("".join(cue.lines) for cue in found)
    assert "".join(shown.split()) == "".join("".join(each.text for each in segments).split())
    for cue in found:
        assert 1 <= len(cue.lines) <= LINES
        assert all(line == line.strip() and 0 <= width(line) <= LINE_CHARACTERS for line in cue.lines)
        assert all(cue.lines)
        assert 0 <= cue.start_s <= cue.end_s <= cue.start_s + LONGEST_S + 1e-9
    assert all(one.end_s <= other.start_s for one, other in pairwise(found))


@given(said)
def test_no_cue_is_gone_too_soon_where_there_is_room(
    parts: list[tuple[float, float, list[str], bool, int]],
) -> None:
    found = cues(_segments(parts))
    before = [0.0, *(cue.end_s for cue in found)]
    after = [*(cue.start_s for cue in found[1:]), float("inf")]
    for cue, from_s, to_s in zip(found, before, after, strict=False):
        assert cue.end_s - cue.start_s >= min(SHORTEST_S, to_s - from_s) - 1e-6


def _shown(*segments: Segment) -> list[tuple[str, ...]]:
    return [cue.lines for cue in cues(segments)]


def test_sentences_are_cues_and_long_ones_break_at_commas_before_they_break_anywhere() -> None:
    assert _shown(Segment(0, 9, "You may log in with Singpass. Your CPF statement is sent to you by post.", -0.5)) == [
        ("You may log in with Singpass.",),
        ("Your CPF statement is sent to you by post.",),
    ]
    long = (
        "When you have logged in with your Singpass account at the counter, tell us which of the statements you need."
    )
    assert _shown(Segment(0, 9, long, -0.5)) == [
        ("When you have logged in with your", "Singpass account at the counter,"),
        ("tell us which of the statements you need.",),
    ]


def test_cues_break_at_pauses_of_words_and_never_span_a_long_one() -> None:
    def word(text: str, start_s: float) -> Word:
        return Word(text, start_s, start_s + 0.3, 0.9)

    text = "one two three four"
    times = [0.0, 0.3, 2.9, 3.2]
    heard = tuple(word(each, at_s) for each, at_s in zip(text.split(), times, strict=True))
    found = cues([Segment(0.0, 3.5, text, -0.5, words=heard)])
    assert [(cue.lines, cue.start_s, cue.end_s) for cue in found] == [
        (("one two",), 0.0, 1.0),
        (("three four",), 2.9, 3.9),
    ]


def test_short_answers_share_a_cue_and_short_cues_stay_into_the_pause() -> None:
    near = [Segment(0.0, 0.4, "Yes.", -0.5), Segment(0.5, 0.9, "No.", -0.5)]
    assert _shown(*near) == [("Yes. No.",)]
    (cue,) = cues([Segment(5.0, 5.2, "Yes.", -0.5)])
    assert (cue.start_s, cue.end_s) == (5.0, 6.0)
    squeezed = [Segment(5.0, 5.2, "Yes.", -0.5), Segment(8.0, 8.1, "no", -0.5), Segment(8.1, 14.0, "x" * 80, -0.5)]
    assert [round(each.end_s - each.start_s, 6) for each in cues(squeezed)][:2] >= [1.0, 1.0]


def test_no_word_is_said_when_its_cue_is_gone() -> None:
    first, second = cues([Segment(0, 9, "one two six", -0.5)])
    assert (first.start_s, second.end_s) == (0, 9)


def test_what_no_line_holds_is_cut_and_what_takes_too_long_ends() -> None:
    lines = [line for cue in _shown(Segment(0, 3, "x" * 100, -0.5)) for line in cue]
    assert [len(line) for line in lines] == [42, 42, 16]
    (cue,) = cues([Segment(0, 30, "slow", -0.5)])
    assert (cue.start_s, cue.end_s) == (0, 7)


def test_letters_of_han_are_twice_as_wide_and_have_no_blanks() -> None:
    assert width("我a ก่") == 5
    assert _shown(Segment(0, 5, "我的公积金" * 6 + "。", -0.5)) == [("我的公积金" * 3, "我的公积金" * 3 + "。")]
    assert _shown(Segment(0, 1, "我的", -0.5), Segment(1, 2, "公积金", -0.5)) == [("我的公积金",)]


@pytest.mark.parametrize("segments", [[], [Segment(0, 1, "", -0.5)]])
def test_nothing_said_is_no_cue(segments: list[Segment]) -> None:
    assert cues(segments) == []
