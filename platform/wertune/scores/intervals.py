"""Two-sided 95 % confidence intervals of what is reported, over speakers where they are enough.

There is none where every draw gives the same rate, as where all or nothing is wrong: no width is not certainty.
"""

from collections.abc import Callable, Sequence

import numpy as np

from wertune.scores.bootstrap import BootstrapSettings, Floats, Interval, TooFewBlocks, corpus_rate, paired_difference
from wertune.scores.metrics import Scores, Utterance

# Each end by itself holds with 97.5 %, both together with 95 %.
TWO_SIDED = BootstrapSettings(confidence=0.975)

Count = Callable[[Utterance], int]


def wer_interval(scores: Scores) -> Interval | None:
    """Corpus WER and its ends; None where the clips are too few for any."""
    return _rate(scores, lambda u: u.words.errors, lambda u: u.words.length)


def cer_interval(scores: Scores) -> Interval | None:
    return _rate(scores, lambda u: u.characters.errors, lambda u: u.characters.length)


def recall_interval(scores: Scores) -> Interval | None:
    """Term recall and its ends; None too where no term is said."""
    return _rate(scores, _hits, lambda u: _hits(u) + sum(counts.misses for counts in u.terms.values()))


def precision_interval(scores: Scores) -> Interval | None:
    """Term precision and its ends; None too where no term is written."""
    return _rate(scores, _hits, lambda u: _hits(u) + sum(counts.false_alarms for counts in u.terms.values()))


def wer_change(before: Scores, after: Scores) -> Interval | None:
    """Corpus WER of `after` minus that of `before`, on the same clips, and its ends."""
    now, then = (_column(scores, lambda u: u.words.errors) for scores in (after, before))
    try:
        return paired_difference(now, then, _column(after, lambda u: u.words.length), _speakers(after), TWO_SIDED)
    except TooFewBlocks:
        return None


def _hits(utterance: Utterance) -> int:
    return sum(counts.hits for counts in utterance.terms.values())


def _rate(scores: Scores, part: Count, whole: Count) -> Interval | None:
    try:
        ends = corpus_rate(_column(scores, part), _column(scores, whole), _speakers(scores), TWO_SIDED)
    except TooFewBlocks:
        return None
    return ends if ends.low < ends.high else None


def _column(scores: Scores, count: Count) -> Floats:
    return np.array([count(utterance) for utterance in scores.utterances], np.float64)


def _speakers(scores: Scores) -> Sequence[str]:
    return [utterance.speaker for utterance in scores.utterances]
