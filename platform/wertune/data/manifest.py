"""Manifests in NeMo's JSONL form, and every fault that they can hold, reported at once."""

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wertune.base.config import LANGUAGES, DataConfig
from wertune.base.errors import AudioError, ManifestError
from wertune.base.faults import describe
from wertune.base.files import NUL_RULE
from wertune.base.kept import Kept
from wertune.base.steps import clips_are_done
from wertune.base.text import COMMAND, Normalise, invisible, sign_name
from wertune.data.audio import MISSING_S, Samples, load_audio, path_fault
from wertune.data.sounds import Part, Sound, known_sound, sound_of

MAX_LABEL_TOKENS = 448
FEW_BYTES = 440  # a token is a byte or more, and at most eight belong to no text: so short a one need not be counted
MAX_SECONDS = 1e6
SHOWN = 3
# What `import`, `align` and `synthesize` write into rows for people.
OUR_OWN = frozenset({"source", "sentence", "voice", "rest", "lang", "score"})
TRAINING_SPLITS = frozenset({"train", "replay"})
RETENTION_SPLITS = frozenset({"retention_validation", "retention_test"})
FINAL_SPLIT = "final"
LANGUAGE_KEYS = ("language", "lang")
# What cannot be decoded, and control characters but for blanks: U+0092 is an apostrophe of Windows-1252.
_DAMAGE = re.compile("[\ufffd\x00-\x08\x0e-\x1b\x7f-\x9f]")
_OF_A_ROW = (ValueError, OSError, RuntimeError, AudioError)


def one_language(named: Mapping[str, str]) -> str:
    """The code of the language that all values name, te of te-IN and TE; empty where none names one. ValueError."""
    codes = {key: re.split("[-_]", value.lower())[0] for key, value in named.items() if value}
    for key, code in codes.items():
        if code not in LANGUAGES:
            raise ValueError(
                f"{key}: {named[key]!r} is no language of Whisper's; give its code, such as en, zh, ms, ta"
            )
    if len(set(codes.values())) > 1:
        told = ", but ".join(f"{key} is {named[key]!r}" for key in codes)
        raise ValueError(f"{told}: a clip is in one language; keep the one that is right")
    return next(iter(codes.values()), "")


def one_name(speaker: str) -> str:
    """The same for the same speaker, however accents are written and blanks stand around."""
    return unicodedata.normalize("NFC", speaker).strip()


def damage(text: str) -> str:
    """What a text holds that nobody wrote, as a fault; empty where it holds nothing of the kind."""
    if not (found := sorted(set(_DAMAGE.findall(text)))):
        return ""
    signs = ", ".join(map(sign_name, found[:SHOWN]))
    return f"text holds {signs}, which is what a wrong encoding leaves; write the text anew, in UTF-8"


class Row(BaseModel):
    """One line: NeMo's field names; keys that are not ours are kept out of the way, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    audio_filepath: str = Field(min_length=1)
    text: str
    duration: float | None = Field(None, gt=0, le=MAX_SECONDS)
    offset: float = Field(0.0, ge=0, le=MAX_SECONDS)
    speaker: str = ""
    terms: tuple[str, ...] = ()
    channel: str = ""
    language: str = Field(
        "", validation_alias=AliasChoices(*LANGUAGE_KEYS), description="of the clip, where it is not the project's"
    )
    weight: int = Field(1, ge=1, le=100, description="how often a pass over a training split holds the clip")

    @model_validator(mode="before")
    @classmethod
    def _in_one_language(cls, values: Any) -> Any:
        """What is no text is left to the field, which tells of it."""
        if not isinstance(values, dict):
            return values
        named = {key: values[key] for key in LANGUAGE_KEYS if values.get(key) is not None}
        if not named or not all(isinstance(value, str) for value in named.values()):
            return values
        rest = {key: value for key, value in values.items() if key not in LANGUAGE_KEYS}
        return rest | {"language": one_language(named)}

    @field_validator("speaker")
    @classmethod
    def _is_one_name(cls, value: str) -> str:
        return one_name(value)

    @field_validator("audio_filepath")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError(NUL_RULE)
        return value


@dataclass(frozen=True)
class Fault:
    """What is wrong at a place: with one row."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


