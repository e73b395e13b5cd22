"""Utterances of any form into a project: recordings in `audio/NAME`, rows in `manifests/NAME.jsonl`, all or none."""

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile

from wertune.base.errors import AudioError, ConfigError, ManifestError
from wertune.base.faults import NAME, NAME_RULE
from wertune.base.files import storing, write_rows
from wertune.data.audio import (
    MISSING_S,
    SAMPLE_RATE_HZ,
    is_recording,
    load_audio,
    refuse_cut_off,
    refuse_unheard,
    spelt,
)
from wertune.data.clip_files import write_clip
from wertune.data.importers.item import NO_COLUMN, Columns, Fault, Found, Item, Note
from wertune.data.importers.kaldi import read_kaldi
from wertune.data.importers.lhotse import cut_files, read_lhotse
from wertune.data.importers.plain import read_plain
from wertune.data.importers.saved_datasets import SPLITS, STATE, read_parquet, read_saved
from wertune.data.importers.tables import NAMES, main_file, read_audiofolder, read_common_voice
from wertune.data.importers.timed import is_transcript, read_timed
from wertune.data.manifest import damage
from wertune.data.rows import one_language, one_name
from wertune.data.sounds import file_digest

Encoding = Literal["flac", "opus"]

READERS: dict[str, Callable[[Path, Columns], Found]] = {
    "audiofolder": read_audiofolder,
    "datasets": read_saved,
    "parquet": read_parquet,
    "kaldi": read_kaldi,
    "common-voice": read_common_voice,
    "lhotse": read_lhotse,
    "timed": read_timed,
    "plain": read_plain,
}
MIN_DURATION_S, MAX_DURATION_S = 0.2, 30.0
LONGEST_READ_S = MAX_DURATION_S + 1  # a small file may hold hours
OPUS_KBPS = 32.0
AT_ONCE = 256
SHARD = re.compile(r"(?<=-)\d+-of-\d+(?=\.)|(?<=/)\d{4}(?=\.parquet)")


@dataclass(frozen=True)
class Imported:
    """The manifest, how much it holds, and what was left out of it: bad rows, and audio that was there before.

    `origins` are the source's files or splits with their rows, where rows have any; `notes` what else was found, and
    how often.
    """

    manifest: Path
    clips: int
    minutes: float
    speakers: int
    skipped: tuple[Fault, ...]
    duplicates: tuple[Fault, ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


class _Encoded(NamedTuple):
    """A row whose recording is written, and where the source has it."""

    place: str
    origin: str
    values: dict[str, Any]


def form_of(source: Path) -> str:
    """The form of a folder by the files that are its mark."""
    if source.suffix == ".tsv" or main_file(source):
        return "common-voice"
    if (source / "wav.scp").is_file():
        return "kaldi"
    if (source / STATE).is_file() or (source / SPLITS).is_file():
        return "datasets"
    if source.suffix == ".parquet" or any(source.rglob("*.parquet")):
        return "parquet"
    if ".jsonl" in source.suffixes or cut_files(source):
        return "lhotse"
    if any(found for name in NAMES for found in source.rglob(name)):
        return "audiofolder"
    return "timed" if any(map(is_transcript, source.rglob("*"))) else "plain"


def import_recordings(
    source: Path,
    form: str,
    project: Path,
    name: str,
    encoding: Encoding,
    columns: Columns,
    skip: bool,
    transcripts: Path | None = None,
) -> Imported:
    """Reads `source`, encodes its recordings at 16 kHz into the project and writes the manifest.

    `transcripts` are those of the form `timed`, where they lie in a folder of their own.

    Raises ManifestError with every fault, and nothing is written, unless `skip`, which leaves bad rows out.
    """
    if not source.exists():
        raise ConfigError(f"{source} does not exist; give a folder of recordings, or a TSV of Common Voice")
    if transcripts and not transcripts.exists():
        raise ConfigError(f"--transcripts is {transcripts}, which does not exist; give a folder, or a CTM or STM")
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"--name is {name!r}, but must {NAME_RULE}")
    audio, manifest = project / "audio" / name, project / "manifests" / f"{name}.jsonl"
    for path in (audio, manifest):
        _check_free(path)
    unfinished = audio.with_name(f".{name}-{secrets.token_hex(4)}")
    with storing("the recordings", project, "free some space there, or give a --project that can be written"):
        try:
            unfinished.mkdir(parents=True)
            read = partial(read_timed, transcripts=transcripts) if transcripts else READERS[form or form_of(source)]
            found = list(_encoded(read(source, columns), unfinished, name, encoding))
            encoded = [each for each in found if isinstance(each, _Encoded)]
            notes = Counter(each.text for each in found if isinstance(each, Note))
            bad = tuple(Fault(spelt(each.place), spelt(each.problem)) for each in found if isinstance(each, Fault))
            if bad and not skip:
                lines, count = "\n".join(map(str, bad)), f"{len(bad)} fault{'s' if len(bad) > 1 else ''}"
                raise ManifestError(f"{lines}\n{count}; mend them, or leave these rows out with --skip true")
            if not encoded:
                raise ManifestError(f"{source} holds no usable row; a manifest needs at least one clip")
            kept, duplicates = _each_once(encoded, unfinished)
            rows = [each.values for each in kept]
            _place(unfinished, audio)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        try:
            write_rows(manifest, rows)
        except BaseException:
            shutil.rmtree(audio, ignore_errors=True)  # else the next try would find the name taken
            raise
    minutes = sum(row["duration"] for row in rows) / 60
    speakers = len({row["speaker"] for row in rows if row["speaker"]})
    origins = _origins(each.origin for each in kept if each.origin)
    return Imported(manifest, len(rows), minutes, speakers, bad, duplicates, origins, notes)


