"""Sentences among what was heard: in order, whatever is only in one of the two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.alignment import places
from wertune.alignment.places import Place, codes, place_sentences, sure_borders

WORD = st.text("abcdefghijkl", min_size=2, max_size=8)
SENTENCE = st.lists(WORD, min_size=2, max_size=8)
STRANGE = st.lists(st.text("uvwxyz", min_size=3, max_size=8), min_size=2, max_size=6)


def _spans(sentences: list[list[str]]) -> list[tuple[int, int]]:
    ends = np.cumsum([sum(map(len, words)) for words in sentences]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


@given(st.lists(SENTENCE, min_size=1, max_size=8))
def test_what_was_heard_as_it_is_written_is_found_whole(sentences: list[list[str]]) -> None:
    found = place_sentences(sentences, [word for words in sentences for word in words])
    assert found == [Place(start, end, 0) for start, end in _spans(sentences)]


@given(st.lists(SENTENCE, min_size=1, max_size=6), STRANGE, st.data())
def test_a_strange_sentence_has_no_place_and_moves_no_other(
    sentences: list[list[str]], strange: list[str], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(sentences)))
    heard = [word for words in sentences for word in words]
    found = place_sentences([*sentences[:at], strange, *sentences[at:]], heard)
    assert found.pop(at) is None
    assert found == [Place(start, end, 0) for start, end in _spans(sentences)]


@given(st.lists(SENTENCE, min_size=1, max_size=6), STRANGE, st.data())
def test_what_nobody_claims_is_drawn_into_no_sentence(
    sentences: list[list[str]], unclaimed: list[str], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(sentences)))
    heard = [word for words in [*sentences[:at], unclaimed, *sentences[at:]] for word in words]
    spans = _spans([*sentences[:at], unclaimed, *sentences[at:]])
    spans.pop(at)
    assert place_sentences(sentences, heard) == [Place(start, end, 0) for start, end in spans]


@given(st.text("ab", min_size=1, max_size=7), st.text("ab", max_size=9))
def test_the_costs_of_a_sentence_are_edit_distances(sentence: str, heard: str) -> None:
    costs, starts = places._said(codes(sentence), codes(heard), np.zeros(len(heard) + 1))
    for end in range(len(heard) + 1):
        each = [_edits(sentence, heard[start:end]) for start in range(end + 1)]
        assert costs[end] == min(each)
        assert each[starts[end]] == min(each)


def _edits(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for letter in one:
        before, row = row, [row[0] + 1]
        for at, sign in enumerate(other):
            row.append(min(row[-1] + 1, before[at + 1] + 1, before[at] + (letter != sign)))
    return row[-1]


def test_words_that_were_heard_as_others_are_a_sentences_own() -> None:
    said = [["my", "medisave", "is", "empty"], ["it", "is", "in", "the", "mytax", "portal"]]
    heard = ["may", "many", "save", "is", "empty", "it", "is", "in", "the", "my", "tax", "photo"]
    first, second = place_sentences(said, heard)
    assert first is not None
    assert second is not None
    assert (first.start, first.end) == (0, len("maymanysaveisempty"))
    assert second.end == len("".join(heard))


def test_a_block_that_is_too_large_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_CELLS", 4)
    assert place_sentences([["abc", "def"]], ["abc", "def"]) == [None]


def test_borders_are_sure_where_both_sides_were_heard() -> None:
    said = [["the", "reading", "programme"], ["without", "a", "licence"], ["come", "back"]]
    heard = ["the", "reading", "programme", "without", "a", "licence", "calm", "back"]
    assert sure_borders(said, heard) == [(1, len("thereadingprogramme"))]
    assert sure_borders([], heard) == sure_borders(said, []) == []
