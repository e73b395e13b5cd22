"""Recordings in, texts and cues out: times are those of the cuts, and one bad file stops no other."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import ContextConfig, DecodeConfig, ServingConfig
from wertune.base.errors import ConfigError
from wertune.commands.options import version_uri
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.importers.cue import Cue
from wertune.data.importers.subtitles import read_srt, read_vtt
from wertune.data.importers.whisper_json import read_whisper
from wertune.data.pauses import split_at_pauses
from wertune.serving.listener import Voice, text_of
from wertune.serving.transcribe import check_out, recordings_of, rendered, transcribe_files
from wertune.whisper.transcription import Segment, Word
from wertune.whisper.wording import Timed, Written

SEGMENTS = [Segment(0, 3.5, "one", -0.1), Segment(3.5, 3661.0004, "", -1), Segment(3661.0004, 3662, "a < b", -0.2)]


class _Counting:
    """Writes the number of the batch's clip and its frames."""

    device, mel_bins = torch.device("cpu"), 80

    def generate(
        self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig, language: str = ""
    ) -> list[Written]:
        return [Written(f"{len(token_limits)} of {features.shape[2]}", (-0.5,)) for _ in token_limits]


@pytest.fixture
def voice() -> Voice:
    return Voice("counting", "fake", _Counting(), ContextConfig(), DecodeConfig(batch_size=2), ServingConfig())


@given(st.floats(0.1, 100), st.floats(5, 28), st.integers(0, 9))
def test_segments_are_short_enough_and_cover_the_recording_without_gaps(
    seconds: float, longest_s: float, seed: int
) -> None:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)
    pieces = split_at_pauses(samples, longest_s)
    assert sum(piece.size for piece in pieces) == samples.size
    assert all(piece.samples.size <= longest_s * SAMPLE_RATE_HZ + 1 for piece in pieces)
    assert len(pieces) == 1 or pieces[-1].size >= SAMPLE_RATE_HZ


def test_long_recordings_are_told_as_soon_as_each_is_written(
    voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wertune.serving.transcribe.AT_ONCE_S", 5.0)
    files = [tmp_path / f"{number}.wav" for number in range(3)]
    for file, seconds in zip(files, (1.0, 6.0, 1.0), strict=True):
        soundfile.write(file, np.full(round(seconds * SAMPLE_RATE_HZ), 0.1, np.float32), SAMPLE_RATE_HZ)
    said, written = list[str](), list[tuple[int, int]]()

    def write(clips: Any, *_: Any) -> Any:
        written.append((len(clips), len(said)))
        return [[] for _ in clips]

    monkeypatch.setattr(Voice, "write", lambda _, clips, *given: write(clips, *given))
    transcribe_files(voice, files, "txt", None, None, "", said.append, said.append)
    assert written == [(1, 0), (1, 1), (1, 2)]


def test_each_clip_gets_its_own_segments_with_the_times_of_its_cuts(voice: Voice) -> None:
    quiet = np.full(40 * SAMPLE_RATE_HZ, 0.5, np.float32)
    quiet[round(24.95 * SAMPLE_RATE_HZ) : round(25.15 * SAMPLE_RATE_HZ)] = 0
    short, long = voice.write([quiet[: 2 * SAMPLE_RATE_HZ], quiet])
    assert [(s.start_s, s.end_s) for s in short] == [(0, 2)]
    assert [s.start_s for s in long] == [0, pytest.approx(25.05, abs=0.1)]
    assert long[-1].end_s == 40
    assert text_of(long) == " ".join(s.text for s in long)


def test_subrip_and_webvtt() -> None:
    assert rendered(SEGMENTS, "srt", "a.wav", "m") == (
        "1\n00:00:00,000 --> 00:00:03,500\none\n\n2\n01:01:01,000 --> 01:01:02,000\na < b\n"
    )
    assert rendered(SEGMENTS, "vtt", "a.wav", "m") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:03.500\none\n\n01:01:01.000 --> 01:01:02.000\na &lt; b\n"
    )
    assert rendered(SEGMENTS, "txt", "a.wav", "m") == "one a < b\n"
    values = json.loads(rendered(SEGMENTS, "json", "a.wav", "m"))
    assert (values["file"], values["model"], values["text"]) == ("a.wav", "m", "one a < b")
    assert values["segments"][1] == {"start_s": 3.5, "end_s": 3661.0004, "text": "", "avg_logprob": -1}
    assert rendered([], "txt", "a.wav", "m") == "\n"


