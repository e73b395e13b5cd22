"""Lhotse's cuts (*cuts*.jsonl or .jsonl.gz), each a part of one recording with what is said in it."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from wertune.base.errors import AudioError, ManifestError
from wertune.base.faults import describe
from wertune.data.importers.cue import Cue, rows
from wertune.data.importers.item import Columns, Fault, Found, recording_at

CUTS = ("*cuts*.jsonl", "*cuts*.jsonl.gz")


class _Source(BaseModel):
    type: str
    source: str
    channels: tuple[int, ...] = (0,)


class _Recording(BaseModel):
    sources: tuple[_Source, ...]
    transforms: Any = None


class _Supervision(BaseModel):
    """Its times start at the cut's beginning."""

    id: str
    start: float
    duration: float
    text: str | None = None
    speaker: str | None = None
    language: str | None = None


class _Cut(BaseModel):
    type: Literal["MonoCut", "MultiCut"]
    id: str
    start: float
    recording: _Recording
    supervisions: tuple[_Supervision, ...]


class _Said(NamedTuple):
    audio: Path
    cue: Cue


def read_lhotse(source: Path, columns: Columns) -> Found:
    """The supervisions of all cuts; a path is absolute, or starts at the cuts' folder or where the command runs."""
    files = [source] if source.is_file() else cut_files(source)
    if not files:
        raise ManifestError(f"{source} has no {' or '.join(CUTS)}; give the file of the cuts, or its folder")
    said: dict[Path, list[Cue]] = {}
    for path in files:
        for number, line in enumerate(_lines(path), start=1):
            for found in _supervisions(path, f"{path}:{number}", line):
                if isinstance(found, Fault):
                    yield found
                else:
                    said.setdefault(found.audio, []).append(found.cue)
    for audio, cues in said.items():
        yield from rows(cues, audio, audio.name, columns)


def cut_files(folder: Path) -> list[Path]:
    """The files of cuts directly in a folder."""
    return sorted(path for pattern in CUTS for path in folder.glob(pattern))


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file that may be compressed; ManifestError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from (line.decode() for line in file)
    except (OSError, EOFError, ValueError) as error:  # ValueError: no UTF-8
        raise ManifestError(f"{path} cannot be read ({error}); write the cuts anew") from None


def _supervisions(path: Path, place: str, line: str) -> Iterator[_Said | Fault]:
    """What a cut says of its recording."""
    try:
        cut = _Cut.model_validate_json(line)
        audio = _audio(path, place, cut)
    except ValidationError as error:
        yield Fault(place, "; ".join(describe(fault, "the line") for fault in error.errors()))
        return
    except AudioError as error:
        yield Fault(place, str(error))
        return
    if isinstance(audio, Fault):
        yield audio
    elif not cut.supervisions:
        yield Fault(place, f"cut {cut.id} has no supervision and so no text; add one or remove the line")
    else:
        for each in cut.supervisions:
            start_s = cut.start + each.start
            who, language = each.speaker or "", each.language or ""
            told = f"{place}, supervision {each.id}"
            yield _Said(audio, Cue(told, each.text or "", start_s, start_s + each.duration, who, language))


def _audio(path: Path, place: str, cut: _Cut) -> Path | Fault:
    """The file that the cut is of."""
    sources = cut.recording.sources
    if len(sources) != 1 or sources[0].type != "file":
        kinds = " and ".join(source.type for source in sources) or "nothing"
        return Fault(place, f"the recording is of {kinds}, but must be one file; write it as a wav file")
    if cut.recording.transforms:
        return Fault(place, "the recording is changed on its way (transforms); write what is heard as a wav file")
    if cut.type == "MonoCut" and len(sources[0].channels) > 1:
        remedy = "write that channel as a recording of its own (sox IN OUT remix 1)"
        return Fault(place, f"the cut is of one channel of several, but channels are not told apart; {remedy}")
    if found := recording_at(path.parent, sources[0].source):
        return found
    rule = f"it may be absolute, or start at {path.parent} or where the command runs"
    return Fault(place, f"there is no file {sources[0].source}; {rule}")
