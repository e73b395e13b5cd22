"""Cutting what is too long to be heard at once: at its pauses, and where it has none, where it is quietest."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.levels import FRAMES_PER_SECOND, SILENCE_BELOW_PEAK_DB, Levels, levels

MAX_SEGMENT_S = 28.0
QUIET_SEARCH_S = 8.0
MIN_REST_S = 1.0
QUIET_WINDOW_S = 0.1
# A pause is nearer to the quietest than to the loudest that is heard around it, in dB, for so long.
PAUSE_S, NEAR_S, SMOOTH_FRAMES = 0.25, 15, 5
QUIET_PERCENT, LOUD_PERCENT, SHARE = 5, 90, 0.3
LEAST_RANGE_DB = 12.0  # where less lies between them, all is speech or all is noise
SHORTEST_S = 1.5  # between two cuts
PAD_S = 0.1  # of a pause is heard with the speech around it
# What is longer than this may hold somebody far away, unless it is so far below the loudest that it is silence.
HEARD_S = 1.0

Pause = tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """A part of a recording, from one cut to the next of so many samples; what is heard of it, and when that is."""

    size: int
    start_s: float
    end_s: float
    samples: Samples = field(repr=False, compare=False)


def split_at_pauses(samples: Samples, longest_s: float = MAX_SEGMENT_S) -> list[Piece]:
    """A recording (n,) that is longer than `longest_s` in pieces from pause to pause; a shorter one as it is.

    A sentence behind another in one piece is often left out, and one that is cut in its middle is written wrong. Of
    the pauses between pieces what is quiet is not heard. A piece that is too long is cut where it is quietest.
    """
    if samples.size <= round(longest_s * SAMPLE_RATE_HZ):
        return [Piece(samples.size, 0.0, samples.size / SAMPLE_RATE_HZ, samples)]
    level, length_s = levels(samples), samples.size / SAMPLE_RATE_HZ
    silence_db = float(level.max()) - SILENCE_BELOW_PEAK_DB
    found = pauses(level)
    at_s = {each: _place(each, level.size, length_s) for each in found}
    ends = [0.0, *_cuts([each for each in found if 0 < at_s[each] < length_s], length_s), length_s]
    left_out = {at_s[each]: each for each in found if _is_left_out(level, each, silence_db)}
    pieces = list[Piece]()
    for from_s, to_s in pairwise(ends):
        _, begin_s = left_out.get(from_s, (from_s, from_s))
        end_s, _ = left_out.get(to_s, (to_s, to_s))
        pieces += _pieces(samples, (from_s, to_s), (begin_s, end_s), longest_s)
    return pieces


def pauses(level: Levels) -> list[Pause]:
    """Stretches of a recording in which nobody speaks, from when to when, by its levels (frames,)."""
    padded = np.pad(level, SMOOTH_FRAMES // 2, mode="edge")
    smooth = np.convolve(padded, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES), mode="valid")
    quiet = np.zeros(smooth.size + 2, dtype=bool)
    for at in range(0, smooth.size, FRAMES_PER_SECOND):
        near = smooth[max(0, at - NEAR_S * FRAMES_PER_SECOND) : at + NEAR_S * FRAMES_PER_SECOND]
        low, high = np.percentile(near, (QUIET_PERCENT, LOUD_PERCENT))
        if high - low >= LEAST_RANGE_DB:
            here = smooth[at : at + FRAMES_PER_SECOND]
            quiet[at + 1 : at + 1 + here.size] = here < low + SHARE * (high - low)
    edges = np.flatnonzero(quiet[1:] != quiet[:-1])
    found = ((int(a) / FRAMES_PER_SECOND, int(b) / FRAMES_PER_SECOND) for a, b in edges.reshape(-1, 2))
    return [(from_s, to_s) for from_s, to_s in found if to_s - from_s >= PAUSE_S]


def _cuts(found: list[Pause], length_s: float) -> list[float]:
    """The middles of pauses, the longest first, that leave a second and a half between one and the next."""
    cuts = np.array([0.0, length_s])
    for pause in sorted(found, key=lambda each: each[0] - each[1]):
        at_s = _middle(pause)
        if np.abs(cuts - at_s).min() >= SHORTEST_S:
            cuts = np.append(cuts, at_s)
    return sorted(cuts[2:].tolist())


def _place(pause: Pause, frames: int, length_s: float) -> float:
    """Where it would be cut: in its middle, but at the recording's own ends there."""
    if pause[0] == 0:
        return 0.0
    return length_s if pause[1] >= frames / FRAMES_PER_SECOND else _middle(pause)


def _middle(pause: Pause) -> float:
    return (pause[0] + pause[1]) / 2


def _is_left_out(level: Levels, pause: Pause, silence_db: float) -> bool:
    first, last = (round(each * FRAMES_PER_SECOND) for each in pause)
    return pause[1] - pause[0] <= HEARD_S or bool(level[first:last].max(initial=silence_db) <= silence_db)


def _pieces(samples: Samples, cut_s: Pause, spoken_s: Pause, longest_s: float) -> Iterator[Piece]:
    """What is heard from one cut to the next; several pieces where that is too long."""
    first, last = (round(each * SAMPLE_RATE_HZ) for each in cut_s)
    spare_s = max(PAD_S, (MIN_REST_S - spoken_s[1] + spoken_s[0]) / 2)
    from_s, to_s = max(cut_s[0], spoken_s[0] - spare_s), min(cut_s[1], spoken_s[1] + spare_s)
    at, end = round(from_s * SAMPLE_RATE_HZ), round(to_s * SAMPLE_RATE_HZ)
    heard = split_where_quietest(samples[at:end], longest_s)
    for number, part in enumerate(heard):
        is_last = number == len(heard) - 1
        size = (last if is_last else at + part.size) - first
        begin_s = spoken_s[0] if number == 0 else at / SAMPLE_RATE_HZ
        end_s = spoken_s[1] if is_last else (at + part.size) / SAMPLE_RATE_HZ
        yield Piece(size, begin_s, end_s, part)
        first = at = at + part.size


def split_where_quietest(samples: Samples, longest_s: float = MAX_SEGMENT_S) -> list[Samples]:
    """Pieces of at most 28 s, cut where the last 8 s of each are quietest (of less, in proportion); short ones stay.

    No cut leaves a rest of less than 1 s: of so little Whisper makes up words.
    """
    longest = round(longest_s * SAMPLE_RATE_HZ)
    search = round(longest * QUIET_SEARCH_S / MAX_SEGMENT_S)
    pieces = []
    while samples.size > longest:
        end = min(longest, samples.size - round(MIN_REST_S * SAMPLE_RATE_HZ))
        cut = longest - search + _quietest(samples[longest - search : end])
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


def _quietest(samples: Samples) -> int:
    """The middle of the window of 0.1 s with the least energy."""
    window = round(QUIET_WINDOW_S * SAMPLE_RATE_HZ)
    energy = np.square(samples[: samples.size // window * window], dtype=np.float64).reshape(-1, window).sum(axis=1)
    return int(energy.argmin()) * window + window // 2
