"""What was written of a long recording, clip by clip: its text cut where one clip ends and the next begins, its times.

So a clip is counted in its place as it is alone, its speaker's clips are drawn together, and the two can be paired.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import numpy as np

from wertune.base.text import Normalise, TermFinder, closed_up, letter_by_letter, normaliser
from wertune.scores.alignment import MIN_SKIPPED_WORDS, Pair, align
from wertune.scores.metrics import Clip, Scores, score_utterance

# Sentences are normalised one by one: Whisper's normaliser would join numbers across a full stop.
_SENTENCE = re.compile(r"(?<=[.?!…])\s+|(?<=[。！？])")
Span = tuple[float, float]


def score_in_place(clips: Sequence[Clip], text: str, normalise: Normalise, finder: TermFinder) -> Scores:
    """Each clip of a long recording with the stretch of its `text` that was written for it."""
    known = [normaliser(clip.language) if clip.language else normalise for clip in clips]
    written = stretches([each(clip.reference) for each, clip in zip(known, clips, strict=True)], text, known[0])
    scored = [score_utterance(clip, each, normalise, finder) for clip, each in zip(clips, written, strict=True)]
    pairs = [align(k(u.reference), k(u.hypothesis)) for k, u in zip(known, scored, strict=True)]
    skipped = skipped_in_place(pairs)
    return Scores(tuple(replace(u, skipped_words=count) for u, count in zip(scored, skipped, strict=True)))


def stretches(references: Sequence[str], text: str, normalise: Normalise) -> list[str]:
    """The text cut into what was written for each of the normalised references, said one after the other.

    Cut where the whole has the fewest edits, between words as they are written.
    """
    pieces = list(_pieces(text, normalise))
    pairs = align(" ".join(references), " ".join(piece.normalised for piece in pieces))
    ends = list(accumulate(piece.size for piece in pieces))
    raw_ends = list(accumulate(len(piece.words) for piece in pieces))
    cuts = [0]
    for written in _written_ends(references, pairs)[:-1]:
        at = min(bisect_left(ends, written), len(pieces) - 1)
        before, raw_before = (ends[at - 1], raw_ends[at - 1]) if at > 0 else (0, 0)
        cut = raw_before + _nearest(pieces[at], written - before, normalise) if pieces else 0
        cuts.append(max(cut, cuts[-1]))
    words = [word for piece in pieces for word in piece.words]
    return [closed_up(" ".join(words[start:end])) for start, end in pairwise([*cuts, len(words)])]


class _Piece(NamedTuple):
    """A sentence: its words as they are written, and the whole of it normalised."""

    words: list[str]
    normalised: str

    @property
    def size(self) -> int:
        """In normalised words."""
        return len(self.normalised.split())


def _pieces(text: str, normalise: Normalise) -> Iterator[_Piece]:
    """Letters of scripts without blanks between words are words."""
    for sentence in _SENTENCE.split(text):
        if words := letter_by_letter(sentence).split():
            yield _Piece(words, normalise(sentence))


def _nearest(piece: _Piece, normalised: int, normalise: Normalise) -> int:
    """Behind how many of its words so many normalised ones stand, or as near as can be."""
    if normalised == piece.size:
        return len(piece.words)
    sizes = [len(normalise(" ".join(piece.words[:end])).split()) for end in range(len(piece.words) + 1)]
    return min(range(len(sizes)), key=lambda end: abs(sizes[end] - normalised))


def _written_ends(references: Sequence[str], pairs: Iterable[Pair]) -> list[int]:
    """Up to how many normalised words were written when each reference was said; what is added is the one before's."""
    said = list(accumulate(len(reference.split()) for reference in references))
    ends, heard, written = [0] * len(said), 0, 0
    number = 0
    for pair in pairs:
        if pair.said:
            while heard == said[number] and number < len(said) - 1:
                number += 1
            heard += 1
        written += bool(pair.written)
        ends[number] = written
    return [*accumulate(ends, max)]


def skipped_in_place(pairs: Sequence[Sequence[Pair]]) -> list[int]:
    """Of each clip the words in runs of three and more of which nothing was written, also across clips."""
    marked = [(number, pair) for number, each in enumerate(pairs) for pair in each]
    counts = [0] * len(pairs)
    for is_deleted, run in groupby(marked, lambda each: not each[1].written):
        numbers = [number for number, _ in run]
        if is_deleted and len(numbers) >= MIN_SKIPPED_WORDS:
            for number in numbers:
                counts[number] += 1
    return counts


def border_errors_s(said: Sequence[Span], written: Sequence[Span], lasts_s: float) -> list[Span]:
    """How far each start and end is from the nearest written one, in seconds; where none is written, all of it."""
    if not written:
        return [(lasts_s, lasts_s)] * len(said)
    starts, ends = (np.array(times) for times in zip(*written, strict=True))
    return [(float(np.abs(starts - first).min()), float(np.abs(ends - last).min())) for first, last in said]


def with_borders(scores: Scores, errors_s: Sequence[Span]) -> Scores:
    """The same, each clip in place with its errors, to the millisecond."""
    rounded = [tuple(round(each, 3) for each in pair) for pair in errors_s]
    both = zip(scores.utterances, rounded, strict=True)
    return Scores(tuple(replace(utterance, border_errors_s=pair) for utterance, pair in both))
