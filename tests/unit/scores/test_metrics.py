"""Counts against a plain Levenshtein, and the identities that hold between the rates."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.text import TermFinder, normaliser
from wertune.scores.alignment import align
from wertune.scores.metrics import (
    Clip,
    EditCounts,
    Scores,
    TermCounts,
    count_character_edits,
    count_edits,
    count_word_edits,
    score,
    score_utterance,
)

ENGLISH = normaliser("en")
TERMS = ("MediShield", "MediShield Life", "GST Voucher", "CPF")
FINDER = TermFinder(TERMS, ENGLISH)

sentences = st.lists(st.sampled_from(["a", "b", "ab", "ba", "c"]), max_size=8).map(" ".join)
spoken = st.lists(st.sampled_from([*TERMS, "please", "check", "the", "form"]), max_size=8)


def _distance(left: list[str], right: list[str]) -> int:
    """Levenshtein's distance, row by row, as in every textbook."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def _score(pairs: list[tuple[str, str, str]]) -> Scores:
    clips = [Clip(f"{number}", reference, speaker) for number, (speaker, reference, _) in enumerate(pairs)]
    return score(clips, [written for *_, written in pairs], ENGLISH, FINDER)


def _terms(reference: str, hypothesis: str) -> dict[str, TermCounts]:
    return dict(score_utterance(Clip("clip", reference), hypothesis, ENGLISH, FINDER).terms)


@given(sentences, sentences)
def test_word_edits_are_levenshteins(reference: str, hypothesis: str) -> None:
    counts = count_word_edits(reference, hypothesis)
    said, written = reference.split(), hypothesis.split()
    assert counts.errors == _distance(said, written)
    assert counts.length == len(said)
    assert counts.length - counts.deletions + counts.insertions == len(written)
    assert min(counts.substitutions, counts.deletions, counts.insertions) >= 0


@given(sentences, sentences)
def test_character_edits_are_levenshteins_blanks_included(reference: str, hypothesis: str) -> None:
    counts = count_character_edits(reference, hypothesis)
    assert counts.errors == _distance(list(reference), list(hypothesis))
    assert counts.length == len(reference)
    assert counts.length - counts.deletions + counts.insertions == len(hypothesis)


@given(sentences, sentences)
def test_wer_is_zero_for_equal_texts_only(reference: str, hypothesis: str) -> None:
    assert (count_word_edits(reference, hypothesis).rate == 0) == (reference == hypothesis)
    assert count_word_edits(reference, reference).rate == 0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("a b c", "a x c", EditCounts(1, 0, 0, 3)),
        ("a b c", "a c", EditCounts(0, 1, 0, 3)),
        ("a b c", "a b b c", EditCounts(0, 0, 1, 3)),
        ("a b c", "", EditCounts(0, 3, 0, 3)),
        ("", "a b", EditCounts(0, 0, 2, 0)),
        ("", "", EditCounts()),
    ],
)
def test_each_kind_of_error_is_told_from_the_others(reference: str, hypothesis: str, counts: EditCounts) -> None:
    assert count_word_edits(reference, hypothesis) == counts


def test_a_rate_on_an_empty_reference_stays_a_rate() -> None:
    assert count_word_edits("", "a b c").rate == 1.0
    assert count_character_edits("", "abc").rate == 1.0
    assert count_word_edits("", "").rate == 0.0


def test_insertions_can_lift_wer_above_one() -> None:
    assert count_word_edits("a", "a b c d").rate == 3.0


def test_words_on_an_empty_reference_count_in_the_corpus() -> None:
    scores = _score([("", "", "please check"), ("", "please check the form", "please check the form")])
    assert scores.words == EditCounts(insertions=2, length=4)
    assert scores.wer == 2 / 4


@given(st.lists(st.tuples(st.sampled_from("xyz"), sentences, sentences), max_size=8))
def test_a_corpus_is_the_sum_of_its_parts(pairs: list[tuple[str, str, str]]) -> None:
    whole = _score(pairs)
    parts = whole.by(lambda utterance: utterance.speaker)
    assert sorted(parts) == sorted({speaker for speaker, *_ in pairs})
    assert sum(len(part.utterances) for part in parts.values()) == len(pairs)
    assert sum((part.words for part in parts.values()), EditCounts()) == whole.words
    assert sum((part.characters for part in parts.values()), EditCounts()) == whole.characters
    assert sum((part.terms for part in parts.values()), TermCounts()) == whole.terms


def test_corpus_wer_weighs_words_not_clips() -> None:
    scores = _score([("", "yes", "no"), ("", "please check the form", "please check the form")])
    assert scores.wer == 1 / 5


def test_texts_are_normalised_before_they_are_compared() -> None:
    scores = _score([("", "It's $25, Colour!", "it is twenty five dollars color")])
    assert scores.words == EditCounts(length=4)
    assert scores.cer == 0


