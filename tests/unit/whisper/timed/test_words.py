"""Words with times: in order, within the recording, without the pauses that the alignment shares among them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import ContextConfig
from wertune.base.errors import BaseModelError
from wertune.base.text import joined
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.whisper.features import log_mel
from wertune.whisper.model import Whisper
from wertune.whisper.timed.words import spans, with_words
from wertune.whisper.transcription import Segment, Word

CONTEXT = ContextConfig()


def _parts(*levels_db: tuple[float, float]) -> Samples:
    """Noise of so many seconds and such a level in dB, one part after the other."""
    generator = np.random.default_rng(0)
    pieces = [10 ** (db / 20) * generator.standard_normal(round(lasts_s * SAMPLE_RATE_HZ)) for lasts_s, db in levels_db]
    return np.concatenate(pieces).astype(np.float32)


class Timer:
    """Follows tokens as it is told: each lasts equally long, from the first second of what is heard to its last."""

    mel_bins, most_tokens = 80, 448

    def __init__(self, whisper: Whisper, likely: float = 0.5) -> None:
        self.wording, self.likely = whisper.wording, likely
        self.heard_s = list[float]()

    def time_tokens(
        self, features: torch.Tensor, tokens: Sequence[int], frames: int, language: str = ""
    ) -> tuple[Any, Any]:
        self.heard_s.append(frames / 100)
        return np.linspace(0, frames / 100, len(tokens) + 1), np.log(np.full(len(tokens), self.likely))


@pytest.fixture(scope="module")
def whisper(load_tiny: Callable[..., Whisper]) -> Whisper:
    found = load_tiny("none")
    found.bare.generation_config.alignment_heads = [[0, 1], [1, 0]]
    return found


def _words(found: Sequence[Segment]) -> list[Word]:
    return [word for segment in found for word in segment.words]


@given(st.text("ab我的กา, .-!\"'(7", max_size=40))
def test_spans_are_the_words_in_their_order_and_leave_blanks_alone_out(text: str) -> None:
    text = " ".join(text.split())
    found = spans(text)
    assert all(first < last for first, last in found)
    covered = {place for first, last in found for place in range(first, last)}
    assert {place for place, sign in enumerate(text) if not sign.isspace()} <= covered
    assert [last for _, last in found[:-1]] <= [first for first, _ in found[1:]]
    words = [text[first:last] for first, last in found]
    assert all(any(map(str.isalnum, word)) for word in words[1:])


def test_marks_alone_go_with_the_word_before_and_letters_are_words_where_nobody_writes_blanks() -> None:
    text = "Log in - now. 我的CPF。"
    assert [text[a:b] for a, b in spans(text)] == ["Log", "in -", "now.", "我", "的", "CPF。"]


texts = st.lists(st.sampled_from(["Log", "in", "with", "Singpass.", "CPF,", "2,000", "—", "no?"]), max_size=8).map(
    " ".join
)


@given(st.lists(st.tuples(st.floats(0.3, 40), texts), max_size=6))
def test_every_word_comes_once_in_order_within_the_recording(whisper: Whisper, parts: list[tuple[float, str]]) -> None:
    ends_s = np.cumsum([0.0, *(lasts_s for lasts_s, _ in parts)])
    said = [
        Segment(float(first), float(last), text, -0.5)
        for first, last, (_, text) in zip(ends_s[:-1], ends_s[1:], parts, strict=True)
    ]
    timer = Timer(whisper)
    found = with_words(timer, _parts((float(ends_s[-1]) + 0.01, -30.0)), said, CONTEXT)
    assert [segment.text for segment in found] == [segment.text for segment in said]
    for segment in found:
        assert " ".join(word.text for word in segment.words).split() == segment.text.split()
        if segment.words:
            assert (segment.start_s, segment.end_s) == (segment.words[0].start_s, segment.words[-1].end_s)
    words = _words(found)
    assert all(0 <= word.start_s < word.end_s <= ends_s[-1] + 0.02 for word in words)
    assert all(first.end_s <= after.start_s + 1 / SAMPLE_RATE_HZ for first, after in pairwise(words))
    assert all(word.probability == pytest.approx(0.5) for word in words)
    assert all(
        length_s <= 28 + 1.1 or length_s <= max(lasts_s for lasts_s, _ in parts) + 1.1 for length_s in timer.heard_s
    )


def test_words_end_where_the_pause_begins_and_sentences_part_in_it(whisper: Whisper) -> None:
    heard = _parts((0.5, -80.0), (1.5, -20.0), (0.6, -80.0), (1.0, -20.0), (0.4, -80.0))
    (segment,) = with_words(Timer(whisper), heard, [Segment(0.0, 4.0, "Yes no. Yes no.", -0.5)], CONTEXT)
    first, second, third, last = segment.words
    assert (first.start_s, second.end_s) == (pytest.approx(0.5, abs=0.02), pytest.approx(2.0, abs=0.02))
    assert (third.start_s, last.end_s) == (pytest.approx(2.6, abs=0.02), pytest.approx(3.6, abs=0.02))
    assert first.end_s == pytest.approx(second.start_s, abs=0.01)


def test_sentences_part_in_their_pause_where_the_heads_go_over_too_early(whisper: Whisper) -> None:
    heard = _parts((2.2, -20.0), (0.3, -80.0), (1.5, -20.0))
    (segment,) = with_words(Timer(whisper), heard, [Segment(0.0, 4.0, "Yes no. Yes no.", -0.5)], CONTEXT)
    assert segment.words[1].end_s == pytest.approx(2.2, abs=0.02)
    assert segment.words[2].start_s == pytest.approx(2.5, abs=0.02)


def test_a_segment_s_times_give_way_to_those_of_its_words(whisper: Whisper) -> None:
    """A segment may begin too late: what is before it is heard, too."""
    heard = _parts((0.3, -80.0), (2.0, -20.0), (0.5, -80.0))
    (segment,) = with_words(Timer(whisper), heard, [Segment(0.6, 2.1, "Yes no", -0.5)], CONTEXT)
    assert (segment.start_s, segment.end_s) == (pytest.approx(0.3, abs=0.02), pytest.approx(2.3, abs=0.02))


def test_the_tiny_model_times_tokens_in_order(whisper: Whisper) -> None:
    features = log_mel(_parts((3.0, -20.0)), 160)
    ids = whisper.wording.tokenizer(" Log in with Singpass", add_special_tokens=False).input_ids
    times, likely = whisper.time_tokens(features, ids, 300)
    assert (len(times), len(likely)) == (len(ids) + 1, len(ids))
    assert list(times) == sorted(times)
    assert 0 <= times[0] <= times[-1] <= 3.0
    assert (likely < 0).all()


def test_a_base_whose_heads_follow_nothing_is_told_before_anything_is_written(
    load_tiny: Callable[..., Whisper],
) -> None:
    other = load_tiny("none")  # of two layers, with the file of a base of four
    with pytest.raises(BaseModelError, match=r"alignment_heads is \[\[1, 0\], \[2, 0\].*, but must hold"):
        other.check_heads()


def test_words_that_the_heads_pass_in_no_time_do_not_overlap(whisper: Whisper) -> None:
    class Hasty(Timer):
        def time_tokens(
            self, features: torch.Tensor, tokens: Sequence[int], frames: int, language: str = ""
        ) -> tuple[Any, Any]:
            times, likely = super().time_tokens(features, tokens, frames, language)
            return np.full_like(times, times[-1]), likely

    said = Segment(0.0, 2.0, "Log in with Singpass", -0.5)
    words = _words(with_words(Hasty(whisper), _parts((2.0, -20.0)), [said], CONTEXT))
    assert len(words) == 4
    assert all(word.end_s - word.start_s == pytest.approx(0.02) for word in words)
    assert all(first.end_s <= after.start_s for first, after in pairwise(words))
    assert words[-1].end_s <= 2.0


def test_what_nobody_says_anything_in_is_not_followed(whisper: Whisper) -> None:
    timer, said = Timer(whisper), [Segment(0.0, 9.0, "", -0.5), Segment(12.0, 14.0, "Yes no", -0.5)]
    before, after = with_words(timer, _parts((9.0, -20.0), (3.0, -80.0), (2.0, -20.0)), said, CONTEXT)
    assert before == said[0]
    assert timer.heard_s == [pytest.approx(2.5)]
    assert after.words[0].start_s >= 11.5


def test_nothing_has_no_words(whisper: Whisper) -> None:
    empty = Segment(0.0, 2.0, "", -0.5)
    assert with_words(Timer(whisper), _parts((2.0, -30.0)), [empty], CONTEXT) == [empty]
    assert with_words(Timer(whisper), _parts((2.0, -30.0)), [], CONTEXT) == []
    assert joined([]) == ""
