"""What the served model takes and refuses: forms of audio, limits, files, and what MLflow's server makes of it."""

import asyncio
import base64
import json
import shutil
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import wertune.serving.pyfunc
from wertune.base.config import (
    BaseModelConfig,
    DataConfig,
    DecodeConfig,
    ProjectConfig,
    ServingConfig,
    TrainConfig,
    TrialConfig,
)
from wertune.base.errors import AdapterError, BaseModelError, ConfigError, RequestError, TrackingError
from wertune.base.text import Lexicon
from wertune.data.audio import SAMPLE_RATE_HZ, load_audio
from wertune.data.manifest import Dataset, Recording
from wertune.data.rows import Row
from wertune.serving.request import AUDIO_FOLDER_VARIABLE, AudioFiles, read_request
from wertune.serving.served import stored_settings, timed_window_s
from wertune.training.prepare import Prepared
from wertune.whisper.base_model import BaseModel
from wertune.whisper.transcription import Segment, Transcript
from wertune.whisper.wording import Written

LIMITS = ServingConfig()
RNG = np.random.default_rng(0)
SAMPLES = (0.1 * RNG.standard_normal(SAMPLE_RATE_HZ)).clip(-1, 1).astype(np.float32)


def _file(container: str = "WAV", seconds: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ, **options: Any) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, np.resize(SAMPLES, round(seconds * rate_hz)), rate_hz, format=container, **options)
    return buffer.getvalue()


WAV = _file()
BASE64 = base64.b64encode(WAV).decode()


def _read(*rows: dict[str, Any], files: AudioFiles | None = None, **limits: Any) -> list[Any]:
    return read_request(rows, ServingConfig(**limits), files or AudioFiles())


def _refusal(*rows: dict[str, Any], files: AudioFiles | None = None, **limits: Any) -> str:
    with pytest.raises(RequestError) as caught:
        _read(*rows, files=files, **limits)
    return str(caught.value)


