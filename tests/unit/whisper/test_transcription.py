"""Long recordings are cut at pauses, batches hold clips of like length, and no text ends up at another clip."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.pauses import split_at_pauses
from wertune.whisper.transcription import (
    token_limit,
    transcribe_features,
    transcribe_samples,
)
from wertune.whisper.wording import Written

Array = npt.NDArray[np.float32]

durations = st.lists(st.floats(0.01, 30), max_size=20)


class FakeWhisper:
    """Writes the number that each clip's features hold, and remembers how it was asked."""

    mel_bins = 80

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def generate(
        self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig, language: str = ""
    ) -> list[Written]:
        call = {"shape": tuple(features.shape), "limits": token_limits, "beams": decode.num_beams}
        self.calls.append(call | ({"language": language} if language else {}))
        return [Written(f"{clip[0, 0]:g}", (-0.1,)) for clip in features]


class SpellingWhisper(FakeWhisper):
    """Writes how many frames it heard, and nothing for silence."""

    def generate(
        self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig, language: str = ""
    ) -> list[Written]:
        self.calls.append({"shape": tuple(features.shape)})
        texts = ["" if clip.max() == clip.min() else f"{clip.shape[1]} frames" for clip in features]
        return [Written(text, (-0.1,)) for text in texts]


