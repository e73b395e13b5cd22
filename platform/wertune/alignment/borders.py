"""Where one sentence's speech ends and the next one's begins, by the energy of what is heard between their letters."""

import numpy as np

from wertune.data.levels import FRAMES_PER_SECOND, Levels

PAD_S = 0.05
FLOOR_PERCENT, OVER_FLOOR_DB = 5, 8.0
NEAR_FRAMES, EDGE_S = 300, 1.0


def pause_s(level: Levels, at_s: float) -> float:
    """How long it is as quiet around a time as it is anywhere near; 0 where it is not quiet then. Edges are pauses."""
    at = round(at_s * FRAMES_PER_SECOND)
    if not 0 < at < level.size - 1:
        return EDGE_S
    near = level[max(0, at - NEAR_FRAMES) : at + NEAR_FRAMES]
    loud = level > np.percentile(near, FLOOR_PERCENT) + OVER_FLOOR_DB
    before, after = np.flatnonzero(loud[:at][::-1]), np.flatnonzero(loud[at:])
    first = at - (int(before[0]) if before.size else at)
    return (at + (int(after[0]) if after.size else level.size - at) - first) / FRAMES_PER_SECOND


def trimmed(level: Levels, from_s: float, to_s: float) -> tuple[float, float]:
    """The first and last sound between two pauses.

    Twice: what stands out of the pauses, and of that what stands out of a noise that lies under the speech itself.
    """
    start, end = from_s, to_s
    for _ in range(2):
        start, end = _sound(level, start, end)
    return max(from_s, start - PAD_S), min(to_s, end + PAD_S)


def _sound(level: Levels, from_s: float, to_s: float) -> tuple[float, float]:
    first, last = round(from_s * FRAMES_PER_SECOND), round(to_s * FRAMES_PER_SECOND)
    own = level[first:last]
    if own.size < 2:
        return from_s, to_s
    loud = own > min(np.percentile(own, FLOOR_PERCENT) + OVER_FLOOR_DB, np.percentile(own, 75))
    steady = np.flatnonzero(loud[:-1] & loud[1:])  # two frames in a row: no click
    if not steady.size:
        return from_s, to_s
    return (first + int(steady[0])) / FRAMES_PER_SECOND, (first + int(steady[-1]) + 2) / FRAMES_PER_SECOND
