"""Windows to train on: clips joined by pauses over one floor of noise, the time of each known exactly.

Of single sentences a Whisper forgets that recordings go on: it writes one, and leaves out the rest. Joined to windows
with timestamps they keep it from that (Timmel et al. 2024, arXiv:2412.15726).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from wertune.base.config import TrainConfig
from wertune.base.text import joined
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, frame_power
from wertune.data.manifest import Recording
from wertune.data.nonspeech import speech_span_s
from wertune.whisper.loops import MOST_TOKENS
from wertune.whisper.model import Whisper

SHORTEST_S = 5.0  # of what is drawn; a last window may be shorter
PAUSE_S = (0.2, 1.2)
GAIN_DB = (-8.0, 0.0)
# Of windows with times, how many end in the middle of their last clip; and where in it.
CUT, CUT_AT = 0.25, (0.3, 0.7)
# A clip's floor is what a tenth of its stretches of 20 ms are below.
FLOOR_WINDOW_S, FLOOR_SHARE, LEAST_FLOOR = 0.02, 0.1, 1e-5
FADE_S = 0.01
TOKENS_OF_TIMES = 2  # a clip's start and end


@dataclass(frozen=True)
class Heard:
    """A recording in a window, how often it was dealt out before, where it begins in seconds, and how loud."""

    clip: Recording
    lap: int
    start_s: float
    gain_db: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.clip.duration_s


@dataclass(frozen=True)
class Window:
    """What is heard one after the other in `duration_s` seconds; a last clip that goes on beyond them is cut off."""

    heard: tuple[Heard, ...]
    duration_s: float
    is_timed: bool

    @property
    def clips(self) -> int:
        return len(self.heard)

    @property
    def language(self) -> str:
        return self.heard[0].clip.language

    def label_ids(self, whisper: Whisper) -> list[int]:
        """The label: all that is said, with its times where the window is timed."""
        if not self.is_timed:
            return whisper.label_ids(joined(each.clip.text for each in self.heard), self.language)
        segments = []
        for each in self.heard:
            first_s, last_s = (each.start_s + at_s for at_s in _span_s(each.clip))
            segments.append((first_s, each.clip.text, last_s if last_s <= self.duration_s else None))
        return whisper.timed_label_ids(segments, self.language)

    def samples(self, of: Callable[[Heard], Samples], generator: np.random.Generator) -> Samples:
        """Float32 at 16 kHz: each clip as `of` has it, in its place; what lies between is noise as theirs."""
        waveforms = [of(each) * np.float32(10 ** (each.gain_db / 20)) for each in self.heard]
        at = [round(each.start_s * SAMPLE_RATE_HZ) for each in self.heard]
        length = max(start + waveform.size for start, waveform in zip(at, waveforms, strict=True))
        window = _floor(at, waveforms, length, generator)
        for start, waveform in zip(at, waveforms, strict=True):
            _lay(window, start, waveform)
        return window[: round(self.duration_s * SAMPLE_RATE_HZ)].clip(-1.0, 1.0)


@lru_cache(maxsize=100_000)
def _span_s(clip: Recording) -> tuple[float, float]:
    return speech_span_s(clip.samples())


def draw_windows(
    clips: Sequence[tuple[Recording, int]],
    tokens: Sequence[int],
    config: TrainConfig,
    generator: np.random.Generator,
) -> tuple[list[int], list[Window]]:
    """Which of an epoch's clips, each with its lap, stay single, and the windows that the others are joined to.

    A window is of one language, of at most `window_s` seconds, of no more clips than a batch has, and of no more tokens
    than Whisper writes; `tokens` are each clip's. A clip that is longer than `window_s` has one of its own.
    """
    is_joined = generator.random(len(clips)) < config.joined_ratio
    chosen = [int(i) for i in generator.permutation(len(clips)) if is_joined[i]]
    windows = list[Window]()
    for language in sorted({clips[i][0].language for i in chosen}):
        waiting = [(*clips[i], tokens[i]) for i in chosen if clips[i][0].language == language]
        while waiting:
            window = _draw_window(waiting[: config.batch_size], config, generator)
            waiting = waiting[window.clips :]
            windows.append(window)
    return [i for i in range(len(clips)) if not is_joined[i]], windows


def _draw_window(
    waiting: Sequence[tuple[Recording, int, int]], config: TrainConfig, generator: np.random.Generator
) -> Window:
    """Of the first of those that wait, as many as fit; one at least."""
    most_s = float(generator.uniform(min(SHORTEST_S, config.window_s), config.window_s))
    heard, end_s, room = list[Heard](), 0.0, MOST_TOKENS
    for clip, lap, tokens in waiting:
        start_s = end_s + (float(generator.uniform(*PAUSE_S)) if heard else 0.0)
        room -= tokens + TOKENS_OF_TIMES
        if heard and (start_s + clip.duration_s > most_s or room < 0):
            break
        heard.append(Heard(clip, lap, start_s, float(generator.uniform(*GAIN_DB))))
        end_s = heard[-1].end_s
    is_timed = bool(generator.random() < config.timestamps_ratio)
    if is_timed and len(heard) > 1 and generator.random() < CUT:
        end_s -= float(generator.uniform(*CUT_AT)) * heard[-1].clip.duration_s
    return Window(tuple(heard), end_s, is_timed)


def _floor(at: Sequence[int], waveforms: Sequence[Samples], length: int, generator: np.random.Generator) -> Samples:
    """Noise as loud as that of the clips around, which goes over from one to the next."""
    middles = [start + waveform.size / 2 for start, waveform in zip(at, waveforms, strict=True)]
    levels = np.interp(np.arange(length), middles, np.log([_level(waveform) for waveform in waveforms]))
    return np.asarray(np.exp(levels) * generator.standard_normal(length), np.float32)


def _level(waveform: Samples) -> float:
    """The amplitude of what is heard where nothing is said."""
    rms = np.sqrt(frame_power(waveform, round(FLOOR_WINDOW_S * SAMPLE_RATE_HZ)))
    return max(LEAST_FLOOR, float(np.quantile(rms, FLOOR_SHARE)) if rms.size else 0.0)


def _lay(window: Samples, start: int, waveform: Samples) -> None:
    """Puts the clip in the place of what is there, faded in and out within 10 ms."""
    weight = np.ones(waveform.size, np.float32)
    fade = min(round(FADE_S * SAMPLE_RATE_HZ), waveform.size // 2)
    weight[:fade] = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    weight[waveform.size - fade :] = np.linspace(1.0, 0.0, fade, dtype=np.float32)
    there = window[start : start + waveform.size]
    there += weight * (waveform - there)
