"""Alignments keep every word, and their edits are the ones that WER counts."""

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from wertune.scores.alignment import Pair, align, confusions, in_columns
from wertune.scores.metrics import EditCounts, count_word_edits

TEXTS = st.lists(st.sampled_from(["log", "in", "with", "singpass", "cpf", "a"]), max_size=9).map(" ".join)


def _edits(pairs: list[Pair]) -> EditCounts:
    kinds = Counter("i" if not pair.said else "d" if not pair.written else "s" for pair in pairs if pair.is_error)
    return EditCounts(kinds["s"], kinds["d"], kinds["i"], sum(bool(pair.said) for pair in pairs))


@given(TEXTS, TEXTS)
@example("", "made up")
@example("left out", "")
@example("", "")
def test_an_alignment_keeps_all_words_in_order_and_counts_as_wer_does(reference: str, hypothesis: str) -> None:
    pairs = align(reference, hypothesis)
    assert [pair.said for pair in pairs if pair.said] == reference.split()
    assert [pair.written for pair in pairs if pair.written] == hypothesis.split()
    assert _edits(pairs) == count_word_edits(reference, hypothesis)
    assert confusions([pairs]).total() == count_word_edits(reference, hypothesis).errors


@given(TEXTS, TEXTS, TEXTS)
def test_columns_hold_both_alignments(reference: str, before: str, after: str) -> None:
    columns = in_columns(align(reference, before), align(reference, after))
    for line, text in enumerate((reference, before, after)):
        assert [column[line] for column in columns if column[line]] == text.split()
    for line, text in ((1, before), (2, after)):
        pairs = [Pair(column[0], column[line]) for column in columns if column[0] or column[line]]
        assert _edits(pairs) == count_word_edits(reference, text)
    assert all(any(column) for column in columns)


def test_words_added_at_one_place_share_their_columns() -> None:
    assert in_columns(align("a c", "a b c"), align("a c", "a x y c")) == [
        ("a", "a", "a"),
        ("", "b", "x"),
        ("", "", "y"),
        ("c", "c", "c"),
    ]
