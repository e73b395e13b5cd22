"""How loud a recording is, a hundredth of a second at a time."""

import numpy as np
import numpy.typing as npt

from wertune.data.audio import SAMPLE_RATE_HZ, Samples, frame_power

FRAMES_PER_SECOND = 100
LEAST = 1e-10

Levels = npt.NDArray[np.float64]


def levels(samples: Samples) -> Levels:
    """The level of each 10 ms (frames,) in dB of full scale."""
    power = frame_power(samples, SAMPLE_RATE_HZ // FRAMES_PER_SECOND)
    return np.asarray(10 * np.log10(np.maximum(power, LEAST)))
