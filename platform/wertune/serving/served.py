"""A version as it serves: what is stored with it, loaded into the engine that is to serve it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wertune.base.config import ContextConfig, DecodeConfig, Engine, TrainConfig, TrialConfig, stored_decode
from wertune.base.errors import BaseModelError
from wertune.data.pauses import MAX_SEGMENT_S
from wertune.training.prepare import Prepared
from wertune.whisper.adapter import adapter_files, check_unchanged, load_adapter
from wertune.whisper.base_model import BaseModel, resolve_base_model
from wertune.whisper.ctranslate2_engine import load_engine
from wertune.whisper.model import Whisper, load_whisper
from wertune.whisper.transcription import TimedTranscriber

MIN_PIECE_S = 5.0
# So much of what a version learned from is no longer than the pieces that it is given. In pieces of 6.5 s (19 of 20
# clips of the domain), 9, 13 and 28 s recordings of three sentences had 8.9, 7.4, 6.9, 7.0 % WER, those of six 11.8,
# 11.8, 8.4, 8.8 % (docs/experiments.md).
LEARNED_FROM = 0.995


@dataclass(frozen=True)
class Served:
    """A version as it serves: its settings, the engine that transcribes, and where its adapter lies."""

    settings: Mapping[str, Any]
    adapter: Path
    context: ContextConfig
    decode: DecodeConfig
    engine: Engine
    whisper: TimedTranscriber

    @property
    def longest_piece_s(self) -> float:
        """What is longer is cut at pauses; as versions said before they knew it, in pieces as long as Whisper hears."""
        given = self.settings.get("serving", {}).get("longest_piece_s")
        return float(given or self.settings.get("longest_piece_s", MAX_SEGMENT_S))

    @property
    def window_s(self) -> float | None:
        """What is longer is read in windows of so much; none where the version has not learned when it is said."""
        given = self.settings.get("timed_window_s")
        return None if given is None else float(given)

    def artefact(self) -> Whisper:
        """The 8-bit base with the adapter in torch, which another engine is measured against."""
        return self.whisper if isinstance(self.whisper, Whisper) else _in_torch(self.settings, self.adapter)


def stored_settings(trial: TrialConfig, prepared: Prepared, adapter: Path) -> dict[str, Any]:
    """What is stored beside the adapter of a trial: all that serving it takes, and what its files are."""
    source, base = prepared.project.base_model, prepared.base
    named = {"source": source.source, "revision": source.revision, "digest": base.digest, "files": dict(base.files)}
    return {
        "base_model": named,
        "language": prepared.project.language,
        "quantization": trial.quantization,
        "context": trial.context.model_dump(),
        "decode": trial.decode.model_dump(),
        "longest_piece_s": longest_piece_s(prepared),
        "timed_window_s": timed_window_s(trial.train),
        "terms": list(prepared.lexicon.written),
        "serving": prepared.project.serving.model_dump(mode="json"),
        "adapter": adapter_files(adapter),
    }


def longest_piece_s(prepared: Prepared) -> float:
    """As the project says, or as nearly all clips that were trained on; between 5 s and what Whisper hears at once."""
    if prepared.project.serving.longest_piece_s is not None:
        return prepared.project.serving.longest_piece_s
    learned_from = [*prepared.dataset["train"], *prepared.dataset["replay"]]
    longest = np.quantile([recording.duration_s for recording in learned_from], LEARNED_FROM)
    return round(float(np.clip(longest, MIN_PIECE_S, MAX_SEGMENT_S)), 1)


def timed_window_s(train: TrainConfig) -> float | None:
    """The windows that a version reads recordings in, which it learned from with their times; else none."""
    return train.window_s if train.joined_ratio and train.timestamps_ratio else None


def load_served(settings: Mapping[str, Any], adapter: Path, engine: Engine) -> Served:
    """The base and the adapter, both as the version was made of them, in the engine that is to serve them."""
    check_unchanged(adapter, settings.get("adapter", {}))
    context, decode = ContextConfig.model_validate(settings["context"]), stored_decode(settings["decode"])
    whisper: TimedTranscriber
    if engine == "torch":
        whisper = _in_torch(settings, adapter)
    else:
        whisper = load_engine(base_of(settings), adapter, settings["language"], settings.get("terms", ()))
    return Served(settings, adapter, context, decode, engine, whisper)


def _in_torch(settings: Mapping[str, Any], adapter: Path) -> Whisper:
    terms = settings.get("terms", ())
    base = load_whisper(base_of(settings).path, settings["language"], settings["quantization"], terms=terms)
    whisper = load_adapter(base, adapter)
    whisper.keep_unpacked()
    return whisper


def base_of(settings: Mapping[str, Any]) -> BaseModel:
    """The base that a version names, found by reference and digest."""
    base = settings["base_model"]
    try:
        found = resolve_base_model(base["source"], revision=base["revision"], expected_digest=base["digest"])
    except BaseModelError as error:
        remedy = "put that model back where it was, or register a version on one that is there"
        raise BaseModelError(
            f"the version is of the base {base['source']}, which cannot be loaded ({error}); {remedy}"
        ) from None
    found.check_files(base.get("files", {}))
    return found
