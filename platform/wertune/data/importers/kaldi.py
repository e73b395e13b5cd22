"""A Kaldi data folder: wav.scp, text, utt2spk, utt2lang where it is there, and segments where recordings have parts."""

from dataclasses import replace
from pathlib import Path

from wertune.base.errors import AudioError, ManifestError
from wertune.data.importers.cue import span_fault
from wertune.data.importers.item import NO_COLUMN, Columns, Fault, Found, Item, numbered, recording_at

NEEDED = ("wav.scp", "text", "utt2spk")
LANGUAGES = "utt2lang"


def read_kaldi(folder: Path, columns: Columns) -> Found:
    """The utterances of `text`; a recording's path is absolute, or starts at the folder or where the command runs."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ManifestError(f"{folder} lacks {', '.join(missing)}; give a Kaldi data folder, such as data/train")
    bad: list[Fault] = []
    texts = _table(folder / "text", bad, may_be_empty=True)
    speakers = _table(folder / "utt2spk", bad)
    named = (folder / LANGUAGES).is_file() and columns.language != NO_COLUMN
    languages = _table(folder / LANGUAGES, bad) if named else {}
    recordings = _table(folder / "wav.scp", bad)
    segmented = (folder / "segments").is_file()
    parts = _table(folder / "segments", bad) if segmented else {name: ("", name) for name in texts}
    yield from bad
    files = {name: _recording(folder, *found) for name, found in recordings.items()}
    for name, (place, text) in texts.items():
        if name not in parts:
            yield Fault(place, f"utterance {name} is not in segments; add it or remove the line")
        elif name not in speakers:
            yield Fault(place, f"utterance {name} is not in utt2spk; add its speaker")
        else:
            item = _item(name, place, text, speakers[name][1], parts[name] if segmented else None, files)
            spoken_in = {LANGUAGES: languages[name][1]} if name in languages else {}
            yield item if isinstance(item, Fault) else replace(item, languages=spoken_in)
    for name, (place, _) in parts.items():
        if segmented and name not in texts:
            yield Fault(place, f"utterance {name} is not in text; transcribe it or remove the line")
    # What nothing asks for may be wrong all the same: a command, an archive, a file that is gone.
    asked = {part.split()[0] for _, part in parts.values() if part.split()}
    yield from (found for name, found in files.items() if isinstance(found, Fault) and name not in asked)


def _table(path: Path, bad: list[Fault], may_be_empty: bool = False) -> dict[str, tuple[str, str]]:
    """Place and value of each key; a key twice, and one without a value, is bad."""
    table: dict[str, tuple[str, str]] = {}
    for place, line in numbered(path):
        key, *rest = line.split(maxsplit=1)
        if key in table:
            bad.append(Fault(place, f"{key} stands at {table[key][0]} already; remove one of the two lines"))
        elif not rest and not may_be_empty:
            bad.append(Fault(place, f"{key} has no value; add it or remove the line"))
        else:
            table[key] = (place, rest[0].strip() if rest else "")
    return table


def _recording(folder: Path, place: str, value: str) -> Path | Fault:
    if "|" in value:
        remedy = "run it once with its output in a wav file, and name that file"
        return Fault(place, f"a command ({value[:60]!r}), but commands are never run; {remedy}")
    try:
        if found := recording_at(folder, value):
            return found
    except AudioError as error:
        return Fault(place, str(error))
    head, _, offset = value.rpartition(":")
    if head.endswith(".ark") and offset.isdecimal():
        return Fault(place, f"a part of the archive {head}, which is not read; write the recordings as wav files")
    return Fault(place, f"there is no file {value}; it may be absolute, or start at {folder} or where the command runs")


def _item(
    name: str, place: str, text: str, speaker: str, part: tuple[str, str] | None, files: dict[str, Path | Fault]
) -> Item | Fault:
    at, value = part or (place, name)
    recording, *times = value.split()
    file = files.get(recording)
    if file is None:
        return Fault(at, f"recording {recording} is not in wav.scp; add it or remove the line")
    if isinstance(file, Fault):
        return Fault(at, f"recording {recording} cannot be read, see {file}") if part else file
    if part is None:
        return Item(place, file, file.name, text, speaker)
    span = _span(times)
    if isinstance(span, str):
        return Fault(at, span)
    return Item(place, file, file.name, text, speaker, offset_s=span[0], duration_s=span[1], part_place=at)


def _span(times: list[str]) -> tuple[float, float | None] | str:
    """Offset and duration of a segment; an end of -1 is the recording's."""
    if len(times) > 2:
        remedy = "write that channel as a recording of its own (sox IN OUT remix 1), and leave the number out"
        return f"the segment names channel {times[2]}, but channels are not told apart; {remedy}"
    try:
        start, end = (float(time) for time in times[:2])
    except ValueError:
        return f"the segment's times are {' '.join(times) or 'missing'}, but must be its start and end in seconds"
    if end == -1 and start >= 0:
        return start, None
    return span_fault(start, end) or (start, end - start)
