"""How sure it is that a segment is its sentence and no more: by its letters, its likelihood and its length."""

import math
import statistics
from collections.abc import Sequence

from wertune.alignment.heard import bare

# Chosen on recordings joined from the demo's train and validation clips (tests/trials/align.py).
LEAST_LOG_PROBABILITY = -5.0  # a hundredth of sentences that tiny.en heard are less likely
USUAL_LENGTH, LENGTH_SLOPE = (0.7, 1.35), 8.0  # three in a hundred are shorter, and three longer
PAUSE_S = 0.3  # what a segment lasts beside its letters
LETTERS_OF_DIGIT, LETTERS_OF_INITIAL = 4.0, 2.5


def score(letters: int, edits: float, beside: int, log_probability: float, length: float) -> float:
    """From 0 to 1: the share of a sentence's letters that was heard, less where it is unlikely or of an odd length.

    `beside` are letters of no sentence that no pause parts from it: they may be a part of it that it lacks.
    `length` is that of the segment, of what is usual in its recording for such a sentence.
    """
    share = max(0.0, 1 - (edits + 2 * beside) / letters)
    odd = max(0.0, USUAL_LENGTH[0] - length, length - USUAL_LENGTH[1])
    return share * math.exp(min(0.0, log_probability - LEAST_LOG_PROBABILITY) - LENGTH_SLOPE * odd)


def lengths(sentences: Sequence[str], durations_s: Sequence[float]) -> list[float]:
    """How long each lasts, of what is usual among these."""
    sounds = [_sounds(sentence) for sentence in sentences]
    each_s = [(lasts_s - PAUSE_S) / count for lasts_s, count in zip(durations_s, sounds, strict=True)]
    usual_s = max(0.01, statistics.median(each_s)) if each_s else 0.0
    return [lasts_s / (PAUSE_S + usual_s * count) for lasts_s, count in zip(durations_s, sounds, strict=True)]


def _sounds(sentence: str) -> float:
    """Letters as they are said: of digits and of abbreviations' capitals each is a word."""
    total = 0.0
    for word in sentence.split():
        letters = bare(word)
        spelt = len(letters) > 1 and word.strip("'\".,;:!?()").isupper() and letters.isalpha()
        total += sum(LETTERS_OF_DIGIT if sign.isdigit() else LETTERS_OF_INITIAL if spelt else 1.0 for sign in letters)
    return max(1.0, total)
