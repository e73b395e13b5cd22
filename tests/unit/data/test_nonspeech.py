"""Clips without a word to train on: as many as asked for, equal for equal seeds, and to be transcribed as nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.manifest import Recording
from wertune.data.nonspeech import (
    CLIPS_PER_SET,
    LONGEST_LEAD_S,
    TRAINING_SECONDS,
    before_speech,
    hallucination_sets,
    nonspeech,
    speech_span_s,
)

MakeRecordings = Callable[..., list[Recording]]


@given(st.integers(0, 12), st.integers(0, 1000))
def test_noise_is_of_every_length_and_level_and_never_out_of_range(count: int, seed: int) -> None:
    clips = nonspeech(count, [], np.random.default_rng(seed))
    assert len(clips) == count
    for clip in clips[:3]:
        samples = clip.samples()
        assert TRAINING_SECONDS[0] <= clip.duration_s <= TRAINING_SECONDS[1]
        assert samples.size == round(clip.duration_s * SAMPLE_RATE_HZ)
        assert samples.dtype == np.float32
        assert 0 < np.abs(samples).max() <= 1
        assert np.array_equal(samples, clip.samples())
        assert clip.text == ""


@pytest.fixture
def quiet_start(make_recordings: MakeRecordings) -> list[Recording]:
    """Two recordings that say something at once."""
    return make_recordings(["yes", "no"])


def _spoken(silence_s: float, level: float = 0.3) -> np.ndarray:
    """A faint hiss, then a tone that stands for a voice."""
    generator = np.random.default_rng(0)
    hiss = 0.0003 * generator.standard_normal(round(silence_s * SAMPLE_RATE_HZ))
    voice = level * np.sin(np.arange(SAMPLE_RATE_HZ) / 5)
    return np.concatenate([hiss, voice]).astype(np.float32)


@given(st.floats(0.1, 2.0), st.floats(0.1, 1.0))
def test_what_is_heard_before_speech_holds_none_of_it(silence_s: float, level: float) -> None:
    samples = _spoken(silence_s, level)
    lead = before_speech(samples)
    assert silence_s - 0.06 <= lead.size / SAMPLE_RATE_HZ <= silence_s
    assert np.abs(lead).max() < 0.01


@given(st.floats(0.2, 1.0), st.floats(0.2, 1.0), st.floats(-34.0, -16.0))
def test_speech_is_found_in_the_noise_that_lies_under_all_of_it(
    before_s: float, after_s: float, noise_db: float
) -> None:
    parts = [
        np.zeros(round(before_s * SAMPLE_RATE_HZ)),
        np.ones(SAMPLE_RATE_HZ),
        np.zeros(round(after_s * SAMPLE_RATE_HZ)),
    ]
    loud = np.concatenate(parts)
    generator = np.random.default_rng(0)
    voice = 0.1 * loud * generator.standard_normal(loud.size)
    noisy = voice + 0.1 * 10 ** (noise_db / 20) * generator.standard_normal(loud.size)
    first_s, last_s = speech_span_s(noisy.astype(np.float32))
    assert first_s == pytest.approx(before_s, abs=0.011)
    assert last_s == pytest.approx(before_s + 1.0, abs=0.011)


def test_a_click_is_no_speech() -> None:
    samples = _spoken(1.0)
    samples[4000:4100] = 0.9
    assert speech_span_s(samples)[0] == pytest.approx(1.0, abs=0.011)


@pytest.mark.parametrize("silence_s", [0.0, 0.04])
def test_of_a_recording_that_speaks_at_once_nothing_is_taken(silence_s: float) -> None:
    assert before_speech(_spoken(silence_s)).size == 0
    assert before_speech(np.zeros(0, np.float32)).size == 0
    noisy = _spoken(1.0) + 0.05 * np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE_HZ).astype(np.float32)
    assert before_speech(noisy).size == 0


def test_one_in_five_is_what_comes_before_speech_and_no_clip_holds_a_voice(quiet_start: list[Recording]) -> None:
    clips = nonspeech(15, quiet_start, np.random.default_rng(0))
    leads = [clip for clip in clips if clip.speech is not None]
    assert len(leads) == 3
    for clip in leads:
        assert clip.duration_s <= LONGEST_LEAD_S
        assert clip.speech is not None
        start = clip.speech.samples()[: clip.samples().size]
        # The recordings of this test speak at once: what is trained on is noise, and not their first sounds.
        assert not np.array_equal(clip.samples(), start)


def test_the_short_set_is_what_comes_before_speech() -> None:
    short = hallucination_sets([_spoken(0.2 + 0.01 * number) for number in range(30)])["short"]
    assert len(short) == CLIPS_PER_SET
    assert max(np.abs(clip).max() for clip in short) < 0.01
    assert "short" not in hallucination_sets([_spoken(0.0)])


def test_no_two_clips_and_no_two_seeds_are_alike() -> None:
    first, other = (nonspeech(6, [], np.random.default_rng(seed)) for seed in (0, 1))
    assert len({clip.samples().tobytes() for clip in [*first, *other]}) == 12
