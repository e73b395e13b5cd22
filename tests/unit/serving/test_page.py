"""The page's server: what it takes, what it refuses and in which words, and which words it marks."""

from pathlib import Path

import pytest
import soundfile
import torch
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import ContextConfig, DecodeConfig, ServingConfig
from wertune.serving.listener import Voice
from wertune.serving.page.app import AUDIO_TYPE, differing, make_app
from wertune.whisper.wording import Written

TEXTS = st.text("aA. b", max_size=20)
TYPE = {"Content-Type": AUDIO_TYPE}


class _Saying:
    device, mel_bins = torch.device("cpu"), 80

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(
        self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig, language: str = ""
    ) -> list[Written]:
        return [Written(self.text, (-0.5,)) for _ in token_limits]


def _client(host: str = "127.0.0.1", **limits: float) -> TestClient:
    texts = {"base": "log in with sing pass", "sg_gov/1": "Log in with Singpass."}
    voices = [
        Voice(name, "fake", _Saying(text), ContextConfig(), DecodeConfig(), ServingConfig(**limits))
        for name, text in texts.items()
    ]
    return TestClient(make_app(voices, host), base_url="http://localhost:8300")


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    soundfile.write(tmp_path / "clip.wav", torch.full((16000,), 0.1).numpy(), 16000)
    return (tmp_path / "clip.wav").read_bytes()


def test_both_texts_come_with_the_words_on_which_they_differ(clip: bytes) -> None:
    answer = _client().post("/transcribe", content=clip, headers=TYPE).json()
    assert answer["duration_s"] == 1
    assert [each["name"] for each in answer["answers"]] == ["base", "sg_gov/1"]
    assert [[word for word, differs in each["words"] if differs] for each in answer["answers"]] == [
        ["sing", "pass"],
        ["Singpass."],
    ]


def test_segments_come_with_the_times_that_they_are_played_from(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", torch.full((40 * 16000,), 0.1).numpy(), 16000)
    answer = _client().post("/transcribe", content=(tmp_path / "long.wav").read_bytes(), headers=TYPE).json()
    for each in answer["answers"]:
        assert " ".join(text for _, text in each["segments"]) == each["text"]
        assert [start_s for start_s, _ in each["segments"]] == [0.0, pytest.approx(20.05)]


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "the recording is empty"),
        (b"no sound", 400, "the recording's format is not known, but must be one of wav"),
        (b"RIFF" + bytes(40), 400, "the recording cannot be decoded"),
        (bytes(100_001), 413, "which is the limit; cut it"),
    ],
)
def test_what_cannot_be_transcribed_is_refused_with_the_reason(content: bytes, status: int, reason: str) -> None:
    refused = _client(max_bytes=100_000).post("/transcribe", content=content, headers=TYPE)
    assert refused.status_code == status
    assert reason in refused.json()["reason"]
    assert not refused.json()["reason"].startswith("row")


def test_a_recording_over_the_serving_limit_is_refused(clip: bytes) -> None:
    refused = _client(max_duration_s=0.5).post("/transcribe", content=clip, headers=TYPE)
    assert (refused.status_code, refused.json()["reason"]) == (
        400,
        "the recording lasts more than 0.5 s, which is the limit; cut it",
    )


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""])
def test_forms_of_other_sites_are_refused(kind: str, clip: bytes) -> None:
    assert _client().post("/transcribe", content=clip, headers={"Content-Type": kind}).status_code == 415


def test_on_this_machine_no_other_host_is_answered_and_elsewhere_any() -> None:
    evil = {"Host": "evil.example"}
    assert _client().get("/", headers=evil).status_code == 400
    assert _client("0.0.0.0").get("/", headers=evil).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/recorder.js", "/about"])
def test_every_part_is_there_and_loads_nothing_from_elsewhere(path: str) -> None:
    found = _client().get(path)
    assert found.status_code == 200
    assert found.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "//" not in found.text.replace("// ", "")


@given(TEXTS, TEXTS)
def test_marked_texts_are_the_texts_and_what_is_unmarked_is_the_same(left: str, right: str) -> None:
    words = differing(left, right)
    assert [[word for word, _ in side] for side in words] == [left.split(), right.split()]
    same = [
        ["".join(filter(str.isalnum, word)).casefold() or word for word, differs in side if not differs]
        for side in words
    ]
    assert same[0] == same[1]


@given(TEXTS)
def test_a_text_does_not_differ_from_itself_in_capitals(text: str) -> None:
    assert not any(differs for side in differing(text, text.upper()) for _, differs in side)


def test_letters_differ_where_no_blanks_stand_between_words() -> None:
    left, right = differing("我的公鸡金CPF", "我的公积金 CPF。")
    assert [word for word, differs in left if differs] == ["鸡"]
    assert [word for word, differs in right if differs] == ["积"]
    (thai, _), _ = differing("กา", "ก่า")[0]
    assert (thai, differing("กา", "ก่า")[0][0][1]) == ("ก", True)
