"""Praat's TextGrid, ELAN's .eaf and Audacity's labels: segments on tiers, of which each is a speaker's."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from wertune.base.errors import ManifestError
from wertune.data.importers.cue import Cue, Cues, seconds
from wertune.data.importers.item import AUDIO_SUFFIXES, Fault, Note, numbered, read_text

# What aligners put beside what was said, and names of tiers that name nobody.
_PARTS = re.compile(r"(?:.*[\W_])?(?:words?|phones?|phonemes?|syllables?)", re.IGNORECASE)
_NOBODY = re.compile(
    r"(?:default|orth?|orthography|sentences?|text|tier|transcripts?|transcriptions?|utterances?|)[\W_]*\d*",
    re.IGNORECASE,
)
LABEL = re.compile(r"-?\d+\.\d+\t-?\d+\.\d+(\t|$)")
_PARTS_ARE_LEFT_OUT = Note("tiers of words or sounds that are left out")


def _named(tier: str) -> str:
    """Whose tier it is; empty where its name is nobody's."""
    return "" if _NOBODY.fullmatch(tier) else tier


class _Value(NamedTuple):
    kind: str  # text, number or flag
    value: str
    line: int


def read_textgrid(path: Path) -> Cues:
    """Intervals with a text, in Praat's long or short form: Praat itself reads no more than the values of both."""
    values = _Values(path)
    if [values.text(), values.text()[:8]] != ["ooTextFile", "TextGrid"]:
        raise ManifestError(f"{path} is no TextGrid; save it in Praat as a text file")
    values.number(), values.number(), values.flag()
    for _ in range(values.count()):
        intervals, name = values.text() == "IntervalTier", values.text().strip()
        values.number(), values.number()
        parts = bool(_PARTS.fullmatch(name))
        if parts:
            yield _PARTS_ARE_LEFT_OUT
        for _ in range(values.count()):
            if not intervals:
                values.point()
            elif (cue := values.interval(_named(name))) and not parts:
                yield cue


class _Values:
    """The values of a TextGrid in their order; ManifestError where another kind is due."""

    _PATTERN = re.compile(r'"(?P<text>(?:[^"]|"")*)"|(?<!\S)(?P<number>-?\.?\d[^\s"]*)(?!\S)|<(?P<flag>exists|absent)>')

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = self._read(read_text(path))
        self._line = 1

    def _read(self, content: str) -> Iterator[_Value]:
        line, read = 1, 0
        for found in self._PATTERN.finditer(content):
            line, read = line + content.count("\n", read, found.start()), found.start()
            kind = str(found.lastgroup)
            yield _Value(kind, found[kind], line)

    def _next(self, kind: str) -> str:
        found = next(self._rest, None)
        if found is None or found.kind != kind:
            there = f"a {found.kind} ({found.value[:60]!r})" if found else "the end"
            line = found.line if found else self._line
            raise ManifestError(f"{self._path}:{line}: {there} stands where a {kind} is due; save it in Praat anew")
        self._line = found.line
        return found.value

    def text(self) -> str:
        return self._next("text").replace('""', '"')

    def number(self) -> str:
        return self._next("number")

    def flag(self) -> str:
        return self._next("flag")

    def count(self) -> int:
        value = self.number()
        if not value.isdecimal() or len(value) > 9:
            raise ManifestError(f"{self._path}:{self._line}: {value!r} stands where a count is due; mend the file")
        return int(value)

    def point(self) -> None:
        """A time and its mark, in which nobody says anything."""
        self.number(), self.text()

    def interval(self, speaker: str) -> Cue | Fault | None:
        """None where nothing is said: intervals have no gaps between them."""
        start, place = self.number(), f"{self._path}:{self._line}"
        end, text = self.number(), self.text()
        if not text.strip():
            return None
        times = seconds(place, start, end)
        return times if isinstance(times, Fault) else Cue(place, text, *times, speaker=speaker)


def read_elan(path: Path) -> Cues:
    """Annotations with times of their own; of tiers that depend on others (translations, words) none."""
    try:
        root = ElementTree.fromstring(path.read_bytes())  # XML names its own encoding
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ManifestError(f"{path} is no XML ({error}); save it in ELAN anew") from None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error}); give the folder that holds it") from None
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ManifestError(f"{path} is a {root.tag}, but must be ELAN's ANNOTATION_DOCUMENT; save it in ELAN anew")
    _refuse_offset(path, root)
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    for tier in root.iter("TIER"):
        if tier.get("PARENT_REF") is None:
            yield from _tier(path, tier, slots)


def _refuse_offset(path: Path, root: ElementTree.Element) -> None:
    for medium in root.iter("MEDIA_DESCRIPTOR"):
        origin, name = medium.get("TIME_ORIGIN", "0"), medium.get("MEDIA_URL", "")
        if origin != "0" and Path(name).suffix.lower() in AUDIO_SUFFIXES:
            rule = "times must be those of the recording; cut it there, and link it without an offset"
            raise ManifestError(f"{path}: {name} begins at {origin} ms of ELAN's time, but {rule}")


def _tier(path: Path, tier: ElementTree.Element, slots: dict[str | None, str | None]) -> Cues:
    name = tier.get("TIER_ID", "")
    if _PARTS.fullmatch(name):
        yield _PARTS_ARE_LEFT_OUT
        return
    speaker = tier.get("PARTICIPANT") or _named(name)
    for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
        place = f"{path}, tier {name}, annotation {annotation.get('ANNOTATION_ID')}"
        start, end = (slots.get(annotation.get(f"TIME_SLOT_REF{number}")) or "" for number in (1, 2))
        if not (start.isdecimal() and end.isdecimal()):
            yield Fault(place, f"the times are {start!r} and {end!r}, but must be milliseconds; mend its time slots")
            continue
        text = annotation.findtext("ANNOTATION_VALUE") or ""
        yield Cue(place, text, float(start) / 1000, float(end) / 1000, speaker)


def is_labels(path: Path) -> bool:
    """Whether the first line is a label of Audacity's: what else ends in .txt is text."""
    with path.open("rb") as file:
        return bool(LABEL.match(file.read(100).decode("utf-8", "replace").lstrip("\ufeff \n\r").partition("\n")[0]))


def read_labels(path: Path) -> Cues:
    """Start, end and text between tabs; a line that begins with a backslash tells of frequencies."""
    for place, line in numbered(path):
        if line.startswith("\\"):
            continue
        start, end, text = [*line.split("\t", 2), "", ""][:3]
        times = seconds(place, start, end)
        yield times if isinstance(times, Fault) else Cue(place, text, *times)
