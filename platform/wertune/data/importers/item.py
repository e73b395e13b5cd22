"""What every form is read into: one utterance, with the place where it stands."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from wertune.base.errors import ManifestError
from wertune.base.files import NUL_RULE
from wertune.data.audio import is_recording
from wertune.data.rows import LANGUAGE_KEYS, parse_line
from wertune.data.rows import Fault as Fault  # for all forms

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
_BLANKS = re.compile(r"[^\S\x85]+")  # U+0085 is a blank to Python, and what a wrong encoding leaves to us


@dataclass(frozen=True)
class Item:
    """One utterance; `audio` is a file or its bytes, of which `offset_s` and `duration_s` take a part."""

    place: str
    audio: Path | bytes
    source: str
    text: str
    speaker: str = ""
    languages: Mapping[str, str] = field(default_factory=dict)  # by the columns that name one
    offset_s: float = 0.0
    duration_s: float | None = None
    part_place: str = ""  # where the part stands, if not with the rest
    origin: str = ""  # the file or split of the source that it is of, where a source may have several


@dataclass(frozen=True)
class Note:
    """What makes no row and is no fault: told with how often it was found."""

    text: str


Found = Iterator[Item | Fault | Note]


class Chosen(NamedTuple):
    """The columns of a table that are read; the speaker's is empty where there is none."""

    text: str
    speaker: str
    languages: tuple[str, ...]

    def said_by(self, row: Mapping[str, Any]) -> str:
        """Empty where nobody is named."""
        return _shown(row.get(self.speaker)) if self.speaker else ""

    def spoken_in(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What each column says of the row's language."""
        return {name: _shown(row.get(name)) for name in self.languages}


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True)
class Columns:
    """Which columns hold text, speaker and language; empty: those of the usual names."""

    text: str = ""
    speaker: str = ""
    language: str = ""

    def names(self, columns: list[str], place: str) -> Chosen:
        """The columns among these; ManifestError."""
        text = _chosen(self.text, TEXT_COLUMNS, columns, "text", place)
        if not text:
            known = f"must be one of {', '.join(TEXT_COLUMNS)}"
            raise ManifestError(
                f"{place}: no column of texts among {', '.join(columns)}, but it {known}; give --text-column"
            )
        speaker = _chosen(self.speaker, SPEAKER_COLUMNS, columns, "speaker", place)
        languages = tuple(name for name in LANGUAGE_COLUMNS if name in columns)
        if self.language:
            named = "" if self.language == NO_COLUMN else self.language
            languages = (_chosen(named, (), columns, "language", place),) if named else ()
        return Chosen(text, speaker, languages)


TEXT_COLUMNS = ("transcription", "text", "sentence", "transcript", "normalized_text", "raw_transcription")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk_id", "worker_id")
LANGUAGE_COLUMNS = (*LANGUAGE_KEYS, "locale")
NO_COLUMN = "-"  # in place of a language's: none is read

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _chosen(wanted: str, usual: tuple[str, ...], columns: list[str], what: str, place: str) -> str:
    if wanted and wanted not in columns:
        raise ManifestError(
            f"{place}: --{what}-column is {wanted}, but the columns are {', '.join(columns)}; give one of these"
        )
    return wanted or next((name for name in usual if name in columns), "")


def read_text(path: Path) -> str:
    """A file's text in UTF-8, or in UTF-16 where a byte-order mark says so; ManifestError."""
    encoding = "UTF-8"
    try:
        with path.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                encoding = "UTF-16"
        return path.read_text(encoding="utf-16" if encoding == "UTF-16" else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is no {encoding} text ({error}); save it in UTF-8") from None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error}); give the folder that holds it") from None


def one_line(text: str) -> str:
    """The text with one blank for each run of blanks and line feeds, and none at its ends."""
    return _BLANKS.sub(" ", text).strip(" ")


def numbered(path: Path) -> Iterator[tuple[str, str]]:
    """Place and line of every line that is not blank; only line feeds end one."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\r")


def csv_rows(path: Path, tabs: bool = False) -> Iterator[tuple[str, dict[str, str] | str]]:
    """Place and values of every row under the header, or what is wrong with the row; with tabs no quotes are read."""
    lines = StringIO(read_text(path), newline="")
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
    header: list[str] = []
    first = 1
    try:
        for values in reader:
            place, first = f"{path}:{first}", reader.line_num + 1
            if not any(values):
                continue
            if not header:
                header = values
                _check_header(header, place, tabs)
            elif len(values) != len(header):
                yield place, f"{len(values)} values, but the header has {len(header)}; mend the row's separators"
            else:
                yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        yield f"{path}:{reader.line_num}", f"not CSV ({error}); mend the row"


def _check_header(header: list[str], place: str, tabs: bool) -> None:
    """Raises ManifestError where the columns are not those that were meant."""
    other = next((name for sign, name in SEPARATORS.items() if sign in header[0]), None)
    if len(header) == 1 and other and not tabs:
        raise ManifestError(
            f"{place}: the columns are separated by {other}, but must be by commas; save it with commas"
        )
    twice = sorted(name for name, count in Counter(header).items() if name and count > 1)
    if twice:
        raise ManifestError(f"{place}: the columns {', '.join(twice)} stand there twice; name one of each otherwise")


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place and object of every line, or what is wrong with the line."""
    for place, line in numbered(path):
        try:
            values = parse_line(line)
        except ValueError as error:
            yield place, str(error)
            continue
        yield place, values if isinstance(values, dict) else "not a JSON object; a line holds one"


def table_item(
    root: Path, place: str, row: Mapping[str, Any], file: str, columns: Chosen, origin: str = ""
) -> Item | Fault:
    """The utterance of a table's row, its audio named relative to `root`, from which no path may lead away."""
    text, name = columns.text, row.get(file)
    if not isinstance(name, str) or not name:
        return Fault(place, f"{file} is {name!r}, but must name a recording; mend the row")
    if not isinstance(row.get(text), str):
        return Fault(place, f"{text} is {row.get(text)!r}, but must be the transcript; mend the row")
    if "\0" in name:
        return Fault(place, f"{file} is {name!r}, which {NUL_RULE}")
    if leads_out(root, name):
        return Fault(place, f"{file} is {name}, which leads out of {root}; put the recording into that folder")
    return Item(place, root / name, name, row[text], columns.said_by(row), columns.spoken_in(row), origin=origin)


def recording_at(folder: Path, name: str) -> Path | None:
    """The file of a path that is absolute, or starts at the folder or where the command runs; AudioError."""
    return next((path for path in (folder / name, Path(name)) if is_recording(path)), None)


def leads_out(root: Path, name: str) -> bool:
    """Whether `name`, which starts at `root`, is no path in that folder, links followed."""
    try:
        return not (root / name).resolve().is_relative_to(root.resolve())
    except RuntimeError:  # links that go round lead nowhere: that is told when the file is read
        return False
    except (OSError, ValueError):  # no name of any file
        return True
