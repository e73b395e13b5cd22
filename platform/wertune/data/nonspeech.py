"""Clips in which nobody says a word: a transcriber should write (nearly) nothing for them. Made, not recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from wertune.data.audio import SAMPLE_RATE_HZ, Samples, frame_power
from wertune.data.augment import add_coloured_noise
from wertune.data.manifest import Recording

CLIPS_PER_SET = 20
SECONDS = (1.0, 12.0)
SHORTEST_LEAD_S, LONGEST_LEAD_S = 0.05, 0.5
SILENCE_DBFS = (-90.0, -60.0)
NOISE_DBFS = (-45.0, -20.0)
# Wider than what is tested; short clips are likelier, since a long one costs as much as several with words.
TRAINING_SECONDS = (0.3, 14.0)
TRAINING_DBFS = (-95.0, -15.0)
TONE_HZ = (60.0, 3000.0)
TONE_DBFS = (-50.0, -12.0)
# Speech begins where a stretch of 10 ms is within so much of a recording's loudest; consonants before it are kept away.
ONSET_BELOW_PEAK_DB, ONSET_MARGIN_S, ONSET_WINDOW_S = 45.0, 0.03, 0.01
# A recording's speech is so far above its quietest 10 ms, and no further below its loudest.
SPEECH_BELOW_PEAK_DB, SPEECH_OVER_FLOOR_DB, FLOOR_SHARE, FLOOR_BELOW_PEAK_DB = 35.0, 8.0, 0.05, 10.0


def hallucination_sets(speech: Sequence[Samples], seed: int = 0) -> Mapping[str, list[Samples]]:
    """`silence` (a faint hiss), `noise` (white, pink or hum) and `short`: what comes before the first word of `speech`.

    Equal arguments give equal samples, float32 at 16 kHz.
    """
    generator = np.random.default_rng(seed)
    sets = {
        "silence": [_hiss(_length(SECONDS, generator), SILENCE_DBFS, generator) for _ in range(CLIPS_PER_SET)],
        "noise": [_noise(_length(SECONDS, generator), generator) for _ in range(CLIPS_PER_SET)],
    }
    order = (speech[int(i)] for i in generator.permutation(len(speech)))
    leads = (lead for lead in map(before_speech, order) if lead.size)
    if short := list(islice(leads, CLIPS_PER_SET)):
        sets["short"] = short
    return sets


def before_speech(samples: Samples) -> Samples:
    """What is heard before the first sound of speech, told by its energy; empty where that is under 50 ms.

    Where the noise of a recording comes near its speech, that is nothing: no voice may be taken for silence.
    """
    window = round(ONSET_WINDOW_S * SAMPLE_RATE_HZ)
    power = frame_power(samples, window)
    loud = power > power.max(initial=0.0) * 10 ** (-ONSET_BELOW_PEAK_DB / 10)
    end = (int(loud.argmax()) if loud.any() else 0) * window - round(ONSET_MARGIN_S * SAMPLE_RATE_HZ)
    return samples[: end if end >= SHORTEST_LEAD_S * SAMPLE_RATE_HZ else 0]


def speech_span_s(samples: Samples) -> tuple[float, float]:
    """Where the first sound of a clip's speech begins and its last one ends, told by energy; all of it where none is.

    What is so much quieter than the loudest is breath, room or line, and so is what hardly stands out of the clip's own
    noise: a segment's times are those of its words. A click is one stretch of 10 ms, speech at least two in a row.
    """
    window = round(ONSET_WINDOW_S * SAMPLE_RATE_HZ)
    power = frame_power(samples, window)
    if power.size < 2:
        return 0.0, samples.size / SAMPLE_RATE_HZ
    peak, floor = power.max(), np.quantile(power, FLOOR_SHARE)
    # Of a clip that speaks from end to end even the quietest stretch is speech.
    most = min(floor * 10 ** (SPEECH_OVER_FLOOR_DB / 10), peak * 10 ** (-FLOOR_BELOW_PEAK_DB / 10))
    loud = power > max(most, peak * 10 ** (-SPEECH_BELOW_PEAK_DB / 10))
    steady = np.flatnonzero(loud[:-1] & loud[1:])
    if not steady.size:
        return 0.0, samples.size / SAMPLE_RATE_HZ
    first, last = int(steady[0]), int(steady[-1]) + 2
    return first * window / SAMPLE_RATE_HZ, min(last * window, samples.size) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Nonspeech:
    """A clip to train on in which nobody says a word: noise, tones, clicks, or what is heard before `speech` begins."""

    duration_s: float
    seed: int
    speech: Recording | None = None
    text: str = ""
    language: str = ""

    def samples(self) -> Samples:
        """Equal for equal clips, float32 at 16 kHz."""
        if self.speech and (lead := before_speech(self.speech.samples())).size:
            return lead
        length, generator = round(self.duration_s * SAMPLE_RATE_HZ), np.random.default_rng(self.seed)
        hiss = torch.from_numpy(_hiss(length, TRAINING_DBFS, generator))
        noisy = add_coloured_noise(hiss, float(generator.uniform(-30.0, 20.0)), generator).numpy()
        sound = (None, _tones, _clicks)[int(generator.choice(3, p=(0.5, 0.3, 0.2)))]
        heard = noisy + sound(length, generator) if sound else noisy
        return np.asarray(np.clip(heard, -1.0, 1.0), np.float32)


def nonspeech(count: int, speech: Sequence[Recording], generator: np.random.Generator) -> list[Nonspeech]:
    """Clips to train on: four of five are noise, tones or clicks, one is what comes before a recording's speech.

    None holds a voice: to write nothing for the first half second of speech was seen to teach that short words are
    nothing ("Yes." and "No." were written by the base and erased by an adapter).
    """
    clips = []
    for number in range(count):
        seed, seconds = int(generator.integers(2**32)), float(np.exp(generator.uniform(*np.log(TRAINING_SECONDS))))
        if number % 5 == 4 and speech:
            clips.append(Nonspeech(min(seconds, LONGEST_LEAD_S), seed, speech[int(generator.integers(len(speech)))]))
        else:
            clips.append(Nonspeech(seconds, seed))
    return clips


def _tones(samples: int, generator: np.random.Generator) -> Samples:
    """Notes one after another, each of a few partials that die away or are held: what music and lines sound of."""
    sounds = np.zeros(samples, np.float32)
    start = 0
    while start < samples:
        length = min(samples - start, round(float(generator.uniform(0.05, 1.5)) * SAMPLE_RATE_HZ))
        time = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
        pitch = float(np.exp(generator.uniform(*np.log(TONE_HZ))))
        partials = [np.sin(2 * np.pi * pitch * (k + 1) * time) / (k + 1) for k in range(int(generator.integers(1, 6)))]
        level = 10 ** (float(generator.uniform(*TONE_DBFS)) / 20) * np.exp(-time * float(generator.uniform(0, 8)))
        sounds[start : start + length] = level * np.sum(partials, axis=0)
        start += length + round(float(generator.exponential(0.2)) * SAMPLE_RATE_HZ)
    return sounds


def _clicks(samples: int, generator: np.random.Generator) -> Samples:
    """Short bursts that die away within hundredths of a second, as of keys, steps and doors."""
    sounds = np.zeros(samples, np.float32)
    for start in generator.integers(0, max(samples, 1), size=1 + samples // 4000):
        length = min(samples - int(start), round(float(generator.uniform(0.002, 0.08)) * SAMPLE_RATE_HZ))
        decay = np.exp(-np.linspace(0, 6, max(length, 1)))[:length]
        level = 10 ** (float(generator.uniform(*TONE_DBFS)) / 20)
        sounds[start : start + length] += (level * decay * generator.standard_normal(length)).astype(np.float32)
    return sounds


def _length(seconds: tuple[float, float], generator: np.random.Generator) -> int:
    return round(float(generator.uniform(*seconds)) * SAMPLE_RATE_HZ)


def _hiss(samples: int, dbfs: tuple[float, float], generator: np.random.Generator) -> Samples:
    amplitude = 10 ** (generator.uniform(*dbfs) / 20)
    return (amplitude * generator.standard_normal(samples)).astype(np.float32)


def _noise(samples: int, generator: np.random.Generator) -> Samples:
    quiet = torch.from_numpy(_hiss(samples, NOISE_DBFS, generator))
    noisy = add_coloured_noise(quiet, float(generator.uniform(-20.0, 0.0)), generator)
    return noisy.clamp(-1.0, 1.0).numpy()
