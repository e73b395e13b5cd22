"""Manifests in NeMo's JSONL form, and every fault that they can hold, reported at once."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from wertune.base.config import DataConfig
from wertune.base.errors import AudioError, ManifestError
from wertune.base.files import sha256_of
from wertune.base.kept import Kept
from wertune.base.steps import clips_are_done
from wertune.base.text import COMMAND, Normalise, invisible, sign_name
from wertune.data.audio import MISSING_S, Samples, length_s, load_audio, path_fault
from wertune.data.rows import At, Fault, Row, file_and_at, line_place, parse_line, place_of, problem
from wertune.data.segments import Placed, count_segments, listed_segments, read_line
from wertune.data.sounds import Part, Sound, known_sound, sound_of

MAX_LABEL_TOKENS = 448
FEW_BYTES = 440  # a token is a byte or more, and at most eight belong to no text: so short a one need not be counted
SHOWN = 3
# What `import`, `align` and `synthesize` write into rows for people.
OUR_OWN = frozenset({"source", "sentence", "voice", "rest", "lang", "score"})
SEGMENTS = frozenset({"segments"})  # which stand for rows of their own
TRAINING_SPLITS = frozenset({"train", "replay"})
RETENTION_SPLITS = frozenset({"retention_validation", "retention_test"})
FINAL_SPLIT = "final"
LONG_SPLIT = "long"  # whole recordings with their segments
# What cannot be decoded, and control characters but for blanks: U+0092 is an apostrophe of Windows-1252.
_DAMAGE = re.compile("[\ufffd\x00-\x08\x0e-\x1b\x7f-\x9f]")
_OF_A_ROW = (ValueError, OSError, RuntimeError, AudioError)


def damage(text: str) -> str:
    """What a text holds that nobody wrote, as a fault; empty where it holds nothing of the kind."""
    if not (found := sorted(set(_DAMAGE.findall(text)))):
        return ""
    signs = ", ".join(map(sign_name, found[:SHOWN]))
    return f"text holds {signs}, which is what a wrong encoding leaves; write the text anew, in UTF-8"


@dataclass(frozen=True)
class Recording:
    """A row or segment that was read: where it stands, its audio file, and its digest and its file's."""

    row: Row
    place: str
    path: Path
    duration_s: float
    digest: str
    project_language: str = ""  # of rows that name none, where others name theirs
    file_digest: str = ""

    def samples(self) -> Samples:
        """Mono float32 samples (n,) at 16 kHz."""
        return load_audio(self.path, self.row.offset, self.row.duration)

    @property
    def text(self) -> str:
        return self.row.text

    @property
    def origin(self) -> str:
        """The recording that it is a part or the whole of, whatever its file is called."""
        return self.row.recording or self.file_digest

    @property
    def language(self) -> str:
        """Empty where all of the project is in its one language."""
        return self.row.language or self.project_language


@dataclass(frozen=True)
class Dataset:
    """The usable recordings of each split, the faults of the rows that were left out, and what else is to be known.

    `notes` tell of what rows hold that is taken out or not read.
    """

    splits: Mapping[str, tuple[Recording, ...]]
    skipped: tuple[Fault, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, split: str) -> tuple[Recording, ...]:
        """The split's recordings; a split that the project does not have is empty."""
        return self.splits.get(split, ())

    def digest(self, split: str) -> str:
        """sha256 over the split's audio and texts, and the languages that rows name, in order."""
        whole = hashlib.sha256()
        for recording in self[split]:
            named = f"{recording.row.language}\n" if recording.row.language else ""
            whole.update(f"{recording.digest}\n{recording.row.text}\n{named}".encode())
        return whole.hexdigest()

    def spoken_in(self, language: str) -> "Dataset":
        """The same, rows that name no language in this one where others name theirs."""
        if not any(recording.row.language for recording in chain(*self.splits.values())):
            return self
        each = {
            split: tuple(replace(recording, project_language=language) for recording in recordings)
            for split, recordings in self.splits.items()
        }
        return replace(self, splits=each)


def manifests_of(data: DataConfig, project_dir: Path, final: bool = False) -> dict[str, Path]:
    """The manifest of each split that the project names; the final set, which few may read, where it is asked for."""
    names = ["train", "validation", "test", "replay", "retention_validation", "retention_test", LONG_SPLIT]
    names += [FINAL_SPLIT] if final else []
    paths = {name: getattr(data, name) for name in names}
    return {name: project_dir / path for name, path in paths.items() if path is not None}


