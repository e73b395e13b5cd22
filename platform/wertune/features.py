"""Log-mel features at short context, computed once for each clip and kept on disk."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import WhisperFeatureExtractor

from wertune.audio import SAMPLE_RATE_HZ, Samples
from wertune.config import ContextConfig
from wertune.errors import StorageError
from wertune.files import storing, write_atomically
from wertune.manifest import Recording

_logger = logging.getLogger(__name__)

POSITIONS_PER_SECOND = 50
FRAMES_PER_POSITION = 2
FRAMES_PER_SECOND = FRAMES_PER_POSITION * POSITIONS_PER_SECOND
SAMPLES_PER_POSITION = SAMPLE_RATE_HZ // POSITIONS_PER_SECOND
FULL_CONTEXT_POSITIONS = 1500
CACHE_REMEDY = "free some space there, or point WERTUNE_CACHE to a writable local disk with more"


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
    """Features of whole splits in memory-mapped files, named by all that they depend on.

    A file is written beside its place and renamed, so that a reader sees all of it or none, whoever else writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, recordings: Sequence[Recording], context: ContextConfig, mel_bins: int) -> list[torch.Tensor]:
        """One (mel_bins, frames) float32 tensor a recording, computed where the cache does not have them."""
        frames = [FRAMES_PER_POSITION * context_positions(r.duration_s, context) for r in recordings]
        path = self._folder / f"{_cache_key(recordings, frames, mel_bins)}.npy"
        flat = _read(path, mel_bins * sum(frames))
        if flat is None:
            flat = self._write(path, recordings, frames, mel_bins)
        parts = np.split(flat, np.cumsum([mel_bins * count for count in frames])[:-1])
        return [torch.from_numpy(part.reshape(mel_bins, -1)) for part in parts]

    def _write(
        self, path: Path, recordings: Sequence[Recording], frames: Sequence[int], mel_bins: int
    ) -> npt.NDArray[np.float32]:
        clips = [
            log_mel(r.samples(), count // FRAMES_PER_POSITION, mel_bins).numpy().ravel()
            for r, count in zip(recordings, frames, strict=True)
        ]
        flat = np.concatenate(clips)
        _store(self._folder, path, flat)
        return flat


class ClipCache:
    """Features of single clips, as they are trained on: each is worked out once for all epochs, trials and searches."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, depends_on: Sequence[Any], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Features (mel_bins, frames) in float16, from the file that is named by all that they depend on."""
        name = hashlib.sha256(json.dumps([transformers.__version__, *depends_on]).encode()).hexdigest()[:32]
        path = self._folder / name[:2] / f"{name}.npy"
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except Exception:  # missing, cut short, or a damaged header, which ends in errors of many kinds
            features = compute()
        _store(self._folder, path, features.numpy())
        return features


_warned = set[Path]()


def _store(folder: Path, path: Path, values: npt.NDArray[Any]) -> None:
    """Keeps what is at hand for the next time; where the disk takes none, a warning for the folder is all."""
    try:
        with storing("the features", folder, CACHE_REMEDY):
            write_atomically(path, lambda file: np.save(file, values))
    except StorageError as error:
        if folder not in _warned:
            _warned.add(folder)
            _logger.warning("%s; until then they are worked out each time", error)


def _read(path: Path, expected_values: int) -> npt.NDArray[np.float32] | None:
    """The stored values, or None where there is no whole file of them."""
    try:
        # Copied where it is written to: a clip costs nothing until it is read, and nobody can change the file.
        flat = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception:  # missing, cut short, or a damaged header, which ends in errors of many kinds
        return None
    whole = flat.dtype == np.float32 and flat.shape == (expected_values,)
    return flat if whole else None


def _cache_key(recordings: Sequence[Recording], frames: Sequence[int], mel_bins: int) -> str:
    settings = [transformers.__version__, mel_bins, [[r.digest, n] for r, n in zip(recordings, frames, strict=True)]]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