def test_every_form_of_one_recording_gives_the_same_samples(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    clips = _read({"audio": WAV}, {"audio": BASE64}, {"path": str(tmp_path / "a.wav")})
    for clip in clips:
        np.testing.assert_array_equal(clip, load_audio(WAV))


@pytest.mark.parametrize("kind", [list, tuple, np.asarray])
def test_samples_at_16_khz_are_taken_as_they_are(kind: Callable[[Any], Any]) -> None:
    (clip,) = _read({"samples": kind(SAMPLES.tolist()), "rate_hz": 16_000.0})
    np.testing.assert_array_equal(clip, SAMPLES)
    assert clip.dtype == np.float32


@pytest.mark.parametrize("rate_hz", [8000, np.int64(44_100), 48_000.0])
def test_samples_at_another_rate_are_resampled(rate_hz: Any) -> None:
    (clip,) = _read({"samples": np.zeros(int(rate_hz)), "rate_hz": rate_hz})
    assert clip.size == SAMPLE_RATE_HZ


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_no_sample_is_changed_on_the_way(values: list[float]) -> None:
    (clip,) = _read({"samples": values, "rate_hz": SAMPLE_RATE_HZ})
    np.testing.assert_array_equal(clip, np.float32(values))


@given(st.lists(st.tuples(st.integers(0, len(BASE64)), st.sampled_from(["\n", " ", "\r\n", "\t"])), max_size=10))
def test_base64_may_be_broken_into_lines(breaks: list[tuple[int, str]]) -> None:
    text = BASE64
    for place, blank in breaks:
        text = text[:place] + blank + text[place:]
    (clip,) = _read({"audio": text})
    np.testing.assert_array_equal(clip, load_audio(WAV))


@pytest.mark.parametrize(("container", "name"), [("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3")])
def test_each_format_is_read_or_refused_as_the_limits_say(container: str, name: str) -> None:
    data = _file(container)
    assert len(_read({"audio": data}, formats=[name])) == 1
    other = "flac" if name == "wav" else "wav"
    assert f"format is {name}, but must be one of {other}; convert it" in _refusal({"audio": data}, formats=[other])


@pytest.mark.parametrize("container", ["AIFF", "AU", "CAF", "W64", "VOC"])
def test_formats_that_no_one_asked_for_do_not_reach_their_parsers(container: str) -> None:
    data = _file(container, subtype="PCM_16")
    assert "format is not known, but must be one of wav, flac, ogg, mp3" in _refusal({"audio": data})
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x00"
    assert "wav, flac, ogg, mp3; convert it" in (text := _refusal({"audio": tag + data})) or "decoded" in text


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "it has none of them, but must have one of audio, path and samples"),
        ({"rate_hz": 16_000}, "it has none of them"),
        ({"audio": WAV, "path": "a.wav"}, "it has audio and path, but must have one of"),
        ({"audio": WAV, "rate_hz": 8000}, "rate_hz goes with samples, but audio is a file with a rate of its own"),
        ({"audio": 3}, "audio is of type int, but must be the bytes of one file, in base64 over HTTP"),
        ({"audio": [BASE64]}, "audio is of type list"),
        ({"audio": "not base64!"}, "audio is not base64"),
        ({"audio": "é"}, "audio is not base64"),
        ({"audio": ""}, "format is not known"),
        ({"audio": "AAAA"}, "format is not known, but must be one of wav, flac, ogg, mp3; convert it"),
        ({"audio": WAV[:20]}, "the recording cannot be decoded"),
        ({"audio": b"OggS" + bytes(100)}, "the recording cannot be decoded"),
        ({"path": 3}, "path is of type int, but must be a string"),
        ({"path": "no such file.wav"}, "which cannot be read (No such file or directory)"),
        ({"path": "."}, "which cannot be read (Is a directory)"),
        ({"path": "a\0b"}, "which cannot be read (embedded null byte)"),
        ({"samples": [0.1]}, "rate_hz is None, but must be 4000 to 96000"),
        ({"samples": [0.1], "rate_hz": "16000"}, "rate_hz is '16000', but must be"),
        ({"samples": [0.1], "rate_hz": True}, "rate_hz is True, but must be"),
        ({"samples": [0.1], "rate_hz": float("nan")}, "rate_hz is nan"),
        ({"samples": [0.1], "rate_hz": 10**400}, "rate_hz is 1000"),
        ({"samples": [0.1], "rate_hz": 3999}, "rate_hz is 3999"),
        ({"samples": [0.1], "rate_hz": 96_001}, "rate_hz is 96001"),
        ({"samples": 0.1, "rate_hz": 16_000}, "samples is of type float, but must be a list of numbers"),
        ({"samples": "[0.1]", "rate_hz": 16_000}, "samples is of type str"),
        ({"samples": [], "rate_hz": 16_000}, "must be one list of numbers with at least one in it"),
        ({"samples": ["0.1"], "rate_hz": 16_000}, "must be one list of numbers"),
        ({"samples": [True], "rate_hz": 16_000}, "must be one list of numbers"),
        ({"samples": [None, 0.1], "rate_hz": 16_000}, "must be one list of numbers"),
        ({"samples": [[0.1, 0.2]], "rate_hz": 16_000}, "mix channels to mono"),
        ({"samples": [[0.1], [0.1, 0.2]], "rate_hz": 16_000}, "mix channels to mono"),
        ({"samples": np.array(0.1), "rate_hz": 16_000}, "must be one list of numbers"),
        ({"samples": [0.1, float("inf")], "rate_hz": 16_000}, "not finite or far beyond 1"),
        ({"samples": [0.1, float("nan")], "rate_hz": 16_000}, "not finite or far beyond 1"),
        ({"samples": [12, -20_000], "rate_hz": 16_000}, "divide 16-bit integers by 32768"),
        ({"samples": [0, -(2**63)], "rate_hz": 16_000}, "divide 16-bit integers by 32768"),
        ({"samples": [1e300], "rate_hz": 16_000}, "far beyond 1"),
    ],
)
def test_what_a_row_may_not_hold(row: dict[str, Any], reason: str) -> None:
    message = _refusal(row)
    assert message.startswith("row 1 of 1: ")
    assert reason in message