def test_words_stand_in_json_where_they_are_known() -> None:
    word = Word("one", 0.5, 1.0, 0.25)
    (segment,) = json.loads(rendered([Segment(0, 3.5, "one", -0.1, words=(word,))], "json", "a.wav", "m"))["segments"]
    assert segment["words"] == [{"word": "one", "start": 0.5, "end": 1.0, "probability": 0.25}]
    assert list(segment) == ["start_s", "end_s", "text", "avg_logprob", "words"]


def test_verbose_json_has_the_shape_of_openai_s_and_only_what_is_known() -> None:
    known = Segment(3.5, 5.00049, "two words", -0.1, 3.0, 0.75, 0.02, (Word("two", 3.5, 4, 1), Word("words", 4, 5, 1)))
    values = json.loads(rendered([SEGMENTS[0], SEGMENTS[1], known], "verbose_json", "a.wav", "m", "ta", 5.25))
    assert {key: values[key] for key in ("task", "language", "duration", "text", "file", "model")} == {
        "task": "transcribe", "language": "ta", "duration": 5.25, "text": "one two words",
        "file": "a.wav", "model": "m",
    }  # fmt: skip
    assert values["segments"][0] == {
        "id": 0, "seek": 0, "start": 0.0, "end": 3.5, "text": "one", "temperature": 0.0, "avg_logprob": -0.1,
    }  # fmt: skip
    two = values["segments"][1]
    assert {key: two[key] for key in ("id", "seek", "start", "end", "compression_ratio", "no_speech_prob")} == {
        "id": 1, "seek": 300, "start": 3.5, "end": 5.0, "compression_ratio": 0.75, "no_speech_prob": 0.02,
    }  # fmt: skip
    assert values["words"] == two["words"]
    assert [word["word"] for word in values["words"]] == ["two", "words"]


def test_what_is_written_is_read_again_by_import(tmp_path: Path) -> None:
    spoken = [Segment(0, 3.5, "Log in.", -0.1), Segment(4.25, 7.0, "No, CPF < 2 & more.", -0.1)]
    for form, read in (("verbose_json", read_whisper), ("srt", read_srt), ("vtt", read_vtt)):
        path = tmp_path / f"a.{'json' if form == 'verbose_json' else form}"
        path.write_text(rendered(spoken, form, "a.wav", "m", "en", 7.0))  # type: ignore[arg-type]
        found = [(cue.text, cue.start_s, cue.end_s) for cue in read(path) if isinstance(cue, Cue)]
        assert found == [(each.text, each.start_s, each.end_s) for each in spoken]


def test_cues_have_two_lines_at_most() -> None:
    long = Segment(0, 6, "You may log in with Singpass to see your CPF statement of the year", -0.1)
    assert rendered([long], "srt", "a.wav", "m") == (
        "1\n00:00:00,000 --> 00:00:06,000\nYou may log in with Singpass to\nsee your CPF statement of the year\n"
    )


def test_verbose_json_of_several_is_one_list_and_a_file_is_named_json(
    voice: Voice, tmp_path: Path, write_noise: Callable[..., Path]
) -> None:
    files = [write_noise(tmp_path / f"{n}.wav", 1.0, seed=n) for n in range(2)]
    said: list[str] = []
    transcribe_files(voice, files, "verbose_json", None, None, "", said.append, said.append)
    assert [(each["file"], each["duration"]) for each in json.loads(said[0])] == [(str(file), 1.0) for file in files]
    transcribe_files(voice, files, "verbose_json", tmp_path / "out", None, "", said.append, said.append)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.json", "1.json"]


