"""How long recordings last, and digests of them and their files, kept so that the next command decodes none again.

What was kept of a file is trusted while its size and its times of change are what they were. A file that changed just
before it was read could change again within one tick of its clock: as in git's index, that one is not kept.
"""

import json
import os
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from wertune.base.files import sha256_of
from wertune.base.kept import Kept, code_digest
from wertune.data import audio
from wertune.data.audio import SAMPLE_RATE_HZ, audio_digest, load_audio, refuse_cut_off, refuse_unheard

TICK_NS = 2_000_000_000  # of the coarsest clock that file systems have, FAT's


class Sound(NamedTuple):
    """How many samples a part of a recording has at 16 kHz, their digest, and that of the whole file's bytes."""

    samples: int
    digest: str
    file_digest: str

    @property
    def duration_s(self) -> float:
        return self.samples / SAMPLE_RATE_HZ


class Part(NamedTuple):
    """What is read of a file."""

    path: Path
    offset_s: float
    duration_s: float

    @property
    def name(self) -> str:
        """Under which it is kept."""
        return json.dumps(["sound", str(self.path), self.offset_s, self.duration_s])


def known_sound(part: Part, kept: Kept) -> Sound | None:
    """What was kept of a part whose file has not changed since; None where that is nothing."""
    known_as, *sound = json.loads(kept.get(part.name) or "[null]")
    return Sound(*sound) if known_as == _known_as(part.path.stat()) else None


def sound_of(part: Part, kept: Kept, digest_of: Callable[[Path], str] = sha256_of) -> Sound:
    """Decodes a part, and keeps what it was found to be; raises AudioError.

    `digest_of` is `sha256_of`, or remembers what that gave.
    """
    now, state = time.time_ns(), part.path.stat()
    samples = load_audio(*part)
    refuse_cut_off(part.path, str(part.path))
    refuse_unheard(samples, "the recording")
    sound = Sound(samples.size, audio_digest(samples), digest_of(part.path))
    settled = max(state.st_mtime_ns, state.st_ctime_ns) < now - TICK_NS
    if settled and _known_as(state) == _known_as(part.path.stat()):
        kept.put(part.name, json.dumps([_known_as(state), *sound]))
    return sound


def _known_as(state: os.stat_result) -> str:
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {_decoder()}"


@cache
def _decoder() -> str:
    """Whatever the samples of a file depend on beside it."""
    import soundfile

    code = code_digest(audio.__file__, __file__)
    return f"{code} libsndfile {soundfile.__libsndfile_version__} torchaudio {version('torchaudio')}"
