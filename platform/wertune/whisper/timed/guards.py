"""What a model that writes times does wrong in a window, told by the window's energy and by what is written.

It says the same over and over, passes over speech, or writes words where nobody speaks.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from wertune.base.text import letter_by_letter
from wertune.data.levels import FRAMES_PER_SECOND, NOTHING_DB, SILENCE_BELOW_PEAK_DB, Levels
from wertune.whisper.loops import shrinks
from wertune.whisper.wording import Timed, Written

# Speech is so near the loudest that is heard, and stands out of the window's floor.
SPEECH_BELOW_PEAK_DB, FLOOR_PERCENT, OVER_FLOOR_DB = 35.0, 5, 8.0
# Of the loudest tenth of a second, below which there is silence, whatever is written for it.
PEAK_FRAMES = 10
SKIPPED_S = 1.5  # of speech that nothing is written for
# No text lasts longer than this a word, and so much a letter and a digit: the rest of its time is of something else.
WORD_S, LETTER_S, DIGIT_S = 0.25, 0.11, 0.5
# Nor is it said in less: nobody says more letters a second, but for a few whose time is wrong.
LETTERS_A_SECOND, SPARE_LETTERS = 30.0, 30
MOST_ALIKE = 2  # segments in a row: a sentence is said twice, but not three times over
# Whisper's own (Radford et al. 2022, section 4.5).
NO_SPEECH_PROB, LEAST_LOGPROB = 0.6, -1.0

Loud = npt.NDArray[np.bool_]


def peak_db(level: Levels) -> float:
    """The loudest tenth of a second: a click is shorter."""
    if not level.size:
        return -np.inf
    power = 10 ** (level / 10)
    count = min(PEAK_FRAMES, power.size)
    return float(10 * np.log10(np.convolve(power, np.full(count, 1 / count), mode="valid").max()))


def speech(level: Levels, peak: float) -> Loud:
    """Which hundredths of a second (frames,) of a window are as loud as speech, `peak` being the loudest anywhere."""
    if not level.size:
        return np.zeros(0, dtype=bool)
    return np.asarray(level > max(peak - SPEECH_BELOW_PEAK_DB, np.percentile(level, FLOOR_PERCENT) + OVER_FLOOR_DB))


def sounds(level: Levels, peak: float) -> Loud:
    """Which frames of a recording are no silence."""
    return np.asarray(level > max(peak - SILENCE_BELOW_PEAK_DB, NOTHING_DB))


def seconds(loud: Loud, from_s: float, to_s: float) -> float:
    """How much of a stretch is loud."""
    first, last = (max(0, round(each * FRAMES_PER_SECOND)) for each in (from_s, to_s))
    return float(np.count_nonzero(loud[first:last])) / FRAMES_PER_SECOND


def trimmed(loud: Loud, from_s: float, to_s: float) -> tuple[float, float]:
    """From the first sound of a stretch to its last one; all of it where there is none."""
    first = round(from_s * FRAMES_PER_SECOND)
    own = loud[first : round(to_s * FRAMES_PER_SECOND)].nonzero()[0]
    if not own.size:
        return from_s, to_s
    start_s, end_s = (first + int(own[0])) / FRAMES_PER_SECOND, (first + int(own[-1]) + 1) / FRAMES_PER_SECOND
    return max(from_s, start_s), min(to_s, end_s)


def most_s(text: str) -> float:
    """The longest that a text may last without its pauses."""
    words = letter_by_letter(text).split()
    signs = [sign for word in words for sign in word if sign.isalnum()]
    digits = sum(map(str.isnumeric, signs))
    return WORD_S * len(words) + LETTER_S * (len(signs) - digits) + DIGIT_S * digits


def loops(segments: Sequence[Timed], text: str, length_s: float) -> bool:
    """Whether the text of a window of so many seconds, or one of its segments, says the same over and over.

    Numbers that go on and on are no loop as text; but nobody could say them in their time.
    """
    if any(_is_too_fast(each, length_s) for each in segments):
        return True
    runs = (sum(1 for _ in run) for _, run in groupby(segments, key=lambda segment: segment.text.casefold()))
    return max(runs, default=0) > MOST_ALIKE or any(map(shrinks, [text, *(segment.text for segment in segments)]))


def _is_too_fast(segment: Timed, length_s: float) -> bool:
    lasts_s = (length_s if segment.end_s is None else segment.end_s) - segment.start_s
    return sum(map(str.isalnum, segment.text)) > SPARE_LETTERS + LETTERS_A_SECOND * lasts_s


def is_silence(written: Written) -> bool:
    """Whether the model itself thinks that nobody speaks, and doubts what it has written."""
    if written.no_speech_prob is None or not written.log_probabilities:
        return False
    return written.no_speech_prob > NO_SPEECH_PROB and written.avg_logprob < LEAST_LOGPROB


def passed_over(spans_s: Sequence[tuple[float, float]], loud: Loud, end_s: float) -> Iterator[tuple[float, float]]:
    """Stretches up to `end_s` between what is said, with more speech than may be skipped."""
    at_s = 0.0
    for start_s, last_s in (*spans_s, (end_s, end_s)):
        if seconds(loud, at_s, start_s) >= SKIPPED_S:
            yield at_s, start_s
        at_s = max(at_s, last_s)
