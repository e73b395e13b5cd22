"""Subtitles that can be read: what is said, in cues of two short lines and a few seconds, broken where speech is.

Which words a cue has is decided for all of a recording at once: the way of least cost from its first word to its last,
where a break in the middle of a phrase costs more than one at a comma, and that more than one behind a sentence.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    @property
    def ends(self) -> str:
        """Its last mark but quotes and brackets."""
        return self.text.rstrip(CLOSING)[-1:]


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
        for last in range(first + 1, len(units) + 1):
            group = units[first:last]
            if last > first + 1 and not _may_be_one(group):
                break
            cost = best[first] + _cost(group, units[last] if last < len(units) else None)
            if cost < best[last]:
                best[last], way[last] = cost, first
    found, at = [len(units)], len(units)
    while at:
        at = way[at]
        found.append(at)
    return found[::-1] if units else []


def _may_be_one(group: Sequence[_Unit]) -> bool:
    """Whether a cue may have these words: a longer group of the same beginning may not where this one may not."""
    too_late = group[-1].end_s - group[0].start_s > LONGEST_S
    return not too_late and group[-1].start_s - group[-2].end_s < LONG_PAUSE_S and bool(_lines(group))


def _cost(group: Sequence[_Unit], after: _Unit | None) -> float:
    last, cost = group[-1], CUE
    until_s = last.end_s + SHORTEST_S if after is None else after.start_s
    if until_s - group[0].start_s < SHORTEST_S:
        cost += SHORT
    cost += TWO_SENTENCES * sum(unit.ends in SENTENCE_ENDS for unit in group[:-1] if unit.ends)
    if after is None or after.start_s - last.end_s >= LONG_PAUSE_S or _is_mark(last, SENTENCE_ENDS):
        return cost + SENTENCE
    if _is_mark(last, CLAUSE_ENDS):
        return cost + CLAUSE
    return cost + (PAUSE if after.start_s - last.end_s >= PAUSE_S else PHRASE)


def _is_mark(unit: _Unit, marks: str) -> bool:
    return bool(unit.ends) and unit.ends in marks


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
            at_mark = _is_mark(group[at - 1], SENTENCE_ENDS + CLAUSE_ENDS)
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
