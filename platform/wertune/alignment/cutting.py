"""Placed sentences cut out of the recording: followed word by word in windows of several, borders in their pauses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from wertune.alignment.borders import pause_s, trimmed
from wertune.alignment.heard import STRAY, Item, bare
from wertune.alignment.recording import Window, part
from wertune.base.text import visible
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.levels import FRAMES_PER_SECOND, QUIET_FRAMES, Levels, levels, quietest

LONGEST_GROUP_S = 26.0
BESIDE_S = 1.5  # heard before and after a group, where its first and last sound are looked for
FEW_LETTERS, PAUSE_S = 15, 0.2
LONG_WORD = 15  # letters that may be one where no blank stands between words
SLACK_S = 0.25  # by which a letter's time may be wrong


@dataclass(frozen=True)
class Timed:
    """A text of a window: of each of its characters when it begins and ends, and the log-probability of its token."""

    text: str
    starts_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]
    log_probabilities: npt.NDArray[np.float64]


def untimed(text: str, time_s: float) -> Timed:
    """The text with each of its characters at one time, certain: to be filled in."""
    times = np.full(len(text), time_s)
    return Timed(text, times, times.copy(), np.zeros(len(text)))


class Follower(Protocol):
    """What finds the letters of a text in its window: the base's attention, or a CTC model."""

    def follow(self, window: Window, text: str) -> Timed: ...


@dataclass(frozen=True)
class Cut:
    """A sentence of the transcript by its number, from its first to its last sound."""

    sentence: int
    start_s: float
    end_s: float
    log_probability: float  # the mean of its letters
    beside: int = 0  # letters of strays that no pause parts from it: a part of it may be among them, or they in it


def cut_out(recording: Path, items: Sequence[Item], follower: Follower, lasts_s: float) -> Iterator[Cut]:
    """Each sentence among the items, in order of time."""
    for group in groups(items):
        window, level = _window(recording, items, group, lasts_s)
        heard = items[group.before : group.after]
        texts = [visible(item.text) for item in heard]
        timed = follower.follow(window, " ".join(texts))
        spans = list(_letters(timed.text, texts))
        pauses = [_between(timed, last, first, level, window.start_s) for (_, last), (first, _) in pairwise(spans)]
        borders = [0.0, *pauses, window.end_s - window.start_s]
        lengths_s = [pause_s(level, border) for border in borders]
        for number in range(group.first, group.last):
            at = number - group.before
            if heard[at].sentence != STRAY:
                begin, end, beside = _own(heard, at, lengths_s)
                start_s, end_s = trimmed(level, borders[begin], max(borders[begin], borders[end]))
                score = float(timed.log_probabilities[spans[at][0] : spans[at][1] + 1].mean())
                yield Cut(heard[at].sentence, window.start_s + start_s, window.start_s + end_s, score, beside)


def _own(heard: Sequence[Item], at: int, lengths_s: Sequence[float]) -> tuple[int, int, int]:
    """Of a sentence at that place its first border and its last, and how many letters of strays run into it.

    `lengths_s` are those of the pauses at the borders: before each of the items, and behind the last.
    """
    first, last, beside = at, at + 1, 0
    for stray, near, far in ((at - 1, at, at - 1), (at + 1, at + 1, at + 2)):
        if not 0 <= stray < len(heard) or heard[stray].sentence != STRAY or lengths_s[near] >= PAUSE_S:
            continue
        if _is_misheard(heard[stray], lengths_s[far]):
            first, last = min(first, stray), max(last, stray + 1)
        else:
            beside += len(bare(heard[stray].text))
    return first, last, beside


def _is_misheard(item: Item, far_s: float) -> bool:
    """Whether words beside a sentence, without a pause, are its own, heard as others: they are few, a pause beyond."""
    return len(bare(item.text)) <= FEW_LETTERS and far_s >= PAUSE_S


class Group(NamedTuple):
    """Items from `first` up to `last`, heard with those from `before` up to `after`, so that each has a neighbour."""

    before: int
    first: int
    last: int
    after: int


def groups(items: Sequence[Item], longest_s: float = LONGEST_GROUP_S) -> Iterator[Group]:
    """All items, as many at once as last no longer than a window with their neighbours."""

    def lasts_s(from_item: int, to_item: int) -> float:
        return items[to_item - 1].end_s - items[from_item].start_s

    first = 0
    while first < len(items):
        last = first + 1
        before = first - 1 if first and lasts_s(first - 1, last) <= longest_s else first
        while last < len(items) and lasts_s(before, min(last + 2, len(items))) <= longest_s:
            last += 1
        after = last + 1 if last < len(items) and lasts_s(before, last + 1) <= longest_s else last
        yield Group(before, first, last, after)
        first = last


def _window(recording: Path, items: Sequence[Item], group: Group, lasts_s: float) -> tuple[Window, Levels]:
    """What the group is heard in, from pause to pause, and the level of its frames."""
    begin, end = items[group.before].start_s, items[group.after - 1].end_s
    earliest = max(items[group.before - 1].end_s - SLACK_S if group.before else 0.0, begin - BESIDE_S, 0.0)
    latest = min(items[group.after].start_s + SLACK_S if group.after < len(items) else lasts_s, end + BESIDE_S)
    heard = part(recording, min(earliest, begin), max(latest, end))
    level, zero = levels(heard.samples), heard.start_s
    from_s = quietest(level, earliest - zero, begin + SLACK_S - zero)
    to_s = quietest(level, end - SLACK_S - zero, latest - zero)
    first, last = round(from_s * FRAMES_PER_SECOND), round(to_s * FRAMES_PER_SECOND)
    last = max(last, first + QUIET_FRAMES)
    size = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
    return Window(zero + first / FRAMES_PER_SECOND, heard.samples[first * size : last * size]), level[first:last]


def _between(timed: Timed, last: int, first: int, level: Levels, zero: float) -> float:
    """The pause between the character `last` of one text and `first` of the next, in seconds of `level`."""
    word, next_word = _word_start(timed.text, last), _word_end(timed.text, first)
    from_s = min((timed.starts_s[word] + timed.ends_s[last]) / 2, timed.starts_s[last])
    to_s = max((timed.starts_s[first] + timed.ends_s[next_word]) / 2, timed.ends_s[first])
    return quietest(level, float(from_s) - zero, float(to_s) - zero)


def _word_start(text: str, place: int) -> int:
    return max(text.rfind(" ", 0, place) + 1, place - LONG_WORD)


def _word_end(text: str, place: int) -> int:
    end = text.find(" ", place)
    return min((len(text) if end < 0 else end) - 1, place + LONG_WORD)


def _letters(text: str, parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The first and last letter of each part of the text."""
    at = 0
    for each in parts:
        signs = [place for place in range(at, at + len(each)) if bare(text[place])]
        yield signs[0], signs[-1]
        at += len(each) + 1
