"""Augmentation: finite, bounded, never empty, deterministic, and doing what it says."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.base.config import AugmentConfig, Draw
from wertune.data.augment import add_coloured_noise, augment, mask_features, telephone

RATE = 16_000
OFF = Draw(probability=0, low=1, high=1)
NOTHING = AugmentConfig(
    speed_factor=OFF, pitch_semitones=OFF, noise_snr_db=OFF, gain_db=OFF, band_limit_hz=OFF, time_masks=0,
    frequency_masks=0,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On busy cores torch's threads wait for each other, by the second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cpu_seconds(work: Callable[[], object]) -> float:
    """What `work` costs, whoever else uses the core."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def always(low: float, high: float | None = None) -> Draw:
    return Draw(probability=1, low=low, high=low if high is None else high)


EVERYTHING = AugmentConfig(
    speed_factor=always(0.85, 1.2),
    pitch_semitones=always(-3, 3),
    noise_snr_db=always(0, 30),
    gain_db=always(-10, 20),
    band_limit_hz=always(1000, 9000),
)


def tone(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def peak_hertz(waveform: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
    return float(spectrum.argmax()) * RATE / len(waveform)


def power_above(waveform: torch.Tensor, hertz: float) -> float:
    spectrum = torch.fft.rfft(waveform).abs() ** 2
    frequencies = torch.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(spectrum[frequencies > hertz].sum() / spectrum.sum())


@settings(max_examples=60)
@given(samples=st.integers(1, 40_000), seed=st.integers(0, 2**32 - 1), loudness=st.sampled_from([0.0, 1e-6, 0.1, 1.0]))
def test_any_input_stays_finite_bounded_and_not_empty(samples: int, seed: int, loudness: float) -> None:
    waveform = torch.from_numpy(loudness * np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32))
    result = augment(waveform, EVERYTHING, np.random.default_rng(seed))
    assert result.dtype == torch.float32
    assert result.ndim == 1
    assert result.numel() >= 1
    assert torch.isfinite(result).all()
    assert result.abs().max() <= 1


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_equal_generators_give_equal_audio(seed: int) -> None:
    first = augment(tone(440), EVERYTHING, np.random.default_rng(seed))
    again = augment(tone(440), EVERYTHING, np.random.default_rng(seed))
    assert torch.equal(first, again)


def test_the_input_is_left_alone() -> None:
    waveform = tone(440)
    before = waveform.clone()
    augment(waveform, EVERYTHING, np.random.default_rng(0))
    assert torch.equal(waveform, before)


def test_no_effect_means_no_change() -> None:
    assert torch.equal(augment(tone(440), NOTHING, np.random.default_rng(0)), tone(440))


def test_silence_stays_silent() -> None:
    config = NOTHING.model_copy(update={"noise_snr_db": always(10), "gain_db": always(20)})
    assert augment(torch.zeros(RATE), config, np.random.default_rng(0)).abs().max() == 0


def test_speed_shortens_and_raises() -> None:
    faster = augment(tone(400), NOTHING.model_copy(update={"speed_factor": always(1.25)}), np.random.default_rng(0))
    assert len(faster) == round(RATE / 1.25)
    assert peak_hertz(faster) == pytest.approx(500, abs=3)


@pytest.mark.parametrize("factor", [0.9374, 1.0613, 1.15])
def test_awkward_speed_factors_cost_no_huge_resampling_kernel(factor: float) -> None:
    config = NOTHING.model_copy(update={"speed_factor": always(factor)})
    assert cpu_seconds(lambda: augment(tone(400, 4), config, np.random.default_rng(0))) < 0.5


@pytest.mark.parametrize("semitones", [-2.0, 2.0])
def test_pitch_moves_the_tone_and_keeps_the_length(semitones: float) -> None:
    config = NOTHING.model_copy(update={"pitch_semitones": always(semitones)})
    shifted = augment(tone(400), config, np.random.default_rng(0))
    assert len(shifted) == RATE
    assert peak_hertz(shifted) == pytest.approx(400 * 2 ** (semitones / 12), rel=0.02)


@settings(max_examples=20)
@given(snr_db=st.floats(0, 30), seed=st.integers(0, 2**32 - 1))
def test_noise_comes_at_the_asked_snr(snr_db: float, seed: int) -> None:
    clean = tone(440)
    noise = add_coloured_noise(clean, snr_db, np.random.default_rng(seed)) - clean
    measured = 10 * torch.log10(clean.square().sum() / noise.square().sum())
    assert float(measured) == pytest.approx(snr_db, abs=0.2)


def test_noise_has_several_colours() -> None:
    clean = tone(440)
    high = [power_above(add_coloured_noise(clean, 10, np.random.default_rng(seed)) - clean, 2000) for seed in range(20)]
    assert max(high) > 0.6  # white
    assert min(high) < 0.3  # pink or hum


def test_gain_is_in_decibels() -> None:
    config = NOTHING.model_copy(update={"gain_db": always(-6.0206)})
    assert augment(tone(440), config, np.random.default_rng(0)).abs().max() == pytest.approx(0.15, rel=0.01)


def test_band_limit_removes_what_is_above() -> None:
    noise = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32))
    config = NOTHING.model_copy(update={"band_limit_hz": always(3000)})
    assert power_above(augment(noise, config, np.random.default_rng(0)), 3300) < 2e-3


def test_telephone_keeps_speech_frequencies_only() -> None:
    noise = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32))
    line = telephone(noise)
    assert len(line) == RATE
    assert power_above(line, 4100) < 1e-3
    assert telephone(tone(1000)).square().mean() == pytest.approx(float(tone(1000).square().mean()), rel=0.1)
    assert telephone(tone(60)).square().mean() < 0.1 * float(tone(60).square().mean())


@given(frames=st.integers(1, 400), masks=st.integers(0, 10), width=st.integers(0, 200), seed=st.integers(0, 2**32 - 1))
def test_masks_hold_the_mean_and_never_cover_everything(frames: int, masks: int, width: int, seed: int) -> None:
    config = AugmentConfig(
        time_masks=masks, time_mask_frames=width, frequency_masks=masks, frequency_mask_bins=min(width, 40)
    )
    features = torch.from_numpy(np.random.default_rng(seed).standard_normal((80, frames)).astype(np.float32))
    before = features.clone()
    masked = mask_features(features, config, np.random.default_rng(seed))
    assert torch.equal(features, before)
    assert masked.shape == features.shape
    changed = masked != features
    assert torch.all(masked[changed] == features.mean())
    assert changed.float().mean() <= 0.75
    assert torch.equal(masked, mask_features(features, config, np.random.default_rng(seed)))


def test_no_masks_change_nothing() -> None:
    features = torch.rand(80, 100)
    assert torch.equal(mask_features(features, NOTHING, np.random.default_rng(0)), features)


def test_a_four_second_clip_takes_little_time() -> None:
    config = EVERYTHING.model_copy(update={"pitch_semitones": OFF})
    waveform, generator = tone(440, 4), np.random.default_rng(0)
    assert min(cpu_seconds(lambda: augment(waveform, config, generator)) for _ in range(10)) < 0.15  # some 20 ms