class _Timed(_Counting):
    """Says of each window that a word is said in its first second."""

    def generate(self, features: torch.Tensor, *given: Any) -> list[Written]:
        if len(given) < 4:
            return super().generate(features, *given)
        return [Written("", (-0.5,), (Timed("timed", 0.0, length_s),)) for length_s in given[3]]


def test_long_recordings_are_read_in_windows_unless_pieces_are_asked_for(voice: Voice) -> None:
    timed = replace(voice, whisper=_Timed(), window_s=20.0)
    clip = 0.1 * np.random.default_rng(0).standard_normal(50 * SAMPLE_RATE_HZ).astype(np.float32)
    assert [segment.text for segment in timed.write([clip])[0]] == ["timed"] * 3
    assert timed.write([clip], 20.0) == voice.write([clip], 20.0)
    assert timed.write([clip[: 20 * SAMPLE_RATE_HZ]]) == voice.write([clip[: 20 * SAMPLE_RATE_HZ]])


def test_one_bad_file_stops_no_other(voice: Voice, tmp_path: Path, write_noise: Callable[..., Path]) -> None:
    files = [write_noise(tmp_path / f"{n}.wav", 1.0, seed=n) for n in range(3)]
    (tmp_path / "bad.wav").write_text("no sound")
    files.insert(1, tmp_path / "bad.wav")
    files.append(tmp_path / "gone.wav")
    said: list[str] = []
    faults: list[str] = []
    failed = transcribe_files(voice, files, "txt", None, 28, "", said.append, faults.append)
    assert failed == len(faults) == 2
    assert [line.partition(": ")[0] for line in said] == [str(tmp_path / f"{n}.wav") for n in range(3)]
    assert "bad.wav cannot be decoded" in faults[0]
    assert "gone.wav does not exist" in faults[1]
    transcribe_files(voice, files, "srt", tmp_path / "out", 28, "", said.append, faults.append)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.srt", "1.srt", "2.srt"]


def test_a_folder_stands_for_its_recordings(tmp_path: Path, write_noise: Callable[..., Path]) -> None:
    for name in ("b.wav", "a.FLAC", "deep/c.wav"):
        write_noise(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    named = tmp_path / "notes.txt"
    assert recordings_of([tmp_path, named]) == [tmp_path / "a.FLAC", tmp_path / "b.wav", named]
    with pytest.raises(ConfigError, match=r"x\.mp3 does not exist"):
        recordings_of([tmp_path, Path("x.mp3")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no recording"):
        recordings_of([tmp_path / "empty"])


def test_a_pipe_is_no_recording(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(ConfigError, match=r"a\.wav must be a plain file; save it as one first"):
        recordings_of([tmp_path / "a.wav"])


def test_two_recordings_are_never_written_to_one_file(tmp_path: Path) -> None:
    check_out([Path("a/x.wav"), Path("a/y.wav")], tmp_path / "out", "srt")
    with pytest.raises(ConfigError, match=r"out/x\.srt would be written by several"):
        check_out([Path("a/x.wav"), Path("b/x.flac")], tmp_path / "out", "srt")


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        ("models:/other/3", "models:/other/3"),
        ("2", "models:/sg_gov/2"),
        ("Production", "models:/sg_gov/Production"),
        ("production", "models:/sg_gov@production"),
        ("@staging", "models:/sg_gov@staging"),
    ],
)
def test_a_version_goes_by_uri_number_stage_or_alias(model: str, uri: str) -> None:
    assert version_uri(model, "sg_gov") == uri


@pytest.mark.parametrize("options", [[], ["--model", "1", "--base", "packaged:whisper-tiny.en"]])
def test_what_transcribes_is_named_once(options: list[str]) -> None:
    from wertune.commands.listen import transcribe

    done = CliRunner().invoke(transcribe, ["a.wav", *options])
    assert isinstance(done.exception, ConfigError)
    assert "give one of --model and --base" in str(done.exception)


def test_words_without_times_are_refused_before_anything_is_loaded() -> None:
    from wertune.commands.listen import transcribe

    done = CliRunner().invoke(transcribe, ["a.wav", "--model", "1", "--words"])
    assert isinstance(done.exception, ConfigError)
    assert "--words is given and --format is txt, which holds no times; give --format" in str(done.exception)
