"""Augmentation of one waveform or one feature matrix: pure, and deterministic for a given generator."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wertune.base.config import AugmentConfig, Draw
from wertune.data.audio import SAMPLE_RATE_HZ as SAMPLE_RATE
from wertune.data.audio import Samples

_STFT_SAMPLES = 512
_MAINS_HZ = 50.0
_Effect = Callable[[Tensor, float, np.random.Generator], Tensor]


def _torchaudio() -> Any:
    """Its functions, imported where a clip is changed: who trains without augmentation needs no torchaudio."""
    import torchaudio.functional

    return torchaudio.functional


def augment(waveform: Tensor, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """(samples,) float32 at 16 kHz → the same kind, finite and within [-1, 1]; its length changes only with speed."""
    effects: tuple[tuple[Draw, _Effect], ...] = (
        (config.speed_factor, _speed),
        (config.pitch_semitones, _pitch),
        (config.noise_snr_db, add_coloured_noise),
        (config.gain_db, _gain),
        (config.band_limit_hz, _band_limit),
    )
    for draw, effect in effects:
        if generator.random() < draw.probability:
            waveform = effect(waveform, float(generator.uniform(draw.low, draw.high)), generator)
    return torch.nan_to_num(waveform).clamp(-1.0, 1.0)


def mask_features(features: Tensor, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """(mel bins, frames) → a copy with SpecAugment masks (Park et al. 2019, arXiv:1904.08779) at the mean value."""
    masked, fill = features.clone(), features.mean()
    bins, frames = features.shape
    for start, width in _spans(config.time_masks, config.time_mask_frames, frames, generator):
        masked[:, start : start + width] = fill
    for start, width in _spans(config.frequency_masks, config.frequency_mask_bins, bins, generator):
        masked[start : start + width] = fill
    return masked


def telephone(waveform: Tensor) -> Tensor:
    """(samples,) at 16 kHz as a telephone line passes it on: 300 to 3400 Hz, 8 kHz, 8-bit mu-law (ITU-T G.711)."""
    functional = _torchaudio()
    narrow = functional.resample(waveform, SAMPLE_RATE, SAMPLE_RATE // 2)
    narrow = functional.highpass_biquad(narrow, SAMPLE_RATE // 2, 300.0)
    narrow = functional.lowpass_biquad(narrow, SAMPLE_RATE // 2, 3400.0).clamp(-1.0, 1.0)
    coded = functional.mu_law_decoding(functional.mu_law_encoding(narrow, 256), 256)
    wide: Tensor = functional.resample(coded, SAMPLE_RATE // 2, SAMPLE_RATE)[: len(waveform)]
    return wide.clamp(-1.0, 1.0)


def add_coloured_noise(waveform: Tensor, snr_db: float, generator: np.random.Generator) -> Tensor:
    """White, pink or mains-hum noise under the waveform at `snr_db`; silence stays silence."""
    noise = torch.from_numpy(_coloured_noise(len(waveform), generator))
    noisy: Tensor = _torchaudio().add_noise(waveform, noise, torch.tensor(snr_db))
    return noisy


def _coloured_noise(samples: int, generator: np.random.Generator) -> Samples:
    """(samples,) float32 of about unit power."""
    colour = generator.choice(["white", "pink", "hum"])
    size = -(-samples // 1024) * 1024  # a transform of prime length takes several times as long
    noise = generator.standard_normal(size, dtype=np.float32)
    if colour == "white":
        return noise[:samples]
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20.0)
    pink = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(frequencies), size)[:samples].astype(np.float32)
    pink /= max(float(np.sqrt(np.mean(pink**2))), 1e-9)
    return pink + _hum(samples, generator) if colour == "hum" else pink


def _hum(samples: int, generator: np.random.Generator) -> Samples:
    """(samples,) float32: the mains frequency and four harmonics, each at a random phase."""
    time = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    phases = generator.uniform(0, 2 * np.pi, 5)
    tones = [np.sin(2 * np.pi * _MAINS_HZ * (k + 1) * time + phase) / (k + 1) for k, phase in enumerate(phases)]
    return np.asarray(np.sum(tones, axis=0), np.float32)


def _speed(waveform: Tensor, factor: float, _: np.random.Generator) -> Tensor:
    # In whole percent: torchaudio's speed() takes int(factor * rate), and a rate without a common divisor
    # makes a resampling kernel of hundreds of megabytes.
    faster: Tensor = _torchaudio().resample(waveform, max(1, round(100 * factor)), 100)
    return faster


def _pitch(waveform: Tensor, semitones: float, _: np.random.Generator) -> Tensor:
    """Stretched in time by a phase vocoder, then resampled back to the length it had."""
    percent = round(100 * 2 ** (semitones / 12))  # whole percent for the same reason as in _speed
    hop, window = _STFT_SAMPLES // 4, torch.hann_window(_STFT_SAMPLES)
    spectrum = torch.stft(waveform, _STFT_SAMPLES, hop, window=window, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, np.pi * hop, _STFT_SAMPLES // 2 + 1)[:, None]
    stretched = _torchaudio().phase_vocoder(spectrum, 100 / percent, advance)
    slow = torch.istft(stretched, _STFT_SAMPLES, hop, window=window, length=len(waveform) * percent // 100 or 1)
    shifted = _torchaudio().resample(slow, percent, 100)[: len(waveform)]
    return torch.nn.functional.pad(shifted, (0, len(waveform) - len(shifted)))


def _gain(waveform: Tensor, gain_db: float, _: np.random.Generator) -> Tensor:
    louder: Tensor = _torchaudio().gain(waveform, gain_db)
    return louder


def _band_limit(waveform: Tensor, limit_hz: float, _: np.random.Generator) -> Tensor:
    """Nothing above `limit_hz` (to the nearest 100 Hz) is left."""
    rate = max(200, round(limit_hz / 100) * 200)
    if rate >= SAMPLE_RATE:
        return waveform
    resample = _torchaudio().resample
    narrow: Tensor = resample(resample(waveform, SAMPLE_RATE, rate), rate, SAMPLE_RATE)[: len(waveform)]
    return narrow


def _spans(masks: int, longest: int, size: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """(start, width) of each mask; together they cover at most half, so that something is always left to hear."""
    widest = min(longest, size // (2 * masks)) if masks else 0
    widths = [int(generator.integers(0, widest + 1)) for _ in range(masks)]
    return [(int(generator.integers(0, size - width + 1)), width) for width in widths]
