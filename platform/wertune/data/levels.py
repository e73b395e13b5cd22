"""How loud a recording is, a hundredth of a second at a time."""

import numpy as np
import numpy.typing as npt

from wertune.data.audio import SAMPLE_RATE_HZ, Samples, frame_power

FRAMES_PER_SECOND = 100
LEAST = 1e-10
NOTHING_DB = -95.0  # of full scale: digital silence, and what rounding leaves
SILENCE_BELOW_PEAK_DB = 45.0  # what is further below the loudest of a recording is silence
QUIET_FRAMES = 10  # a pause is looked for where so many are quietest together: a stop's closure is shorter

Levels = npt.NDArray[np.float64]


def levels(samples: Samples) -> Levels:
    """The level of each 10 ms (frames,) in dB of full scale."""
    power = frame_power(samples, SAMPLE_RATE_HZ // FRAMES_PER_SECOND)
    return np.asarray(10 * np.log10(np.maximum(power, LEAST)))


def is_any_sound(samples: Samples) -> bool:
    """Whether a hundredth of a second of it is more than digital silence."""
    return bool(levels(samples).max(initial=NOTHING_DB) > NOTHING_DB)


def quietest(level: Levels, from_s: float, to_s: float) -> float:
    """The middle of the quietest tenth of a second that is whole within these times."""
    first, last = (round(each * FRAMES_PER_SECOND) for each in (from_s, to_s))
    first, last = max(0, min(first, level.size - QUIET_FRAMES)), min(level.size, max(last, first + QUIET_FRAMES))
    power = 10 ** (level[first:last] / 10)
    if power.size < QUIET_FRAMES:
        return (first + power.size / 2) / FRAMES_PER_SECOND
    sums = np.convolve(power, np.ones(QUIET_FRAMES), mode="valid")
    return (first + int(sums.argmin()) + QUIET_FRAMES / 2) / FRAMES_PER_SECOND
