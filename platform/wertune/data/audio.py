"""Recordings as Whisper hears them: 16 kHz, mono, float32."""

import errno
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wertune.base.errors import AudioError

if TYPE_CHECKING:
    from soundfile import SoundFile

SAMPLE_RATE_HZ = 16_000
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
BLOCK_VALUES = 1 << 22
# Frames that are resampled at once: what is shorter is resampled whole, half an hour at 96 kHz in little memory.
PIECE_FRAMES = 1 << 22
# What torchaudio's filter sees beside a frame, in steps of its phase: six zero crossings at 0.99 of the band.
MARGIN_STEPS = 8

# Of channels that cancel each other out no hundredth of their power is left; of unlike ones at least a quarter.
CANCELLED = 0.01
# Decoded mp3 and opus go a little over full scale; float recordings of another scale much and often.
FULL_SCALE, OVER_SHARE = 1.0, 1e-3
LEAST_PEAK = 16 / 32768
SILENCE = 1e-6  # what rounding leaves
OGG_PAGE_BYTES, OGG_LAST_PAGE = 65_307, 4  # RFC 3533: the longest page, and the flag of a stream's last
# Of what a header or a row promises, so much may be missing: what encoders, rounding and resampling take.
MISSING_SHARE, MISSING_S = 0.05, 0.1
ENDLESS_BYTES = 0x7FFFF000  # what is written as it is recorded promises all that a header can
SHOWN_OF_NAME = 250
_SHORT_DATA = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)

Samples = npt.NDArray[np.float32]


def is_recording(path: Path) -> bool:
    """Whether a file is there; AudioError where none can be read under that name, whatever is there."""
    try:
        str(path).encode()
        path.stat()  # is_file() says of links that go round that there is none
    except UnicodeEncodeError:
        raise AudioError(f"the file's name {spelt(str(path))} is no UTF-8; rename it") from None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise AudioError(f"the recording is {path_fault(str(path), error)}") from None
    return path.is_file()


def path_fault(name: str, error: Exception) -> str:
    """The name, and why nothing can be found under it, with what to do: of an error of asking for it."""
    number = getattr(error, "errno", None)
    if isinstance(error, RuntimeError) or number == errno.ELOOP:  # RuntimeError: Path.resolve's
        rule = "links lead from there back to it; put the recording itself there"
    elif number == errno.ENAMETOOLONG:
        rule = f"no file's name can be as long as its {len(name.encode())} bytes; give the recording a shorter one"
    else:
        rule = f"it cannot be looked for ({error}); mend the name, or let it be read"
    return f"{name if len(name) <= SHOWN_OF_NAME else f'{name[:SHOWN_OF_NAME]}…'}, but {rule}"


