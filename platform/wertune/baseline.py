"""The untouched base, scored where it is at its best: 30 s of context."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import transformers

from wertune.config import ContextConfig, DecodeConfig
from wertune.evaluate import transcribe_features
from wertune.files import write_atomically
from wertune.manifest import Recording
from wertune.metrics import Scores, score
from wertune.prepare import Prepared
from wertune.weights import cache_root

EVALUATION_SPLITS = ("validation", "test", "retention_validation", "retention_test")

Transcribe = Callable[[Prepared, Sequence[str]], dict[str, list[str]]]


def baseline_scores(
    prepared: Prepared, splits: Sequence[str] = EVALUATION_SPLITS, transcribe: Transcribe | None = None
) -> dict[str, Scores]:
    """Scores of the untouched base on the splits that the project has.

    Its transcripts are kept beside the converted weights: they depend on base, audio and decoding alone.
    """
    wanted = [split for split in splits if prepared.dataset[split]]
    texts = {split: _stored(prepared, split) for split in wanted}
    if missing := [split for split in wanted if texts[split] is None]:
        for split, written in (transcribe or transcribe_with_base)(prepared, missing).items():
            texts[split] = written
            _store(prepared, split, written)
    return {split: _score(prepared, prepared.dataset[split], texts[split] or []) for split in wanted}


def transcribe_with_base(prepared: Prepared, splits: Sequence[str]) -> dict[str, list[str]]:
    """What the untouched base writes for each clip of each split, at 30 s."""
    whisper = prepared.whisper(prepared.project.trial.quantization)
    decode = baseline_decode(prepared.project.trial.decode)
    texts = {}
    for split in splits:
        clips = prepared.evaluation_set(split, ContextConfig(short=False), whisper.mel_bins)
        durations_s = [recording.duration_s for recording in clips.recordings]
        texts[split] = transcribe_features(whisper, clips.features, durations_s, decode)
    return texts


def baseline_decode(decode: DecodeConfig) -> DecodeConfig:
    """The trial's settings, but no boost of terms and Whisper's own rule that a text is never empty."""
    return decode.model_copy(update={"term_boost": 0.0, "may_be_empty": False})


def _score(prepared: Prepared, recordings: Sequence[Recording], texts: Sequence[str]) -> Scores:
    return score((recording.clip for recording in recordings), texts, prepared.normalise, prepared.finder)


def _path(prepared: Prepared, split: str) -> Path:
    trial = prepared.project.trial
    depends_on = [
        prepared.base.digest,
        trial.quantization,
        baseline_decode(trial.decode).model_dump(),
        prepared.project.language,
        [recording.digest for recording in prepared.dataset[split]],
        transformers.__version__,
    ]
    name = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:32]
    return cache_root() / "baselines" / f"{name}.json"


def _stored(prepared: Prepared, split: str) -> list[str] | None:
    try:
        texts = json.loads(_path(prepared, split).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(texts, list) and len(texts) == len(prepared.dataset[split])
    return texts if whole and all(isinstance(text, str) for text in texts) else None


def _store(prepared: Prepared, split: str, texts: Sequence[str]) -> None:
    write_atomically(_path(prepared, split), lambda file: file.write(json.dumps(texts).encode()))
