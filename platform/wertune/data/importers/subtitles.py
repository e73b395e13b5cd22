"""SubRip (.srt) and WebVTT (.vtt): cues of a line of times and lines of text, a blank line between them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

from wertune.base.text import joined
from wertune.data.importers.cue import Cue, Cues
from wertune.data.importers.item import Fault, read_text

ARROW = "-->"
_CLOCK = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*{ARROW}\s*{_CLOCK}(?:\s.*)?")  # after them may stand where the cue is shown
# What subtitles are marked up with; `<unk>` is none of it. Braces hold what SubStation's players obey: {\an8}.
_MARKUP = re.compile(r"</?(?:[bcisuv]|font|lang|rt|ruby)(?:[\s.][^>]*)?>|<[\d:.]+>|\{\\[^}]*\}", re.IGNORECASE)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
_NO_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")  # W3C WebVTT, section 4.1


def read_srt(path: Path) -> Cues:
    """Nobody says who speaks."""
    for first, lines in _blocks(path):
        cue = _cue(path, first, lines)
        yield cue if isinstance(cue, Fault) else replace(cue, text=_MARKUP.sub("", cue.text))


def read_vtt(path: Path) -> Cues:
    """The speaker is who `<v Name>` names: one a cue."""
    for first, lines in _blocks(path):
        if not _NO_CUE.match(lines[0]) or any(ARROW in line for line in lines):
            cue = _cue(path, first, lines)
            yield cue if isinstance(cue, Fault) else _voiced(cue)


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """What stands between blank lines, with the number of its first line."""
    block: list[str] = []
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
        if line.strip():
            block.append(line.strip())
        elif block:
            yield number - len(block), block
            block = []


def _cue(path: Path, first: int, lines: list[str]) -> Cue | Fault:
    """Above the times may stand the cue's number or name; the text is as it is marked up."""
    timed = [number for number, line in enumerate(lines) if ARROW in line]
    if not timed or timed[0] > 1:
        rule = f"but a line such as 00:01:02.500 {ARROW} 00:01:04.000 must stand above it"
        problem = f"{lines[0][:60]!r} stands without times, {rule}; add one, or remove the blank line before the text"
        return Fault(f"{path}:{first}", problem)
    place, times = f"{path}:{first + timed[0]}", lines[timed[0]]
    if len(timed) > 1:
        other = first + timed[1]
        return Fault(place, f"the cue's text holds the times of another, at line {other}; put a blank line between")
    if not (found := _TIMES.fullmatch(times)):
        rule = f"must be as 00:01:02.500 {ARROW} 00:01:04.000"
        return Fault(place, f"the times are {times[:60]!r}, but {rule}; mend them")
    start, end = found.groups()[:4], found.groups()[4:]
    return Cue(place, joined(lines[timed[0] + 1 :]), _clock_s(*start), _clock_s(*end))


def _clock_s(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    ms = int((fraction or "").ljust(3, "0"))
    return (3_600_000 * int(hours or 0) + 60_000 * int(minutes) + 1000 * int(seconds) + ms) / 1000


def _voiced(cue: Cue) -> Cue | Fault:
    voices = list(dict.fromkeys(unescape(name).strip() for name in _VOICE.findall(cue.text)))
    if len(voices) > 1:
        return Fault(cue.place, f"{' and '.join(voices)} speak in one cue, but it must be one; give each a cue")
    return replace(cue, text=unescape(_MARKUP.sub("", cue.text)), speaker="".join(voices))
