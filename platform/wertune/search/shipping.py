"""Brings a prepared project's files to other Ray nodes through Ray; a disk that they share is used if there is one.

On the driver's node one actor without a CPU hands out base, audio and features by key. A worker elsewhere fetches base
and audio when its first trial starts, once for all workers of its node, and features that its own cache does not have.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray

from wertune.base.files import cache_root
from wertune.data.manifest import LONG_SPLIT
from wertune.search.checkpoints import start_on_this_node
from wertune.search.shipped_files import FileServer, Span, audio_here, base_here, feature_parts
from wertune.whisper.base_model import files_of

if TYPE_CHECKING:  # torch takes the actor's process a quarter of a minute to import
    from wertune.data.manifest import Recording
    from wertune.training.prepare import Prepared


@dataclass(frozen=True)
class DriverFiles:
    """Where workers ask for the driver's files; the actor ends with the driver's last copy of it."""

    id: str
    node_id: str
    server: Any = field(compare=False, repr=False)

    def ask(self, spans: Sequence[Span]) -> list[bytes]:
        return list(ray.get(self.server.read.remote(spans)))

    def features(self, name: str) -> Iterator[bytes]:
        """The parts of a file of the driver's feature cache; none where it has none."""
        return feature_parts(name, self.ask)


def start_file_server(prepared: "Prepared") -> DriverFiles:
    """Starts the actor on the driver's node; it reads nothing before a worker of another node asks."""
    audio = sorted({recording.path for recordings in _heard(prepared).values() for recording in recordings})
    packed = FileServer.pack(files_of(prepared.base), audio, cache_root() / "features")
    return DriverFiles(uuid4().hex, _node_id(), start_on_this_node(FileServer, 4, packed))


def _heard(prepared: "Prepared") -> Mapping[str, Sequence["Recording"]]:
    """What a trial may hear: no whole recordings, which are long and measured after the search."""
    return {split: each for split, each in prepared.dataset.splits.items() if split != LONG_SPLIT}


def prepared_here(prepared: "Prepared", files: DriverFiles) -> "Prepared":
    """The project with paths of this node only; what it does not have is fetched, or StorageError says why not."""
    if _node_id() == files.node_id:
        return prepared
    base, audio = _paths_here(prepared.base.path, files)
    splits = {
        split: tuple(replace(recording, path=audio[recording.path]) for recording in recordings)
        for split, recordings in _heard(prepared).items()
    }
    return replace(
        prepared,
        base=replace(prepared.base, path=base),
        dataset=replace(prepared.dataset, splits=splits),
        fetch=files.features,
    )


@lru_cache(maxsize=1)
def _paths_here(base: Path, files: DriverFiles) -> tuple[Path, Mapping[Path, Path]]:
    """The base's folder and each audio file on this node; worked out once a process."""
    started = time.monotonic()
    catalogue = ray.get(files.server.catalogue.remote())
    fetched_bytes = 0

    def ask(spans: Sequence[Span]) -> list[bytes]:
        nonlocal fetched_bytes
        fetched_bytes += sum(span.length for span in spans)
        return files.ask(spans)

    root = cache_root() / "fetched"
    paths = base_here(base, catalogue.base, root, ask), audio_here(catalogue.audio, root / "audio", ask)
    took_s = time.monotonic() - started
    print(f"fetched {fetched_bytes / 1e6:.1f} MB of base and audio in {took_s:.1f} s", flush=True)
    return paths


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())
