"""Speech in a window that nothing was written for: without timestamps Whisper skips sentences of long windows."""

from collections.abc import Iterator, Sequence

import numpy as np

from wertune.alignment.heard import Word
from wertune.data.levels import FRAMES_PER_SECOND, Levels, quietest

# No word lasts longer than this and so much a letter: the rest of its time is of something else.
WORD_S, LETTER_S = 0.25, 0.11
LEAST_GAP_S, LEAST_SPEECH_S = 0.8, 0.35
SPEECH_PERCENT, BELOW_SPEECH_DB, LEAST_DB = 90, 22.0, -60.0
EDGE_S = 0.3


def unheard(words: Sequence[Word], level: Levels, start_s: float) -> Iterator[tuple[float, float]]:
    """Stretches of a window that begins at `start_s` which hold speech, but none of its words in order of time."""
    end_s = start_s + level.size / FRAMES_PER_SECOND
    loudest = np.percentile(level, SPEECH_PERCENT) if level.size else LEAST_DB
    loud = level > max(loudest - BELOW_SPEECH_DB, LEAST_DB)
    ends = [start_s, *(min(word.end_s, word.start_s + _most_s(word)) for word in words)]
    starts = [*(max(word.start_s, word.end_s - _most_s(word)) for word in words), end_s]
    for from_s, to_s in zip(ends, starts, strict=True):
        if to_s - from_s < LEAST_GAP_S:
            continue
        first, last = (round((each - start_s) * FRAMES_PER_SECOND) for each in (from_s, to_s))
        if np.count_nonzero(loud[first:last]) < LEAST_SPEECH_S * FRAMES_PER_SECOND:
            continue
        cuts = [start_s + quietest(level, each - EDGE_S - start_s, each + EDGE_S - start_s) for each in (from_s, to_s)]
        yield start_s if from_s == start_s else cuts[0], end_s if to_s == end_s else cuts[1]


def merged(words: Sequence[Word], again: Sequence[Sequence[Word]]) -> list[Word]:
    """The words of a window and those that were heard again in stretches of it, in order of time.

    What a stretch begins or ends with and its neighbours say, too, was said once: where the stretch has it.
    """
    said = list(words)
    for stretch in filter(None, again):
        at = sum(_middle_s(word) < _middle_s(stretch[0]) for word in said)
        beyond = sum(_middle_s(word) < _middle_s(stretch[-1]) for word in said)
        after = _shared([*stretch], said[max(at, beyond) :])
        before = _shared(said[:at], [*stretch])
        inside = said[at : max(at, beyond)]
        both = sorted([*inside, *stretch], key=_middle_s)
        said = [*said[: at - before], *both, *said[max(at, beyond) + after :]]
    return said


def _shared(first: Sequence[Word], second: Sequence[Word]) -> int:
    """How many words the one ends and the other begins with alike, two at most."""
    for count in (2, 1):
        ends, begins = [[word.letters for word in part] for part in (first[-count:], second[:count])]
        if len(ends) == count and ends == begins:
            return count
    return 0


def _middle_s(word: Word) -> float:
    return (word.start_s + word.end_s) / 2


def _most_s(word: Word) -> float:
    return WORD_S + LETTER_S * len(word.letters)
