"""Which voice says which text of a battery, and what the clip is called: the same for the same form."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from wertune.battery.form import BatteryForm, BatteryVoice, Line, Part


@dataclass(frozen=True)
class Spoken:
    """One text in one voice; `padded` it is kept twice, also with silence around it."""

    part: Part
    line: Line
    voice: BatteryVoice
    padded: bool

    @property
    def name(self) -> str:
        """Of the clip's file, without its ending: part, voice and a digest of what makes it sound as it does."""
        made_of = f"{self.line.said}|{self.voice.engine}|{self.voice.name}|{self.voice.speed}"
        return f"{self.part}-{self.voice.id}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"


def plan(form: BatteryForm, voices: Sequence[BatteryVoice]) -> Iterator[Spoken]:
    """Each text in as many voices as its part asks for: the engines in turn, and of each engine its voices in turn."""
    by_engine: dict[str, list[BatteryVoice]] = {}
    for voice in voices:
        by_engine.setdefault(voice.engine, []).append(voice)
    turns = cycle([cycle(own) for own in by_engine.values()])
    for part, spoken, line in form.lines():
        for turn in islice(turns, min(spoken.per_text, len(voices))):
            yield Spoken(part, line, next(turn), spoken.padded)
