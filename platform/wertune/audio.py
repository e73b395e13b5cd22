"""Recordings as Whisper hears them: 16 kHz, mono, float32."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wertune.errors import AudioError

if TYPE_CHECKING:
    from soundfile import SoundFile

SAMPLE_RATE_HZ = 16_000
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
BLOCK_VALUES = 1 << 22

Samples = npt.NDArray[np.float32]


def load_audio(source: Path | bytes, offset_s: float = 0.0, duration_s: float | None = None) -> Samples:
    """Mono float32 samples (n,) at 16 kHz of a wav, flac, ogg/opus or mp3 file or its bytes.

    Raises AudioError when it cannot be decoded, is empty, or holds NaN or infinite samples.
    """
    # soundfile and torchaudio cost a second to import: not before there is a file to read.
    import soundfile

    place = "the audio" if isinstance(source, bytes) else str(source)
    readable = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with soundfile.SoundFile(readable) as file:
            rate: int = file.samplerate
            file.seek(min(round(offset_s * rate), len(file)))
            samples = _read_mono(file, len(file) if duration_s is None else round(duration_s * rate))
    except (OSError, RuntimeError, ValueError) as error:
        remedy = "give wav, flac, ogg/opus or mp3"
        problem = str(error).replace(repr(readable), place)
        raise AudioError(f"{place} cannot be decoded ({problem}); {remedy}") from None
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError(f"{place} has {rate} Hz, but must have {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; export it again")
    if samples.size == 0:
        raise AudioError(f"{place} holds no samples from {offset_s:g} s on; remove the row or mend its offset")
    if not np.isfinite(samples).all():
        raise AudioError(f"{place} holds NaN or infinite samples; export it again")
    return resample(samples, rate)


def _read_mono(file: "SoundFile", frames: int) -> Samples:
    """The next frames (n,), channels averaged; in blocks, since a damaged header may promise more than there is."""
    most = max(1, BLOCK_VALUES // file.channels)
    blocks = [np.zeros(0, np.float32)]
    while frames > 0 and len(block := file.read(min(frames, most), dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1))
        frames -= len(block)
    return np.concatenate(blocks)


def resample(samples: Samples, rate_hz: int) -> Samples:
    """The samples (n,) at 16 kHz, by torchaudio's windowed sinc; `rate_hz` to the nearest 25 Hz."""
    # Without a common divisor of the rates the kernel takes gigabytes: 12 GB for 44,101 Hz.
    rate_hz = round(rate_hz / 25) * 25
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    import torch
    import torchaudio.functional

    resampled = torchaudio.functional.resample(torch.from_numpy(samples), rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(resampled.numpy(), dtype=np.float32)


def audio_digest(samples: Samples) -> str:
    """sha256 of the decoded samples: equal for equal sound, whatever the file's name."""
    return hashlib.sha256(samples.tobytes()).hexdigest()