def test_the_faults_of_all_rows_are_told_at_once() -> None:
    lines = _refusal({"audio": "AAAA"}, {"audio": WAV}, {"path": 3}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["row 1 of 3", "row 3 of 3"]


@given(st.integers(1, 5), st.integers(0, 7))
def test_a_batch_has_one_row_up_to_the_limit(most: int, rows: int) -> None:
    row = {"samples": [0.1], "rate_hz": SAMPLE_RATE_HZ}
    if 1 <= rows <= most:
        assert len(_read(*[row] * rows, max_batch=most)) == rows
    else:
        message = _refusal(*[row] * rows, max_batch=most)
        assert message.startswith(f"the request has {rows} rows with audio, path or samples, but must have 1 to {most}")


def test_a_file_may_not_have_more_bytes_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(WAV)
    for row in ({"audio": WAV}, {"audio": BASE64}, {"path": str(path)}):
        assert len(_read(row, max_bytes=len(WAV))) == 1
        message = f"row 1 of 1: the recording has more than {len(WAV) - 1} bytes, which is the limit"
        assert _refusal(row, max_bytes=len(WAV) - 1).startswith(message)


def test_a_recording_may_not_last_longer_than_the_limit() -> None:
    longest = {"audio": _file("FLAC", 2.0)}
    assert _read(longest, max_duration_s=2)[0].size == 2 * SAMPLE_RATE_HZ
    message = "row 1 of 1: the recording lasts more than 1.9 s, which is the limit; cut it"
    assert _refusal(longest, max_duration_s=1.9) == message
    assert _refusal({"audio": _file("OGG", 20.0)}, max_duration_s=1.9) == message
    assert _refusal({"samples": np.zeros(15_999), "rate_hz": 8000}, max_duration_s=1.9) == message


def test_a_request_may_not_last_longer_than_its_limit() -> None:
    rows = [{"audio": WAV}] * 3
    assert len(_read(*rows, max_total_duration_s=3)) == 3
    message = "the request's recordings last more than 2.9 s together, which is the limit; send several requests"
    assert _refusal(*rows, max_total_duration_s=2.9) == message


def test_a_small_file_cannot_grow_without_bound() -> None:
    silence = BytesIO()
    soundfile.write(silence, np.zeros(192_000 * 5), 192_000, format="FLAC")
    row = {"audio": silence.getvalue()}
    assert "has 192000 Hz, but must have at most 96000 Hz; resample it" in _refusal(row)
    assert "lasts more than 1 s" in _refusal(row, max_rate_hz=192_000, max_duration_s=1)


@given(st.binary(max_size=200), st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", WAV[:44]]))
def test_any_bytes_give_samples_or_a_refusal(noise: bytes, start: bytes) -> None:
    try:
        (clip,) = _read({"audio": start + noise})
    except RequestError:
        return
    assert clip.dtype == np.float32
    assert clip.size
    assert np.isfinite(clip).all()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["audio", "path", "samples", "rate_hz", "x"]), json_values))
def test_any_json_row_gives_samples_or_a_refusal(row: dict[str, Any]) -> None:
    try:
        clips = _read(row, files=AudioFiles(served=True))
    except RequestError:
        return
    assert len(clips) == 1


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is served, one that is not, and links between them."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("served/inside", "served-not", "outside"):
        (root / name).mkdir(parents=True)
        (root / name / "a.wav").write_bytes(WAV)
    (root / "served" / "a.wav").write_bytes(WAV)
    (root / "served" / "link_inside.wav").symlink_to("inside/a.wav")
    (root / "served" / "link_outside.wav").symlink_to(root / "outside" / "a.wav")
    (root / "served" / "folder_outside").symlink_to(root / "outside")
    (root / "served" / "loop").symlink_to("loop")
    (root / "link_to_served").symlink_to("served")
    return root


@pytest.mark.parametrize("name", ["a.wav", "inside/a.wav", "inside/../a.wav", "link_inside.wav", "{root}/served/a.wav"])
@pytest.mark.parametrize("folder", ["served", "link_to_served"])
def test_files_in_the_served_folder_are_read(tree: Path, name: str, folder: str) -> None:
    files = AudioFiles(tree / folder, served=True)
    assert len(_read({"path": name.format(root=tree)}, files=files)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../outside/a.wav",
        "inside/../../outside/a.wav",
        "{root}/outside/a.wav",
        "../served-not/a.wav",
        "link_outside.wav",
        "folder_outside/a.wav",
        "folder_outside/../served/a.wav/../../outside/a.wav",
        "/etc/passwd",
        "../outside/no_such_file.wav",
        "no_such_file.wav",
        "inside",
        "",
        "loop",
        "a.wav\0",
        "x" * 5000,
        "~/a.wav",
        "file://{root}/served/a.wav",
    ],
)
def test_nothing_else_is_read_and_all_answers_are_alike(tree: Path, name: str) -> None:
    path = name.format(root=tree)
    message = _refusal({"path": path}, files=AudioFiles(tree / "served", served=True))
    rule = "but must name a file in the server's audio folder; mend it"
    assert message == f"row 1 of 1: path is {path[:200]!r}, {rule}"


@given(st.lists(st.sampled_from(["..", ".", "inside", "a.wav", "outside", "folder_outside", "loop", "served", ""])))
def test_no_path_leads_out_of_the_folder(tree: Path, parts: list[str]) -> None:
    try:
        found = AudioFiles(tree / "served", served=True).locate("/".join(parts))
    except RequestError:
        return
    assert found in (tree / "served" / "a.wav", tree / "served" / "inside" / "a.wav")


