"""Log-mel features at short context, computed once for each clip and kept on disk."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import WhisperFeatureExtractor

from wertune.base.config import ContextConfig
from wertune.base.errors import StorageError
from wertune.base.files import CACHE_REMEDY, Fetch, content_digest, locked, storing, write_atomically
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.manifest import Recording

_logger = logging.getLogger(__name__)

POSITIONS_PER_SECOND = 50
FRAMES_PER_POSITION = 2
FRAMES_PER_SECOND = FRAMES_PER_POSITION * POSITIONS_PER_SECOND
SAMPLES_PER_POSITION = SAMPLE_RATE_HZ // POSITIONS_PER_SECOND
FULL_CONTEXT_POSITIONS = 1500

Floats = npt.NDArray[np.floating[Any]]
Item = TypeVar("Item")
Each = TypeVar("Each")


class Across(Protocol):
    """How work on items is divided among processes; the results are those of all, in order."""

    def __call__(self, items: Sequence[Item], work: Callable[[Item], Each]) -> list[Each]: ...


def here(items: Sequence[Item], work: Callable[[Item], Each]) -> list[Each]:
    """In this process alone."""
    return [work(item) for item in items]


def context_positions(duration_s: float, context: ContextConfig) -> int:
    """Encoder positions for a clip: what it lasts and a margin, rounded up; 1500 where the context is not short."""
    if not context.short:
        return FULL_CONTEXT_POSITIONS
    wanted = ceil(duration_s * POSITIONS_PER_SECOND) + context.margin_positions
    return min(FULL_CONTEXT_POSITIONS, ceil(wanted / context.multiple) * context.multiple)


@lru_cache(maxsize=2)
def _extractor(mel_bins: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mel_bins)


def log_mel(samples: Samples, positions: int, mel_bins: int = 80) -> torch.Tensor:
    """Whisper's log-mel features (mel_bins, 2 x positions), float32; longer audio is cut, shorter padded with silence.

    Equal to the first frames of the features at 30 s, since the silence behind a clip does not raise its maximum.
    """
    features = _extractor(mel_bins)(
        samples,
        sampling_rate=SAMPLE_RATE_HZ,
        padding="max_length",
        max_length=positions * SAMPLES_PER_POSITION,
        truncation=True,
        return_tensors="pt",
    )
    return torch.as_tensor(features.input_features[0], dtype=torch.float32)


def pad_features(batch: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (mel_bins, frames_i) as one (batch, mel_bins, longest), padded with each clip's own silence."""
    longest = max(features.shape[1] for features in batch)
    # A clip's least value is the floor that the normalisation gives to silence.
    padded = [
        torch.nn.functional.pad(features, (0, longest - features.shape[1]), value=float(features.min()))
        for features in batch
    ]
    return torch.stack(padded)


def lengthened(batch: torch.Tensor, frames: int) -> torch.Tensor:
    """Padded features (batch, mel_bins, fewer) as (batch, mel_bins, frames), with each clip's own silence."""
    missing = frames - batch.shape[-1]
    if not missing:
        return batch
    silence = batch.amin(dim=(1, 2), keepdim=True).expand(-1, batch.shape[1], missing)
    return torch.cat([batch, silence], dim=-1)