def spelt(text: str) -> str:
    """The same with those bytes of files' names spelt that are no UTF-8: they could not be written."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def load_audio(
    source: Path | bytes,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    check: Callable[[], object] = lambda: None,
) -> Samples:
    """Mono float32 samples (n,) at 16 kHz of a wav, flac, ogg/opus or mp3 file or its bytes.

    `check` is called before each piece: it may raise what ends the work.
    Raises AudioError when it cannot be decoded, is empty, shorter than its header says, over full scale, holds NaN or
    infinite samples, or channels that cancel each other out.
    """
    # soundfile and torchaudio cost a second to import: not before there is a file to read.
    import soundfile

    place = "the audio" if isinstance(source, bytes) else str(source)
    if isinstance(source, Path) and not source.exists():
        raise AudioError(f"{place} does not exist; mend its path")
    readable = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with soundfile.SoundFile(readable) as file:
            rate: int = file.samplerate
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                rule = f"must have {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
                raise AudioError(f"{place} has {rate} Hz, but {rule}; export it again")
            start = min(round(offset_s * rate), len(file))
            file.seek(start)
            frames = len(file) if duration_s is None else round(duration_s * rate)
            heard = _Heard()
            samples = _joined(_resampled(_mono_pieces(file, frames, check, heard), rate))
            faults = _faults(file, min(frames, len(file) - start), heard)
    except (OSError, RuntimeError, ValueError) as error:
        remedy = "give wav, flac, ogg/opus or mp3"
        problem = str(error).replace(repr(readable), place)
        raise AudioError(f"{place} cannot be decoded ({problem}); {remedy}") from None
    if samples.size == 0:
        raise AudioError(f"{place} holds no samples from {offset_s:g} s on; remove the row or mend its offset")
    if not np.isfinite(samples).all():
        raise AudioError(f"{place} holds NaN or infinite samples; export it again")
    if faults:
        raise AudioError(f"{place} {'; it '.join(faults)}")
    return samples


def frame_power(samples: Samples, size: int) -> npt.NDArray[np.float64]:
    """The mean square (frames,) of each whole frame of so many samples."""
    whole = samples[: samples.size // size * size].reshape(-1, size)
    return np.asarray(np.square(whole, dtype=np.float64).mean(axis=1))


def length_s(path: Path) -> float:
    """How long a recording lasts by its header, in seconds; AudioError where that cannot be read, or is cut off."""
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"{path} cannot be decoded ({str(error).replace(repr(str(path)), str(path))})"
        raise AudioError(f"{problem}; give wav, flac, ogg/opus or mp3") from None
    refuse_cut_off(path, str(path))
    return float(info.frames / info.samplerate)


@dataclass
class _Heard:
    """What averaging the channels leaves no trace of, summed over the pieces."""

    frames: int = 0
    over: int = 0
    peak: float = 0.0
    channels_power: float = 0.0
    mono_power: float = 0.0

    def add(self, block: Samples, mono: Samples) -> None:
        """A block (frames, channels), and the mean of its channels (frames,)."""
        loud = np.abs(block)
        self.frames += len(block)
        self.over += int((loud.max(axis=1) > FULL_SCALE).sum())
        self.peak = max(self.peak, float(loud.max(initial=0.0)))
        self.channels_power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
        self.mono_power += float(np.square(mono, dtype=np.float64).sum())


def _faults(file: "SoundFile", promised: int, heard: _Heard) -> list[str]:
    """What decodes and is not what was recorded; `promised` are the frames that the header says are there."""
    rate, found = file.samplerate, []
    if (short := _SHORT_DATA.search(file.extra_info)) and int(short[1]) < ENDLESS_BYTES:
        promised, there = (int(size) for size in short.groups())
        unit = max(1, there // max(1, len(file)))  # bytes of a frame
        promised, rest = promised // unit, there // unit
    else:
        rest = heard.frames
    if promised - rest > max(MISSING_SHARE * promised, MISSING_S * rate):
        lasts = f"{promised / rate:.2f} s, but {rest / rate:.2f} s are there"
        found.append(f"promises {lasts}: it was cut off on its way; fetch or upload it again")
    if heard.over > OVER_SHARE * heard.frames and heard.frames:
        share = f"{heard.over / heard.frames:.1%} of its samples are beyond full scale, up to {heard.peak:.3g} times it"
        found.append(f"is too loud: {share}; export it again at a lower level")
    if file.channels > 1 and heard.mono_power < CANCELLED * heard.channels_power:
        found.append("has channels that cancel each other out (one is the other upside down); give one of them")
    return found


def _mono_pieces(file: "SoundFile", frames: int, check: Callable[[], object], heard: _Heard) -> Iterator[Samples]:
    """The next frames, channels averaged, PIECE_FRAMES at a time; a damaged header may promise more than there are."""
    most = max(1, BLOCK_VALUES // file.channels)
    blocks: list[Samples] = []
    gathered = 0
    while frames > 0:
        check()
        block = file.read(min(frames, most, PIECE_FRAMES - gathered), dtype="float32", always_2d=True)
        if not len(block):
            break
        mono = block.mean(axis=1)
        heard.add(block, mono)
        blocks.append(mono)
        frames, gathered = frames - len(block), gathered + len(block)
        if gathered == PIECE_FRAMES:
            yield _joined(blocks)
            blocks, gathered = [], 0
    yield _joined(blocks)


def _joined(pieces: Iterable[Samples]) -> Samples:
    return np.concatenate([np.zeros(0, np.float32), *pieces])


def resample(samples: Samples, rate_hz: int) -> Samples:
    """The samples (n,) at 16 kHz, by torchaudio's windowed sinc; `rate_hz` to the nearest 25 Hz."""
    starts = range(0, samples.size, PIECE_FRAMES)
    return _joined(_resampled((samples[start : start + PIECE_FRAMES] for start in starts), rate_hz))


