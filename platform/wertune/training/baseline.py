"""The untouched base, scored where it is at its best: 30 s of context; plainly, and with what costs no training."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from pydantic import TypeAdapter

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.files import cache_root, content_digest, write_atomically
from wertune.base.steps import Steps, heard_by
from wertune.scores.metrics import Scores
from wertune.training.prepare import Prepared
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import in_batches
from wertune.whisper.wording import MAX_TOKENS_BEFORE

OF_A_BOOST = {"boost_beyond_certainty", "boost_floor"}  # settings without effect where nothing is boosted
FULL_CONTEXT = ContextConfig(short=False)
EVALUATION_SPLITS = ("validation", "test", "retention_validation", "retention_test")


class Way(StrEnum):
    """How the untouched base writes: plainly, with the terms boosted, or with the glossary as Whisper's own prompt."""

    PLAIN = "plain"
    BOOSTED = "boosted"
    PROMPTED = "prompted"


Kept = TypeVar("Kept", list[str], dict[str, list[str]])
Wanted = Mapping[str, Sequence[Way]]  # by split
Texts = dict[str, dict[Way, list[str]]]
Transcribe = Callable[[Prepared, Wanted], Texts]


def ways_of(prepared: Prepared) -> tuple[Way, ...]:
    """All that say anything of the project: without terms there is nothing to boost and no glossary."""
    if not prepared.lexicon.terms:
        return (Way.PLAIN,)
    boosted = (Way.BOOSTED,) if prepared.project.trial.decode.term_boost else ()
    return (Way.PLAIN, *boosted, Way.PROMPTED)


def baseline_scores(prepared: Prepared, splits: Sequence[str] = EVALUATION_SPLITS) -> dict[str, Scores]:
    """Scores of the untouched base, writing plainly, on the splits that the project has."""
    texts = baseline_texts(prepared, dict.fromkeys(splits, (Way.PLAIN,)))
    return {split: prepared.score(prepared.dataset[split], written[Way.PLAIN]) for split, written in texts.items()}


def baseline_texts(prepared: Prepared, wanted: Wanted, transcribe: Transcribe | None = None) -> Texts:
    """What the untouched base writes in each way for the clips of each split that the project has.

    It depends on base, audio and decoding, and where terms help on these, and is kept: in the project's own folder
    `baseline` where there is one, else beside the converted weights.
    """
    texts, missing = _kept(prepared, wanted)
    if missing:
        for split, written in (transcribe or transcribe_with_base)(prepared, missing).items():
            for way, each in written.items():
                texts[split][way] = each
                _store(prepared, split, way, each)
    return texts


def unwritten(prepared: Prepared, wanted: Wanted) -> Wanted:
    """What of the wanted texts the base has still to write."""
    return _kept(prepared, wanted)[1]


def _kept(prepared: Prepared, wanted: Wanted) -> tuple[Texts, dict[str, list[Way]]]:
    texts: Texts = {split: {} for split in wanted if prepared.dataset[split]}
    missing: dict[str, list[Way]] = {}
    for split in texts:
        for way in wanted[split]:
            if (stored := _stored(prepared, split, way)) is None:
                missing.setdefault(split, []).append(way)
            else:
                texts[split][way] = stored
    return texts, missing


def base_steps(prepared: Prepared, wanted: Wanted, say: Callable[[str], object]) -> Steps:
    """What is said while the untouched base writes what is wanted of it."""
    return Steps("the untouched base", sum(len(prepared.dataset[split]) for split in wanted), say)


def told(say: Callable[[str], object]) -> Transcribe:
    """`transcribe_with_base`, which says how far it is."""

    def transcribe(prepared: Prepared, wanted: Wanted) -> Texts:
        with heard_by(base_steps(prepared, wanted, say)):
            return transcribe_with_base(prepared, wanted)

    return transcribe


def transcribe_with_base(prepared: Prepared, wanted: Wanted) -> Texts:
    """What the untouched base writes in each way for each clip of each split, at 30 s; a clip is heard once for all."""
    whisper = prepared.whisper(prepared.project.trial.quantization)
    decode = baseline_decode(prepared.project.trial.decode)
    texts: Texts = {}
    for split, ways in wanted.items():
        clips = prepared.evaluation_set(split, FULL_CONTEXT, whisper.mel_bins)
        durations_s = [recording.duration_s for recording in clips.recordings]
        languages = [recording.language for recording in clips.recordings]
        write = _writer(whisper, prepared, ways)
        written = in_batches(write, clips.features, durations_s, decode, languages=languages)
        texts[split] = {way: list(each) for way, each in zip(ways, zip(*written, strict=True), strict=True)}
    return texts


