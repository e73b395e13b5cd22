"""A small project, an MLflow store, evaluation reports that gates may be tried on, the same arithmetic everywhere."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

import wertune.whisper.footprint
from wertune.scores.eval_report import Cost, EvalReport, Provenance, SetReport, UtteranceCounts

SPEAKERS = 6
WORDS = 10


def _clip(position: int, errors: int, words: int = WORDS, **values: Any) -> UtteranceCounts:
    counts: dict[str, Any] = {
        "id": f"clip-{position:04d}",
        "speaker": f"s{position % SPEAKERS}",
        "channel": "clean",
        "duration_s": 3.0,
        "reference": "",
        "hypothesis": "",
        "words": words,
        "substitutions": errors,
        "deletions": 0,
        "insertions": 0,
        "characters": 5 * words,
        "character_errors": errors,
        "lexicon_words": min(1, words),
        "lexicon_errors": 0,
        "terms": {},
        "hypothesis_words": words,
        "compression_ratio": 1.0,
    }
    return UtteranceCounts(**(counts | values))


def _set(errors: Sequence[int], digest: str = "sha256:test", words: int = WORDS, **values: Any) -> SetReport:
    clips = tuple(_clip(position, count, words, **values) for position, count in enumerate(errors))
    return SetReport(digest=digest, utterances=clips)


def _good_sets() -> tuple[dict[str, SetReport], dict[str, SetReport]]:
    quiet = {name: _set([0] * 8, f"sha256:{name}", words=0) for name in ("silence", "noise", "short")}
    said = {"CPF": (1, 0, 0), "MediShield Life": (1, 0, 0), "SERS": (1, 0, 0)}
    after = {"test": _set([1, 0] * 15, terms=said), "retention_test": _set([0, 1] * 15, "sha256:retention")}
    before = {"test": _set([4, 3] * 15), "retention_test": _set([0, 1] * 15, "sha256:retention")}
    return after | quiet, before


def _report(**values: Any) -> EvalReport:
    sets, baseline = _good_sets()
    good: dict[str, Any] = {
        "model": "demo",
        "version": "2",
        "created": "2026-01-01T00:00:00Z",
        "sets": sets | values.pop("sets", {}),
        "baseline": baseline | values.pop("baseline", {}),
        "training_terms": {"CPF": 5, "MediShield Life": 3, "SERS": 0},
        "cost": Cost(
            trainable_parameters=1000,
            trainable_percent=1.4,
            adapter_mb=2.0,
            peak_memory_mb=900.0,
            real_time_factor=0.1,
            baseline_real_time_factor=0.1,
        ),
        "provenance": Provenance(
            git_commit="19acb5d",
            data_digests={"train": "sha256:train"},
            base_model="tiny.en",
            base_model_digest="sha256:base",
            adapter_digest="sha256:adapter",
            seed=0,
            normaliser="whisper-normalizer 0.1.15 english",
            decode={"num_beams": 1},
            context={"short": True},
        ),
    }
    return EvalReport(**(good | values))


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., UtteranceCounts]:
    """One clip's counts from its position, errors and words."""
    return _clip


@pytest.fixture(scope="session")
def make_set() -> Callable[..., SetReport]:
    """A set of six speakers' clips of ten words from the errors in each."""
    return _set


@pytest.fixture(scope="session")
def make_report() -> Callable[..., EvalReport]:
    """A report that passes sensible gates, with some of its fields or sets replaced."""
    return _report


@pytest.fixture(scope="session", autouse=True)
def float32_products() -> Iterator[None]:
    """No bfloat16, whatever the CPU: these tests compare numbers, of models that are loaded once for all of them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(wertune.whisper.footprint, "_multiplies_bfloat16", lambda _: False)
        yield


@pytest.fixture
def small_project(
    tmp_path: Path,
    tiny_whisper_folder: Path,
    write_noise: Callable[..., Path],
    write_manifest: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Six clips to train on, two to compare by, one to judge by; a cache of its own."""
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    seed = count(1)
    for split, clips in (("train", 6), ("validation", 2), ("test", 1)):
        rows = []
        for number in range(clips):
            audio = write_noise(tmp_path / f"{split}{number}.wav", 0.5 + number / 10, seed=next(seed))
            rows.append({"audio_filepath": audio.name, "text": f"{split} number {number}", "speaker": split})
        write_manifest(tmp_path / f"{split}.jsonl", rows)
    trial = {
        "quantization": "none",
        "train": {"epochs": 4, "batch_size": 2, "nonspeech_ratio": 0.5},
        "lora": {"r": 4},
        "decode": {"num_beams": 2},
    }
    data = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    values = {"name": "small", "base_model": str(tiny_whisper_folder), "data": data, "trial": trial}
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({"trials": 3, "space": {"lora.r": {"choices": [2, 4]}}}))
    return tmp_path


@pytest.fixture
def mlflow_store(
    tmp_path: Path,
    lay_store: Callable[[Path], str],
    track_in: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A new SQLite file as MLflow's own store; the working directory is the test's folder."""
    uri = lay_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    track_in(uri)
    return uri
