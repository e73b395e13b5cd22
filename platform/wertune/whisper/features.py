"""Log-mel features at short context, computed once for each clip and kept on disk."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

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
        frames = [FRAMES_PER_POSITION * context_positions(r.duration_s, context) for r in recordings]
        clips = [[recording.digest, count] for recording, count in zip(recordings, frames, strict=True)]
        values = mel_bins * sum(frames)

        def compute() -> Floats:
            counted = zip(recordings, frames, strict=True)
            clips = (log_mel(r.samples(), count // FRAMES_PER_POSITION, mel_bins) for r, count in counted)
            return np.concatenate([clip.numpy().ravel() for clip in clips])

        # A split may take gigabytes: one worker of a node at a time fetches it.
        path = self._path([mel_bins, clips])
        flat = self._cached(path, partial(_read, expected_values=values), compute, locked)
        parts = np.split(flat, np.cumsum([mel_bins * count for count in frames])[:-1])
        return [torch.from_numpy(part.reshape(mel_bins, -1)) for part in parts]

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
        found = read(path)
        if found is None and self._fetch:
            with _keeping(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                with lock(self._folder / ".fetching.lock"):
                    found = read(path)  # another worker may have been faster
                    if found is None:
                        _store_fetched(path, self._folder, self._fetch)
                        found = read(path)
        if found is None:
            found = computed = compute()
            with _keeping(self._folder):
                write_atomically(path, lambda file: np.save(file, computed))
        return found


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