def load_dataset(
    manifests: Mapping[str, Path],
    data: DataConfig,
    normalise: Normalise,
    count_tokens: Callable[[str], int],
    project_dir: Path | None = None,
    kept: Kept | None = None,
) -> Dataset:
    """All splits, checked row by row and across splits.

    Audio lies in `project_dir`, in `data.audio_root`, or in the manifest's own folder; what is `kept` of it is not
    decoded again.
    Raises ManifestError with every fault unless `data.on_bad_row` is `skip`; a split left empty is always an error.
    """
    faults: list[Fault] = []
    roots = _roots(data, project_dir)
    notes: list[str] = []
    read: dict[str, list[Recording]] = {split: [] for split in manifests}
    for split, path in manifests.items():
        for found in _read_split(split, path, roots, data, kept or Kept(None), notes):
            if isinstance(found, Fault):
                faults.append(found)
            else:
                wrong = _row_faults(found, data, normalise, count_tokens)
                faults += [Fault(found.place, each) for each in chain(_long_faults(split, found), wrong)]
                read[split].append(found)
    faults += _faults_between(read, data, normalise, faults)
    if faults and data.on_bad_row == "stop":
        lines = "\n".join(map(str, sorted(faults, key=lambda fault: file_and_at(fault.place))))
        remedy = "mend the rows, or set data.on_bad_row: skip to go on without them"
        raise ManifestError(f"{lines}\n{len(faults)} fault{'s' if len(faults) > 1 else ''}; {remedy}")
    splits = {split: tuple(_without(faults, recordings)) for split, recordings in read.items()}
    if empty := [str(manifests[split]) for split, recordings in splits.items() if not recordings]:
        raise ManifestError(f"no usable row in {', '.join(empty)}; a split needs at least one clip")
    return Dataset(splits, tuple(faults), tuple(notes))


def _roots(data: DataConfig, project_dir: Path | None) -> list[Path]:
    """Where audio may lie beside a manifest's own folder; ManifestError where `data.audio_root` is no folder."""
    roots = [project_dir] if project_dir else []
    if data.audio_root is not None:
        roots.append(root := (project_dir or Path()) / data.audio_root)
        try:
            is_folder = root.is_dir()
        except OSError as error:
            raise ManifestError(f"data.audio_root is {path_fault(str(root), error)}") from None
        if not is_folder:
            problem = f"data.audio_root is {data.audio_root}, but {root} is no folder"
            raise ManifestError(f"{problem}; mend it in project.yaml")
    return roots


class Looked(NamedTuple):
    """By where they stand: what is wrong with rows that can be in no split, how long others last, and of what."""

    faults: dict[At, str]
    durations_s: dict[At, float]
    origins: dict[At, str]


def row_faults(
    manifest: Path,
    data: DataConfig,
    normalise: Normalise,
    count_tokens: Callable[[str], int],
    project_dir: Path,
    kept: Kept,
    wrong_language: Callable[[str], str],
) -> Looked:
    """All rows of a manifest; of two with the same audio the second is at fault.

    `wrong_language` says what is wrong with one that rows name; empty where nothing is.
    """
    found = _read_split("manifest", manifest, _roots(data, project_dir), data, kept, [])
    faults = [each for each in found if isinstance(each, Fault)]
    read = [each for each in found if isinstance(each, Recording)]
    faults += [Fault(each.place, wrong) for each in read for wrong in _row_faults(each, data, normalise, count_tokens)]
    named = [each for each in read if each.row.language]
    faults += [Fault(each.place, wrong) for each in named if (wrong := wrong_language(each.row.language))]
    faults += _duplicates(_without(faults, read))
    stand = [(file_and_at(each.place)[1], each) for each in read]
    return Looked(
        {file_and_at(fault.place)[1]: fault.problem for fault in faults},
        {at: each.duration_s for at, each in stand},
        {at: each.origin for at, each in stand},
    )


