"""A long recording's text cut into what was written for each clip: nothing lost, nothing counted twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.text import TermFinder, normaliser
from wertune.scores.alignment import align, skipped_words
from wertune.scores.long_form import border_errors_s, score_in_place, skipped_in_place, stretches, with_borders
from wertune.scores.metrics import Clip, count_word_edits

ENGLISH = normaliser("en")
WORD = st.sampled_from(["a", "b", "c", "d"])
SENTENCES = st.lists(st.lists(WORD, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=6)
NO_TERMS = TermFinder((), ENGLISH)


@given(SENTENCES, st.lists(WORD, max_size=20).map(" ".join))
def test_the_parts_are_the_whole_and_have_its_fewest_edits(references: list[str], text: str) -> None:
    parts = stretches(references, text, str.lower)
    assert " ".join(parts).split() == text.split()
    apart = sum(count_word_edits(*pair).errors for pair in zip(references, parts, strict=True))
    assert apart == count_word_edits(" ".join(references), text).errors


@given(SENTENCES)
def test_what_is_all_right_is_cut_where_the_clips_are(references: list[str]) -> None:
    assert stretches(references, " ".join(references), str.lower) == references


def test_a_text_is_cut_as_it_is_written() -> None:
    said = ["it is twenty five dollars", "call mister tan", "then wait"]
    text = "It's $25. Call Mr. Tan, then please wait!"
    assert stretches([ENGLISH(each) for each in said], text, ENGLISH) == [
        "It's $25.",
        "Call Mr. Tan,",
        "then please wait!",
    ]


def test_numbers_of_two_sentences_stay_apart() -> None:
    clips = [Clip("1", "Press two."), Clip("2", "Three of us.")]
    assert score_in_place(clips, "Press two. Three of us.", ENGLISH, NO_TERMS).wer == 0


def test_a_script_without_blanks_is_cut_between_letters() -> None:
    chinese = normaliser("zh")
    said = [chinese("你好"), chinese("再见吧")]
    assert [part.replace(" ", "") for part in stretches(said, "你好。再见", chinese)] == ["你好。", "再见"]
    assert stretches(said, "你好再见", chinese) == ["你好", "再见"]


@pytest.mark.parametrize("text", ["", "   ", "..."])
def test_nothing_written_is_all_deleted(text: str) -> None:
    scores = score_in_place([Clip("1", "one of us"), Clip("2", "and two")], text, ENGLISH, NO_TERMS)
    assert scores.words.deletions == scores.words.length == 5
    assert [utterance.skipped_words for utterance in scores.utterances] == [3, 2]


def test_a_run_across_clips_is_one_run() -> None:
    clips = [Clip("1", "we all go"), Clip("2", "so they stay"), Clip("3", "as ever")]
    scores = score_in_place(clips, "we all stay as ever", ENGLISH, NO_TERMS)
    assert [utterance.skipped_words for utterance in scores.utterances] == [1, 2, 0]
    assert [utterance.words.deletions for utterance in scores.utterances] == [1, 2, 0]
    assert score_in_place(clips, "we all they stay ever", ENGLISH, NO_TERMS).utterances[0].skipped_words == 0


@given(SENTENCES, st.lists(WORD, max_size=20).map(" ".join))
def test_words_that_are_skipped_are_those_of_the_whole(references: list[str], text: str) -> None:
    parts = stretches(references, text, str.lower)
    pairs = [align(*pair) for pair in zip(references, parts, strict=True)]
    counts = skipped_in_place(pairs)
    assert sum(counts) == skipped_words([pair for each in pairs for pair in each])
    deletions = [count_word_edits(*pair).deletions for pair in zip(references, parts, strict=True)]
    assert all(0 <= count <= deleted for count, deleted in zip(counts, deletions, strict=True))


def test_terms_are_counted_where_they_are_said() -> None:
    clips = [Clip("1", "my CPF"), Clip("2", "your home")]
    scores = score_in_place(clips, "my home. your CPF", ENGLISH, TermFinder(("CPF",), ENGLISH))
    assert [dict(utterance.terms) for utterance in scores.utterances] == [
        {"CPF": scores.utterances[0].terms["CPF"]},
        {"CPF": scores.utterances[1].terms["CPF"]},
    ]
    assert (scores.terms.misses, scores.terms.false_alarms) == (1, 1)


TIMES = st.floats(0, 100, allow_nan=False)
SPANS = st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=8)


@given(SPANS, SPANS, st.floats(-3, 3))
def test_a_border_s_error_is_to_the_nearest(
    said: list[tuple[float, float]], more: list[tuple[float, float]], late_s: float
) -> None:
    written = [(start + late_s, end + late_s) for start, end in said]
    found = border_errors_s(said, written, 100.0)
    assert all(error <= abs(late_s) + 1e-9 for pair in found for error in pair)
    nearer = border_errors_s(said, written + more, 100.0)
    assert all(np.array(nearer).ravel() <= np.array(found).ravel())
    assert border_errors_s(said, said, 100.0) == [(0.0, 0.0)] * len(said)


def test_where_no_time_is_written_the_whole_recording_is_missed() -> None:
    assert border_errors_s([(1.0, 2.0), (3.0, 4.0)], [], 40.0) == [(40.0, 40.0)] * 2
    assert border_errors_s([(1.0, 2.0)], [(0.7, 5.0), (9.0, 2.1)], 40.0) == [pytest.approx((0.3, 0.1))]


def test_a_clip_in_its_place_has_its_borders_errors() -> None:
    scores = score_in_place([Clip("1", "a"), Clip("2", "b")], "a b", ENGLISH, NO_TERMS)
    timed = with_borders(scores, [(0.12345, 0.0), (1.0, 2.0)])
    assert [utterance.border_errors_s for utterance in timed.utterances] == [(0.123, 0.0), (1.0, 2.0)]
    assert replace(timed.utterances[0], border_errors_s=()) == scores.utterances[0]