def test_without_a_folder_paths_are_read_in_process_only(tree: Path) -> None:
    row = {"path": str(tree / "outside" / "a.wav")}
    assert len(_read(row)) == 1
    assert "path is not read over HTTP: any file of the server could be named" in _refusal(
        row, files=AudioFiles(served=True)
    )


def test_a_served_folder_that_is_missing_serves_nothing(tree: Path) -> None:
    assert "must name a file in" in _refusal({"path": "a.wav"}, files=AudioFiles(tree / "gone", served=True))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not served: other tests import the server."""
    monkeypatch.delitem(sys.modules, "mlflow.pyfunc.scoring_server", raising=False)
    monkeypatch.delenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", raising=False)


@pytest.fixture(scope="module")
def load(served_folder: Path) -> Callable[..., Any]:
    """`load(**settings)`: the stored model, with settings in the place of those of its version."""

    return lambda **settings: mlflow.pyfunc.load_model(str(served_folder), model_config=settings or None)


@pytest.fixture(scope="module")
def model(load: Callable[..., Any]) -> Any:
    return load()


@pytest.mark.usefixtures("in_process")
def test_the_pyfunc_takes_every_form_one_or_a_batch(model: Any, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    rows = [{"audio": WAV}, {"path": str(tmp_path / "a.wav")}, {"audio": BASE64}]
    batch = model.predict([*rows, {"samples": SAMPLES, "rate_hz": 16_000}])
    assert list(batch.columns) == ["text"]
    alone = [model.predict(rows[0]), *(model.predict([row]) for row in rows), model.predict(pd.DataFrame(rows[1:2]))]
    assert {text for answer in alone for text in answer["text"]} == set(batch["text"])
    assert len(batch) == 4


def test_details_are_given_on_request(model: Any) -> None:
    rows = [{"audio": WAV}, {"samples": SAMPLES[:8000], "rate_hz": 16_000}]
    plain, detailed = model.predict(rows), model.predict(rows, params={"details": True})
    assert list(detailed.columns) == ["text", "avg_logprob", "duration_s", "segments"]
    assert detailed["text"].tolist() == plain["text"].tolist()
    assert detailed["duration_s"].tolist() == [1.0, 0.5]
    assert (detailed["avg_logprob"] < 0).all()
    assert list(model.predict(rows, params={"details": False}).columns) == ["text"]


SEGMENT = ["id", "seek", "start", "end", "text", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"]


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_segments_are_those_of_verbose_json(
    load: Callable[..., Any], engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path))
    row = {"samples": np.resize(SAMPLES, 40 * SAMPLE_RATE_HZ), "rate_hz": SAMPLE_RATE_HZ}
    detailed = load(serving={"engine": engine}).predict([row], params={"details": True})
    segments = detailed["segments"][0]
    assert [list(segment) for segment in segments] == [SEGMENT] * 2
    assert " ".join(segment["text"] for segment in segments) == detailed["text"][0]
    assert (segments[0]["start"], segments[0]["seek"], segments[1]["end"]) == (0, 0, 40.0)
    assert segments[1]["seek"] == round(100 * segments[1]["start"])
    assert all(0 < segment["no_speech_prob"] < 1 for segment in segments)
    json.dumps(segments, allow_nan=False)


@pytest.fixture
def followed(load: Callable[..., Any]) -> Any:
    """A model whose heads are said to follow a recording."""
    model = load()
    model.unwrap_python_model().served.whisper.bare.generation_config.alignment_heads = [[0, 0], [1, 1]]
    return model


def test_words_have_their_times_on_request(followed: Any) -> None:
    rows = [{"audio": WAV}, {"samples": SAMPLES[:8000], "rate_hz": 16_000}]
    found = followed.predict(rows, params={"words": True})
    assert found["text"].tolist() == followed.predict(rows)["text"].tolist()
    for text, (segment,) in zip(found["text"], found["segments"], strict=True):
        words = segment["words"]
        assert " ".join(word["word"] for word in words) == text
        assert [list(word) for word in words] == [["word", "start", "end", "probability"]] * len(words)
        assert (segment["start"], segment["end"]) == (words[0]["start"], words[-1]["end"])
        times = [time for word in words for time in (word["start"], word["end"])]
        assert times == sorted(times)


def test_a_base_whose_heads_follow_nothing_has_no_words(load: Callable[..., Any]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="alignment_heads is") as caught:
        load().predict([{"audio": WAV}], params={"words": True})
    assert caught.value.get_http_status_code() == 400


@pytest.fixture
def stored(served_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """`stored(**settings)`: the model as a version would be that has these settings, too."""

    def load(**settings: Any) -> Any:
        folder = shutil.copytree(served_folder, tmp_path / "-".join(["version", *settings]), dirs_exist_ok=True)
        values = yaml.safe_load((folder / "MLmodel").read_text())
        values["flavors"]["python_function"]["config"] |= settings
        (folder / "MLmodel").write_text(yaml.safe_dump(values))
        return mlflow.pyfunc.load_model(str(folder))

    return load


def test_a_version_that_learned_times_reads_long_recordings_in_windows_and_all_else_as_ever(
    stored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(whisper: Any, clips: list[Any], *_: Any) -> list[Transcript]:
        return [Transcript((), (Segment(0.0, 40.0, "in windows", -0.5),)) for _ in clips]

    monkeypatch.setattr("wertune.whisper.timed.windows.transcribe_windows", read)
    noise = (0.1 * np.random.default_rng(1).standard_normal(40 * SAMPLE_RATE_HZ)).clip(-1, 1)
    rows = [{"samples": noise[: seconds * SAMPLE_RATE_HZ], "rate_hz": SAMPLE_RATE_HZ} for seconds in (1, 7, 30, 40)]
    asked = {"decode": DecodeConfig(max_new_tokens=60).model_dump(), "longest_piece_s": 6.5}
    old, none, timed = (
        stored(**asked, **more).predict(rows, params={"details": True}).to_dict("records")
        for more in ({}, {"timed_window_s": None}, {"timed_window_s": 30.0})
    )
    assert old == none
    assert timed[:3] == old[:3]
    assert len(old[2]["segments"]) > 4
    assert [answer["text"] == "in windows" for answer in timed] == [False, False, False, True]


def test_a_recording_of_silence_alone_is_answered(stored: Callable[..., Any]) -> None:
    row = {"samples": np.zeros(40 * SAMPLE_RATE_HZ), "rate_hz": SAMPLE_RATE_HZ}
    (answer,) = stored(timed_window_s=30.0).predict([row], params={"details": True}).to_dict("records")
    assert answer == {"text": "", "avg_logprob": None, "duration_s": 40.0, "segments": []}


def test_a_long_recording_is_written_whole(model: Any) -> None:
    row = {"samples": np.resize(SAMPLES, 70 * SAMPLE_RATE_HZ), "rate_hz": SAMPLE_RATE_HZ}
    pieces = 3
    (text,) = model.predict([row])["text"]
    (short,) = model.predict([{**row, "samples": row["samples"][: 20 * SAMPLE_RATE_HZ]}])["text"]
    assert len(text.split()) > (pieces - 1) * len(short.split()) > 0


def test_the_terms_of_the_version_are_boosted(load: Callable[..., Any]) -> None:
    terms = ["CorpPass", "MediShield Life"]
    settings = {"num_beams": 2, "max_new_tokens": 12}
    plain, boosted = (
        load(terms=terms, decode={**settings, "term_boost": boost}).predict([{"audio": WAV}])["text"][0]
        for boost in (0.0, 100.0)
    )
    assert not any(term in plain for term in terms)
    assert any(term in boosted for term in terms)


def test_limits_are_those_of_the_version_or_of_who_loads_it(model: Any, load: Callable[..., Any]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="the request has 5 rows with audio, path or samples, but must have 1 to"):
        model.predict([{"audio": WAV}] * 5)
    strict = load(serving={"max_duration_s": 0.5})
    with pytest.raises(MlflowException, match=r"lasts more than 0\.5 s") as caught:
        strict.predict([{"audio": WAV}])
    assert caught.value.get_http_status_code() == 400


def test_another_engine_writes_behind_the_same_pyfunc(
    model: Any, load: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path))
    in_ctranslate2 = load(serving={"engine": "ctranslate2"})
    rows = [{"audio": WAV}, {"samples": SAMPLES[:8000], "rate_hz": 16_000}]
    assert in_ctranslate2.unwrap_python_model().served.engine == "ctranslate2"
    found = in_ctranslate2.predict(rows, params={"details": True})
    assert list(found.columns) == ["text", "avg_logprob", "duration_s", "segments"]
    assert (found["avg_logprob"] < 0).all()
    assert len(list((tmp_path / "engines").glob("*/model.bin"))) == 1
    assert model.unwrap_python_model().served.engine == "torch"


def test_an_engine_that_is_not_known_is_refused(load: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="serving: engine is 'onnx'"):
        load(serving={"engine": "onnx"})


def test_the_version_holds_nothing_pickled(served_folder: Path) -> None:
    kinds = {path.suffix for path in served_folder.rglob("*") if path.is_file()}
    assert not kinds & {".pkl", ".pickle", ".pt", ".bin", ".pth"}


Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def post(load: Callable[..., Any]) -> Callable[..., Answer]:
    """`post(body, content_type)`: the status and body that MLflow's own server answers."""
    app = _app(load)
    return lambda body, content_type="application/json": _post(app, body, content_type)


