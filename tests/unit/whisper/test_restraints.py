"""What of a window's times may be written next: as transformers' own rules have it, and what a window says."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from wertune.base.config import DecodeConfig
from wertune.whisper.model import Whisper
from wertune.whisper.restraints import Times
from wertune.whisper.wording import Timed

LoadTiny = Callable[..., Whisper]
WORDS, END, UNTIMED, STEPS = 6, 6, 7, 1501  # a small vocabulary: words, the end, <|notimestamps|>, all times
FIRST = UNTIMED + 1
TIMES = tuple(range(FIRST, FIRST + STEPS))


def _theirs(said: list[int], scores: torch.Tensor) -> torch.Tensor:
    """By transformers: of a text behind a prompt of one token."""
    config = SimpleNamespace(no_timestamps_token_id=UNTIMED, eos_token_id=END, max_initial_timestamp_index=50)
    config.bos_token_id = None
    rules = WhisperTimeStampLogitsProcessor(config, begin_index=1)  # type: ignore[arg-type]
    found: torch.Tensor = rules(torch.tensor([[0, *said]]), scores.clone())
    return found


def _drawn(seed: int, towards_times: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(1, FIRST + STEPS, generator=generator)
    logits[:, FIRST:] += towards_times
    logits[:, UNTIMED] = -torch.inf
    return logits.log_softmax(dim=-1)


@given(st.integers(0, 10**6), st.lists(st.floats(-12, 4), min_size=1, max_size=12))
def test_what_may_come_next_is_what_transformers_has(seed: int, towards: list[float]) -> None:
    """Token by token, each drawn from what both leave."""
    times, said = Times(TIMES, END, [30.0], 1, torch.device("cpu")), list[int]()
    for step, towards_times in enumerate(towards):
        scores = _drawn(seed + step, towards_times)
        expected, found = _theirs(said, scores), scores.clone()
        times.change(found)
        assert torch.equal(found.isfinite(), expected.isfinite())
        assert torch.equal(found[found.isfinite()], expected[found.isfinite()])
        allowed = found.isfinite().nonzero()[:, 1].tolist()
        token = allowed[(seed + 7 * step) % len(allowed)]
        if token == END:
            return
        said.append(token)
        times.go_on(torch.tensor([0]), torch.tensor([token]), torch.zeros(1))


@given(st.floats(0.02, 30), st.integers(0, 10**6))
def test_no_time_is_behind_the_window_s_end(window_s: float, seed: int) -> None:
    times = Times(TIMES, END, [30.0, window_s], 2, torch.device("cpu"))
    scores = _drawn(seed, 4.0).expand(4, -1).clone()
    times.change(scores)
    latest = [int(row[FIRST:].isfinite().nonzero().max()) / 50 for row in scores]
    assert latest[:2] == [1.0, 1.0]
    assert latest[2] == latest[3] == min(1.0, round(window_s * 50) / 50)


def test_texts_keep_their_times_when_others_leave() -> None:
    times = Times(TIMES, END, [30.0, 30.0], 1, torch.device("cpu"))
    times.go_on(torch.tensor([0, 1]), torch.tensor([FIRST, FIRST + 40]), torch.zeros(2))
    times.go_on(torch.tensor([1]), torch.tensor([0]), torch.zeros(1))
    scores = _drawn(0, 4.0)
    times.change(scores)
    assert int(scores[0, FIRST:].isfinite().nonzero().min()) == 41


def _tokens(whisper: Whisper, *said: float | str) -> list[int]:
    found = list[int]()
    for each in said:
        if isinstance(each, str):
            found += whisper.tokenizer(f" {each}", add_special_tokens=False).input_ids
        else:
            found.append(whisper.wording.timestamp(each))
    return found


def test_a_window_s_tokens_are_segments(load_tiny: LoadTiny) -> None:
    whisper = load_tiny()
    segments = whisper.wording.segments
    whole = _tokens(whisper, 0.0, "yes", 0.5, 1.0, "no no", 1.8)
    assert segments([*whole, whisper.wording.end]) == (Timed("yes", 0.0, 0.5), Timed("no no", 1.0, 1.8))
    assert segments(_tokens(whisper, 0.0, "yes", 0.5, 0.7)) == (Timed("yes", 0.0, 0.5), Timed("", 0.7, None))
    assert segments(_tokens(whisper, 0.0, "yes")) == (Timed("yes", 0.0, None),)
    assert segments(_tokens(whisper, 0.2)) == (Timed("", 0.2, None),)
    assert segments([]) == ()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_window_is_written_by_the_rules_whatever_the_weights(load_tiny: LoadTiny, beams: int) -> None:
    whisper = load_tiny()
    features = torch.randn(2, 80, 200, generator=torch.Generator().manual_seed(0))
    decode = DecodeConfig(num_beams=beams, loop_guard=False)
    written = whisper.generate(features, [40, 40], decode, "", [2.0, 1.0])
    for each, window_s in zip(written, (2.0, 1.0), strict=True):
        assert each.segments
        ends = [time for segment in each.segments for time in (segment.start_s, segment.end_s) if time is not None]
        assert ends == sorted(ends)
        assert 0 <= ends[0] <= ends[-1] <= window_s
        assert " ".join(filter(None, (segment.text for segment in each.segments))).split() == each.text.split()
    plain = whisper.generate(features, [10, 10], decode)
    assert [each.segments for each in plain] == [(), ()]
