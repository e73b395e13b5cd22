"""A long recording and the real tiny.en: its text, its segments' and words' times, in both engines, and the command."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.support.joined import Said, join
from tests.support.places import DEMO

from wertune.base.config import LoraConfig, ProjectConfig, load_yaml
from wertune.base.text import TermFinder, joined, normaliser
from wertune.commands.listen import transcribe
from wertune.data.audio import Samples, load_audio
from wertune.scores.metrics import Clip, score
from wertune.serving.listener import Voice, base_voice, text_of
from wertune.whisper.adapter import add_lora, save_adapter
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.ctranslate2_engine import load_engine
from wertune.whisper.model import load_whisper
from wertune.whisper.transcription import Segment, transcribe_samples

SOURCE, MINUTES, SEED = "packaged:whisper-tiny.en", 0.7, 1


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joined") / "long.wav"


@pytest.fixture(scope="module")
def said(recording: Path) -> list[Said]:
    return join(["validation"], MINUTES, SEED, recording)


@pytest.fixture(scope="module")
def samples(recording: Path, said: list[Said]) -> Samples:
    return load_audio(recording)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return base_voice(SOURCE, load_yaml(DEMO / "project.yaml", ProjectConfig))


@pytest.fixture(scope="module")
def spoken(voice: Voice, samples: Samples) -> list[Segment]:
    return voice.write([samples], words=True)[0]


def _wer(reference: str, text: str) -> float:
    normalise = normaliser("en")
    return score([Clip("long", reference)], [text], normalise, TermFinder((), normalise)).wer


def _errors_s(said: Sequence[Said], starts_s: Sequence[float], ends_s: Sequence[float]) -> list[float]:
    """How far the first and last sound of each sentence are from the nearest start and end."""
    starts = [min(abs(each.start_s - time) for time in starts_s) for each in said]
    return starts + [min(abs(each.end_s - time) for time in ends_s) for each in said]


def test_the_base_reads_a_long_recording_in_windows_and_tells_when_each_word_is_said(
    said: list[Said], spoken: list[Segment], samples: Samples
) -> None:
    assert samples.size > 30 * 16_000
    assert len({segment.seek_s for segment in spoken}) > 1
    assert _wer(joined(each.text for each in said), text_of(spoken)) < 0.5
    assert np.median(_errors_s(said, [s.start_s for s in spoken], [s.end_s for s in spoken])) < 0.3
    words = [word for segment in spoken for word in segment.words]
    assert joined(word.text for word in words) == text_of(spoken)
    assert np.median(_errors_s(said, [w.start_s for w in words], [w.end_s for w in words])) < 0.15
    assert all(0 < word.probability <= 1 for word in words)


def test_both_engines_agree_on_the_text_and_on_when_it_is_said(
    voice: Voice, said: list[Said], samples: Samples, spoken: list[Segment], tmp_path: Path
) -> None:
    from dataclasses import replace

    base = resolve_base_model(SOURCE)
    save_adapter(add_lora(load_whisper(base.path, "en", "none"), LoraConfig(r=4), seed=0), tmp_path / "fresh", SOURCE)
    in_ctranslate2 = replace(voice, whisper=load_engine(base, tmp_path / "fresh", "en"))
    (other,) = in_ctranslate2.write([samples], words=True)
    reference = joined(each.text for each in said)
    assert abs(_wer(reference, text_of(other)) - _wer(reference, text_of(spoken))) < 0.15
    words = [word for segment in other for word in segment.words]
    assert np.median(_errors_s(said, [w.start_s for w in words], [w.end_s for w in words])) < 0.15
    starts = [word.start_s for segment in spoken for word in segment.words]
    assert np.median([min(abs(word.start_s - start) for start in starts) for word in words]) < 0.05


def test_what_fits_in_a_window_is_written_as_without_windows_letter_by_letter(voice: Voice) -> None:
    rows = (DEMO / "manifests" / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    clips = [load_audio(DEMO / "manifests" / json.loads(row)["audio_filepath"]) for row in rows]
    clips.append(np.concatenate(clips)[: 29 * 16_000])
    expected = transcribe_samples(voice.whisper, clips, voice.context, voice.decode)
    found = voice.write(clips)
    assert [text_of(segments) for segments in found] == [each.text for each in expected]
    assert [segments[0].avg_logprob for segments in found] == [each.segments[0].avg_logprob for each in expected]


def test_the_command_writes_cues_that_can_be_read_and_openai_s_json(recording: Path, spoken: list[Segment]) -> None:
    given = [str(recording), "--project", str(DEMO), "--base", SOURCE, "--words", "--format"]
    values = json.loads(CliRunner().invoke(transcribe, [*given, "verbose_json"], catch_exceptions=False).stdout)
    assert (values["text"], values["language"]) == (text_of(spoken), "en")
    assert [segment["id"] for segment in values["segments"]] == list(range(len(spoken)))
    assert len(values["words"]) == sum(len(segment.words) for segment in spoken)
    cues = CliRunner().invoke(transcribe, [*given, "srt"], catch_exceptions=False).stdout.strip().split("\n\n")
    lines = [cue.splitlines()[2:] for cue in cues]
    assert " ".join(line for cue in lines for line in cue) == text_of(spoken)
    assert all(1 <= len(cue) <= 2 and max(map(len, cue)) <= 42 for cue in lines)
