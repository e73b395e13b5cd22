"""What clients send in the place of a recording: over ninety rows, and what must be answered to each."""

import base64
import gzip
import json
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE_HZ = 16_000
TEXT = 200  # a valid row of an unusual kind
NOT_KNOWN = "the recording's format is not known, but must be one of wav, flac, ogg, mp3; convert it"
NOT_DECODED = "cannot be decoded"
NOT_BASE64 = "audio is not base64"
NO_SOURCE = "must have one of audio, path and samples"
NOT_A_LIST = "must be one list of numbers"
NO_RATE = "rate_hz is "
NO_FILE = "must name a file in the server's audio folder"
ELSEWHERE = "the request has 0 rows with audio, path or samples"


@dataclass(frozen=True)
class Kind:
    """A row and what the answer says of it: a part of the reason, or TEXT where it is transcribed.

    `says_row` is false where the request has no row that could be named.
    """

    row: dict[str, Any]
    answer: str | int
    says_row: bool = True


def _encoded(data: bytes) -> dict[str, Any]:
    return {"audio": base64.b64encode(data).decode()}


def _sound(container: str = "WAV", subtype: str | None = None, rate_hz: int = RATE_HZ, channels: int = 1) -> bytes:
    samples = np.random.default_rng(0).standard_normal((rate_hz // 2, channels)).clip(-1, 1) * 0.1
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


def _wav(rate_hz: int = RATE_HZ, channels: int = 1, bits: int = 16, kind: int = 1, size: int | None = None) -> bytes:
    """A header as it is asked for, before half a second of samples."""
    data = bytes(RATE_HZ)
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, rate_hz, min(rate_hz * block, 2**32 - 1), block, bits)
    claimed = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", claimed) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def _floats(value: float) -> bytes:
    buffer = BytesIO()
    samples = np.zeros(RATE_HZ // 2)
    samples[100] = value
    soundfile.write(buffer, samples, RATE_HZ, format="WAV", subtype="DOUBLE")
    return buffer.getvalue()


def _edited(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def _silence(seconds: int) -> bytes:
    """Flac that grows two thousand times when it is decoded."""
    buffer = BytesIO()
    soundfile.write(buffer, np.zeros(seconds * RATE_HZ, np.int16), RATE_HZ, format="FLAC")
    return buffer.getvalue()


def _zip_bomb() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(10_000_000))
    return buffer.getvalue()


def _png() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def _files() -> dict[str, Kind]:
    wav, flac, opus, mp3 = _sound(), _sound("FLAC"), _sound("OGG", "OPUS"), _sound("MP3")
    bytes_and_answers: dict[str, tuple[bytes, str | int]] = {
        "empty": (b"", NOT_KNOWN),
        "one byte": (b"R", NOT_KNOWN),
        "wav cut in its header": (wav[:20], NOT_DECODED),
        "flac cut in its header": (flac[:20], NOT_DECODED),
        "ogg cut in its header": (opus[:30], NOT_DECODED),
        "mp3 cut in its header": (mp3[:3], NOT_DECODED),
        "wav without a sample": (wav[:44], "holds no samples"),
        "wav of another magic": (b"XXXX" + wav[4:], NOT_KNOWN),
        "avi": (_edited(wav, 8, b"AVI "), NOT_DECODED),
        "wav that claims 2^31 bytes": (_wav(size=2**31), TEXT),
        "wav that claims 2^32 - 1 bytes": (_wav(size=2**32 - 1), TEXT),
        "flac that claims 2^36 - 1 samples": (_edited(flac, 21, bytes([flac[21] | 15]) + b"\xff" * 4), NOT_DECODED),
        "zero Hz": (_wav(rate_hz=0), NOT_DECODED),
        "1 Hz": (_wav(rate_hz=1), "has 1 Hz, but must have 4000 to"),
        "768 kHz": (_wav(rate_hz=768_000), "has 768000 Hz, but must have at most 96000 Hz"),
        "2^31 - 1 Hz": (_wav(rate_hz=2**31 - 1), "but must have at most 96000 Hz"),
        "no channel": (_wav(channels=0), NOT_DECODED),
        "255 channels": (_wav(channels=255), TEXT),
        "65535 channels": (_wav(channels=65_535, bits=8), NOT_DECODED),
        "wav of an unknown codec": (_wav(kind=0x7777), NOT_DECODED),
        "NaN": (_floats(float("nan")), "NaN or infinite samples"),
        "infinite": (_floats(float("inf")), "NaN or infinite samples"),
        "1e300": (_floats(1e300), "NaN or infinite samples"),
        "64-bit floats": (_sound("WAV", "DOUBLE"), TEXT),
        "24 bits": (_sound("WAV", "PCM_24"), TEXT),
        "8 bits": (_sound("WAV", "PCM_U8"), TEXT),
        "a-law": (_sound("WAV", "ALAW"), TEXT),
        "mu-law": (_sound("WAV", "ULAW"), TEXT),
        "stereo at 44.1 kHz": (_sound(rate_hz=44_100, channels=2), TEXT),
        "ogg with vorbis": (_sound("OGG", "VORBIS"), TEXT),
        "ogg with opus": (opus, TEXT),
        "ogg whose pages have wrong checksums": (_edited(opus, 22, bytes(4)), NOT_DECODED),
        "flac with a wrong md5": (_edited(flac, 26, b"\1" * 16), TEXT),
        "flac of garbage": (flac[:42] + b"\xff\xf8" + bytes(range(256)) * 8, NOT_DECODED),
        "mp3": (mp3, TEXT),
        "mp3 of garbage": (b"\xff\xfb\x90\x00" + bytes(range(256)) * 8, NOT_DECODED),
        "ID3 alone": (b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10), NOT_DECODED),
        "a small file that lasts hours": (_silence(1000), "lasts more than 60 s, which is the limit; cut it"),
        "zip bomb": (_zip_bomb(), NOT_KNOWN),
        "gzip bomb": (gzip.compress(bytes(10_000_000)), NOT_KNOWN),
        "html": (b"<!doctype html><title>404</title>", NOT_KNOWN),
        "json": (json.dumps({"audio": "x"}).encode(), NOT_KNOWN),
        "png": (_png(), NOT_KNOWN),
        "text": ("no sound at all, 你好".encode(), NOT_KNOWN),
        "aiff": (_sound("AIFF"), NOT_KNOWN),
        "webm": (b"\x1a\x45\xdf\xa3" + bytes(100), NOT_KNOWN),
        "mp4": (b"\0\0\0\x20ftypM4A " + bytes(100), NOT_KNOWN),
        "pickle": (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.", NOT_KNOWN),
    }
    return {name: Kind(_encoded(data), answer) for name, (data, answer) in bytes_and_answers.items()}


def _rows() -> dict[str, Kind]:
    audio = _encoded(_sound())["audio"]
    numbers = [0.1] * 8000
    rows_and_answers: dict[str, tuple[dict[str, Any], str | int]] = {
        "no base64": ({"audio": "not base64!"}, NOT_BASE64),
        "base64 with a letter of another alphabet": ({"audio": audio[:-8] + "é" + audio[-7:]}, NOT_BASE64),
        "base64 cut short": ({"audio": audio[:-1]}, NOT_BASE64),
        "base64 in lines": ({"audio": "\r\n".join(audio[i : i + 76] for i in range(0, len(audio), 76))}, TEXT),
        "base64 of padding alone": ({"audio": "=" * 100_000}, NOT_BASE64),
        "base64 with padding to excess": ({"audio": audio + "=" * 100_000}, TEXT),
        "base64 for URLs": ({"audio": "_-_-" + audio}, NOT_BASE64),
        "a data URL": ({"audio": "data:audio/wav;base64," + audio}, NOT_BASE64),
        "a number": ({"audio": 5}, "audio is of type int"),
        "a list": ({"audio": [audio]}, "audio is of type list"),
        "an object": ({"audio": {"data": audio}}, "audio is of type dict"),
        "null": ({"audio": None}, NO_SOURCE),
        "a boolean": ({"audio": True}, "audio is of type bool"),
        "two keys": ({"audio": audio, "path": "a.wav"}, "it has audio and path, but must have one of"),
        "audio with a rate": ({"audio": audio, "rate_hz": 8000}, "rate_hz goes with samples"),
        "a rate alone": ({"rate_hz": 8000}, NO_SOURCE),
        "samples without a rate": ({"samples": numbers}, NO_RATE),
        "samples at a negative rate": ({"samples": numbers, "rate_hz": -16_000}, NO_RATE),
        "samples at no rate": ({"samples": numbers, "rate_hz": 0}, NO_RATE),
        "samples at 1e9 Hz": ({"samples": numbers, "rate_hz": 1e9}, NO_RATE),
        "samples at a rate in letters": ({"samples": numbers, "rate_hz": "16000"}, NO_RATE),
        "samples at a boolean rate": ({"samples": numbers, "rate_hz": True}, NO_RATE),
        "samples": ({"samples": numbers, "rate_hz": RATE_HZ}, TEXT),
        "one sample": ({"samples": [0.5], "rate_hz": RATE_HZ}, TEXT),
        "no sample": ({"samples": [], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "samples as strings": ({"samples": ["0.1", "0.2"], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "samples as booleans": ({"samples": [True, False], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "samples with null": ({"samples": [0.1, None], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "samples in channels": ({"samples": [[0.1, 0.2], [0.3, 0.4]], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "samples of unlike length": ({"samples": [[0.1], [0.1, 0.2]], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "samples in one string": ({"samples": "0.1 0.2", "rate_hz": RATE_HZ}, "samples is of type str"),
        "samples as 16-bit integers": ({"samples": [12, -20_000], "rate_hz": RATE_HZ}, "divide 16-bit integers"),
        "samples of NaN": ({"samples": [0.1, float("nan")], "rate_hz": RATE_HZ}, "not finite"),
        "samples beyond any float": ({"samples": [10**400], "rate_hz": RATE_HZ}, NOT_A_LIST),
        "a path in Unicode": ({"path": "ねこ.wav"}, NO_FILE),
        "a path out of the folder": ({"path": "../../etc/passwd"}, NO_FILE),
        "an absolute path": ({"path": "/etc/passwd"}, NO_FILE),
        "a folder": ({"path": "."}, NO_FILE),
        "a device": ({"path": "/dev/zero"}, NO_FILE),
        "a link to a device": ({"path": "zero.wav"}, NO_FILE),
        "a pipe": ({"path": "pipe.wav"}, NO_FILE),
        "a path with a null byte": ({"path": "a\0.wav"}, NO_FILE),
        "a URL": ({"path": "http://127.0.0.1/a.wav"}, NO_FILE),
        "a path that is a number": ({"path": 3}, "path is of type"),
    }
    kinds = {name: Kind(row, answer) for name, (row, answer) in rows_and_answers.items()}
    nothing: dict[str, dict[str, Any]] = {"no key": {}, "a wrong key": {"audoi": audio}}
    return kinds | {name: Kind(row, ELSEWHERE, says_row=False) for name, row in nothing.items()}


def lay_files(folder: Path) -> None:
    """The pipe and the link that rows name."""
    os.mkfifo(folder / "pipe.wav")
    (folder / "zero.wav").symlink_to("/dev/zero")


KINDS = _files() | _rows()