@given(spoken, spoken)
def test_term_counts_are_those_said_and_those_written(said: list[str], written: list[str]) -> None:
    counts = _terms(" ".join(said), " ".join(written))
    in_reference, in_hypothesis = (Counter(part for part in parts if part in TERMS) for parts in (said, written))
    assert set(counts) == set(in_reference) | set(in_hypothesis)
    for term, found in counts.items():
        assert found.hits == min(in_reference[term], in_hypothesis[term])
        assert found.hits + found.misses == in_reference[term]
        assert found.hits + found.false_alarms == in_hypothesis[term]


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_term_rates_follow_from_the_counts(hits: int, misses: int, false_alarms: int) -> None:
    counts = TermCounts(hits, misses, false_alarms)
    assert counts.recall == pytest.approx(hits / (hits + misses) if hits + misses else 1)
    assert counts.precision == pytest.approx(hits / (hits + false_alarms) if hits + false_alarms else 1)
    if hits:
        harmonic = 2 * counts.precision * counts.recall / (counts.precision + counts.recall)
        assert counts.f1 == pytest.approx(harmonic)
    else:
        assert counts.f1 == (0 if misses or false_alarms else 1)


def test_a_longer_term_written_short_is_a_miss_and_a_false_term() -> None:
    utterance = score_utterance(Clip("clip", "MediShield Life pays"), "MediShield live pays", ENGLISH, FINDER)
    assert utterance.missed_terms == ["MediShield Life"]
    assert utterance.false_terms == ["MediShield"]


def test_half_of_a_term_is_not_the_term() -> None:
    assert _terms("the GST Voucher", "the GST vouches") == {"GST Voucher": TermCounts(misses=1)}


def test_a_term_that_nobody_said_counts_against_the_whole_lexicon() -> None:
    counts = _terms("please check the form", "please check the CPF form, CPF")
    assert counts == {"CPF": TermCounts(false_alarms=2)}


def test_counts_by_term_add_up_over_the_set() -> None:
    scores = _score([("", "CPF and CPF", "CPF"), ("", "CPF and GST Voucher", "CPF and GST Voucher")])
    assert scores.by_term() == {"CPF": TermCounts(2, 1, 0), "GST Voucher": TermCounts(1, 0, 0)}
    assert sum(scores.by_term().values(), TermCounts()) == scores.terms


def test_the_summary_and_its_json_hold_the_counts() -> None:
    scores = _score([("ann", "check my CPF", "check my copy of"), ("ben", "yes", "yes")])
    assert scores.summary() == {
        "wer": 2 / 4,
        "cer": scores.cer,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 1,
        "words": 4,
        "term_recall": 0.0,
        "term_precision": 1.0,
        "term_f1": 0.0,
    }
    written = json.loads(json.dumps(scores.to_json()))
    first, second = written.pop("utterances")
    assert written == scores.summary()
    assert (first["speaker"], first["errors"], first["missed_terms"], first["false_terms"]) == ("ann", 2, ["CPF"], [])
    assert (second["id"], second["errors"], second["words"], second["hypothesis"]) == ("1", 0, 1, "yes")


def test_an_empty_set_has_no_errors() -> None:
    assert Scores().wer == 0
    assert Scores().by(lambda utterance: utterance.speaker) == {}
    assert Scores().summary()["words"] == 0


def test_a_clip_without_a_hypothesis_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        score([Clip("0", "a"), Clip("1", "b")], ["a"], ENGLISH, FINDER)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("check my cpf today", "check my cpf today", EditCounts(0, 0, 0, 1)),
        ("check my cpf today", "check my copy today", EditCounts(1, 0, 0, 1)),
        ("check my cpf today", "check my today", EditCounts(0, 1, 0, 1)),
        ("check my form today", "check my form today cpf", EditCounts(0, 0, 1, 0)),
        ("check my form today", "check my cpf today", EditCounts(0, 0, 0, 0)),  # by the reference's word
        ("", "cpf voucher please", EditCounts(0, 0, 2, 0)),
    ],
)
def test_lexicon_edits_of_worked_examples(reference: str, hypothesis: str, expected: EditCounts) -> None:
    assert count_edits(align(reference, hypothesis), FINDER.words) == expected


@given(sentences, sentences, st.sets(st.sampled_from(["a", "b", "ab", "ba", "c"])))
def test_lexicon_edits_and_all_others_are_all_edits(reference: str, hypothesis: str, lexicon: set[str]) -> None:
    pairs = align(reference, hypothesis)
    others = {"a", "b", "ab", "ba", "c"} - lexicon
    assert count_edits(pairs, lexicon) + count_edits(pairs, others) == count_edits(pairs)


def test_without_blanks_between_words_an_error_is_a_letter() -> None:
    """Of a Chinese sentence WER is CER, a term is counted once, and B-WER counts its letters."""
    normalise = normaliser("zh")
    finder = TermFinder(["公积金", "CPF"], normalise)
    clip = Clip("a", "我的CPF公积金账户。")
    missed = score_utterance(clip, "我的CPF公鸡金账户", normalise, finder)
    assert missed.words == EditCounts(substitutions=1, length=8)
    assert missed.characters == EditCounts(substitutions=1, length=12)  # "我的 cpf 公积金账户"
    assert missed.terms == {"公积金": TermCounts(misses=1), "CPF": TermCounts(hits=1)}
    assert missed.lexicon_words == EditCounts(substitutions=1, length=4)
    exact = score_utterance(clip, "我的 CPF 公积金 账户", normalise, finder)
    assert (exact.words.errors, exact.characters.errors) == (0, 0)
