"""Clips in which nobody says a word: a transcriber should write (nearly) nothing for them. Made, not recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wertune.audio import SAMPLE_RATE_HZ, Samples
from wertune.augment import add_coloured_noise
from wertune.manifest import Recording

CLIPS_PER_SET = 20
SECONDS = (1.0, 12.0)
SHORT_SECONDS = (0.1, 0.45)
SILENCE_DBFS = (-90.0, -60.0)
NOISE_DBFS = (-45.0, -20.0)
# Wider than what is tested; short clips are likelier, since a long one costs as much as several with words.
TRAINING_SECONDS = (0.3, 14.0)
TRAINING_DBFS = (-95.0, -15.0)


def hallucination_sets(speech: Sequence[Samples], seed: int = 0) -> Mapping[str, list[Samples]]:
    """`silence` (a faint hiss), `noise` (white, pink or hum) and `short`: beginnings of `speech` under half a second.

    Equal arguments give equal samples, float32 at 16 kHz.
    """
    generator = np.random.default_rng(seed)
    sets = {
        "silence": [_hiss(_length(SECONDS, generator), SILENCE_DBFS, generator) for _ in range(CLIPS_PER_SET)],
        "noise": [_noise(_length(SECONDS, generator), generator) for _ in range(CLIPS_PER_SET)],
    }
    if speech:
        chosen = generator.choice(len(speech), size=min(CLIPS_PER_SET, len(speech)), replace=False)
        sets["short"] = [speech[int(i)][: _length(SHORT_SECONDS, generator)] for i in chosen]
    return sets


@dataclass(frozen=True)
class Nonspeech:
    """A clip to train on in which nobody says a word: noise, or the first sounds of `speech`."""

    duration_s: float
    seed: int
    speech: Recording | None = None
    text: str = ""

    def samples(self) -> Samples:
        """Equal for equal clips, float32 at 16 kHz."""
        length, generator = round(self.duration_s * SAMPLE_RATE_HZ), np.random.default_rng(self.seed)
        if self.speech:
            return self.speech.samples()[:length]
        hiss = torch.from_numpy(_hiss(length, TRAINING_DBFS, generator))
        noisy = add_coloured_noise(hiss, float(generator.uniform(-30.0, 20.0)), generator)
        return noisy.clamp(-1.0, 1.0).numpy()


def nonspeech(count: int, speech: Sequence[Recording], generator: np.random.Generator) -> list[Nonspeech]:
    """Clips to train on: two of three are noise of every colour and level, one is the beginning of a word."""
    clips = []
    for number in range(count):
        seed = int(generator.integers(2**32))
        if number % 3 == 2 and speech:
            seconds = float(generator.uniform(*SHORT_SECONDS))
            clips.append(Nonspeech(seconds, seed, speech[int(generator.integers(len(speech)))]))
        else:
            clips.append(Nonspeech(float(np.exp(generator.uniform(*np.log(TRAINING_SECONDS)))), seed))
    return clips


def _length(seconds: tuple[float, float], generator: np.random.Generator) -> int:
    return round(float(generator.uniform(*seconds)) * SAMPLE_RATE_HZ)


def _hiss(samples: int, dbfs: tuple[float, float], generator: np.random.Generator) -> Samples:
    amplitude = 10 ** (generator.uniform(*dbfs) / 20)
    return (amplitude * generator.standard_normal(samples)).astype(np.float32)


def _noise(samples: int, generator: np.random.Generator) -> Samples:
    quiet = torch.from_numpy(_hiss(samples, NOISE_DBFS, generator))
    noisy = add_coloured_noise(quiet, float(generator.uniform(-20.0, 0.0)), generator)
    return noisy.clamp(-1.0, 1.0).numpy()