@dataclass(frozen=True)
class Recording:
    """A row that was read: where it stands, its audio file, and the digest of its decoded samples."""

    row: Row
    place: str
    path: Path
    duration_s: float
    digest: str
    project_language: str = ""  # of rows that name none, where others name theirs

    def samples(self) -> Samples:
        """Mono float32 samples (n,) at 16 kHz."""
        return load_audio(self.path, self.row.offset, self.row.duration)

    @property
    def text(self) -> str:
        return self.row.text

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
    names = ["train", "validation", "test", "replay", "retention_validation", "retention_test"]
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
                faults += [Fault(found.place, wrong) for wrong in _row_faults(found, data, normalise, count_tokens)]
                read[split].append(found)
    faults += _faults_between(read, data, normalise, faults)
    if faults and data.on_bad_row == "stop":
        lines = "\n".join(map(str, sorted(faults, key=_file_and_line)))
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
    """By their lines: what is wrong with rows that can be in no split, and how long the audio of rows lasts."""

    faults: dict[int, str]
    durations_s: dict[int, float]


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
    durations_s = {_line(each.place): each.duration_s for each in read}
    return Looked({_line(fault.place): fault.problem for fault in faults}, durations_s)


def _line(place: str) -> int:
    return int(place.rpartition(":")[2])


def _file_and_line(fault: Fault) -> tuple[str, int]:
    return fault.place.rpartition(":")[0], _line(fault.place)


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
    read = [_read_line(f"{path}:{number}", line, places, kept) for number, line in numbered]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding audio leaves Python's lock
        heard = _counted(pool.map(partial(_listen, kept), [each for each in read if isinstance(each, _Unheard)]))
        found = [next(heard) if isinstance(each, _Unheard) else each for each in read]
    notes += _notes(path, places.unread, [each for each in found if isinstance(each, Recording)])
    return found


Each = TypeVar("Each")


def _counted(heard: Iterable[Each]) -> Iterator[Each]:
    """The same, and whoever listens is told of each."""
    for each in heard:
        clips_are_done(1)
        yield each


def count_rows(manifest: Path) -> int:
    """How many lines it has that hold something; 0 where there is no file, which is told by who reads it."""
    if not manifest.is_file():
        return 0
    return sum(bool(line.strip()) for line in manifest.read_bytes().split(b"\n"))


def _notes(path: Path, unread: Mapping[str, int], recordings: Sequence[Recording]) -> Iterable[str]:
    """What rows hold that nobody sees or that nothing here reads, a line a kind."""
    hidden = [(recording.place, found) for recording in recordings if (found := invisible(recording.text))]
    if hidden:
        places = ", ".join(f"{place} ({', '.join(found)})" for place, found in hidden[:SHOWN])
        more = f" and {len(hidden) - SHOWN} more" if len(hidden) > SHOWN else ""
        yield f"characters that nobody sees are taken out of the texts of {places}{more}"
    if unread:
        keys = ", ".join(f"{key} ({count} rows)" for key, count in sorted(unread.items()))
        yield f"{path}: keys that are not read: {keys}"


@dataclass(frozen=True)
class _Places:
    """A manifest, the folders that its rows may name files in, and how many seconds of one are read at most."""

    manifest: Path
    roots: tuple[Path, ...]
    longest_s: float
    real: Callable[[Path], Path] = field(default_factory=lambda: cache(Path.resolve))  # once for all files of a folder
    unread: Counter[str] = field(default_factory=Counter)  # keys of rows

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
        return Recording(self.row, self.place, self.part.path, sound.duration_s, sound.digest)


def _read_line(place: str, line: str, places: _Places, kept: Kept) -> Recording | _Unheard | Fault:
    """The recording of a line, unless it must be decoded, or what is wrong with it."""
    try:
        values = parse_line(line)
        row = Row.model_validate(values)
        places.unread.update(values.keys() - Row.model_fields.keys() - OUR_OWN)
        seconds = min(row.duration or places.longest_s, places.longest_s)
        unheard = _Unheard(row, place, Part(places.locate(row.audio_filepath), row.offset, seconds))
        sound = known_sound(unheard.part, kept)
    except _OF_A_ROW as error:
        return Fault(place, _problem(error))
    return unheard.heard(sound) if sound else unheard


