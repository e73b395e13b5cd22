"""Clips and manifests as files: trimmed, levelled, checked, written whole or not at all."""

import json
import math
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from wertune.base.errors import SynthesisError
from wertune.base.files import write_atomically, write_rows
from wertune.data.audio import SAMPLE_RATE_HZ, Samples

_SHORTEST_S, _LONGEST_S = 0.2, 29.0
_LOUDNESS = 10 ** (-23 / 20)
_FRAME = SAMPLE_RATE_HZ // 100
# Where an Ogg page (RFC 3533) has its stream's serial number, its checksum, and after that how many segments it has.
_SERIAL, _SUM, _HEADER_BYTES = slice(14, 18), slice(22, 26), 27
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def trim(samples: Samples, margin_s: float) -> Samples:
    """The samples from `margin_s` before the first sound to `margin_s` after the last, with zeros where short."""
    power = _frame_power(samples)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 1e-4)
    if not loud.size:
        return samples
    margin = round(margin_s * SAMPLE_RATE_HZ)
    start, end = loud[0] * _FRAME - margin, (loud[-1] + 1) * _FRAME + margin
    padding = (max(0, -start), max(0, end - len(samples)))
    return np.pad(samples[max(0, start) : end], padding).astype(np.float32)


def level(samples: Samples) -> Samples:
    """The samples with their speech (not their pauses) at -23 dBFS, and lower where the peak would clip."""
    power = _frame_power(samples)
    speech = power[power > power.max(initial=0.0) * 1e-3]
    if not speech.size:
        return samples
    gain = min(_LOUDNESS / math.sqrt(float(speech.mean())), 0.95 / float(np.abs(samples).max()))
    return (samples * gain).astype(np.float32)


def write_clip(path: Path, samples: Samples, bitrate_kbps: float) -> None:
    """Ogg Opus at 16 kHz mono, written whole or not at all; equal samples are equal bytes."""
    stream = encode_opus(samples, bitrate_kbps)
    write_atomically(path, lambda file: file.write(stream))


def encode_opus(samples: Samples, bitrate_kbps: float) -> bytes:
    """Mono samples (n,) at 16 kHz as Ogg Opus; equal samples are equal bytes."""
    buffer = BytesIO()
    # libsndfile has no bitrate setting: its compression level runs from 256 down to 6 kbit/s a channel.
    sf.write(
        buffer, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS", compression_level=(256 - bitrate_kbps) / 250
    )
    return _with_serial(buffer.getvalue(), serial=1)


def _with_serial(stream: bytes, serial: int) -> bytes:
    """The Ogg stream with this number in each page, so that equal audio is equal bytes: libsndfile draws one."""
    pages, start = [], 0
    while start < len(stream):
        body = start + _HEADER_BYTES + stream[start + _HEADER_BYTES - 1]
        end = body + sum(stream[start + _HEADER_BYTES : body])
        page = bytearray(stream[start:end])
        page[_SERIAL] = serial.to_bytes(4, "little")
        page[_SUM] = bytes(4)  # the sum is taken with its own field at zero
        page[_SUM] = _checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def _checksum(page: bytes | bytearray) -> int:
    """Ogg's CRC is zlib's with all bits in the other order, and neither begun nor ended with ones."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def write_manifest(out: Path, split: str, rows: Sequence[dict[str, Any]]) -> Path:
    """The manifest, sorted by path and written whole; clips that only the one before it listed are removed."""
    ordered = sorted(rows, key=lambda row: str(row["audio_filepath"]))
    path = out / "manifests" / f"{split}.jsonl"
    stale: set[str] = set()
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            stale = {json.loads(line)["audio_filepath"] for line in lines}
    stale -= {row["audio_filepath"] for row in ordered}
    write_rows(path, ordered)
    for clip in (out / "audio" / split).glob("*.opus"):
        if f"../audio/{split}/{clip.name}" in stale:  # others may be recordings that somebody put there
            clip.unlink()
    return path


def _frame_power(samples: Samples) -> Samples:
    """Mean square of each 10 ms."""
    frames = len(samples) // _FRAME
    return np.asarray(np.square(samples[: frames * _FRAME].reshape(frames, _FRAME)).mean(axis=1), np.float32)


def check(samples: Samples, place: str) -> None:
    duration_s = len(samples) / SAMPLE_RATE_HZ
    if not np.isfinite(samples).all() or np.abs(samples).max(initial=0.0) < 0.01:
        raise SynthesisError(f"{place} gave silence or NaN, but must be speech; change the text or drop the voice")
    if not _SHORTEST_S <= duration_s <= _LONGEST_S:
        rule = f"must be {_SHORTEST_S:g} to {_LONGEST_S:g} s"
        raise SynthesisError(f"{place} lasts {duration_s:.1f} s, but {rule}; change the text or drop the voice")
