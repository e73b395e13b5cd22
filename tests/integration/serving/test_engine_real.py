"""Both engines on the real tiny.en: as good a text from either, from a version as it is stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.places import ACTORS, DEMO

from wertune.base.config import ContextConfig, DecodeConfig, LoraConfig
from wertune.base.text import TermFinder, normaliser
from wertune.data.audio import load_audio
from wertune.scores.metrics import Clip, score
from wertune.serving.served import load_served
from wertune.whisper.adapter import add_lora, save_adapter
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.model import load_whisper

CLIPS = 8
SOURCE = "packaged:whisper-tiny.en"


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {
        "base_model": {"source": SOURCE, "revision": None, "digest": None},
        "language": "en",
        "quantization": "int8",
        "context": ContextConfig(short=False).model_dump(),  # an untrained adapter is at home at 30 s only
        "decode": DecodeConfig(num_beams=2, batch_size=4).model_dump(),
    }


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh adapter: the model is its base."""
    base = load_whisper(resolve_base_model(SOURCE).path, "en", "none")
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    save_adapter(add_lora(base, LoraConfig(r=4), seed=0), folder, SOURCE)
    return folder


def test_both_engines_agree_by_wer(
    settings: dict[str, Any],
    adapter: Path,
    transcribed: Callable[..., list[str]],
    rows: list[dict[str, Any]],
) -> None:
    normalise = normaliser("en")
    wers = {}
    for engine in ("torch", "ctranslate2"):
        texts = transcribed(load_served(settings, adapter, engine))
        clips = [Clip(str(i), row["text"]) for i, row in enumerate(rows)]
        wers[engine] = score(clips, texts, normalise, TermFinder((), normalise)).wer
    assert max(wers.values()) < 0.2
    assert abs(wers["torch"] - wers["ctranslate2"]) < 0.05


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    lines = (DEMO / "manifests" / "retention_test.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [row for row in map(json.loads, lines) if not row["speaker"].startswith(ACTORS)]
    return prompts[:: len(prompts) // CLIPS][:CLIPS]


@pytest.fixture(scope="module")
def transcribed(rows: list[dict[str, Any]]) -> Callable[..., list[str]]:
    from wertune.whisper.transcription import transcribe_samples

    clips = [load_audio(DEMO / "manifests" / row["audio_filepath"]) for row in rows]
    return lambda served: [
        found.text for found in transcribe_samples(served.whisper, clips, served.context, served.decode)
    ]
