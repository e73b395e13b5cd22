"""Batteries written by a version as it serves and by the untouched base at 30 s, and scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.files import cache_root
from wertune.battery.counts import set_report
from wertune.battery.form import Part
from wertune.battery.shelf import Battery, set_name
from wertune.data.pauses import MAX_SEGMENT_S
from wertune.scores.eval_report import SetReport
from wertune.scores.metrics import score
from wertune.training.baseline import FULL_CONTEXT, OF_A_BOOST, baseline_decode, keep_texts, kept_texts, texts_name
from wertune.training.prepare import Prepared
from wertune.whisper.features import Across, here
from wertune.whisper.transcription import Transcriber, transcribe_samples

BASE_TEXTS = "base"  # a folder beside the clips
Texts = Mapping[Part, Sequence[str]]


def write_battery(
    whisper: Transcriber,
    battery: Battery,
    context: ContextConfig,
    decode: DecodeConfig,
    longest_s: float = MAX_SEGMENT_S,
    across: Across = here,
) -> Texts:
    """What the model writes for each clip of each part; all parts at once, so that batches are full."""
    clips = [battery.samples(row) for rows in battery.by_part.values() for row in rows]
    written = iter(transcribe_samples(whisper, clips, context, decode, longest_s=longest_s, across=across))
    return {part: [next(written).text for _ in rows] for part, rows in battery.by_part.items()}


def battery_sets(prepared: Prepared, battery: Battery, texts: Texts) -> dict[str, SetReport]:
    """Each part as a set of a report, `battery.<part>`."""
    sets = {}
    for part, written in texts.items():
        rows = battery.by_part[part]
        scores = score(map(battery.clip, rows), written, prepared.normalise, prepared.finder)
        sets[set_name(part)] = set_report(prepared, scores, battery.digest(part), [row.entities for row in rows])
    return sets


def base_texts(prepared: Prepared, battery: Battery) -> Texts:
    """What the untouched base writes: as it lies with the battery, or kept beside the converted weights.

    Nothing of a version changes it. A shipped battery brings the texts of packaged bases (`wertune battery --base-of`),
    since 30 s of context for each clip are minutes of work; those of another base and other beams are written here.
    """
    name = _name(prepared, battery)
    kept = cache_root() / "batteries" / name
    wanted = {part: len(rows) for part, rows in battery.by_part.items()}

    def is_whole(texts: Mapping[str, Sequence[str]]) -> bool:
        return {part: len(written) for part, written in texts.items()} == wanted

    texts = kept_texts((battery.folder / BASE_TEXTS / name, kept), dict[str, list[str]], is_whole)
    if texts is not None:
        return cast(Texts, texts)
    written = write_with_base(prepared, battery)
    keep_texts(kept, written)
    return written


def write_with_base(prepared: Prepared, battery: Battery) -> Texts:
    """What the untouched base writes at 30 s, with the project's beams."""
    whisper = prepared.whisper(prepared.project.trial.quantization)
    return write_battery(whisper, battery, FULL_CONTEXT, baseline_decode(prepared.project.trial.decode))


def ship_base_texts(prepared: Prepared, battery: Battery) -> Path:
    """Puts what the untouched base writes beside the battery's clips, for every project of this base and beams."""
    path = battery.folder / BASE_TEXTS / _name(prepared, battery)
    path.parent.mkdir(exist_ok=True)
    keep_texts(path, base_texts(prepared, battery))
    return path


def _name(prepared: Prepared, battery: Battery) -> str:
    decode = baseline_decode(prepared.project.trial.decode)
    settings = decode.model_dump(exclude={"batch_size", "batch_seconds"} | OF_A_BOOST)
    return texts_name(prepared, settings, [battery.digest(part) for part in battery.by_part])