def _resampled(pieces: Iterable[Samples], rate_hz: int) -> Iterator[Samples]:
    """Pieces of one recording at 16 kHz, together the whole's: each is filtered with its neighbours' edges."""
    # Without a common divisor of the rates the kernel takes gigabytes: 12 GB for 44,101 Hz.
    rate_hz = round(rate_hz / 25) * 25
    step = rate_hz // gcd(rate_hz, SAMPLE_RATE_HZ)  # frames after which the filter's phase is the same
    margin, before = MARGIN_STEPS * step, 0
    held = np.zeros(0, np.float32)  # `before` frames that are through, and those that are not
    for piece in pieces:
        through = max(before, (held.size - margin) // step * step)
        if through > before:
            yield _filtered(held, rate_hz)[before * SAMPLE_RATE_HZ // rate_hz : through * SAMPLE_RATE_HZ // rate_hz]
            held, before = held[max(0, through - margin) :], min(margin, through)
        held = np.concatenate([held, piece])
    yield _filtered(held, rate_hz)[before * SAMPLE_RATE_HZ // rate_hz :]


def _filtered(samples: Samples, rate_hz: int) -> Samples:
    if rate_hz == SAMPLE_RATE_HZ or samples.size == 0:
        return samples
    import torch
    import torchaudio.functional

    resampled = torchaudio.functional.resample(torch.from_numpy(samples), rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(resampled.numpy(), dtype=np.float32)


def refuse_unheard(samples: Samples, place: str) -> None:
    """AudioError where somebody is said to speak and nothing can be heard: noise of the last four bits of 16."""
    # A steady level is no sound: a broken cable leaves one.
    peak = float(np.abs(samples - samples.mean()).max()) if samples.size else 0.0
    if peak < LEAST_PEAK:
        level = f"peaks at {20 * np.log10(peak):.0f} dBFS" if peak > SILENCE else "is silent"
        rule = f"must reach {20 * np.log10(LEAST_PEAK):.0f} dBFS for speech to be heard"
        raise AudioError(f"{place} {level}, but {rule}; record it anew or remove the row")


def refuse_cut_off(source: Path | bytes, place: str) -> None:
    """AudioError where an Ogg stream does not come to its last page: its header promises no length.

    Not of what is served: a browser's recording may be sent while it goes on.
    """
    if isinstance(source, bytes):
        end = source[-OGG_PAGE_BYTES:]
    else:
        with source.open("rb") as file:
            file.seek(max(0, source.stat().st_size - OGG_PAGE_BYTES))
            end = file.read()
    at = end.rfind(b"OggS")
    if at >= 0 and len(end) > at + 5 and not end[at + 5] & OGG_LAST_PAGE:
        problem = f"{place} ends before its last page: it was cut off on its way"
        raise AudioError(f"{problem}; fetch or upload it again, or convert what is there")


def audio_digest(samples: Samples) -> str:
    """sha256 of the decoded samples: equal for equal sound, whatever the file's name."""
    return hashlib.sha256(samples.tobytes()).hexdigest()
