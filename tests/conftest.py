"""What every test may ask for: a Whisper that loads in no time, and helpers that write audio and manifests."""

import copy
import gc
import json
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports huggingface_hub or torch, both of which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import HealthCheck, settings

from wertune.base.cli import NEW_OBJECTS
from wertune.data.audio import SAMPLE_RATE_HZ, audio_digest, load_audio
from wertune.data.manifest import Recording
from wertune.data.rows import Row

if TYPE_CHECKING:
    from wertune.whisper.model import Whisper

# The same examples on every machine, and none too slow: two busy cores are no fault.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

TINY_SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}


def noise(seconds: float, seed: int, rate_hz: int = SAMPLE_RATE_HZ) -> npt.NDArray[np.float32]:
    """Quiet white noise (n,), another for every seed."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))
    return (0.1 * samples).clip(-1, 1).astype(np.float32)


def _write_noise(path: Path, seconds: float = 1.0, seed: int = 0, rate_hz: int = SAMPLE_RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed, rate_hz), rate_hz)
    return path


def _write_tone(path: Path, seconds: float = 1.0, frequency_hz: float = 440.0, rate_hz: int = SAMPLE_RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * frequency_hz * time), rate_hz)
    return path


def _write_manifest(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def pytest_configure() -> None:
    """Imports are looked through for garbage as seldom as a command does it."""
    gc.set_threshold(NEW_OBJECTS)


@pytest.fixture(scope="session", autouse=True)
def frozen_libraries() -> None:
    """A trial collects garbage at its ends: among what tests make, and not among a million objects of libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def write_noise() -> Callable[..., Path]:
    """`write_noise(path, seconds, seed, rate_hz)`: a wav file of noise; another seed is another recording."""
    return _write_noise


@pytest.fixture(scope="session")
def write_tone() -> Callable[..., Path]:
    """`write_tone(path, seconds, frequency_hz, rate_hz)`: a wav file of a sine."""
    return _write_tone


@pytest.fixture(scope="session")
def write_manifest() -> Callable[..., Path]:
    """`write_manifest(path, rows)`: one JSON object a line; a string is written as it stands."""
    return _write_manifest


@contextmanager
def _disk_full_after(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def disk_full_after() -> Callable[[int], AbstractContextManager[None]]:
    """`with disk_full_after(size)`: no file grows beyond `size` bytes, as on a full disk."""
    return _disk_full_after


@pytest.fixture(scope="session")
def make_recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Recording]]:
    """`make_recordings(texts, seconds)`: one clip of noise for each text, each of its own sound."""

    def make(texts: Iterable[str], seconds: float | Iterable[float] = 0.5) -> list[Recording]:
        texts, folder = list(texts), tmp_path_factory.mktemp("clips")
        lengths = [seconds] * len(texts) if isinstance(seconds, float) else list(seconds)
        made = []
        for number, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            path = _write_noise(folder / f"{number}.wav", length, seed=number)
            samples = load_audio(path)
            row = Row(audio_filepath=path.name, text=text, speaker=f"speaker {number}")
            duration_s = samples.size / SAMPLE_RATE_HZ
            made.append(Recording(row, f"{folder}/clips.jsonl:{number + 1}", path, duration_s, audio_digest(samples)))
        return made

    return make


@pytest.fixture(scope="session")
def tiny_whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of 1.8 M random weights in Hugging Face format, with the tokenizer of tiny.en."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    from wertune.whisper.base_model import resolve_base_model

    source = resolve_base_model("packaged:whisper-tiny.en").path
    folder = tmp_path_factory.mktemp("tiny-whisper")
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(source, **TINY_SIZES))
    for embeddings in (model.model.decoder.embed_tokens, model.model.decoder.embed_positions):
        torch.nn.init.normal_(embeddings.weight, std=0.5)  # large enough for so small a model to be sure of a word
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(source / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def load_tiny(tiny_whisper_folder: Path) -> Callable[..., "Whisper"]:
    """`load_tiny(quantization)`: what load_whisper gives for the tiny folder; each call a model of its own."""
    from wertune.whisper.model import Whisper, load_whisper

    loaded: dict[str, Whisper] = {}

    def load(quantization: str = "none") -> Whisper:
        if quantization not in loaded:
            loaded[quantization] = load_whisper(tiny_whisper_folder, "en", quantization)
        pristine = loaded[quantization]
        return pristine.with_model(copy.deepcopy(pristine.model))

    return load


@pytest.fixture(scope="session")
def served_folder(
    load_tiny: Callable[..., "Whisper"], tiny_whisper_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a registered version holds, as MLflow stores it, of the tiny Whisper and an adapter that changes it."""
    import mlflow
    import torch

    import wertune.serving.pyfunc
    from wertune.base.config import ContextConfig, DecodeConfig, LoraConfig
    from wertune.whisper.adapter import adapter_files, add_lora, save_adapter

    folder = tmp_path_factory.mktemp("served")
    tuned = add_lora(load_tiny("none"), LoraConfig(r=4), seed=0)
    torch.manual_seed(1)
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(tuned, folder / "adapter", str(tiny_whisper_folder))
    settings = {
        "base_model": {"source": str(tiny_whisper_folder), "revision": None, "digest": None},
        "language": "en",
        "quantization": "none",
        "context": ContextConfig().model_dump(),
        "decode": DecodeConfig(max_new_tokens=6).model_dump(),
        "terms": ["SkillsFuture"],
        "serving": {"max_batch": 4},
        "adapter": adapter_files(folder / "adapter"),
    }
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(Path(wertune.serving.pyfunc.__file__).with_name("served_model.py")),
        artifacts={"adapter": str(folder / "adapter")},
        model_config=settings,
        signature=wertune.serving.pyfunc.SIGNATURE,
        pip_requirements=["mlflow"],
    )
    return folder / "model"


@pytest.fixture(scope="session")
def lay_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """`lay_store(folder)`: the URI of a new SQLite store in it, with the tables that MLflow takes seconds to make."""
    made = tmp_path_factory.mktemp("store") / "mlflow.db"

    def lay(folder: Path) -> str:
        if not made.exists():
            from mlflow.tracking import MlflowClient

            MlflowClient(f"sqlite:///{made}").search_experiments()
            with closing(sqlite3.connect(made)) as store, store:
                store.execute("DELETE FROM experiments")  # `Default` has its artifacts beside its own store
        shutil.copy(made, folder / made.name)
        return f"sqlite:///{folder / made.name}"

    return lay


@pytest.fixture
def track_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`track_in(uri)` makes a store the one that MLflow uses, until the test ends: it keeps it for the process."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield mlflow.set_tracking_uri
    mlflow.set_tracking_uri(None)