def _listen(kept: Kept, unheard: _Unheard) -> Recording | Fault:
    """The recording, or what is wrong with its audio."""
    try:
        return unheard.heard(sound_of(unheard.part, kept))
    except _OF_A_ROW as error:
        return Fault(unheard.place, _problem(error))


def parse_line(line: str) -> Any:
    """The JSON of a line; ValueError where it is none, cannot be written again, or holds a key twice."""
    repeated: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):  # of two values the one that was meant is anybody's guess
            repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return values

    try:
        values = json.loads(line, object_pairs_hook=once)
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair ({error}); write the character in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); a line holds one object") from None
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there twice; keep the one that is right")
    return values


def _problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    # A validator of the whole row names its keys itself.
    return "; ".join(describe(fault, "" if fault["type"] == "value_error" else "the line") for fault in error.errors())


def _row_faults(
    recording: Recording, data: DataConfig, normalise: Normalise, count_tokens: Callable[[str], int]
) -> Iterable[str]:
    seconds, text = recording.duration_s, recording.row.text
    if seconds < data.min_duration_s:
        yield f"duration is {seconds:.2f} s, but must be >= {data.min_duration_s:g}; remove the row"
    if seconds > data.max_duration_s:
        remedy = "split the recording" + (" or raise max_duration_s" if data.max_duration_s < 30 else "")
        at_least = "at least " if seconds >= data.max_duration_s + 0.99 else ""
        yield f"duration is {at_least}{seconds:.2f} s, but must be <= {data.max_duration_s:g}; {remedy}"
    elif recording.row.duration and recording.row.duration - seconds > MISSING_S:
        yield f"duration is {recording.row.duration:g} s, but the audio ends after {seconds:.2f} s; mend the duration"
    if not text.strip():
        yield "text is empty; transcribe the clip or remove the row"
    elif command := COMMAND.search(text):
        rule = "which is a token of Whisper's own and nothing that is said"
        yield f"text holds {command[0]}, {rule}; take it out, or write it as it is said"
    elif wrong := damage(text):
        yield wrong
    elif not normalise(text):
        yield f"text is empty after normalisation ({text[:60]!r}); transcribe the clip or remove the row"
    elif len(text.encode()) > FEW_BYTES and (tokens := count_tokens(text)) > MAX_LABEL_TOKENS:
        yield f"text has {tokens} tokens, but Whisper takes <= {MAX_LABEL_TOKENS}; split the recording"


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
    bad = {fault.place for fault in faults}
    return [recording for recording in recordings if recording.place not in bad]


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
    """Rows of `left` that share audio, sentences or speakers with splits farther from training."""
    for right, others in farther.items():
        pair = {left, right}
        yield from _shared(recordings, others, lambda r: r.digest, "the same audio as {}")
        if pair != TRAINING_SPLITS:
            yield from _shared(recordings, others, lambda r: text[r.place], "the same sentence as {}")
        # Who is heard in retention may be elsewhere; who is heard in the final set, nowhere.
        apart = FINAL_SPLIT in pair or (not RETENTION_SPLITS & pair and pair != TRAINING_SPLITS)
        if data.disjoint_speakers and apart:
            yield from _shared(recordings, others, lambda r: r.row.speaker, "the same speaker as {}")


def _shared(
    left: Sequence[Recording], right: Sequence[Recording], key: Callable[[Recording], str], rule: str
) -> Iterable[Fault]:
    places = {key(recording): recording.place for recording in reversed(right)}
    for recording in left:
        if key(recording) and (place := places.get(key(recording))):
            problem = f"leaks: {rule.format(place)} ({key(recording)[:60]!r}); keep it in one split only"
            yield Fault(recording.place, problem)


def read_rows(path: Path) -> list[tuple[int, dict[str, Any], Row]]:
    """Line number, object and row of every line; no recording is opened. ManifestError with every fault."""
    if not path.exists():
        raise ManifestError(f"{path} does not exist; give a manifest")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read as UTF-8 text ({error}); give a manifest") from None
    rows: list[tuple[int, dict[str, Any], Row]] = []
    faults = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                values = parse_line(line)
                rows.append((number, values, Row.model_validate(values)))
            except ValueError as error:
                faults.append(f"{path}:{number}: {_problem(error)}")
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise ManifestError("\n".join([*faults, f"{count}; mend the rows"]))
    return rows
