"""A project is checked without its model: tokens are counted as transformers does, no recording decoded twice."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperTokenizerFast

import wertune.data.sounds as sounds
from wertune.base.config import load_project, with_overrides
from wertune.base.errors import BaseModelError
from wertune.base.text import label_text
from wertune.training.prepare import _token_counter, prepare

SETTINGS: list[dict[str, Any]] = [
    {},
    {"language": "en", "task": "transcribe"},
    {"language": "english", "predict_timestamps": True},
    {"task": "translate", "predict_timestamps": False},
]


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def folder(request: pytest.FixtureRequest, tiny_whisper_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer's files, as somebody may have saved them with the prompt of their own task."""
    made = tmp_path_factory.mktemp("tokenizer")
    shutil.copy(tiny_whisper_folder / "tokenizer.json", made)
    saved = json.loads((tiny_whisper_folder / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps(saved | request.param))
    return made


@given(text=st.text(max_size=60) | st.sampled_from(["", "CPF LIFE", "中央公积金"]))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_tokens_are_counted_as_labels_have_them(folder: Path, language: str, text: str) -> None:
    """Whatever prompt the tokenizer was saved with: a label names its own language and task, where there are any."""
    said = _reference(folder)(label_text(text, language), add_special_tokens=False).input_ids
    assert _token_counter(folder, language)(text) == 3 + len(said)


_references: dict[Path, Any] = {}


def _reference(folder: Path) -> Any:
    if folder not in _references:
        _references[folder] = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    return _references[folder]


def test_tokens_of_a_vocabulary_and_its_merges(tiny_whisper_folder: Path, tmp_path: Path) -> None:
    """As older models have them instead of tokenizer.json."""
    model = json.loads((tiny_whisper_folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = (each if isinstance(each, str) else " ".join(each) for each in model["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    for text in ("Please check MediShield Life.", "", "\u00e9t\u00e9 \u4e2d\u592e"):
        assert _token_counter(tmp_path, "en")(text) == _token_counter(tiny_whisper_folder, "en")(text)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 3}'])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BaseModelError, match=r"holds no tokenizer of Whisper: .*; download the model again"):
        _token_counter(tmp_path, "en")


def test_the_second_time_no_recording_is_decoded(small_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    load, clock = sounds.load_audio, time.time_ns
    monkeypatch.setattr(sounds.time, "time_ns", lambda: clock() + 10 * sounds.TICK_NS)
    monkeypatch.setattr(sounds, "load_audio", lambda path, *part: (decoded.append(path), load(path, *part))[1])
    project = load_project(small_project)
    first = prepare(small_project, project)
    assert (len(decoded), prepare(small_project, project)) == (9, first)
    assert len(decoded) == 9
    Path(first.dataset["test"][0].path).touch()
    assert (prepare(small_project, project), len(decoded)) == (first, 10)


def test_what_of_long_recordings_is_in_no_segment_is_noted(
    small_project: Path, write_noise: Callable[..., Path], write_manifest: Callable[..., Path]
) -> None:
    write_noise(small_project / "hour.wav", 12.0, seed=70)
    segments = [{"text": "At the beginning.", "start_s": 0.5, "end_s": 2.0}]
    write_manifest(small_project / "long.jsonl", [{"audio_filepath": "hour.wav", "segments": segments}])
    project = with_overrides(load_project(small_project), {"data.long": "long.jsonl"}, "test")
    (note,) = prepare(small_project, project).dataset.notes
    assert "10 s in all, such as 2.0 to 12.0 s of" in note
