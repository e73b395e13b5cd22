"""Clips without a word to train on: as many as asked for, equal for equal seeds, and to be transcribed as nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.audio import SAMPLE_RATE_HZ
from wertune.hallucination import SHORT_SECONDS, TRAINING_SECONDS, nonspeech
from wertune.manifest import Recording

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


def test_one_in_three_is_the_beginning_of_a_word(make_recordings: MakeRecordings) -> None:
    speech = make_recordings(["yes", "no"])
    clips = nonspeech(9, speech, np.random.default_rng(0))
    beginnings = [clip for clip in clips if clip.speech is not None]
    assert len(beginnings) == 3
    for clip in beginnings:
        assert SHORT_SECONDS[0] <= clip.duration_s <= SHORT_SECONDS[1]
        assert clip.speech is not None
        samples = clip.samples()
        assert np.array_equal(samples, clip.speech.samples()[: samples.size])
        assert samples.size == pytest.approx(clip.duration_s * SAMPLE_RATE_HZ, abs=1)


def test_no_two_clips_and_no_two_seeds_are_alike() -> None:
    first, other = (nonspeech(6, [], np.random.default_rng(seed)) for seed in (0, 1))
    assert len({clip.samples().tobytes() for clip in [*first, *other]}) == 12
