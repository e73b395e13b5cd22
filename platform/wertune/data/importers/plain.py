"""A folder of recordings, each with its transcript in a .txt of the same name beside it."""

from collections import Counter
from pathlib import Path

from wertune.base.errors import ManifestError
from wertune.data.importers.item import AUDIO_SUFFIXES, Columns, Fault, Found, Item, one_line, read_text


def read_plain(folder: Path, columns: Columns) -> Found:
    """A recording in a folder below is spoken by whom that folder is named after; directly in it, nobody is named."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())  # links to nothing are told, too
    recordings = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    if not recordings:
        raise ManifestError(f"{folder} holds no recording ({', '.join(sorted(AUDIO_SUFFIXES))}); give another folder")
    stems = Counter(path.with_suffix("") for path in recordings)
    for path in recordings:
        transcript = path.with_suffix(".txt")
        if stems[path.with_suffix("")] > 1:
            yield Fault(f"{path}:1", "several recordings share this name and so one transcript; rename them")
        elif not transcript.is_file():
            yield Fault(f"{path}:1", f"has no transcript {transcript.name}; write it or remove the recording")
        else:
            yield _item(folder, path, transcript)
    for path in files:
        if path.suffix == ".txt" and path.with_suffix("") not in stems:
            yield Fault(f"{path}:1", "has no recording of its name; add it or remove the transcript")


def _item(folder: Path, path: Path, transcript: Path) -> Item | Fault:
    place = f"{transcript}:1"
    try:
        text = one_line(read_text(transcript))
    except ManifestError as error:
        return Fault(place, str(error))
    speaker = "" if path.parent == folder else path.parent.name
    return Item(place, path, str(path.relative_to(folder)), text, speaker)
