"""A loop is what is said over and over at once: read-backs, digits, letters and meant repeats are none."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperTokenizerFast

from wertune.base.config import DecodeConfig
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.loops import LAST_RESORT_NGRAM, LoopGuard, last_resort, shrinks
from wertune.whisper.restraints import Repeats

VOCABULARY = 100
WORDS = LoopGuard(f" word{token}" for token in range(VOCABULARY))
SIGNS = LoopGuard(map(str, range(VOCABULARY)))
words = st.lists(st.integers(0, 4), max_size=30)


@cache
def _real() -> tuple[WhisperTokenizerFast, LoopGuard]:
    folder = resolve_base_model("packaged:whisper-tiny.en").path
    tokenizer = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer, LoopGuard(tokenizer.batch_decode([[token] for token in range(len(tokenizer))]))


def _is_loop(text: str) -> bool:
    tokenizer, guard = _real()
    return guard.is_loop(tokenizer(text, add_special_tokens=False).input_ids)


def _most_copies(tokens: list[int]) -> int:
    """How often at most anything is said at once, counted the long way."""
    most = 1
    for start in range(len(tokens)):
        for size in range(1, len(tokens) - start + 1):
            unit, copies = tokens[start : start + size], 1
            while tokens[start + copies * size : start + (copies + 1) * size] == unit:
                copies += 1
            most = max(most, copies)
    return most


def _forbidden(tokens: Sequence[int], guard: LoopGuard = WORDS, no_repeat_ngram: int = 0) -> set[int]:
    """What a text may not go on with, one of two that are written at once."""
    repeats = Repeats(guard, no_repeat_ngram, 2, len(tokens) + 1, torch.device("cpu"))
    for token in tokens:
        repeats.go_on(torch.tensor([1, 1]), torch.tensor([0, token]), torch.zeros(2))
    scores = torch.zeros(2, VOCABULARY)
    repeats.change(scores)
    return set((scores[1] == -torch.inf).nonzero().flatten().tolist())


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(1, 4))
def test_so_many_in_a_row_are_said_once(tokens: list[int], size: int) -> None:
    said = {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
    last = tokens[len(tokens) - size + 1 :]
    repeated = {token for token in range(3) if (*last, token) in said} if len(tokens) >= size else set()
    assert _forbidden(tokens, SIGNS, no_repeat_ngram=size) == repeated


@given(words)
def test_a_text_that_says_nothing_three_times_at_once_is_never_changed(tokens: list[int]) -> None:
    if _most_copies(tokens) < 3:
        assert not any(tokens[end] in _forbidden(tokens[:end]) for end in range(len(tokens)))
        assert not WORDS.is_loop(tokens)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 4))
def test_what_is_said_again_and_again_is_a_loop(unit: list[int], before: int) -> None:
    assert WORDS.is_loop([99] * before + unit * 7)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.integers(1, 9))
def test_only_the_token_that_completes_a_copy_too_many_is_forbidden(unit: list[int], copies: int) -> None:
    text = unit * copies
    for end in range(len(text)):
        for token in _forbidden(text[:end]):
            assert WORDS.is_loop([*text[:end], token])
            assert not _forbidden(text[:end]) - {token} or _most_copies([*text[:end], token]) >= 3


@given(words, st.sampled_from([" {}", "{}"]))
def test_digits_are_exempt(tokens: list[int], form: str) -> None:
    assert not LoopGuard(map(form.format, range(VOCABULARY))).is_loop(tokens * 3)
    assert not _forbidden(tokens * 3, SIGNS)


@pytest.mark.parametrize(
    "text",
    [
        " My number is 6, 2, 2, 5, 5, 3, 2, 2. That is 6, 2, 2, 5, 5, 3, 2, 2. I repeat, 6, 2, 2, 5, 5, 3, 2, 2.",
        " It is 2, 2, 2, 2, 2, 2, 2, 2.",
        " 9999 9999 9999 9999",
        " A, A, A, A, A, A, A.",
        " S-S-S-S-S-S-S-1-1-1-1-1-1-1",
        " No, no, no, no, that is very, very, very far.",
        " Thank you. Thank you. Thank you.",
        " Please hold the line. Please hold the line.",
    ],
)
def test_what_people_say_is_no_loop(text: str) -> None:
    assert not _is_loop(text)
    assert not shrinks(text)


@pytest.mark.parametrize(
    "text",
    [
        " you" * 7,
        " Thank you." * 4,
        " I am going to the end of the road, and" * 3,
        " The bill is 300 dollars, the bill" * 5,
        " 我的" * 7,
    ],
)
def test_what_nobody_says_is_one(text: str) -> None:
    assert _is_loop(text)


def test_where_nothing_else_helps_digits_are_kept_from_filling_a_text() -> None:
    assert shrinks(" 1, 5," * 30)
    assert last_resort(DecodeConfig()).no_repeat_ngram == LAST_RESORT_NGRAM
    assert last_resort(DecodeConfig(no_repeat_ngram=3)).no_repeat_ngram == 3
