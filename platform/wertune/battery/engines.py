"""An engine that speaks batteries alone: no project's `synthesize` casts its voices, so that none is trained on."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wertune.base.errors import SynthesisError
from wertune.data.audio import Samples
from wertune.synthesis.engine import Offer
from wertune.synthesis.neural_voices import Kokoro, kokoro_speech

VOICES_VARIABLE = "WERTUNE_KOKORO_VOICES"
_SHAPE = (510, 1, 256)


class KokoroEnglish:
    """Kokoro-82M with its English voices, whose style vectors npm's kokoro-js brings."""

    def offers(self, language: str) -> Sequence[Offer]:
        """See Engine."""
        spoken = sorted(path.stem for path in _folder().glob("[ab][fm]_*.bin")) if language == "en" else ()
        return [Offer(name, name.replace("_", "-"), "Apache-2.0 (Kokoro-82M)") for name in spoken]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        return kokoro_speech(text, _style(voice), speed), Kokoro.rate


@functools.cache
def _style(voice: str) -> npt.NDArray[np.float32]:
    path = _folder() / f"{voice}.bin"
    if not path.is_file():
        raise SynthesisError(f"{path} does not exist; take one of {', '.join(p.stem for p in _folder().glob('*.bin'))}")
    return np.fromfile(path, np.float32).reshape(_SHAPE)


def _folder() -> Path:
    folder = Path(os.environ.get(VOICES_VARIABLE, ""))
    if VOICES_VARIABLE not in os.environ or not folder.is_dir():
        found = os.environ.get(VOICES_VARIABLE, "not set")
        rule = "must be the folder `voices` of npm's kokoro-js"
        raise SynthesisError(f"{VOICES_VARIABLE} is {found}, but {rule}; `npm pack kokoro-js@1.2.1` and unpack it")
    return folder
