"""Recordings of any length with time-coded transcripts, of the same name beside them or in a folder of their own."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from wertune.base.errors import ManifestError
from wertune.data.importers.annotations import is_labels, read_elan, read_labels, read_textgrid
from wertune.data.importers.cue import Cue, Cues, rows
from wertune.data.importers.item import AUDIO_SUFFIXES, Columns, Fault, Found, Note
from wertune.data.importers.nist import read_ctm, read_stm
from wertune.data.importers.subtitles import read_srt, read_vtt
from wertune.data.importers.whisper_json import is_whisper, read_whisper

READERS: dict[str, Callable[[Path], Cues]] = {
    ".srt": read_srt,
    ".vtt": read_vtt,
    ".textgrid": read_textgrid,
    ".eaf": read_elan,
    ".ctm": read_ctm,
    ".stm": read_stm,
    ".json": read_whisper,
    ".txt": read_labels,
}
# Files that end so may be something else.
_LOOKED_INTO = {".json": is_whisper, ".txt": is_labels}


def is_transcript(path: Path) -> bool:
    """Whether it is a transcript with times, by its name, and by its content where the name does not say."""
    suffix = path.suffix.lower()
    try:
        return suffix in READERS and path.is_file() and _LOOKED_INTO.get(suffix, Path.is_file)(path)
    except OSError:  # whoever reads it tells that
        return False


def read_timed(folder: Path, columns: Columns, transcripts: Path | None = None) -> Found:
    """Every cue of every transcript; CTM and STM name their recordings, of others it is that of the same name."""
    recordings = _Recordings(folder)
    root = transcripts or folder
    found = sorted(filter(is_transcript, [root] if root.is_file() else root.rglob("*")))
    if not found:
        raise ManifestError(f"{root} holds no transcript with times ({', '.join(READERS)}); give another --transcripts")
    for path in found:
        own = path.relative_to(root if path != root else root.parent).with_suffix("").as_posix()
        others, cues = _read(path, own)
        yield from others
        if not cues:
            recordings.claim(own, path)  # it has a transcript, if none of use
            if not any(isinstance(each, Fault) for each in others):
                yield Fault(f"{path}:1", "holds no segment with a text; transcribe it or remove the file")
        for name, said in cues.items():
            audio = recordings.claim(name, path)
            if isinstance(audio, str):
                yield Fault(said[0].place, audio)
            else:
                yield from rows(said, audio, audio.relative_to(folder).as_posix(), columns)
    for audio in recordings.without_transcript():
        yield Fault(f"{audio}:1", "has no transcript with times; add it, mend it or remove the recording")


def _read(path: Path, own: str) -> tuple[list[Fault | Note], dict[str, list[Cue]]]:
    """What a transcript holds, its cues by the recordings that they are of; what breaks it off is a fault."""
    others: list[Fault | Note] = []
    cues: dict[str, list[Cue]] = {}
    try:
        for each in READERS[path.suffix.lower()](path):
            if isinstance(each, Cue):
                cues.setdefault(each.recording or own, []).append(each)
            else:
                others.append(each)
    except ManifestError as error:
        line, _, problem = str(error).removeprefix(str(path)).partition(" ")  # the error begins with the place
        others.append(Fault(f"{path}{line.rstrip(':') or ':1'}", problem))
    return others, cues


class _Recordings:
    """The recordings of a folder by name, and the transcript that each was given."""

    def __init__(self, folder: Path) -> None:
        """ManifestError where there is none."""
        self._folder = folder
        self._found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        if not self._found:
            kinds = ", ".join(sorted(AUDIO_SUFFIXES))
            raise ManifestError(f"{folder} holds no recording ({kinds}); give another folder")
        self._exact = _by_name((path.relative_to(folder), path) for path in self._found)
        self._bare = _by_name((Path(path.name), path) for path in self._found)
        self._transcript: dict[Path, Path] = {}

    def claim(self, name: str, transcript: Path) -> Path | str:
        """The recording of that name, which is the transcript's from now on, or why it cannot be."""
        found = self._exact.get(name) or self._bare.get(name, [])
        first = {path: self._transcript.setdefault(path, transcript) for path in found}
        if not found:
            return f"there is no recording {name} in {self._folder}; add it or remove the transcript"
        if len(found) > 1:
            return f"{' and '.join(map(str, found))} are both called {name}; keep the one that this is said in"
        if first[found[0]] != transcript:
            return f"{found[0]} has a transcript already, {first[found[0]]}; keep one of the two"
        return found[0]

    def without_transcript(self) -> list[Path]:
        return [path for path in self._found if path not in self._transcript]


def _by_name(named: Iterable[tuple[Path, Path]]) -> Mapping[str, list[Path]]:
    """The recordings by names with and without suffix: whisper.cpp calls its files `talk.wav.srt`."""
    found: dict[str, list[Path]] = {}
    for name, path in named:
        for each in (name.with_suffix(""), name):
            found.setdefault(each.as_posix(), []).append(path)
    return found