def _app(load: Callable[..., Any], **settings: Any) -> Any:
    """MLflow's server with the model, which it loads as `mlflow models serve` lets it."""
    from mlflow.pyfunc import scoring_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # the server sets it: gone again after this
        return scoring_server.init(load(**settings))


def _post(app: Any, body: Any, content_type: str) -> Answer:
    return asyncio.run(_asked(app, body, content_type))


async def _asked(app: Any, body: Any, content_type: str = "application/json") -> Answer:
    """One request straight into the application, without a socket."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": "/invocations", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def test_over_http_a_batch_may_mix_forms(post: Callable[..., Answer]) -> None:
    rows = [{"audio": BASE64}, {"samples": SAMPLES.tolist(), "rate_hz": 16_000}]
    status, plain = post({"dataframe_records": rows})
    assert (status, [sorted(row) for row in plain["predictions"]]) == (200, [["text"]] * 2)
    for key in ("dataframe_records", "inputs"):
        status, detailed = post({key: rows, "params": {"details": True}})
        assert status == 200
        assert [row["text"] for row in detailed["predictions"]] == [row["text"] for row in plain["predictions"]]
        assert [row["duration_s"] for row in detailed["predictions"]] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"audio": "AAAA"}], "row 1 of 1: the recording's format is not known"),
        ([{"audio": BASE64}] * 5, "the request has 5 rows with audio, path or samples, but must have 1 to 4"),
        ([], "the request has 0 rows with audio, path or samples, but must have 1 to 4"),
        ([{"audoi": BASE64}], "the request has 0 rows with audio, path or samples"),
        ([{"samples": [0.1, 0.2], "rate_hz": 1}], "row 1 of 1: rate_hz is 1, but must be 4000 to 96000"),
        ([{"path": "/etc/passwd"}], "row 1 of 1: path is not read over HTTP"),
    ],
)
@pytest.mark.parametrize("key", ["dataframe_records", "inputs"])
def test_a_bad_request_is_told_why_and_nothing_else(
    post: Callable[..., Answer], rows: list[Any], reason: str, key: str
) -> None:
    status, answer = post({key: rows})
    assert status == 400
    assert set(answer) == {"error_code", "message"}
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer["message"].startswith(reason)


def test_params_of_another_type_are_refused(post: Callable[..., Answer]) -> None:
    status, answer = post({"dataframe_records": [{"audio": BASE64}], "params": {"details": "yes"}})
    assert status == 400
    assert "details" in answer["message"]


@pytest.mark.parametrize("kind", ["application/vnd.apache.parquet", "text/csv", "application/jsonl", ""])
def test_what_is_no_json_is_not_even_read(post: Callable[..., Answer], kind: str) -> None:
    table = BytesIO()
    pd.DataFrame({"audio": [WAV]}).to_parquet(table)
    status, answer = post(table.getvalue(), kind)
    assert (status, answer["message"]) == (
        415,
        f"Content-Type is {kind or 'not given'}, but must be application/json; send JSON",
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Invalid input"),
        (b"[1]", "Invalid input"),
        (b'{"dataframe_records": ' + b"[" * 100_000, "the body cannot be read (maximum recursion"),
        (b'{"dataframe_records": [{"samples": [' + b"9" * 5000 + b'], "rate_hz": 16000}]}', "the body cannot be read"),
        ("{}".encode("utf-16"), ""),
        (b'{"dataframe_split": {"columns": ["audio"], "data": [["a", "b"]]}}', ""),
        (
            b'{"dataframe_records": [{"audio": "' + b"A" * 1000 + b'"}], "params": {"details": "yes"}}',
            "Invalid parameters",
        ),
    ],
)
def test_a_body_that_cannot_be_read_is_told_why_in_a_line(
    post: Callable[..., Answer], body: bytes, reason: str
) -> None:
    status, answer = post(body)
    assert (status, set(answer)) == (400, {"error_code", "message"})
    assert answer["message"].startswith(reason)
    assert "Traceback" not in answer["message"]
    assert len(answer["message"]) < 500


def test_a_body_over_the_limit_is_refused_before_it_is_read(load: Callable[..., Any]) -> None:
    app = _app(load, serving={"max_request_bytes": 1000})
    status, answer = _post(app, b"{" * 1001, "application/json")
    rule = "the request has 1001 bytes, but must have at most 1000"
    assert (status, answer["message"]) == (413, f"{rule}; send fewer recordings in a request, or as ogg/opus")


def test_the_operators_folder_opens_its_files_over_http(
    post: Callable[..., Answer], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AUDIO_FOLDER_VARIABLE, str(tree / "served"))
    assert post({"dataframe_records": [{"path": "inside/a.wav"}]})[0] == 200
    for name in ("../outside/a.wav", "link_outside.wav", str(tree / "outside" / "a.wav")):
        status, answer = post({"dataframe_records": [{"path": name}]})
        assert status == 400
        assert "must name a file in the server's audio folder" in answer["message"]


def test_a_fault_of_the_server_is_not_blamed_on_the_client(
    post: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> list[str]:
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr(wertune.serving.pyfunc, "transcribe_recordings", fail)
    status, answer = post({"dataframe_records": [{"audio": BASE64}]})
    assert status == 500
    assert answer == {
        "error_code": "INTERNAL_ERROR",
        "message": "the model failed on this request; the server's log says why",
    }


@pytest.fixture
def impatient(post: Callable[..., Answer], load: Callable[..., Any]) -> Any:
    """The model in a server that allows no time at all."""
    return load(serving={"max_answer_s": 1e-9})


def _status(model: Any) -> tuple[int, str]:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as caught:
        model.predict([{"audio": WAV}])
    return caught.value.get_http_status_code(), caught.value.reason


def test_an_answer_that_takes_too_long_ends_with_the_reason(impatient: Any, model: Any) -> None:
    rule = "the answer would take more than 1e-09 s, which is the limit; send fewer or shorter recordings in a request"
    assert _status(impatient) == (504, rule)
    assert _status(impatient) == (504, rule)  # its turn is over too: the next one gets it
    assert len(model.predict([{"audio": WAV}])) == 1


def test_over_http_the_time_limit_is_a_504_with_the_reason(impatient: Any) -> None:
    from mlflow.pyfunc import scoring_server

    body = {"dataframe_records": [{"audio": BASE64}]}
    status, answer = _post(scoring_server.init(impatient), body, "application/json")
    assert (status, sorted(answer)) == (504, ["error_code", "message"])
    assert answer["error_code"] == "DEADLINE_EXCEEDED"
    assert answer["message"].startswith("the answer would take more than 1e-09 s")


def test_who_waits_too_long_for_others_is_told_to_come_again(impatient: Any) -> None:
    with impatient.unwrap_python_model().turns._lock:
        assert _status(impatient) == (503, "the request waited 1e-09 s for others, which is the limit; ask again later")


@pytest.fixture
def asked_at_once(load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Answer]]:
    """`asked_at_once(requests, **limits)`: the answers of a server whose model takes 0.3 s for each."""

    def write(whisper: Any, clips: list[Any], *_: Any) -> list[Transcript]:
        time.sleep(0.3)
        return [Transcript(((1, Written("slowly", (-0.1,))),)) for _ in clips]

    async def ask(requests: int, limits: dict[str, Any]) -> list[Answer]:
        app = _app(load, serving=limits)  # in the running loop, as uvicorn does
        body = {"dataframe_records": [{"audio": BASE64}]}
        return await asyncio.gather(*(_asked(app, body) for _ in range(requests)))

    monkeypatch.setattr(wertune.serving.pyfunc, "transcribe_recordings", write)
    return lambda requests, **limits: asyncio.run(ask(requests, limits))


def test_the_time_limit_holds_for_all_that_come_at_once(asked_at_once: Callable[..., list[Answer]]) -> None:
    answers = asked_at_once(20, max_answer_s=1.0)  # more than the threads that asyncio gives a small machine
    written = [answer for status, answer in answers if status == 200]
    assert 1 <= len(written) <= 4  # the fourth may have its turn at 0.9 s
    others = {(status, answer["message"]) for status, answer in answers if status != 200}
    assert others <= {
        (503, "the request waited 1 s for others, which is the limit; ask again later"),
        (504, "the answer would take more than 1 s, which is the limit; send fewer or shorter recordings in a request"),
    }


def test_only_so_many_wait(asked_at_once: Callable[..., list[Answer]]) -> None:
    answers = asked_at_once(5, max_waiting=3)
    assert sorted(status for status, _ in answers) == [200, 200, 200, 429, 429]
    reason = "3 requests are waiting or being answered, which is the limit; ask again later"
    assert {answer["message"] for status, answer in answers if status == 429} == {reason}


def test_the_clock_is_looked_at_before_each_row_block_and_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(wertune.serving.guard.Clock, "check", lambda _: looks.append(1))
    model.predict([{"audio": WAV}] * 3)
    blocks = 2  # of a row: the one that it has, and the one that is no more
    assert len(looks) == 3 + 3 * blocks + 3 + 1


@pytest.mark.usefixtures("in_process")
def test_in_process_any_time_may_be_taken(load: Callable[..., Any]) -> None:
    assert len(load(serving={"max_answer_s": 1e-9}).predict([{"audio": WAV}])) == 1


@pytest.mark.usefixtures("in_process")
def test_in_process_a_fault_of_the_model_shows_itself(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wertune.serving.pyfunc, "transcribe_recordings", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.predict([{"audio": WAV}])


@pytest.mark.usefixtures("mlflow_store")
def test_a_version_that_is_not_there_is_named() -> None:
    with pytest.raises(TrackingError, match="model_uri is models:/nothing/7, but must be a registered version"):
        wertune.serving.pyfunc.load_registered("models:/nothing/7")


@pytest.mark.parametrize(
    ("durations_s", "given_s", "stored_s"),
    [
        ([4.0] * 999 + [20.0], None, 5.0),  # one long clip of a thousand teaches nothing
        ([4.0] * 45 + [12.0] * 5, None, 12.0),
        ([40.0] * 5, None, 28.0),
        ([4.0], 15.0, 15.0),
    ],
)
def test_a_version_is_cut_at_what_it_learned_from_unless_the_project_says_otherwise(
    durations_s: list[float], given_s: float | None, stored_s: float, tiny_whisper_folder: Path, served_folder: Path
) -> None:
    data = DataConfig(train=Path("a"), validation=Path("b"), test=Path("c"))
    base, serving = BaseModelConfig(source=str(tiny_whisper_folder)), ServingConfig(longest_piece_s=given_s)
    project = ProjectConfig(name="p", base_model=base, data=data, serving=serving)
    row = Row(audio_filepath="a.wav", text="a", speaker="s")
    recordings = tuple(Recording(row, "a:1", Path("a.wav"), seconds, "0") for seconds in durations_s)
    tiny = BaseModel("tiny", tiny_whisper_folder, "sha256:tiny")
    dataset = Dataset({"train": recordings[:-1], "replay": recordings[-1:]})
    prepared = Prepared(project, Lexicon(terms=()), tiny, dataset)
    adapter = served_folder / "artifacts" / "adapter"
    stored = stored_settings(TrialConfig(), prepared, adapter)
    assert (stored["longest_piece_s"], stored["timed_window_s"]) == (stored_s, None)


@pytest.mark.parametrize(
    ("train", "window_s"),
    [
        ({}, None),
        ({"joined_ratio": 0.4}, 30.0),
        ({"joined_ratio": 0.4, "window_s": 20.0}, 20.0),
        ({"joined_ratio": 0.4, "timestamps_ratio": 0.0}, None),
    ],
)
def test_a_version_stores_the_windows_whose_times_it_learned(train: dict[str, float], window_s: float | None) -> None:
    assert timed_window_s(TrainConfig(**train)) == window_s


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_has_changed_since_the_gates_is_not_served(
    served_folder: Path, tmp_path: Path, name: str
) -> None:
    copied = shutil.copytree(served_folder, tmp_path / "model")
    file = copied / "artifacts" / "adapter" / name
    if name.endswith(".json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 320.0}))
    else:
        tensors = load_file(file)
        save_file({key: value * 2 for key, value in tensors.items()}, file, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match=rf"{name} has changed, but must be what it was when the version was made"):
        mlflow.pyfunc.load_model(str(copied))


def test_a_version_of_before_its_adapter_was_sealed_is_served(load: Callable[..., Any]) -> None:
    assert load(adapter={}).predict([{"audio": WAV}])["text"].tolist()


def test_a_base_that_has_moved_since_is_named_as_the_versions(load: Callable[..., Any]) -> None:
    gone = {"source": "/nowhere/whisper", "revision": None, "digest": None}
    with pytest.raises(
        BaseModelError, match=r"the version is of the base /nowhere/whisper, which .*put that model back"
    ):
        load(base_model=gone)
