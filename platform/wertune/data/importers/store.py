"""Utterances of any form into a project: recordings in `audio/NAME`, rows in `manifests/NAME.jsonl`, all or none."""

import errno
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

from wertune.base.errors import ConfigError, ManifestError
from wertune.base.faults import NAME, NAME_RULE
from wertune.base.files import sha256_of, storing, write_rows
from wertune.data.audio import spelt
from wertune.data.importers.clip import Encoded, Encoding, Place, encode_clip
from wertune.data.importers.item import Columns, Fault, Found, Item, Note
from wertune.data.importers.kaldi import read_kaldi
from wertune.data.importers.lhotse import cut_files, read_lhotse
from wertune.data.importers.plain import read_plain
from wertune.data.importers.saved_datasets import SPLITS, STATE, read_parquet, read_saved
from wertune.data.importers.tables import NAMES, main_file, read_audiofolder, read_common_voice
from wertune.data.importers.timed import is_transcript, read_timed
from wertune.data.importers.whole import encode_whole

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
    whole: bool = False,
) -> Imported:
    """Reads `source`, encodes its recordings at 16 kHz into the project and writes the manifest.

    `transcripts` are those of the form `timed`, where they lie in a folder of their own. `whole` keeps a recording in
    one file and row with its utterances as segments; otherwise each is a clip of its own.

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
            to = Place(unfinished, name, encoding)
            found = list((encode_whole if whole else _clips)(read(source, columns), to, cache(sha256_of)))
            encoded = [each for each in found if isinstance(each, Encoded)]
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
    said = [part for row in rows for part in row.get("segments", [row])]
    minutes = sum(part.get("duration") or part["end_s"] - part["start_s"] for part in said) / 60
    speakers = len({part["speaker"] for part in said if part.get("speaker")})
    origins = _origins(each.origin for each in kept if each.origin)
    return Imported(manifest, len(said), minutes, speakers, bad, duplicates, origins, notes)


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


def _each_once(found: list[Encoded], folder: Path) -> tuple[list[Encoded], tuple[Fault, ...]]:
    """Rows whose recording no earlier one has, and the others, their files removed: equal samples are equal bytes."""
    first: dict[str, Encoded] = {}
    duplicates = []
    for each in found:
        file = folder / Path(each.values["audio_filepath"]).name
        earlier = first.setdefault(sha256_of(file), each)
        if earlier is not each:
            file.unlink()
            duplicates.append(Fault(each.place, f"the same audio as {earlier.place}{_differs(each, earlier)}"))
    return list(first.values()), tuple(duplicates)


def _differs(each: Encoded, earlier: Encoded) -> str:
    """What two rows of the same audio do not say alike."""
    row, other = each.values, earlier.values
    if "segments" in row or "segments" in other:
        return "" if row.get("segments") == other.get("segments") else ", with other segments"
    told = "" if row["text"] == other["text"] else f", with another text ({other['text'][:60]!r})"
    return told if row["speaker"] == other["speaker"] else f"{told}, by another speaker ({other['speaker'][:60]!r})"


def _clips(found: Found, to: Place, digest_of: Callable[[Path], str]) -> Iterator[Encoded | Fault | Note]:
    """The row of each utterance, its recording written; numbered by where it stands in the source."""

    def encode(item: tuple[int, Item | Fault | Note]) -> Encoded | Fault | Note:
        number, each = item
        return encode_clip(each, f"{number:06d}", to, digest_of) if isinstance(each, Item) else each

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and encoding leave Python's lock
        waiting = enumerate(found, start=1)
        while some := list(islice(waiting, AT_ONCE)):  # not all at once: items hold the bytes of recordings
            yield from pool.map(encode, some)