def _read_split(
    split: str, path: Path, roots: Sequence[Path], data: DataConfig, kept: Kept, notes: list[str]
) -> list[Recording | Fault]:
    try:
        if not path.exists():
            raise ManifestError(f"{path} does not exist; write it, or mend data.{split} in project.yaml")
        if not path.is_file():
            raise OSError("it is no plain file")  # a pipe or a device has no end
        # Not splitlines(): JSON strings may hold U+2028, U+0085 and other characters at which it would cut.
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is no UTF-8 text ({error}); write it in UTF-8, or name another file") from None
    except OSError as error:
        raise ManifestError(
            f"{path} cannot be read as UTF-8 text ({error}); mend data.{split} in project.yaml"
        ) from None
    places = _Places(path, tuple(folder.resolve() for folder in (*roots, path.parent)), data.max_duration_s + 1)
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    read = [each for number, line in numbered for each in _read_line(number, line, places, kept)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding audio leaves Python's lock
        unheard = [each for each in read if isinstance(each, _Unheard)]
        heard = _counted(pool.map(partial(_listen, places, kept), unheard))
        found = [next(heard) if isinstance(each, _Unheard) else each for each in read]
    notes += _notes(places, [each for each in found if isinstance(each, Recording)])
    return found


Each = TypeVar("Each")


def _counted(heard: Iterable[Each]) -> Iterator[Each]:
    """The same, and whoever listens is told of each."""
    for each in heard:
        clips_are_done(1)
        yield each


def count_rows(manifest: Path) -> int:
    """About how many rows and segments it has; 0 where there is no file, which is told by who reads it."""
    if not manifest.is_file():
        return 0
    return sum(count_segments(line) for line in manifest.read_bytes().split(b"\n") if line.strip())


def _notes(places: "_Places", recordings: Sequence[Recording]) -> Iterable[str]:
    """What rows hold that nobody sees or that nothing here reads, a line a kind."""
    hidden = [(recording.place, found) for recording in recordings if (found := invisible(recording.text))]
    if hidden:
        told = ", ".join(f"{place} ({', '.join(found)})" for place, found in hidden[:SHOWN])
        more = f" and {len(hidden) - SHOWN} more" if len(hidden) > SHOWN else ""
        yield f"characters that nobody sees are taken out of the texts of {told}{more}"
    if places.unread:
        keys = ", ".join(f"{key} ({count} rows)" for key, count in sorted(places.unread.items()))
        yield f"{places.manifest}: keys that are not read: {keys}"
    if mixed := sum(places.mixed):
        both = "that begin while another speaker's goes on, so that both are heard"
        yield f"{places.manifest}: segments {both}: {mixed}"


@dataclass(frozen=True)
class _Places:
    """A manifest, the folders that its rows may name files in, and how many seconds of one are read at most."""

    manifest: Path
    roots: tuple[Path, ...]
    longest_s: float
    real: Callable[[Path], Path] = field(default_factory=lambda: cache(Path.resolve))  # once for all files of a folder
    digest: Callable[[Path], str] = field(default_factory=lambda: cache(sha256_of))  # once for all segments of a file
    unread: Counter[str] = field(default_factory=Counter)  # keys of rows
    mixed: list[int] = field(default_factory=list)  # by line, segments in which two speakers are heard

    def locate(self, name: str) -> Path:
        """The file of that name, links followed; AudioError where it is none or lies in none of the folders."""
        named = self.manifest.parent / name
        try:
            found = self.real(named.parent) / named.name
            if named.name == ".." or found.is_symlink():
                found = named.resolve()
        except (OSError, RuntimeError) as error:
            raise AudioError(f"audio_filepath is {path_fault(name, error)}") from None
        # Before anything is asked of the file: a row of a stranger may not find out what else the machine has.
        if not any(found.is_relative_to(root) for root in self.roots):
            rule = f"links followed, it must lie in {' or '.join(dict.fromkeys(map(str, self.roots)))}"
            raise AudioError(f"audio_filepath is {name}, but {rule}; move it, or set data.audio_root to its folder")
        if not found.is_file():
            rule = f"there is no such file; paths start at {self.manifest.parent}"
            raise AudioError(f"audio_filepath is {name}, but {rule}")
        return found


@dataclass(frozen=True)
class _Unheard:
    """A row whose audio must be decoded before it is a recording."""

    row: Row
    place: str
    part: Part

    def heard(self, sound: Sound) -> Recording:
        return Recording(
            self.row, self.place, self.part.path, sound.duration_s, sound.digest, file_digest=sound.file_digest
        )


def _read_line(number: int, line: str, places: _Places, kept: Kept) -> list[Recording | _Unheard | Fault]:
    """The recordings of a line, unless they must be decoded, and what is wrong with it."""
    try:
        values = parse_line(line)
        found = read_line(places.manifest, number, values)
        if not found.rows:
            return [*found.faults]
        places.unread.update(values.keys() - Row.model_fields.keys() - OUR_OWN - SEGMENTS)
        places.mixed.append(found.mixed)
        path = places.locate(found.rows[0].row.audio_filepath)
        read = [_known(each, path, places, kept) for each in found.rows]
        return [*found.faults, *(_within(read, path) if listed_segments(values) is not None else read)]
    except _OF_A_ROW as error:
        return [Fault(place_of(places.manifest, At(number)), problem(error))]


def _known(placed: Placed, path: Path, places: _Places, kept: Kept) -> Recording | _Unheard:
    """The recording, unless it must be decoded."""
    seconds = min(placed.row.duration or places.longest_s, places.longest_s)
    part = Part(path, placed.row.offset, seconds)
    unheard = _Unheard(placed.row, place_of(places.manifest, placed.at), part)
    sound = known_sound(part, kept)
    return unheard.heard(sound) if sound else unheard


def _within(segments: Sequence[Recording | _Unheard], path: Path) -> Iterator[Recording | _Unheard | Fault]:
    """The same, but those that begin beyond the recording's end; AudioError, once for all, where none can be read."""
    if all(isinstance(each, Recording) for each in segments):
        yield from segments
        return
    lasts_s = length_s(path)
    for each in segments:
        beyond = isinstance(each, _Unheard) and each.row.offset >= lasts_s
        yield Fault(each.place, _beyond("start_s", each.row.offset, lasts_s)) if beyond else each


def _beyond(key: str, time_s: float, lasts_s: float) -> str:
    rule = f"the recording has {lasts_s:.2f} s"
    return f"{key} is {time_s:.12g}, but {rule}; mend the times, or fetch the recording anew"


def _listen(places: _Places, kept: Kept, unheard: _Unheard) -> Recording | Fault:
    """The recording, or what is wrong with its audio."""
    try:
        return unheard.heard(sound_of(unheard.part, kept, places.digest))
    except _OF_A_ROW as error:
        return Fault(unheard.place, problem(error))


def _row_faults(
    recording: Recording, data: DataConfig, normalise: Normalise, count_tokens: Callable[[str], int]
) -> Iterable[str]:
    yield from _duration_faults(recording, data)
    at, text = file_and_at(recording.place)[1], recording.row.text
    transcribe = "transcribe the segment or remove it" if at.segment >= 0 else "transcribe the clip or remove the row"
    if not text.strip():
        yield f"text is empty; {transcribe}"
    elif command := COMMAND.search(text):
        rule = "which is a token of Whisper's own and nothing that is said"
        yield f"text holds {command[0]}, {rule}; take it out, or write it as it is said"
    elif wrong := damage(text):
        yield wrong
    elif not normalise(text):
        yield f"text is empty after normalisation ({text[:60]!r}); {transcribe}"
    elif len(text.encode()) > FEW_BYTES and (tokens := count_tokens(text)) > MAX_LABEL_TOKENS:
        what = "segment" if at.segment >= 0 else "recording"
        yield f"text has {tokens} tokens, but Whisper takes <= {MAX_LABEL_TOKENS}; split the {what}"


def _long_faults(split: str, recording: Recording) -> Iterable[str]:
    if split == LONG_SPLIT and file_and_at(recording.place)[1].segment < 0:
        rule = "data.long is of whole recordings, whose segments' times are the truth"
        yield f"has no segments, but {rule}; write them, or put the row into data.test"


def _duration_faults(recording: Recording, data: DataConfig) -> Iterable[str]:
    seconds, row, at = recording.duration_s, recording.row, file_and_at(recording.place)[1]
    lacks_s = (row.duration or 0.0) - seconds
    what, remove = ("segment", "it") if at.segment >= 0 else ("recording", "the row")
    if seconds < data.min_duration_s:
        yield f"duration is {seconds:.2f} s, but must be >= {data.min_duration_s:g}; remove {remove}"
    if seconds > data.max_duration_s:
        remedy = f"split the {what}" + (" or raise max_duration_s" if data.max_duration_s < 30 else "")
        at_least = "at least " if seconds >= data.max_duration_s + 0.99 else ""
        lasts = f"{row.duration:.2f}" if row.duration and at.segment >= 0 else f"{at_least}{seconds:.2f}"
        yield f"duration is {lasts} s, but must be <= {data.max_duration_s:g}; {remedy}"
    elif row.duration and lacks_s > MISSING_S and at.segment >= 0:
        yield _beyond("end_s", Placed(at, row).end_s, row.offset + seconds)
    elif row.duration and lacks_s > MISSING_S:
        yield f"duration is {row.duration:g} s, but the audio ends after {seconds:.2f} s; mend the duration"


def _faults_between(
    splits: Mapping[str, Sequence[Recording]], data: DataConfig, normalise: Normalise, row_faults: Sequence[Fault]
) -> list[Fault]:
    """Duplicates and leaks; of two splits that share something, the rows of the one nearer to training are at fault.

    Where bad rows are skipped, only rows that stay make others bad: hence the splits farthest from training first.
    """
    skip = data.on_bad_row == "skip"
    order = sorted(
        splits,
        key=lambda split: (split not in TRAINING_SPLITS, "validation" not in split, split == FINAL_SPLIT, split),
    )
    text = {r.place: normalise(r.row.text) for recordings in splits.values() for r in recordings}
    farther = dict[str, Sequence[Recording]]()
    found: list[Fault] = []
    for split in reversed(order):
        recordings = _without(row_faults, splits[split]) if skip else splits[split]
        leaks = list(_leaks(split, recordings, farther, text, data))
        recordings = _without(leaks, recordings) if skip else recordings
        duplicates = list(_duplicates(recordings))
        farther[split] = _without(duplicates, recordings) if skip else recordings
        found += duplicates + leaks
    return found


def _without(faults: Iterable[Fault], recordings: Iterable[Recording]) -> list[Recording]:
    """Those that no fault tells of; one of a whole line tells of all of its segments."""
    bad = {fault.place for fault in faults}
    return [each for each in recordings if not bad or not {each.place, line_place(each.place)} & bad]


def _duplicates(recordings: Sequence[Recording]) -> Iterable[Fault]:
    first: dict[str, Recording] = {}
    for recording in recordings:
        earlier = first.setdefault(recording.digest, recording)
        if earlier is not recording:
            yield Fault(recording.place, f"the same audio as {earlier.place}; remove one of the two rows")


def _leaks(
    left: str,
    recordings: Sequence[Recording],
    farther: Mapping[str, Sequence[Recording]],
    text: Mapping[str, str],
    data: DataConfig,
) -> Iterable[Fault]:
    """Rows of `left` that share audio, recordings, sentences or speakers with splits farther from training.

    Of whole recordings no sentences are compared: what people say to each other has words that all say. They may be
    those that clips of an evaluation were cut from.
    """
    for right, others in farther.items():
        pair = {left, right}
        if pair in ({LONG_SPLIT, "test"}, {LONG_SPLIT, "retention_test"}):
            continue
        copies = list(_shared(recordings, others, lambda r: r.digest, "the same audio as {}"))
        yield from copies
        if pair != TRAINING_SPLITS:
            rest = _without(copies, recordings)
            yield from _of_lines(_shared(rest, others, lambda r: r.origin, "the same recording as {}"))
            if LONG_SPLIT not in pair:
                yield from _shared(recordings, others, lambda r: text[r.place], "the same sentence as {}")
        # Who is heard in retention may be elsewhere; who is heard in the final set, nowhere.
        apart = FINAL_SPLIT in pair or (not RETENTION_SPLITS & pair and pair != TRAINING_SPLITS)
        if data.disjoint_speakers and apart:
            yield from _shared(recordings, others, lambda r: r.row.speaker, "the same speaker as {}")


def _of_lines(faults: Iterable[Fault]) -> Iterable[Fault]:
    """The first of each line, as the whole line's: what is wrong with a recording is so with all of its segments."""
    first: dict[str, Fault] = {}
    for fault in faults:
        place = line_place(fault.place)
        first.setdefault(place, replace(fault, place=place))
    return first.values()


def _shared(
    left: Sequence[Recording], right: Sequence[Recording], key: Callable[[Recording], str], rule: str
) -> Iterable[Fault]:
    places = {key(recording): recording.place for recording in reversed(right)}
    for recording in left:
        if key(recording) and (place := places.get(key(recording))):
            problem = f"leaks: {rule.format(place)} ({key(recording)[:60]!r}); keep it in one split only"
            yield Fault(recording.place, problem)


def read_rows(path: Path) -> list[tuple[At, dict[str, Any], Row]]:
    """Where it stands, the line's object and the row of every row and segment; no recording is opened.

    ManifestError with every fault.
    """
    if not path.exists():
        raise ManifestError(f"{path} does not exist; give a manifest")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read as UTF-8 text ({error}); give a manifest") from None
    rows: list[tuple[At, dict[str, Any], Row]] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                values = parse_line(line)
                found = read_line(path, number, values)
                rows += [(each.at, values, each.row) for each in found.rows]
                faults += found.faults
            except ValueError as error:
                faults.append(Fault(place_of(path, At(number)), problem(error)))
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise ManifestError("\n".join([*map(str, faults), f"{count}; mend the rows"]))
    return rows
