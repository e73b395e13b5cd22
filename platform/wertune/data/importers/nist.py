"""CTM and STM, what NIST's sclite scores by: words and segments of many recordings, each by its name."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from wertune.base.text import joined
from wertune.data.importers.cue import Cue, Cues, seconds
from wertune.data.importers.item import Fault, numbered

COMMENT = ";;"
PAUSE_S, LONGEST_S = 0.5, 30.0
_LABEL = re.compile(r"<[^<>\s]*,[^<>]*>\s*")  # <o,f0,female>: which part of the scores it is of
_ALTERNATIVES = re.compile(r"\{([^{}/]*)/[^{}]*\}")  # { gonna / going to / @ }: any of these is right


def read_stm(path: Path) -> Cues:
    """Segments, each with its speaker; of alternatives the first is what was said."""
    for place, line in numbered(path):
        if line.startswith(COMMENT):
            continue
        recording, _, speaker, start, end, text = [*line.split(maxsplit=5), *[""] * 6][:6]
        if not end:
            yield Fault(place, f"{line[:60]!r} is no segment: recording channel speaker start end text; mend the line")
            continue
        times = seconds(place, start, end)
        said = _ALTERNATIVES.sub(r"\1", _LABEL.sub("", text, count=1))
        yield times if isinstance(times, Fault) else Cue(place, said, *times, speaker=speaker, recording=recording)


def read_ctm(path: Path) -> Cues:
    """Words of a channel that no pause of 0.5 s parts, 30 s at most; where there are several, each is a speaker.

    Of a recording with a word that cannot be read nothing is taken: its text would lack that word.
    """
    channels: dict[str, dict[str, list[Cue]]] = defaultdict(lambda: defaultdict(list))
    damaged = set()
    for place, line in numbered(path):
        if line.startswith(COMMENT):
            continue
        recording, channel, start, duration, word = [*line.split(), *[""] * 5][:5]
        times = seconds(place, start, duration) if word else Fault(place, _no_word(line))
        if isinstance(times, Fault):
            damaged.add(recording)
            yield times
        else:
            cue = Cue(place, word, times[0], times[0] + times[1], recording=recording)
            channels[recording][channel].append(cue)
    for recording, words in channels.items():
        if recording not in damaged:
            for channel, said in words.items():
                yield from _utterances(said, f"{recording}-{channel}" if len(words) > 1 else "")


def _no_word(line: str) -> str:
    return f"{line[:60]!r} is no word: recording channel start duration word; mend the line"


def _utterances(words: Sequence[Cue], speaker: str) -> Iterator[Cue]:
    words = sorted(words, key=lambda word: word.start_s)
    first = 0
    while first < len(words):
        after = _end(words, first)
        said = words[first:after]
        text, end_s = joined(word.text for word in said), max(word.end_s for word in said)
        yield Cue(said[0].place, text, said[0].start_s, end_s, speaker, recording=said[0].recording)
        first = after


def _end(words: Sequence[Cue], first: int) -> int:
    """Before which word an utterance ends: the first after a pause, or after the widest where that comes too late."""

    def pause_s(number: int) -> float:
        return words[number].start_s - words[number - 1].end_s

    for number in range(first + 1, len(words)):
        if pause_s(number) >= PAUSE_S:
            return number
        if words[number].end_s - words[first].start_s > LONGEST_S:
            return max(range((first + number) // 2 + 1, number + 1), key=pause_s)
    return len(words)
