"""Subtitles that can be read: what is said, in cues of two short lines and a few seconds, broken where speech is.

Which words a cue has is decided for all of a recording at once: the way of least cost from its first word to its last,
where a break in the middle of a phrase costs more than one at a comma, and that more than one behind a sentence.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from wertune.base.text import joined
from wertune.whisper.timed.words import spans
from wertune.whisper.transcription import Segment

LINE_CHARACTERS, LINES = 42, 2
LONGEST_S, SHORTEST_S = 7.0, 1.0
PAUSE_S, LONG_PAUSE_S = 0.3, 2.0  # a cue may be broken at the former, and is at the latter
# What a break costs, by what stands before it; and a cue, that there be few; one that is gone too soon; one in which a
# sentence ends.
SENTENCE, CLAUSE, PAUSE, PHRASE = 0.0, 1.0, 1.0, 4.0
CUE, SHORT, TWO_SENTENCES = 1.0, 3.0, 1.5
SENTENCE_ENDS, CLAUSE_ENDS, CLOSING = ".?!…。？！।", ",;:—–、，；：", "\"'”’)]»」』）"


@dataclass(frozen=True)
class Cue:
    """Lines, and how long they are shown."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """A word, or as much of one as a line holds; `joint` is what stands between it and the one before."""

    text: str
    joint: str
    start_s: float
    end_s: float

    @cached_property
    def columns(self) -> int:
        """How wide it is."""
        return width(self.text)

    def is_behind(self, marks: str) -> bool:
        """Whether it ends with one of these marks; quotes and brackets may stand behind."""
        last = self.text.rstrip(CLOSING)[-1:]
        return bool(last) and last in marks


def cues(segments: Sequence[Segment]) -> list[Cue]:
    """The text of all segments in their order: none overlap, at most two lines of 42 characters, and 7 s."""
    units = list(_in_order(_units(segments)))
    groups = [units[first:last] for first, last in pairwise(_borders(units))]
    return list(_timed(groups))


def _units(segments: Sequence[Segment]) -> Iterator[_Unit]:
    """The words of all segments; where their times are not known, by their share of the segment's characters."""
    before = ""
    for segment in segments:
        text, at = segment.text, 0
        for number, (first, last) in enumerate(spans(text)):
            joint = text[at:first] if at else joined([before, text])[len(before) : -len(text)] if before else ""
            times = _times(segment, number, first, last)
            yield from _cut(text[first:last], joint, *times)
            at = last
        before = text or before


def _times(segment: Segment, number: int, first: int, last: int) -> tuple[float, float]:
    if segment.words:
        return segment.words[number].start_s, segment.words[number].end_s
    per_character_s = (segment.end_s - segment.start_s) / max(1, len(segment.text))
    return segment.start_s + first * per_character_s, segment.start_s + last * per_character_s


def _cut(text: str, joint: str, start_s: float, end_s: float) -> Iterator[_Unit]:
    """A word that no line holds is cut."""
    parts = [""]
    for sign in text:
        if width(parts[-1] + sign) > LINE_CHARACTERS:
            parts.append("")
        parts[-1] += sign
    step_s = (end_s - start_s) / len(parts)
    for number, part in enumerate(parts):
        yield _Unit(part, "" if number else joint, start_s + number * step_s, start_s + (number + 1) * step_s)


def _in_order(units: Iterator[_Unit]) -> Iterator[_Unit]:
    """No word before the one before has ended."""
    at_s = 0.0
    for unit in units:
        start_s = max(at_s, unit.start_s)
        at_s = max(start_s, unit.end_s)
        yield _Unit(unit.text, unit.joint, start_s, at_s)


def width(text: str) -> int:
    """How many characters of Latin it is as wide as: those of Han and kana are twice as wide, marks are none."""
    return sum(0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def _borders(units: Sequence[_Unit]) -> list[int]:
    """Where cues begin, and the end: the way of least cost."""
    best, way = [0.0] + [float("inf")] * len(units), [0] * (len(units) + 1)
    for first in range(len(units)):
        for last, sentences in _ends(units, first):
            cost = best[first] + _cost(units, first, last) + TWO_SENTENCES * sentences
            if cost < best[last]:
                best[last], way[last] = cost, first
    found, at = [len(units)], len(units)
    while at:
        at = way[at]
        found.append(at)
    return found[::-1] if units else []


def _ends(units: Sequence[_Unit], first: int) -> Iterator[tuple[int, int]]:
    """Where a cue that begins there may end, each with how many sentences end within it."""
    room, lines, sentences = LINE_CHARACTERS, 1, 0
    for last in range(first, len(units)):
        unit = units[last]
        if last > first:
            before = units[last - 1]
            if unit.end_s - units[first].start_s > LONGEST_S or unit.start_s - before.end_s >= LONG_PAUSE_S:
                return
            sentences += before.is_behind(SENTENCE_ENDS)
            if unit.columns + width(unit.joint) <= room:
                room -= width(unit.joint)
            else:
                room, lines = LINE_CHARACTERS, lines + 1
        room -= unit.columns
        if lines > LINES:
            return
        yield last + 1, sentences


def _cost(units: Sequence[_Unit], first: int, last: int) -> float:
    """Of a cue of those from the first on, up to but not with the last."""
    end, after = units[last - 1], units[last] if last < len(units) else None
    until_s = end.end_s + SHORTEST_S if after is None else after.start_s
    cost = CUE + SHORT * (until_s - units[first].start_s < SHORTEST_S)
    if after is None or after.start_s - end.end_s >= LONG_PAUSE_S or end.is_behind(SENTENCE_ENDS):
        return cost + SENTENCE
    if end.is_behind(CLAUSE_ENDS):
        return cost + CLAUSE
    return cost + (PAUSE if after.start_s - end.end_s >= PAUSE_S else PHRASE)


def _text(group: Sequence[_Unit]) -> str:
    return "".join((unit.joint if number else "") + unit.text for number, unit in enumerate(group)).strip()


def _lines(group: Sequence[_Unit]) -> tuple[str, ...]:
    """The words in one line, or in two of like width, rather broken behind a mark; none where they do not fit."""
    if width(whole := _text(group)) <= LINE_CHARACTERS:
        return (whole,)
    fitting = list[tuple[float, tuple[str, str]]]()
    for at in range(1, len(group)):
        first, second = _text(group[:at]), _text(group[at:])
        if max(width(first), width(second)) <= LINE_CHARACTERS:
            at_mark = group[at - 1].is_behind(SENTENCE_ENDS + CLAUSE_ENDS)
            fitting.append((abs(width(first) - width(second)) - LINE_CHARACTERS / 2 * at_mark, (first, second)))
    return min(fitting)[1] if fitting else ()


def _timed(groups: Sequence[Sequence[_Unit]]) -> Iterator[Cue]:
    """The cues with their times: what would be gone too soon stays into the pause behind it, or comes earlier."""
    before_s = 0.0
    for number, group in enumerate(groups):
        start_s, end_s = group[0].start_s, min(group[-1].end_s, group[0].start_s + LONGEST_S)
        after_s = groups[number + 1][0].start_s if number + 1 < len(groups) else start_s + LONGEST_S
        end_s = max(end_s, min(start_s + SHORTEST_S, after_s))
        start_s = min(start_s, max(before_s, end_s - SHORTEST_S))
        yield Cue(start_s, end_s, _lines(group))
        before_s = end_s
