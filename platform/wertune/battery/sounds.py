"""Sounds in which nobody speaks, made by formula and otherwise than those that are trained on."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from wertune.data.audio import SAMPLE_RATE_HZ, Samples

# ITU-T E.180 supplement 2 and Q.23; frequencies in Hz, seconds on and off.
_CALLS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "dial": ((350, 440), (4.0, 0.0)),
    "ringing-us": ((440, 480), (2.0, 4.0)),
    "ringing-uk": ((400, 450), (0.4, 0.2, 0.4, 2.0)),
    "ringing-sg": ((425,), (0.4, 0.2, 0.4, 2.0)),
    "busy": ((480, 620), (0.5, 0.5)),
    "congested": ((480, 620), (0.25, 0.25)),
    "hold-440": ((440,), (0.3, 3.7)),
    "hold-beeps": ((1000,), (0.15, 0.85)),
    "recording": ((1400,), (0.5, 4.5)),
}
_ROWS, _COLUMNS, _KEYS = (697, 770, 852, 941), (1209, 1336, 1477), "123456789*0#"
_DIALLED = ("62255322", "91234567", "1#", "5", "18002255322", "*100#")
_BREATHS, _BABBLES, _VOICES = 6, 8, 8
_BABBLE_S = (3.0, 8.0)


def sounds(seed: int) -> Mapping[str, Samples]:
    """Tones of telephones, keys that are pressed, breaths: float32 at 16 kHz, equal for equal seeds."""
    generator = np.random.default_rng(seed)
    calls = {f"tone-{name}": _cadence(tones, times) for name, (tones, times) in _CALLS.items()}
    dialled = {f"dtmf-{number}": _dialled(keys) for number, keys in enumerate(_DIALLED, 1)}
    breaths = {f"breath-{number}": _breath(generator) for number in range(1, _BREATHS + 1)}
    return {name: _faded(samples) for name, samples in {**calls, **dialled, **breaths}.items()}


def babble(speech: Sequence[Samples], seed: int) -> Mapping[str, Samples]:
    """Eight of the speakers at once, each backwards: voices, and no word; nothing where there are fewer clips."""
    if len(speech) < _VOICES:
        return {}
    generator, mixed = np.random.default_rng(seed), {}
    for number in range(1, _BABBLES + 1):
        length = round(generator.uniform(*_BABBLE_S) * SAMPLE_RATE_HZ)
        chosen = generator.choice(len(speech), _VOICES, replace=False)
        voices = [np.resize(speech[int(i)][::-1], length) for i in chosen]
        mixed[f"babble-{number}"] = _faded(np.sum(voices, axis=0) / np.sqrt(_VOICES))
    return mixed


def _times(seconds: float) -> npt.NDArray[np.float64]:
    return np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _tone(frequencies: Sequence[float], seconds: float) -> npt.NDArray[np.float64]:
    times = _times(seconds)
    waves = [np.sin(2 * np.pi * frequency * times) for frequency in frequencies]
    return np.asarray(0.1 * np.sum(waves, axis=0) / len(waves), np.float64)


def _cadence(frequencies: Sequence[float], times: Sequence[float]) -> npt.NDArray[np.float64]:
    """Twice on and off, by turns."""
    steps = [_tone(frequencies, s) if i % 2 == 0 else np.zeros(_times(s).size) for i, s in enumerate(times)]
    return np.concatenate(steps * 2)


def _dialled(keys: str) -> npt.NDArray[np.float64]:
    pressed = []
    for key in keys:
        row, column = divmod(_KEYS.index(key), len(_COLUMNS))
        pressed += [_tone((_ROWS[row], _COLUMNS[column]), 0.12), np.zeros(_times(0.08).size)]
    return np.concatenate([np.zeros(_times(0.3).size), *pressed, np.zeros(_times(0.3).size)])


def _breath(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """In and out twice: noise between 300 and 3000 Hz that swells and falls."""
    breaths = []
    for strength in (0.02, 0.035) * 2:
        seconds = generator.uniform(0.5, 1.2)
        swell = np.sin(np.pi * _times(seconds) / seconds) ** 2
        breaths += [strength * swell * _band(swell.size, 300, 3000, generator), np.zeros(_times(0.25).size)]
    return np.concatenate(breaths)


def _band(samples: int, low_hz: float, high_hz: float, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise of unit power between two frequencies."""
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ)
    noise = np.fft.irfft(np.where((frequencies > low_hz) & (frequencies < high_hz), spectrum, 0), samples)
    return noise / max(float(noise.std()), 1e-9)


def _faded(samples: npt.NDArray[np.float64] | Samples) -> Samples:
    """Without a click at either end, and nowhere over full scale."""
    edge = min(160, samples.size // 2)
    ramp = np.minimum(1, np.minimum(np.arange(samples.size), np.arange(samples.size)[::-1]) / max(1, edge))
    return np.clip(samples * ramp, -1, 1).astype(np.float32)
