"""Windows to train on: neighbours in a recording, or clips joined by pauses over one floor of noise.

Of single sentences a Whisper forgets that recordings go on: it writes one, and leaves out the rest. Joined to windows
with timestamps they keep it from that (Timmel et al. 2024, arXiv:2412.15726).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

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
# Between two segments of a recording: of more, nobody knows that nothing is said there.
NEIGHBOURS_S = 2.0
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
    """What is heard one after the other in `duration_s` seconds; a last clip that goes on beyond them is cut off.

    Of neighbours in one recording that is their `stretch` of it as it is.
    """

    heard: tuple[Heard, ...]
    duration_s: float
    is_timed: bool
    stretch: Recording | None = None
    before: str = ""  # what is said before it, if the decoder is to read that

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

    def ids_before(self, whisper: Whisper, most: int) -> list[int]:
        """At most so many tokens of what is said before it, which the decoder reads ahead of the label's start."""
        return whisper.wording.before(self.before, most, self.language)

    def samples(self, of: Callable[[Heard], Samples], generator: np.random.Generator) -> Samples:
        """Float32 at 16 kHz: each clip as `of` has it, in its place; what lies between is noise as theirs.

        A stretch is heard as `of` has it.
        """
        if self.stretch:
            whole = of(replace(self.heard[0], clip=self.stretch))
            return whole[: round(self.duration_s * SAMPLE_RATE_HZ)]
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


def in_blocks(clips: Sequence[Recording], most_s: float) -> list[list[Recording]]:
    """The clips in their order, but neighbours in a recording behind one another, up to `most_s` seconds of it.

    Neighbours are segments of one language between which no other is, and no more than two seconds.
    """
    of_file = dict[Path, list[Recording]]()
    for clip in clips:
        of_file.setdefault(clip.path, []).append(clip)
    blocks = dict[str, list[Recording]]()  # by the place of the first of each
    for segments in of_file.values():
        ordered = sorted(segments, key=lambda segment: segment.row.offset)
        first = ordered[0]
        blocks[first.place] = [first]
        for before, after in pairwise(ordered):
            if _are_neighbours(before, after) and _end_s(after) - first.row.offset <= most_s:
                blocks[first.place].append(after)
            else:
                first = after
                blocks[first.place] = [first]
    return [blocks[clip.place] for clip in clips if clip.place in blocks]


def _are_neighbours(before: Recording, after: Recording) -> bool:
    gap_s = after.row.offset - _end_s(before)
    return 0 <= round(gap_s, 6) <= NEIGHBOURS_S and before.language == after.language


def _end_s(clip: Recording) -> float:
    return clip.row.offset + clip.duration_s


def draw_windows(
    clips: Sequence[tuple[Recording, int]],
    tokens: Sequence[int],
    config: TrainConfig,
    generator: np.random.Generator,
    follows: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[int], list[Window]]:
    """Which of an epoch's clips, each with its lap, stay single, and the windows that the others are joined to.

    A window is of one language, of at most `window_s` seconds, of no more clips than a batch has, and of no more tokens
    than Whisper writes; `tokens` are each clip's. A clip that is longer than `window_s` has one of its own. Of clips
    that come behind one another and, by the places in `follows`, are neighbours in a recording, windows are as it is.
    """
    runs = _runs([clip for clip, _ in clips], follows)
    is_joined = generator.random(len(runs)) < config.joined_ratio
    chosen = [runs[int(i)] for i in generator.permutation(len(runs)) if is_joined[i]]
    windows = list[Window]()
    for run in (run for run in chosen if len(run) > 1):
        waiting = [(*clips[i], tokens[i]) for i in run]
        while waiting:
            windows.append(_draw_window(waiting[: config.batch_size], config, generator, are_neighbours=True))
            waiting = waiting[windows[-1].clips :]
    alone = [run[0] for run in chosen if len(run) == 1]
    for language in sorted({clips[i][0].language for i in alone}):
        waiting = [(*clips[i], tokens[i]) for i in alone if clips[i][0].language == language]
        while waiting:
            windows.append(_draw_window(waiting[: config.batch_size], config, generator))
            waiting = waiting[windows[-1].clips :]
    return [i for run, is_taken in zip(runs, is_joined, strict=True) if not is_taken for i in run], windows


def _runs(clips: Sequence[Recording], follows: Mapping[str, str]) -> list[list[int]]:
    """Numbers of clips: neighbours that come behind one another together, each other one by itself."""
    runs = list[list[int]]()
    for i, clip in enumerate(clips):
        if i and follows.get(clips[i - 1].place) == clip.place:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _draw_window(
    waiting: Sequence[tuple[Recording, int, int]],
    config: TrainConfig,
    generator: np.random.Generator,
    are_neighbours: bool = False,
) -> Window:
    """Of the first of those that wait, as many as fit; one at least. Neighbours are as far apart as they are."""
    most_s = float(generator.uniform(min(SHORTEST_S, config.window_s), config.window_s))
    first = waiting[0][0]
    heard, end_s, room = list[Heard](), 0.0, MOST_TOKENS
    for clip, lap, tokens in waiting:
        if are_neighbours:
            start_s = clip.row.offset - first.row.offset
        else:
            start_s = end_s + (float(generator.uniform(*PAUSE_S)) if heard else 0.0)
        room -= tokens + TOKENS_OF_TIMES
        if heard and (start_s + clip.duration_s > most_s or room < 0):
            break
        heard.append(Heard(clip, lap, start_s, float(generator.uniform(*GAIN_DB))))
        end_s = heard[-1].end_s
    row = first.row.model_copy(update={"duration": end_s})
    stretch = replace(first, row=row, duration_s=end_s) if are_neighbours else None
    is_timed = bool(generator.random() < config.timestamps_ratio)
    if is_timed and len(heard) > 1 and generator.random() < CUT:
        end_s -= float(generator.uniform(*CUT_AT)) * heard[-1].clip.duration_s
    return Window(tuple(heard), end_s, is_timed, stretch)


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
