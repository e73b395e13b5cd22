"""Placed sentences cut out of the recording: followed word by word in windows of several, borders in their pauses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wertune.alignment.borders import levels, quietest, trimmed
from wertune.alignment.heard import STRAY, Item, bare
from wertune.alignment.recording import Window, part
from wertune.data.audio import SAMPLE_RATE_HZ

LONGEST_GROUP_S = 26.0
BESIDE_S = 1.5  # heard before and after a group, where its first and last sound are looked for
SLACK_S = 0.25  # by which a letter's time may be wrong


@dataclass(frozen=True)
class Timed:
    """A text of a window: of each of its characters when it begins and ends, and the log-probability of its token."""

    text: str
    starts_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]
    log_probabilities: npt.NDArray[np.float64]


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


def cut_out(recording: Path, items: Sequence[Item], follower: Follower, lasts_s: float) -> Iterator[Cut]:
    """Each sentence among the items, in order of time."""
    for first, last in _groups(items):
        before_s = items[first - 1].end_s if first else 0.0
        after_s = items[last].start_s if last < len(items) else lasts_s
        yield from _cut_group(recording, items[first:last], before_s, after_s, follower, lasts_s)


def _groups(items: Sequence[Item]) -> Iterator[tuple[int, int]]:
    """First and last (not in it) of neighbours that last no longer than a window together."""
    first = 0
    for number in range(1, len(items) + 1):
        if number == len(items) or items[number].end_s - items[first].start_s > LONGEST_GROUP_S:
            yield first, number
            first = number


def _cut_group(
    recording: Path, group: Sequence[Item], before_s: float, after_s: float, follower: Follower, lasts_s: float
) -> Iterator[Cut]:
    begin, end = group[0].start_s, group[-1].end_s
    heard = part(recording, max(0.0, begin - BESIDE_S), min(lasts_s, end + BESIDE_S))
    level, zero = levels(heard.samples), heard.start_s
    # From the quietest place between this group and what is said before and after it.
    from_s = quietest(level, max(before_s - SLACK_S, begin - BESIDE_S) - zero, begin + SLACK_S - zero)
    to_s = quietest(level, end - SLACK_S - zero, min(after_s + SLACK_S, end + BESIDE_S) - zero)
    window = Window(zero + from_s, heard.samples[round(from_s * SAMPLE_RATE_HZ) : round(to_s * SAMPLE_RATE_HZ)])
    timed = follower.follow(window, " ".join(item.text for item in group))
    spans = list(_letters(timed.text, [item.text for item in group]))
    cuts = [from_s]
    for (_, last), (first, _) in zip(spans, spans[1:], strict=False):
        cuts.append(_between(timed, last, first, level, zero))
    cuts.append(to_s)
    for item, (first, last), start, stop in zip(group, spans, cuts, cuts[1:], strict=False):
        if item.sentence != STRAY:
            sound = trimmed(level, start, max(start, stop))
            score = float(timed.log_probabilities[first : last + 1].mean())
            yield Cut(item.sentence, zero + sound[0], zero + sound[1], score)


def _between(timed: Timed, last: int, first: int, level: npt.NDArray[np.float64], zero: float) -> float:
    """The pause between the character `last` of one text and `first` of the next, in seconds of `level`."""
    word, next_word = _word_start(timed.text, last), _word_end(timed.text, first)
    from_s = min(timed.starts_s[word] + SLACK_S, timed.starts_s[last])
    to_s = max(timed.ends_s[next_word] - SLACK_S, timed.ends_s[first])
    return quietest(level, float(from_s) - zero, float(to_s) - zero)


def _word_start(text: str, place: int) -> int:
    return text.rfind(" ", 0, place) + 1


def _word_end(text: str, place: int) -> int:
    end = text.find(" ", place)
    return (len(text) if end < 0 else end) - 1


def _letters(text: str, parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The first and last letter of each part of the text."""
    at = 0
    for each in parts:
        signs = [place for place in range(at, at + len(each)) if bare(text[place])]
        yield signs[0], signs[-1]
        at += len(each) + 1
