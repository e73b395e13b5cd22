"""What SVOX Pico and RHVoice are asked for; the programs themselves lie in Debian's non-free part."""

import sys
from pathlib import Path

import pytest

from wertune.base.errors import SynthesisError
from wertune.synthesis.program_voices import Pico, RHVoice

FAKE = """#!{python}
import pathlib, sys
import numpy as np, soundfile as sf
arguments = sys.argv[1:]
path = next(a for a in arguments if a.endswith(".wav"))
sf.write(path, np.full(800, 0.1, np.float32), 16000)
told = [a for a in arguments if a != path] + [sys.stdin.read()]
pathlib.Path({log!r}).write_text("|".join(told))
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The arguments and the input that the last program got."""
    log = tmp_path / "asked"
    for name in ("pico2wave", "RHVoice-test"):
        program = tmp_path / name
        program.write_text(FAKE.format(python=sys.executable, log=str(log)))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return log


def test_pico_is_given_its_pace_and_the_text_as_markup(asked: Path) -> None:
    samples, rate = Pico().speak("Fish & chips <now>", "en-GB", 0.95)
    assert (samples.size, rate) == (800, 16_000)
    assert asked.read_text() == '-l|en-GB|-w|<speed level="95">Fish &amp; chips &lt;now&gt;</speed>|'


def test_rhvoice_is_given_its_voice_and_reads_the_text(asked: Path) -> None:
    samples, _ = RHVoice().speak("Fish & chips", "clb", 1.04)
    assert samples.size == 800
    assert asked.read_text() == "-p|clb|-r|104|-o|Fish & chips"


def test_they_offer_what_the_language_has(asked: Path) -> None:
    assert [offer.speaker for offer in Pico().offers("en")] == ["pico-lh0", "pico-kh0"]
    assert [offer.speaker for offer in RHVoice().offers("en")] == ["bdl", "clb", "awb", "slt"]
    assert [offer.name for offer in Pico().offers("de")] == ["de-DE"]
    assert not Pico().offers("ms")
    assert not RHVoice().offers("de")


@pytest.mark.parametrize("engine", [Pico(), RHVoice()])
def test_another_voice_is_refused_and_so_is_an_absent_program(
    engine: Pico | RHVoice, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SynthesisError, match="has no voice 'zoe'; take one of"):
        engine.speak("Hello.", "zoe", 1.0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SynthesisError, match="is not installed; on Debian: apt-get install"):
        engine.offers("en")