def _transcribe_numbered(durations_s: list[float], **options: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts of clips that hold their own numbers, and how the model was asked for them."""
    whisper = FakeWhisper()
    features = [torch.full((80, max(1, round(100 * s))), float(number)) for number, s in enumerate(durations_s)]
    texts = transcribe_features(whisper, features, durations_s, DecodeConfig(**options))  # type: ignore[arg-type]
    return texts, whisper.calls


def _noise(seconds: float, seed: int = 0) -> Array:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return (0.1 * samples).astype(np.float32)


@given(durations, st.integers(1, 8))
def test_texts_come_back_in_the_order_of_their_clips(durations_s: list[float], batch_size: int) -> None:
    texts, _ = _transcribe_numbered(durations_s, batch_size=batch_size)
    assert texts == [str(number) for number in range(len(durations_s))]


@given(durations, st.integers(1, 8))
def test_batches_are_of_like_length_and_no_larger_than_asked(durations_s: list[float], batch_size: int) -> None:
    _, calls = _transcribe_numbered(durations_s, batch_size=batch_size, batch_seconds=1000)
    ordered = sorted(durations_s)
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    assert [call["shape"] for call in calls] == [(len(b), 80, max(1, round(100 * b[-1]))) for b in batches]


@given(durations, st.floats(1, 100))
def test_no_batch_holds_more_seconds_than_asked_unless_one_clip_does(durations_s: list[float], most_s: float) -> None:
    texts, calls = _transcribe_numbered(durations_s, batch_seconds=most_s)
    assert len(texts) == len(durations_s)
    for clips, _, frames in (call["shape"] for call in calls):
        assert clips == 1 or clips * frames / 100 <= most_s


def test_seconds_fill_a_batch_as_far_as_they_reach() -> None:
    _, calls = _transcribe_numbered([4.0, 1.0, 2.0, 3.0], batch_seconds=6)
    assert [call["shape"][0] for call in calls] == [2, 1, 1]


@pytest.mark.parametrize(
    ("duration_s", "options", "limit"),
    [
        (1.0, {}, 18),  # 8 and 10 a second
        (30.0, {}, 224),
        (30.0, {"max_new_tokens": 30}, 30),
        (1.0, {"max_new_tokens": 5}, 5),
        (2.0, {"tokens_per_second": 2.5}, 13),
        (30.0, {"tokens_per_second": 20, "max_new_tokens": 440}, 440),
    ],
)
def test_tokens_are_capped_by_duration_and_by_the_config(
    duration_s: float, options: dict[str, Any], limit: int
) -> None:
    _, (call,) = _transcribe_numbered([duration_s], **options)
    assert call["limits"] == [token_limit(duration_s, DecodeConfig(**options))] == [limit]


def test_each_clip_has_its_own_cap_whatever_shares_its_batch() -> None:
    _, calls = _transcribe_numbered([3.0, 1.0, 2.0, 4.0], batch_size=2)
    assert [call["limits"] for call in calls] == [[18, 28], [38, 48]]


@given(st.floats(0.1, 100), st.integers(1, 440), st.floats(0.01, 30), st.floats(0.01, 30))
def test_the_cap_grows_with_duration_up_to_what_the_config_says(
    rate: float, most: int, left_s: float, right_s: float
) -> None:
    decode = DecodeConfig(tokens_per_second=rate, max_new_tokens=most)
    shorter, longer = sorted((left_s, right_s))
    assert 1 <= token_limit(shorter, decode) <= token_limit(longer, decode) <= most


def test_beams_are_those_of_the_config() -> None:
    _, (call,) = _transcribe_numbered([1.0], num_beams=5)
    assert call["beams"] == 5


def _transcribe(clips: list[Array]) -> tuple[list[str], FakeWhisper]:
    whisper = SpellingWhisper()
    transcripts = transcribe_samples(whisper, clips, ContextConfig(), DecodeConfig(batch_size=1))  # type: ignore[arg-type]
    return [transcript.text for transcript in transcripts], whisper


def test_a_long_recording_is_written_as_one_text_in_its_order() -> None:
    whole = _noise(50.0)
    whole[24 * SAMPLE_RATE_HZ : round(24.2 * SAMPLE_RATE_HZ)] = 0  # so 24.05 and 25.95 s
    texts, _ = _transcribe([_noise(1.0), whole, _noise(2.0)])
    assert texts == ["192 frames", "2496 frames 2688 frames", "288 frames"]


def test_what_is_longer_than_a_version_learned_from_is_cut() -> None:
    clips, whole = SpellingWhisper(), _noise(12.0)
    whole[6 * SAMPLE_RATE_HZ : round(6.2 * SAMPLE_RATE_HZ)] = 0
    (cut,) = transcribe_samples(clips, [whole], ContextConfig(), DecodeConfig(), longest_s=7.0)  # type: ignore[arg-type]
    (uncut,) = transcribe_samples(clips, [whole], ContextConfig(), DecodeConfig())  # type: ignore[arg-type]
    assert (cut.text.count("frames"), uncut.text.count("frames")) == (2, 1)


def test_a_silent_piece_leaves_no_double_blank() -> None:
    whole = np.concatenate([_noise(28.0), np.zeros(60 * SAMPLE_RATE_HZ, np.float32), _noise(20.0)])
    (text,), _ = _transcribe([whole])
    assert "  " not in text
    assert text == text.strip()
    assert text.count("frames") < len(split_at_pauses(whole))


@pytest.mark.parametrize("size", [0, 1, 159, SAMPLE_RATE_HZ, 60 * SAMPLE_RATE_HZ])
def test_of_digital_silence_nothing_is_written(size: int) -> None:
    whisper = SpellingWhisper()
    clips = [np.zeros(size, np.float32), _noise(1.0), np.full(size, 1e-6, np.float32)]
    silent, spoken, again = transcribe_samples(
        whisper,  # type: ignore[arg-type]
        clips,
        ContextConfig(),
        DecodeConfig(),
        languages=["de", "", ""],
    )
    assert [each.text for each in (silent, spoken, again)] == ["", "192 frames", ""]
    assert (silent.segments, silent.avg_logprob) == ((), None)
    assert len(spoken.segments) == 1
    assert sum(piece.size for piece, _ in silent.pieces) == size


def test_no_clips_give_no_texts() -> None:
    texts, whisper = _transcribe([])
    assert texts == []
    assert whisper.calls == []


def test_a_clip_of_the_model_itself_is_written_alone_as_in_a_batch(load_tiny: Callable[..., Any]) -> None:
    whisper, decode = load_tiny(), DecodeConfig(max_new_tokens=4)
    clips = [_noise(1.0, seed) for seed in range(3)]
    together = transcribe_samples(whisper, clips, ContextConfig(), decode)
    alone = [transcribe_samples(whisper, [clip], ContextConfig(), decode)[0] for clip in clips]
    assert [transcript.text for transcript in together] == [transcript.text for transcript in alone]


@given(st.lists(st.sampled_from(["", "te", "en"]), min_size=1, max_size=12))
def test_a_batch_is_of_one_language_and_texts_come_back_in_their_order(languages: list[str]) -> None:
    whisper = FakeWhisper()
    features = [torch.full((80, 100 + number), float(number)) for number in range(len(languages))]
    durations_s = [1.0] * len(languages)
    texts = transcribe_features(whisper, features, durations_s, DecodeConfig(batch_size=4), languages)  # type: ignore[arg-type]
    assert texts == [f"{number}" for number in range(len(languages))]
    asked = Counter(dict.fromkeys(set(languages), 0))
    for call in whisper.calls:
        asked[call.get("language", "")] += call["shape"][0]
    assert asked == Counter(languages)
