"""A recording of any length read in pieces: of hours no more is held than of minutes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wertune.data.audio import SAMPLE_RATE_HZ, Samples, length_s, load_audio
from wertune.data.pauses import MAX_SEGMENT_S, split_where_quietest

BLOCK_S = 60.0


@dataclass(frozen=True)
class Window:
    """Samples (n,) at 16 kHz of a recording, from a time on."""

    start_s: float
    samples: Samples

    @property
    def end_s(self) -> float:
        return self.start_s + self.samples.size / SAMPLE_RATE_HZ


def duration_s(recording: Path) -> float:
    """How long it lasts, as its header says; raises AudioError where it cannot be decoded."""
    load_audio(recording, 0.0, 0.1)  # tells what is wrong with it
    return length_s(recording)


def windows(recording: Path, longest_s: float = MAX_SEGMENT_S) -> Iterator[Window]:
    """The whole recording in windows of at most `longest_s`, cut at pauses; raises AudioError."""
    lasts_s, at_s, start = duration_s(recording), 0.0, 0
    held = np.zeros(0, np.float32)
    while at_s < lasts_s - 1e-3:
        held = np.concatenate([held, load_audio(recording, at_s, BLOCK_S)])
        at_s += BLOCK_S
        *whole, held = split_where_quietest(held, longest_s)
        for piece in whole:
            yield Window(start / SAMPLE_RATE_HZ, piece)
            start += piece.size
    if held.size:
        yield Window(start / SAMPLE_RATE_HZ, held)


def part(recording: Path, start_s: float, end_s: float) -> Window:
    """What is heard from one time to another."""
    return Window(start_s, load_audio(recording, start_s, end_s - start_s))
