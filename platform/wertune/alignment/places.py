"""Which sentences of a transcript are said where in what was heard: edit distance letter by letter, in order.

A sentence may be said nowhere, and what is heard between two may be in no transcript: both cost less a letter than
what is wrong inside of a sentence. So a strange sentence is not spread over its neighbours' words, and speech that
nobody claims is not drawn into a sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jiwer
import numpy as np
import numpy.typing as npt

# A sentence is placed where no more than two thirds of its letters are wrong; whether that is enough is judged later.
SKIP_COST, STRAY_COST = 0.35, 0.3
MOST_CELLS = 1 << 28  # of sentences x letters heard in one block: some 2 GB; a transcript that fits has blocks of few
MIN_SURE_LETTERS = 12

Codes = npt.NDArray[np.int32]
Costs = npt.NDArray[np.floating[Any]]
Columns = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Place:
    """The letters heard of a sentence, from `start` up to `end`, and how many edits they are away from it."""

    start: int
    end: int
    edits: int


def codes(letters: str) -> Codes:
    """Letters as numbers."""
    return np.array([ord(letter) for letter in letters], dtype=np.int32)


def place_sentences(sentences: Sequence[Sequence[str]], heard: Sequence[str]) -> list[Place | None]:
    """Where each sentence (its words, bare letters) is among the words heard; None where it is not."""
    letters = ["".join(words) for words in sentences]
    borders = [(0, 0), *sure_borders(sentences, heard), (len(sentences), sum(map(len, heard)))]
    whole, found = codes("".join(heard)), list[Place | None]()
    for (first, start), (last, end) in pairwise(borders):
        block = [codes(each) for each in letters[first:last]]
        placed = _placed(block, whole[start:end]) if len(block) * (end - start) <= MOST_CELLS else [None] * len(block)
        found += [place and Place(place.start + start, place.end + start, place.edits) for place in placed]
    return found


def sure_borders(sentences: Sequence[Sequence[str]], heard: Sequence[str]) -> list[tuple[int, int]]:
    """(sentence, letters heard before it) where one's last words and the next one's first were heard side by side.

    They cut what is compared into blocks of few sentences, so that hours take no more than minutes.
    """
    words = [word for sentence in sentences for word in sentence]
    if not words or not heard:
        return []
    sentence_of = [number for number, sentence in enumerate(sentences) for _ in sentence]
    before = np.concatenate(([0], np.cumsum([len(word) for word in heard])))
    found = []
    for chunk in jiwer.process_words(" ".join(words), " ".join(heard)).alignments[0]:
        if chunk.type != "equal":
            continue
        for at in range(chunk.ref_start_idx + 1, chunk.ref_end_idx):
            if sentence_of[at - 1] == sentence_of[at]:
                continue
            sides = words[chunk.ref_start_idx : at], words[at : chunk.ref_end_idx]
            if all(sum(map(len, side)) >= MIN_SURE_LETTERS for side in sides):
                found.append((sentence_of[at], int(before[chunk.hyp_start_idx + at - chunk.ref_start_idx])))
    return found


def _placed(sentences: Sequence[Codes], heard: Codes) -> list[Place | None]:
    """The cheapest places of sentences in one block."""
    width = heard.size + 1
    columns = np.arange(width)
    costs = STRAY_COST * columns
    steps = []
    for sentence in sentences:
        said, starts = _said(sentence, heard, costs)
        skipped = costs + SKIP_COST * sentence.size
        is_said = said < skipped
        ended = np.where(is_said, said, skipped)
        after, stray_from = _running(ended, STRAY_COST)
        steps.append((stray_from.astype(np.int32), is_said, starts.astype(np.int32), said - costs[starts]))
        costs = after
    found: list[Place | None] = []
    column = width - 1
    for stray_columns, is_said, start_columns, edits in reversed(steps):
        column = int(stray_columns[column])
        if not is_said[column]:
            found.append(None)
            continue
        start = int(start_columns[column])
        found.append(Place(start, column, round(edits[column])))
        column = start
    return found[::-1]


def _said(sentence: Codes, heard: Codes, before: Costs) -> tuple[Costs, Columns]:
    """For each end in `heard` the least cost of the sentence up to there, and where it starts then."""
    costs, starts = before.copy(), np.arange(before.size)
    for letter in sentence:
        longer, origin = costs + 1.0, starts.copy()
        swapped = costs[:-1] + (heard != letter)
        better = swapped <= longer[1:]
        longer[1:][better], origin[1:][better] = swapped[better], starts[:-1][better]
        costs, from_column = _running(longer, 1.0)
        starts = origin[from_column]
    return costs, starts


def _running(costs: Costs, each: float) -> tuple[Costs, Columns]:
    """The least cost at or before each column with `each` for every column since, and which column that is of."""
    columns = np.arange(costs.size)
    level = costs - each * columns
    least = np.minimum.accumulate(level)
    return least + each * columns, np.maximum.accumulate(np.where(level <= least, columns, 0))
