"""Speech engines that are programs: flite, espeak-ng, festival, SVOX Pico and RHVoice."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import escape

import soundfile as sf

from wertune.base.errors import SynthesisError
from wertune.data.audio import Samples
from wertune.synthesis.engine import Engine, Offer

_TIMEOUT_S = 60
_ESPEAK_WORDS_PER_MINUTE = 165


class Flite(Engine):
    """CMU Flite with the voices that are compiled in."""

    voices = ("kal", "kal16", "awb", "rms", "slt")
    offered = ("kal16", "awb", "rms", "slt")  # kal is kal16 at 8 kHz

    def offers(self, language: str) -> Sequence[Offer]:
        listed = _run("flite", "flite", ["-lv"]).split() if language == "en" else ()
        licence = "BSD-like (CMU Flite)"
        return [Offer(name, name.removesuffix("16"), licence) for name in self.offered if name in listed]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        if voice not in self.voices:  # flite itself would speak with another voice and say nothing of it
            raise SynthesisError(f"flite has no voice {voice!r}; take one of {', '.join(self.voices)}")
        stretch = f"duration_stretch={1 / speed:.3f}"
        return _run_to_wav("flite", "flite", ["-voice", voice, "--setf", stretch, "-t", text, "-o"])


class Espeak(Engine):
    """eSpeak NG; a voice is `accent+variant` or `accent+variant:pitch`, the pitch from 0 to 99."""

    # Without those that whisper, shout, are robots or sound like another one. `en-gb+VARIANT` is not used: eSpeak NG
    # 1.51 ignores the variant there.
    variants = (
        *("f2", "f3", "f4", "f5", "m1", "m3", "m5", "m7", "Annie", "Denis", "Gene", "Mike", "belinda", "benjamin"),
        *("iven", "paul", "robert", "sandro", "steph2", "victor"),
    )
    english = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-us-nyc", "en-gb-x-gbcwmd")
    of_whisper: ClassVar[dict[str, str]] = {"zh": "cmn", "jw": "jv", "no": "nb"}

    def offers(self, language: str) -> Sequence[Offer]:
        # English personas take its accents in turn.
        own = self.of_whisper.get(language, language)
        known = len(_run("espeak-ng", "espeak-ng", [f"--voices={own}"]).splitlines()) > 1  # below a heading
        accents = (self.english if own == "en" else (own,)) if known else ()
        licence = "GPL-3.0-or-later (eSpeak NG)"
        spoken = zip(self.variants, cycle(accents), strict=False)
        return [Offer(f"{accent}+{name}", name.lower(), licence, (0.88, 1.12)) for name, accent in spoken]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        name, _, pitch = voice.partition(":")
        words_per_minute = str(round(_ESPEAK_WORDS_PER_MINUTE * speed))
        options = ["-v", name, "-s", words_per_minute, "-p", pitch or "50"]
        return _run_to_wav("espeak-ng", "espeak-ng", [*options, f" {text}", "-w"])


class Festival(Engine):
    """Festival through text2wave; the voice cmu_us_slt_arctic_hts keeps its own pace, whatever the speed."""

    # Who is heard, and the package.
    voices: ClassVar[dict[str, tuple[str, str]]] = {
        "kal_diphone": ("kal", "festvox-kallpc16k"),
        "ked_diphone": ("ked", "festvox-kdlpc16k"),
        "cmu_us_slt_arctic_hts": ("slt", "festvox-us-slt-hts"),
    }

    def offers(self, language: str) -> Sequence[Offer]:
        if language != "en":
            return ()
        listed = _run("festival", "festival festvox-kallpc16k", ["--batch", "(print (voice.list))"])
        names = listed.strip().strip("()").split()
        licence = "BSD-like (CMU or University of Edinburgh)"
        return [Offer(name, speaker, licence) for name, (speaker, _) in self.voices.items() if name in names]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        packages = " ".join(["festival", *self.voices.get(voice, ())[1:]])
        scheme = ["-eval", f"(voice_{voice})", "-eval", f"(Parameter.set 'Duration_Stretch {1 / speed:.3f})"]
        return _run_to_wav("text2wave", packages, [*scheme, "-o"], stdin=text)


class Pico(Engine):
    """SVOX Pico through pico2wave, one voice a language; Debian has it in non-free."""

    voices: ClassVar[dict[str, str]] = {
        "en-US": "lh0", "en-GB": "kh0", "de-DE": "gl0", "es-ES": "zl0", "fr-FR": "nk0", "it-IT": "cm0",
    }  # fmt: skip

    def offers(self, language: str) -> Sequence[Offer]:
        _check_program("pico2wave", "libttspico-utils")
        found = [(name, speaker) for name, speaker in self.voices.items() if name.startswith(f"{language}-")]
        return [Offer(name, f"pico-{speaker}", "Apache-2.0 (SVOX Pico)") for name, speaker in found]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        if voice not in self.voices:
            raise SynthesisError(f"pico has no voice {voice!r}; take one of {', '.join(self.voices)}")
        paced = f'<speed level="{100 * speed:.0f}">{escape(text)}</speed>'
        return _run_to_wav("pico2wave", "libttspico-utils", ["-l", voice, "-w"], after=[paced])


class RHVoice(Engine):
    """RHVoice's voices of the CMU Arctic recordings; alan and slt are flite's awb and slt. Debian: non-free."""

    speakers: ClassVar[dict[str, str]] = {"bdl": "bdl", "clb": "clb", "alan": "awb", "slt": "slt"}
    packages = "rhvoice rhvoice-english"

    def offers(self, language: str) -> Sequence[Offer]:
        _check_program("RHVoice-test", self.packages)
        found = self.speakers.items() if language == "en" else ()
        return [Offer(name, speaker, "LGPL-2.1-or-later (RHVoice)") for name, speaker in found]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        if voice not in self.speakers:  # RHVoice itself would speak with another voice and say nothing of it
            raise SynthesisError(f"rhvoice has no voice {voice!r}; take one of {', '.join(self.speakers)}")
        return _run_to_wav("RHVoice-test", self.packages, ["-p", voice, "-r", f"{100 * speed:.0f}", "-o"], stdin=text)


def _run(program: str, packages: str, arguments: list[str]) -> str:
    """What the program prints."""
    _check_program(program, packages)
    command = [program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.SubprocessError as error:
        raise SynthesisError(f"{' '.join(command)} failed ({error}); try the command by hand") from None
    return done.stdout


def _check_program(program: str, packages: str) -> None:
    if shutil.which(program) is None:
        raise SynthesisError(f"{program} is not installed; on Debian: apt-get install {packages}")


def _run_to_wav(
    program: str, packages: str, arguments: list[str], stdin: str = "", after: Sequence[str] = ()
) -> tuple[Samples, int]:
    """The wav file that `program arguments… FILE after…` writes."""
    _check_program(program, packages)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = [program, *arguments, str(wav), *after]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            samples, rate = sf.read(wav, dtype="float32")
        except (subprocess.TimeoutExpired, sf.LibsndfileError) as error:
            raise SynthesisError(f"{' '.join(command)} gave no audio ({error}); try the command by hand") from None
    if done.returncode != 0:
        raise SynthesisError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return samples, rate