class FeatureCache:
    """Features in files that are named by all that they depend on: of whole splits, and of single clips.

    A file is written beside its place and renamed, so that a reader sees all of it or none, whoever else writes.
    One that is not there is asked for by `fetch`, and computed where that has none or a damaged one.
    """

    def __init__(self, folder: Path, fetch: Fetch | None = None) -> None:
        self._folder = folder
        self._fetch = fetch

    def load(self, recordings: Sequence[Recording], context: ContextConfig, mel_bins: int) -> list[torch.Tensor]:
        """One (mel_bins, frames) float32 tensor a recording, all of them in one file that is mapped into memory."""
        split = _Split(recordings, context, mel_bins)
        path = self._path(split.depends_on)
        # A split may take gigabytes: one worker of a node at a time fetches it.
        flat = self._cached(path, split.read, split.worked_out, locked)
        parts = np.split(flat, np.cumsum([mel_bins * count for count in split.frames])[:-1])
        return [torch.from_numpy(part.reshape(mel_bins, -1)) for part in parts]

    def has(self, recordings: Sequence[Recording], context: ContextConfig, mel_bins: int) -> bool:
        """Whether `load` would find what it gives, or fetch it."""
        split = _Split(recordings, context, mel_bins)
        return self._found(self._path(split.depends_on), split.read, locked) is not None

    def work_out(self, recordings: Sequence[Recording], context: ContextConfig, mel_bins: int, across: Across) -> None:
        """Keeps what `load` is to find, worked out `across` processes that all call this."""
        split = _Split(recordings, context, mel_bins)
        self._keep(self._path(split.depends_on), split.worked_out(across))

    def get(self, depends_on: Sequence[Any], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A clip's (mel_bins, frames) in float16, as it is trained on: worked out once for all epochs and searches."""
        path = self._path(depends_on)
        path = path.parent / path.name[:2] / path.name
        return torch.from_numpy(self._cached(path, _read, lambda: compute().numpy(), nullcontext))

    def _path(self, depends_on: Sequence[Any]) -> Path:
        return self._folder / f"{content_digest([transformers.__version__, *depends_on])[:32]}.npy"

    def _cached(
        self,
        path: Path,
        read: Callable[[Path], Floats | None],
        compute: Callable[[], Floats],
        lock: Callable[[Path], AbstractContextManager[object]],
    ) -> Floats:
        """What lies at `path`, else, under the lock, what `fetch` has, else what is computed; what is new is kept."""
        found = self._found(path, read, lock)
        if found is None:
            found = compute()
            self._keep(path, found)
        return found

    def _found(
        self,
        path: Path,
        read: Callable[[Path], Floats | None],
        lock: Callable[[Path], AbstractContextManager[object]],
    ) -> Floats | None:
        found = read(path)
        if found is None and self._fetch:
            with _keeping(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                with lock(self._folder / ".fetching.lock"):
                    found = read(path)  # another worker may have been faster
                    if found is None:
                        _store_fetched(path, self._folder, self._fetch)
                        found = read(path)
        return found

    def _keep(self, path: Path, computed: Floats) -> None:
        with _keeping(self._folder):
            write_atomically(path, lambda file: np.save(file, computed))


class _Split:
    """The features of many recordings as one array: what it depends on, and how each clip's are worked out."""

    def __init__(self, recordings: Sequence[Recording], context: ContextConfig, mel_bins: int) -> None:
        self.frames = [FRAMES_PER_POSITION * context_positions(r.duration_s, context) for r in recordings]
        clips = [[recording.digest, count] for recording, count in zip(recordings, self.frames, strict=True)]
        self.depends_on = [mel_bins, clips]
        self._recordings, self._mel_bins = recordings, mel_bins

    def worked_out(self, across: Across = here) -> Floats:
        """Of all clips, one behind the other."""
        return np.concatenate(across(range(len(self.frames)), self._clip))

    def _clip(self, number: int) -> Floats:
        """Flat, float32."""
        positions = self.frames[number] // FRAMES_PER_POSITION
        return log_mel(self._recordings[number].samples(), positions, self._mel_bins).numpy().ravel()

    def read(self, path: Path) -> Floats | None:
        """Those that lie there, if they are whole."""
        return _read(path, expected_values=self._mel_bins * sum(self.frames))


_warned = set[Path]()


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Around the writing of what is at hand; where the disk takes none of it, a warning for the folder is all."""
    try:
        with storing("the features", folder, CACHE_REMEDY):
            yield
    except StorageError as error:
        if folder not in _warned:
            _warned.add(folder)
            _logger.warning("%s; until then they are worked out each time", error)


def _store_fetched(path: Path, folder: Path, fetch: Fetch) -> None:
    """Writes the file of the cache's `folder` to `path` if `fetch` has it, whole or damaged as it comes."""
    parts = iter(fetch(path.relative_to(folder).as_posix()))
    first = next(parts, None)
    if first is not None:
        write_atomically(path, lambda file: file.writelines(chain([first], parts)))


def _read(path: Path, expected_values: int | None = None) -> Floats | None:
    """A clip's stored features, or a split's of so many values in all; None where there is no whole file of them."""
    try:
        if expected_values is None:
            return np.asarray(np.load(path, allow_pickle=False))
        # Copied where it is written to: a clip costs nothing until it is read, and nobody can change the file.
        flat = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except Exception:  # missing, cut short, or a damaged header, which ends in errors of many kinds
        return None
    whole = flat.dtype == np.float32 and flat.shape == (expected_values,)
    return flat if whole else None
