"""What a request to the served model may hold: its forms of audio, its limits, and the files that it may name."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wertune.base.config import ServingConfig
from wertune.base.errors import AudioError, RequestError
from wertune.data.audio import MIN_RATE_HZ, SAMPLE_RATE_HZ, Samples, load_audio, resample

AUDIO_FOLDER_VARIABLE = "WERTUNE_SERVE_AUDIO_FOLDER"
SOURCES = ("audio", "path", "samples")
FORMATS = {"WAV": "wav", "WAVEX": "wav", "FLAC": "flac", "OGG": "ogg", "MP3": "mp3"}
MAX_AMPLITUDE = 4.0  # resampling overshoots 1, but not so far


@dataclass(frozen=True)
class AudioFiles:
    """The files that a request may name: those in `folder`; without one every file, or none where it is `served`.

    Who may write into the folder may make any file readable by a hard link: it must be the operator's alone.
    """

    folder: Path | None = None
    served: bool = False

    def locate(self, path: str) -> Path:
        """The file that `path` names, relative to the folder where there is one; RequestError."""
        if self.folder is None:
            if self.served:
                remedy = f"send the bytes as audio, or set {AUDIO_FOLDER_VARIABLE} where the model is served"
                raise RequestError(f"path is not read over HTTP: any file of the server could be named; {remedy}")
            return Path(path)
        # Symbolic links are followed first: what counts is where the bytes lie.
        try:
            root = self.folder.resolve(strict=True)
            found = (root / path).resolve()
            inside, is_file = found.is_relative_to(root), found.is_file()
        except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long, a null byte
            inside = is_file = False
        # One answer whether it is elsewhere or nowhere: no one may find out what files the server has.
        if not (inside and is_file):
            raise RequestError(f"path is {path[:200]!r}, but must name a file in the server's audio folder; mend it")
        return found


def read_request(
    rows: Sequence[Mapping[str, Any]],
    limits: ServingConfig,
    files: AudioFiles,
    check: Callable[[], object] = lambda: None,
) -> list[Samples]:
    """The samples of each row at 16 kHz; a row has `audio`, `path`, or `samples` with `rate_hz`.

    Raises RequestError with the faults of all rows, before anything is transcribed. `check` is called before each row
    and while one is decoded: it may raise what ends the work.
    """
    if not 1 <= len(rows) <= limits.max_batch:
        rule = f"the request has {len(rows)} rows with audio, path or samples, but must have 1 to {limits.max_batch}"
        raise RequestError(f"{rule}; send a row for each recording, and more in further requests")
    clips: list[Samples] = []
    faults = []
    for number, row in enumerate(rows, start=1):
        check()
        try:
            clips.append(_read_row(row, limits, files, check))
        except (AudioError, RequestError) as error:
            faults.append(f"row {number} of {len(rows)}: {error}")
        if sum(clip.size for clip in clips) > limits.max_total_duration_s * SAMPLE_RATE_HZ:
            rule = f"the request's recordings last more than {limits.max_total_duration_s:g} s together"
            raise RequestError(f"{rule}, which is the limit; send several requests")
    if faults:
        raise RequestError("\n".join(faults))
    return clips


def _read_row(row: Mapping[str, Any], limits: ServingConfig, files: AudioFiles, check: Callable[[], object]) -> Samples:
    given = [name for name in SOURCES if row.get(name) is not None]
    if len(given) != 1:
        has = " and ".join(given) or "none of them"
        raise RequestError(f"it has {has}, but must have one of audio, path and samples; send a row for each recording")
    (source,) = given
    if source == "samples":
        return _read_samples(row["samples"], row.get("rate_hz"), limits)
    if row.get("rate_hz") is not None:
        raise RequestError(f"rate_hz goes with samples, but {source} is a file with a rate of its own; remove rate_hz")
    data = _read_file(row["path"], limits, files) if source == "path" else _read_bytes(row["audio"], limits)
    return _decode(data, limits, check)


def _read_bytes(audio: Any, limits: ServingConfig) -> bytes:
    """Bytes as they are, a string from base64."""
    if isinstance(audio, bytes):
        data = audio
    elif isinstance(audio, str):
        # Whitespace is let in: base64 in lines is what the command `base64` and MLflow's client write.
        text = "".join(audio.split())
        _check_size(len(text) * 3 // 4 - 2, limits)
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise RequestError(f"audio is not base64 ({error}); send the bytes of a file in base64") from None
    else:
        rule = f"audio is {_kind(audio)}, but must be the bytes of one file, in base64 over HTTP"
        raise RequestError(f"{rule}; send a row for each recording")
    _check_size(len(data), limits)
    return data


def _read_file(path: Any, limits: ServingConfig, files: AudioFiles) -> bytes:
    if not isinstance(path, str):
        raise RequestError(f"path is {_kind(path)}, but must be a string; send the bytes as audio")
    try:
        with files.locate(path).open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"path is {path[:200]!r}, which cannot be read ({problem}); mend it") from None
    _check_size(len(data), limits)
    return data


def _check_size(size: int, limits: ServingConfig) -> None:
    if size > limits.max_bytes:
        rule = f"the recording has more than {limits.max_bytes} bytes, which is the limit"
        raise RequestError(f"{rule}; cut it, or send it as ogg/opus")


def _decode(data: bytes, limits: ServingConfig, check: Callable[[], object]) -> Samples:
    name, rate_hz = _container(data)
    if name not in limits.formats:
        known = ", ".join(limits.formats)
        raise RequestError(f"the recording's format is {name or 'not known'}, but must be one of {known}; convert it")
    if rate_hz > limits.max_rate_hz:
        raise RequestError(
            f"the recording has {rate_hz} Hz, but must have at most {limits.max_rate_hz} Hz; resample it"
        )
    # A second more than allowed, and no more: what the header says of the length may be wrong.
    samples = load_audio(data, duration_s=limits.max_duration_s + 1, check=check)
    _check_duration(samples.size / SAMPLE_RATE_HZ, limits)
    return samples


def _container(data: bytes) -> tuple[str, int]:
    """The format and rate of a file; an empty format where it is none of FORMATS.

    By its first bytes before libsndfile reads it, which tries parsers of two dozen formats on what strangers send.
    """
    import soundfile

    starts = data[:4] in (b"RIFF", b"fLaC", b"OggS") or data[:3] == b"ID3"
    is_mp3_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    if not starts and not is_mp3_frame:
        return "", 0
    try:
        info = soundfile.info(BytesIO(data))
    except (RuntimeError, ValueError) as error:
        problem = str(error).rpartition(": ")[2]
        raise AudioError(f"the recording cannot be decoded ({problem}); export it again") from None
    return FORMATS.get(info.format, ""), int(info.samplerate)


def _read_samples(samples: Any, rate_hz: Any, limits: ServingConfig) -> Samples:
    """A list or array of floats, with 1 as full scale, from its own rate to 16 kHz."""
    rate = _read_rate(rate_hz, limits)
    if not isinstance(samples, list | tuple | np.ndarray):
        raise RequestError(f"samples is {_kind(samples)}, but must be a list of numbers; send one list a row")
    values = _numbers(samples)
    _check_duration(values.size / rate, limits)
    if not np.isfinite(values).all() or np.abs(values).max() > MAX_AMPLITUDE:
        rule = "samples holds numbers that are not finite or far beyond 1, but full scale must be -1 to 1"
        raise RequestError(f"{rule}; divide 16-bit integers by 32768")
    return resample(values.astype(np.float32), rate)


def _numbers(samples: Any) -> npt.NDArray[np.float64]:
    try:
        values = np.asarray(samples)
    except ValueError:  # lists of unlike length
        values = np.zeros((0, 0))
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "fiu":
        raise RequestError("samples must be one list of numbers with at least one in it; mix channels to mono")
    return values.astype(np.float64)


def _read_rate(rate_hz: Any, limits: ServingConfig) -> int:
    is_number = isinstance(rate_hz, int | float | np.integer | np.floating)
    if not (is_number and MIN_RATE_HZ <= rate_hz <= limits.max_rate_hz):
        rule = f"rate_hz is {rate_hz!r:.40}, but must be {MIN_RATE_HZ} to {limits.max_rate_hz}"
        raise RequestError(f"{rule}; give the rate of samples")
    return round(float(rate_hz))


def _check_duration(duration_s: float, limits: ServingConfig) -> None:
    if duration_s > limits.max_duration_s:
        raise RequestError(f"the recording lasts more than {limits.max_duration_s:g} s, which is the limit; cut it")


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"