def _writer(
    whisper: Whisper, prepared: Prepared, ways: Sequence[Way]
) -> Callable[[torch.Tensor, Sequence[int], str], Sequence[tuple[str, ...]]]:
    """Writes a batch in all `ways`, of one pass through the encoder, which is most of the work at 30 s."""

    @torch.no_grad()
    def write(features: torch.Tensor, limits: Sequence[int], language: str) -> list[tuple[str, ...]]:
        states = whisper.encode(features)
        each = []
        for way in ways:
            before = whisper.wording.glossary.tokens if way is Way.PROMPTED else ()
            found = whisper.write(states, limits, _decode(prepared, way), before, language)
            each.append([written.text for written in found])
        return list(zip(*each, strict=True))

    return write


def baseline_decode(decode: DecodeConfig) -> DecodeConfig:
    """The trial's settings, but no boost of terms and Whisper's own rule that a text is never empty."""
    return decode.model_copy(update={"term_boost": 0.0, "may_be_empty": False})


def _decode(prepared: Prepared, way: Way) -> DecodeConfig:
    decode = prepared.project.trial.decode
    boost = decode.term_boost if way is Way.BOOSTED else 0.0
    return baseline_decode(decode).model_copy(update={"term_boost": boost})


def _name(prepared: Prepared, split: str, way: Way) -> str:
    decode = _decode(prepared, way)
    settings = decode.model_dump(exclude=set() if decode.term_boost else OF_A_BOOST)
    helped = [] if way is Way.PLAIN else [way.value, MAX_TOKENS_BEFORE, list(prepared.lexicon.written)]
    # A row without a language is heard in the project's, which the name has anyway.
    heard = [" ".join([each.digest, each.row.language]).strip() for each in prepared.dataset[split]]
    return texts_name(prepared, settings, heard, transformers.__version__, *helped)


def texts_name(prepared: Prepared, decode: Mapping[str, Any], heard: Sequence[str], *others: Any) -> str:
    """The file of what the untouched base writes of recordings of these digests; `others` it depends on, too."""
    project = prepared.project
    depends_on = [prepared.base.texts_digest, project.trial.quantization, decode, project.language, heard, *others]
    return f"{content_digest(depends_on)[:32]}.json"


def kept_texts(files: Iterable[Path], kind: type[Kept], is_whole: Callable[[Kept], bool]) -> Kept | None:
    """The texts of the first of the files that holds whole ones."""
    for file in files:
        try:
            texts = TypeAdapter(kind).validate_json(file.read_bytes())
        except (FileNotFoundError, ValueError):
            continue
        if is_whole(texts):
            return texts
    return None


def keep_texts(file: Path, texts: Any) -> None:
    """A line a text, so that two versions of a file compare."""
    document = json.dumps(texts, indent=0, ensure_ascii=False) + "\n"
    write_atomically(file, lambda stream: stream.write(document.encode()))


def _folders(prepared: Prepared) -> list[Path]:
    return [*([prepared.baselines] if prepared.baselines else []), cache_root() / "baselines"]


def _stored(prepared: Prepared, split: str, way: Way) -> list[str] | None:
    return _stored_as(prepared, _name(prepared, split, way), len(prepared.dataset[split]))


def _stored_as(prepared: Prepared, name: str, clips: int) -> list[str] | None:
    return kept_texts((folder / name for folder in _folders(prepared)), list[str], lambda texts: len(texts) == clips)


def _store(prepared: Prepared, split: str, way: Way, texts: Sequence[str]) -> None:
    _store_as(prepared, _name(prepared, split, way), texts)


def _store_as(prepared: Prepared, name: str, texts: Sequence[str]) -> None:
    folder = next(each for each in _folders(prepared) if each != prepared.baselines or os.access(each, os.W_OK))
    keep_texts(folder / name, texts)


def kept_or_written(prepared: Prepared, name: str, clips: int, write: Callable[[], list[str]]) -> list[str]:
    """So many texts of the untouched base under a `texts_name`: as they were kept, or written now and kept."""
    texts = _stored_as(prepared, name, clips)
    if texts is None:
        texts = write()
        _store_as(prepared, name, texts)
    return texts
