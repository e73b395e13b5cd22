"""What every time-coded transcript is read into, a cue, and how the cues of a recording become rows."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wertune.data.importers.item import NO_COLUMN, Columns, Fault, Found, Item, Note, one_line
from wertune.data.segments import clashes

LATEST_S = 1e6
# What transcribers and NIST's scoring write for what is no speech: [noise], <unk>, {BREATH}, (%hesitation).
EVENT = re.compile(r"\[[^\[\]]*\]|<[^<>]*>|\{[^{}\s]*\}|\(%[^()]*\)|[♪♫]+|ignore_time_segment_in_scoring")
BOTH_ARE_HEARD = Note("segments that begin while another speaker's goes on, so that both are heard")


@dataclass(frozen=True)
class Cue:
    """What is said from one time to another; `recording` names whose times they are, if not the transcript's own."""

    place: str
    text: str
    start_s: float
    end_s: float
    speaker: str = ""
    language: str = ""
    recording: str = ""


Cues = Iterator[Cue | Fault | Note]


def seconds(place: str, start: str, other: str) -> tuple[float, float] | Fault:
    """The numbers of a start and an end or a duration, or what is wrong with them."""
    try:
        numbers = float(start), float(other)
    except ValueError:
        numbers = math.nan, math.nan
    if all(map(math.isfinite, numbers)):
        return numbers
    rule = "must be numbers of seconds, such as 62.35"
    return Fault(place, f"the times are {start!r} and {other!r}, but {rule}; mend them")


def span_fault(start_s: float, end_s: float) -> str:
    """What is wrong with a segment's times; empty where nothing is."""
    if 0 <= start_s < end_s < LATEST_S:
        return ""
    return f"the segment lasts from {start_s:g} to {end_s:g} s, but must start at 0 or later and end after its start"


def rows(cues: Iterable[Cue], audio: Path, source: str, columns: Columns) -> Found:
    """An item for each cue that says something, in order of time; one speaker's that overlap are at fault, both."""
    said: list[Cue] = []
    for cue in cues:
        if wrong := span_fault(cue.start_s, cue.end_s):
            yield Fault(cue.place, wrong)
            continue
        events = EVENT.findall(cue.text)
        yield from (Note(f"left out of texts, {event}") for event in events)
        text = one_line(EVENT.sub(" ", cue.text))
        if text or not events:
            said.append(replace(cue, text=text))
    said.sort(key=lambda cue: cue.start_s)
    found, mixed = clashes(said)
    others = dict(found)
    yield from [BOTH_ARE_HEARD] * mixed
    for cue in said:
        yield _clash(cue, others[cue]) if cue in others else _item(cue, audio, source, columns)


def _clash(cue: Cue, other: Cue) -> Fault:
    who = f"{cue.speaker!r} says both" if cue.speaker else "no speakers are named"
    own, others = (f"from {each.start_s:.2f} to {each.end_s:.2f} s" for each in (cue, other))
    return Fault(cue.place, f"the segment lasts {own}, but that of {other.place} {others}, and {who}; mend the times")


def _item(cue: Cue, audio: Path, source: str, columns: Columns) -> Item:
    named = {"language": cue.language} if cue.language and columns.language != NO_COLUMN else {}
    return Item(cue.place, audio, source, cue.text, cue.speaker, named, cue.start_s, cue.end_s - cue.start_s)
