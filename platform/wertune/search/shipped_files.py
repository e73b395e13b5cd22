"""The files of a prepared project by key: listed, read in parts, and stored anew on a node that lacks them."""

import hashlib
import json
import re
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wertune.base.errors import StorageError
from wertune.base.files import CACHE_REMEDY, locked, sha256_of, store_folder, storing

PART_BYTES = 32 << 20
_FEATURE_KEY = re.compile(r"features/((?:[0-9a-f]{2}/)?[0-9a-f]{32}\.npy)")


@dataclass(frozen=True)
class Entry:
    """A file of the driver's: the key that it is asked for by, and what it holds."""

    key: str
    size_bytes: int
    mtime_ns: int
    sha256: str

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


class Span(NamedTuple):
    """Some bytes of a file."""

    key: str
    offset: int
    length: int


@dataclass(frozen=True)
class Catalogue:
    """What a server holds, beside features: the base's files, and the audio by its path on the driver's disk."""

    base: tuple[Entry, ...]
    audio: Mapping[Path, Entry]


Ask = Callable[[Sequence[Span]], list[bytes]]


class FileServer:
    """Hands out the files of one project and of the feature cache, by key alone; it lives on the driver's node.

    Its methods may run at the same time. Digests are worked out when the first node asks: one alone needs none.
    """

    def __init__(self, packed: bytes) -> None:
        base, audio, features = json.loads(zlib.decompress(packed))
        self._base, self._audio, self._features = list(map(Path, base)), list(map(Path, audio)), Path(features)
        self._paths: dict[str, Path] = {}
        self._catalogue: Catalogue | None = None
        self._lock = threading.Lock()

    @staticmethod
    def pack(base: Sequence[Path], audio: Sequence[Path], features: Path) -> bytes:
        """What a server is told, in little: Ray starts an actor again for sure only then.

        Beyond 100 kB arguments go to the object store, from which they may be lost (ray-project/ray#53727).
        """
        return zlib.compress(json.dumps([list(map(str, base)), list(map(str, audio)), str(features)]).encode())

    def catalogue(self) -> Catalogue:
        with self._lock:
            if self._catalogue is None:
                base = tuple(self._entry(f"base/{path.name}", path) for path in self._base)
                audio = {path: self._entry(f"audio/{sha256_of(path)}{path.suffix}", path) for path in self._audio}
                self._catalogue = Catalogue(base, audio)
            return self._catalogue

    def _entry(self, key: str, path: Path) -> Entry:
        self._paths[key] = path
        stat = path.stat()
        return Entry(key, stat.st_size, stat.st_mtime_ns, sha256_of(path))

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, fewer where the file ends before it or is not there; at most PART_BYTES in all.

        Raises ValueError for any other wish, a key that is none of this project's among them.
        """
        if sum(span.length for span in spans) > PART_BYTES or any(min(span[1:]) < 0 for span in spans):
            raise ValueError(f"asked for {spans}, but a part has 0 to {PART_BYTES} bytes")
        return [_read(self._path(span.key), span.offset, span.length) for span in spans]

    def _path(self, key: str) -> Path:
        if found := _FEATURE_KEY.fullmatch(key):
            return self._features / found[1]
        self.catalogue()  # a server that was started again has none yet
        if key not in self._paths:
            raise ValueError(f"asked for {key!r}, but a key is one of the catalogue's or features/<32 hex digits>.npy")
        return self._paths[key]


def _read(path: Path, offset: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except FileNotFoundError:
        return b""


def batches(entries: Iterable[Entry], part_bytes: int = PART_BYTES) -> Iterator[list[Span]]:
    """Spans over every byte of every file, in order, at most `part_bytes` a batch; an empty file has one too."""
    batch: list[Span] = []
    free = part_bytes
    for entry in entries:
        offset = 0
        while True:
            length = min(entry.size_bytes - offset, free)
            batch.append(Span(entry.key, offset, length))
            offset, free = offset + length, free - length
            if not free:
                yield batch
                batch, free = [], part_bytes
            if offset == entry.size_bytes:
                break
    if batch:
        yield batch


def feature_parts(name: str, ask: Ask) -> Iterator[bytes]:
    """The parts of a file of the feature cache, by its name there; none where the server has none."""
    offset = 0
    while part := ask([Span(f"features/{name}", offset, PART_BYTES)])[0]:
        yield part
        offset += len(part)
        if len(part) < PART_BYTES:
            return


def base_here(there: Path, entries: Sequence[Entry], root: Path, ask: Ask) -> Path:
    """A folder with exactly these files: the driver's own where this node reads the same, else one in `root`."""
    if all(_is_same(there / entry.name, entry) for entry in entries):
        return there
    digest = hashlib.sha256("".join(f"{entry.name}\n{entry.sha256}\n" for entry in entries).encode()).hexdigest()
    final = root / f"base-{digest[:32]}"
    with storing("the base model", final, CACHE_REMEDY):
        store_folder(final, lambda folder: _fetch(entries, folder, ask), {"digest": digest})
    return final


def audio_here(audio: Mapping[Path, Entry], root: Path, ask: Ask) -> dict[Path, Path]:
    """Where this node has each of the driver's audio files; what it does not have is fetched into `root`."""
    here = {path: path if _is_untouched(path, entry) else root / entry.name for path, entry in audio.items()}
    wanted = {entry.key: entry for path, entry in audio.items() if here[path] != path}
    if wanted:
        with storing("the audio", root, CACHE_REMEDY):
            root.mkdir(parents=True, exist_ok=True)
            with locked(root / ".lock"):
                _fetch_missing(list(wanted.values()), root, ask)
    return here


def _fetch_missing(entries: Sequence[Entry], root: Path, ask: Ask) -> None:
    """Under the lock: what an ended process left half fetched is nobody's any more."""
    for leftover in root.glob(".fetching-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    missing = [entry for entry in entries if not _has_size(root / entry.name, entry)]
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetching-") as scratch:
        _fetch(missing, Path(scratch), ask)
        for entry in missing:
            (Path(scratch) / entry.name).replace(root / entry.name)


def _fetch(entries: Sequence[Entry], folder: Path, ask: Ask) -> None:
    """Writes the files into the empty folder; StorageError where one is not what the catalogue says."""
    names = {entry.key: entry.name for entry in entries}
    for spans in batches(entries):
        for span, part in zip(spans, ask(spans), strict=True):
            with (folder / names[span.key]).open("ab") as file:
                file.write(part)
    for entry in entries:
        if (got := sha256_of(folder / entry.name)) != entry.sha256:
            rule = f"must be {entry.sha256} as it was when the search began"
            raise StorageError(f"{entry.key}: the driver's file now has sha256 {got}, but {rule}; start it again")


def _has_size(path: Path, entry: Entry) -> bool:
    try:
        return path.stat().st_size == entry.size_bytes
    except OSError:
        return False


def _is_same(path: Path, entry: Entry) -> bool:
    """By digest: weights that are read anyway may as well be read twice, and must never be others."""
    try:
        return _has_size(path, entry) and sha256_of(path) == entry.sha256
    except OSError:  # there, but not to be read
        return False


def _is_untouched(path: Path, entry: Entry) -> bool:
    """By size and time where they agree, as they do on a shared disk; by digest where only the size does."""
    try:
        stat = path.stat()
        path.open("rb").close()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (entry.size_bytes, entry.mtime_ns) or _is_same(path, entry)
