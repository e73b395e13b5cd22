"""Words with times, transcripts, what was skipped, scores."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.alignment.cutting import LONGEST_GROUP_S, groups
from wertune.alignment.heard import STRAY, Item, Word, bare_words, items, timed_words
from wertune.alignment.places import Place
from wertune.alignment.scores import lengths, score
from wertune.alignment.segments import clock
from wertune.alignment.transcript import read_sentences, sentences
from wertune.alignment.unheard import merged, unheard
from wertune.base.errors import ConfigError, ManifestError


def _words(*said: tuple[str, float, float]) -> list[Word]:
    return [Word(*each) for each in said]


def test_words_are_bare_letters() -> None:
    assert bare_words("My CPF's $1,275 — “OK”?") == ["my", "cpfs", "1275", "ok"]
    assert bare_words("我的 CPF。") == ["我", "的", "cpf"]


def test_words_have_the_times_of_their_letters() -> None:
    text = "“No”, he said."
    starts = np.arange(len(text), dtype=float)
    words = list(timed_words(text, starts, starts + 1))
    assert [(word.text, word.start_s, word.end_s) for word in words] == [
        ("“No”,", 1.0, 3.0), ("he", 6.0, 8.0), ("said.", 9.0, 13.0),
    ]  # fmt: skip


def test_a_word_is_whose_most_letters_it_has_and_others_stand_between() -> None:
    words = _words(("my", 0, 1), ("many", 1, 2), ("oh", 2, 3), ("strange", 3, 4), ("it's", 4, 5))
    found = items(["My money.", "It is."], [Place(0, 6, 2), Place(15, 18, 1)], words)
    assert found == [
        Item(0, "My money.", 0, 2),
        Item(STRAY, "oh strange", 2, 4),
        Item(1, "It is.", 4, 5),
    ]


def test_nothing_is_placed_in_nothing() -> None:
    assert items(["a"], [None], []) == []


def test_a_line_is_a_sentence_and_a_paragraph_is_cut() -> None:
    assert sentences("Is it? Yes.") == ["Is it? Yes."]
    long = "Mr. Tan paid $4.50 for it. Did he? “He did!” Then he went home, " + "and on, " * 30 + "and rested."
    assert sentences(long)[:3] == ["Mr. Tan paid $4.50 for it.", "Did he?", "“He did!”"]
    assert sentences("他们说。" * 60) == ["他们说。"] * 60


@given(st.text(max_size=600))
def test_no_letter_of_a_paragraph_is_lost(text: str) -> None:
    line = " ".join(text.split())
    assert "".join("".join(sentences(line)).split()) == "".join(line.split())


@pytest.mark.parametrize("content", ["", " \n\n", "…\n—\n"])
def test_a_transcript_without_words_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match=r"a\.txt holds no words"):
        read_sentences(tmp_path / "a.txt")


def test_a_transcript_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a text file"):
        read_sentences(tmp_path)


def test_a_transcript_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ManifestError, match="no UTF-8"):
        read_sentences(tmp_path / "a.txt")


def test_speech_without_words_is_told() -> None:
    level = np.full(1000, -60.0)
    level[50:130], level[400:600], level[890:970] = -20, -22, -20
    words = _words(("hello", 10.5, 11.3), ("again", 18.9, 19.7))
    ((start_s, end_s),) = unheard(words, level, 10.0)
    assert 11.0 <= start_s <= 14.0
    assert 16.0 <= end_s <= 19.2
    assert list(unheard(words[:0], np.full(1000, -60.0), 10.0)) == []
    assert list(unheard([], level[:0], 10.0)) == []


def test_a_window_of_which_nothing_was_written_is_heard_whole() -> None:
    assert list(unheard([], np.concatenate([np.full(100, -20.0), np.full(50, -60.0)]), 5.0)) == [(5.0, 6.5)]


def test_what_a_stretch_and_its_neighbours_say_was_said_once() -> None:
    words = _words(("one", 0, 1), ("engineers", 4, 5), ("wrote", 5, 6))
    again = _words(("two", 2, 3), ("engineers", 3, 3.9))
    assert [word.text for word in merged(words, [again])] == ["one", "two", "engineers", "wrote"]
    assert merged(words, [[], []]) == words


@given(st.lists(st.tuples(st.floats(0.2, 12), st.floats(0, 3)), min_size=1, max_size=30))
def test_each_item_is_cut_once_and_no_group_is_longer_than_a_window(spans: list[tuple[float, float]]) -> None:
    made, at = list[Item](), 0.0
    for lasts_s, pause_s in spans:
        made.append(Item(len(made), "x", at, at + lasts_s))
        at += lasts_s + pause_s
    found = list(groups(made))
    assert [number for group in found for number in range(group.first, group.last)] == list(range(len(made)))
    for group in found:
        assert group.before <= group.first < group.last <= group.after
        assert made[group.after - 1].end_s - made[group.before].start_s <= LONGEST_GROUP_S


@given(st.integers(1, 90), st.floats(0, 90), st.integers(0, 90), st.floats(-20, 0), st.floats(0, 9))
def test_a_score_is_a_share_and_no_fault_raises_it(
    letters: int, edits: float, beside: int, likely: float, length: float
) -> None:
    found = score(letters, edits, beside, likely, length)
    assert 0 <= found <= 1
    assert found <= score(letters, 0, 0, 0.0, 1.0) == 1
    assert score(letters, edits + 1, beside, likely, length) <= found
    assert score(letters, edits, beside + 1, likely, length) <= found
    assert score(letters, edits, beside, likely - 1, length) <= found


def test_lengths_are_of_the_recordings_own_speed() -> None:
    said = ["twelve letters here"] * 4 + ["CPF 55"]
    assert lengths(said, [2.0, 2.0, 2.0, 4.0, 2.0]) == pytest.approx([1.0, 1.0, 1.0, 2.0, 1.0], abs=0.15)
    assert lengths([], []) == []


@pytest.mark.parametrize(("seconds", "told"), [(0, "0:00.00"), (62.345, "1:02.34"), (3723.456, "1:02:03.46")])
def test_times_are_for_people(seconds: float, told: str) -> None:
    assert clock(seconds) == told