def _check_free(path: Path) -> None:
    """ConfigError where something stands there, or where its folder can be none: before hours of encoding."""
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists, and nothing is written over; give another --name or remove it")
    if os.path.lexists(path.parent) and not path.parent.is_dir():
        kind = "a link to no folder" if path.parent.is_symlink() else "a file"
        raise ConfigError(f"{path.parent} is {kind}, but must be a folder for {path.name}; remove or rename it")


def _place(recordings: Path, folder: Path) -> None:
    """Gives the recordings their name; ConfigError where it was taken while they were made."""
    try:
        recordings.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        rule = "another import of that name was first, and nothing is written over"
        raise ConfigError(f"{folder} exists by now: {rule}; give another --name") from None


def _origins(each: Iterable[str]) -> dict[str, int]:
    """How many there are of each file; the several that one split of the Hub is cut into (train-*.parquet) as one."""
    files = Counter(each)
    splits = {file: SHARD.sub("*", file) for file in files}
    cut = Counter(splits.values())
    told = Counter[str]()
    for file, count in files.items():
        told[splits[file] if cut[splits[file]] > 1 else file] += count
    return dict(told)


def _each_once(found: list[_Encoded], folder: Path) -> tuple[list[_Encoded], tuple[Fault, ...]]:
    """Rows whose recording no earlier one has, and the others, their files removed: equal samples are equal bytes."""
    first: dict[str, _Encoded] = {}
    duplicates = []
    for each in found:
        file = folder / Path(each.values["audio_filepath"]).name
        earlier = first.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), each)
        if earlier is not each:
            file.unlink()
            row, other = each.values, earlier.values
            told = "" if row["text"] == other["text"] else f", with another text ({other['text'][:60]!r})"
            if row["speaker"] != other["speaker"]:
                told += f", by another speaker ({other['speaker'][:60]!r})"
            duplicates.append(Fault(each.place, f"the same audio as {earlier.place}{told}"))
    return list(first.values()), tuple(duplicates)


def _encoded(found: Found, folder: Path, name: str, encoding: Encoding) -> Iterator[_Encoded | Fault | Note]:
    """The row of each utterance, its recording written; numbered by where it stands in the source."""

    digest_of = cache(file_digest)

    def encode(item: tuple[int, Item | Fault | Note]) -> _Encoded | Fault | Note:
        number, each = item
        return _row(each, folder, f"{number:06d}", name, encoding, digest_of) if isinstance(each, Item) else each

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and encoding leave Python's lock
        waiting = enumerate(found, start=1)
        while some := list(islice(waiting, AT_ONCE)):  # not all at once: items hold the bytes of recordings
            yield from pool.map(encode, some)


def _row(
    item: Item, folder: Path, stem: str, name: str, encoding: Encoding, digest_of: Callable[[Path], str]
) -> _Encoded | Fault:
    if not item.text.strip():
        return Fault(item.place, "the text is empty; transcribe the clip or remove the row")
    if wrong := damage(item.text):
        return Fault(item.place, wrong)
    try:
        language = one_language(item.languages)
    except ValueError as error:
        return Fault(item.place, f"{error}, or leave languages unread with --language-column {NO_COLUMN}")
    try:
        if isinstance(item.audio, Path) and not is_recording(item.audio):
            return Fault(item.place, f"there is no recording {item.audio}; add it or remove the row")
        samples = load_audio(item.audio, item.offset_s, min(item.duration_s or LONGEST_READ_S, LONGEST_READ_S))
        refuse_cut_off(item.audio, "the recording")
        refuse_unheard(samples, "the recording")
    except (AudioError, OSError) as error:
        return Fault(item.place, str(error))
    duration_s = samples.size / SAMPLE_RATE_HZ
    if not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
        rule = f"must last {MIN_DURATION_S:g} to {MAX_DURATION_S:g} s"
        lasts = f"{'at least ' if duration_s >= LONGEST_READ_S - 0.01 else ''}{duration_s:.2f} s"
        return Fault(item.place, f"the recording lasts {lasts}, but {rule}; split it or remove the row")
    if (asked_s := item.duration_s or 0.0) - duration_s > MISSING_S:
        # What is said in it was said of the whole part: more than is heard here.
        asked = f"its part lasts from {item.offset_s:g} to {item.offset_s + asked_s:g} s"
        ends = f"the recording ends at {item.offset_s + duration_s:.2f} s"
        return Fault(item.part_place or item.place, f"{asked}, but {ends}; mend the times, or fetch the recording anew")
    file = folder / f"{stem}.{encoding}"
    samples = samples / max(1.0, float(np.abs(samples).max()))  # a decoded mp3 goes a little over full scale
    if encoding == "opus":
        write_clip(file, samples, OPUS_KBPS)
    else:
        soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    values = {
        "audio_filepath": f"../audio/{name}/{file.name}",
        "text": item.text.strip(),
        "duration": round(duration_s, 3),
        "speaker": one_name(item.speaker),
        "source": spelt(item.source),
    }
    values |= {"language": language} if language else {}
    if isinstance(item.audio, Path) and item.duration_s is not None:
        # A part of one: `split` keeps it beside the others, wherever its recording is listed, under whatever name.
        values["recording"] = digest_of(item.audio)
    return _Encoded(spelt(item.place), spelt(item.origin), values)
