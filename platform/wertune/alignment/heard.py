"""Texts with times as words and letters: what sentences and recordings are compared by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from wertune.alignment.places import Place
from wertune.base.text import is_mark, letter_by_letter, visible

Times = npt.NDArray[np.floating[Any]]


def bare(word: str) -> str:
    """A word as it is compared: letters, marks and digits, of no case."""
    return "".join(sign for sign in word.casefold() if sign.isalnum() or is_mark(sign))


def bare_words(text: str) -> list[str]:
    """Those of a text; of a script without blanks each letter is one."""
    return [word for word in map(bare, letter_by_letter(visible(text)).split()) if word]


@dataclass(frozen=True)
class Word:
    """A word that was heard, as it was written, and its times."""

    text: str
    start_s: float
    end_s: float

    @property
    def letters(self) -> str:
        return bare(self.text)


@dataclass(frozen=True)
class Item:
    """What is said from one time to another: a sentence of the transcript, by its number, or what is in none (-1)."""

    sentence: int
    text: str
    start_s: float
    end_s: float


STRAY = -1
MIN_STRAY_LETTERS = 3


def items(sentences: Sequence[str], places: Sequence[Place | None], words: Sequence[Word]) -> list[Item]:
    """The placed sentences and the words between them that are in none, in order of time.

    A word belongs where most of its letters do.
    """
    found = []
    for owner, run in groupby(zip(_owners(places, words), words, strict=True), key=lambda pair: pair[0]):
        said = [word for _, word in run]
        text = sentences[owner] if owner != STRAY else " ".join(word.text for word in said)
        if owner != STRAY or len(bare(text)) >= MIN_STRAY_LETTERS:
            found.append(Item(owner, text, said[0].start_s, said[-1].end_s))
    return found


def _owners(places: Sequence[Place | None], words: Sequence[Word]) -> Iterator[int]:
    spans = [(place.start, place.end, number) for number, place in enumerate(places) if place]
    at, first = 0, 0
    for word in words:
        end = at + len(word.letters)
        while first < len(spans) and spans[first][1] <= at:
            first += 1
        best, owner = (end - at) / 2, STRAY
        for start, stop, number in spans[first:]:
            if start >= end:
                break
            if (shared := min(end, stop) - max(at, start)) > best or (shared == best and owner == STRAY):
                best, owner = shared, number
        yield owner
        at = end


def timed_words(text: str, starts_s: Times, ends_s: Times) -> Iterator[Word]:
    """The words of a text of whose characters each has its times; what holds no letter is none."""
    at = 0
    for word in letter_by_letter(text).split():
        at = text.index(word, at)
        signs = [place for place in range(at, at + len(word)) if bare(text[place])]
        if signs:
            yield Word(word, float(starts_s[signs[0]]), float(ends_s[signs[-1]]))
        at += len(word)
