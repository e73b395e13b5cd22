"""Serving measured in one process: transformers' pipeline and faster-whisper at 30 s, and ours by either engine.

All get the same adapter and the same clips. What counts is processor time, which a busy machine distorts least.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, pipeline

from wertune.base.config import DecodeConfig, load_project
from wertune.base.errors import ConfigError
from wertune.bench.clips import evenly
from wertune.bench.rows import Row, Section
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.manifest import Recording
from wertune.scores.comparison import markdown_table
from wertune.serving.pyfunc import load_registered
from wertune.serving.served import Served, load_served
from wertune.training.prepare import Prepared, prepare
from wertune.training.probe import using_threads
from wertune.whisper.adapter import merged
from wertune.whisper.ctranslate2_engine import converted
from wertune.whisper.footprint import dtype_name, product_dtype
from wertune.whisper.transcription import transcribe_samples
from wertune.whisper.wording import load_wording

CLIPS = 48
BATCHES = (1, 16)
OURS, FASTER_WHISPER = "ours", "faster-whisper int8, 30 s"
# Greedy and in float32, as OpenAI's checkpoints say and the pipeline loads them; in bfloat16 it is measured too.
PIPELINE = "transformers' pipeline, 30 s, float32, 1 beam"
WITHOUT = "Serving is measured on a registered version: `python -m wertune bench --model-uri models:/sg_gov/1`."

Transcribe = Callable[[Sequence[Samples]], list[str]]


class TranscribeBeams(Protocol):
    """The texts of clips, of so many texts followed at once."""

    def __call__(self, clips: Sequence[Samples], beams: int) -> list[str]: ...


@dataclass(frozen=True)
class ServingRow:
    """One way to serve, asked for `batch` clips at a time: seconds for a second of audio, latencies, accuracy."""

    name: str
    batch: int
    cpu_per_audio_s: float
    wall_per_audio_s: float
    p50_ms: float
    p99_ms: float
    wer: float
    term_recall: float


def section(folder: Path, model_uri: str) -> Section:
    """A registered version on one thread, in a request of one clip and of sixteen; no more than a hint without one."""
    if not model_uri:
        return Section("serving", [], WITHOUT)
    if find_spec("faster_whisper") is None:
        remedy = "run `pip install faster-whisper`, or leave --model-uri empty"
        raise ConfigError(f"--model-uri is {model_uri}, but the package faster_whisper is not installed; {remedy}")
    served = load_registered(model_uri, "torch")
    prepared = prepare(folder, load_project(folder))
    recordings = evenly(prepared.dataset["test"], CLIPS)
    with using_threads(1), tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        ways = _ways(prepared, served, Path(scratch))
        measured = [_measured(prepared, way, recordings, batch) for batch in BATCHES for way in ways.items()]
    return Section("serving", [asdict(row) for row in measured], as_markdown(measured), ratios(measured))


def ratios(measured: Sequence[ServingRow]) -> tuple[Row, ...]:
    """Processor time for a second of audio, the quickest of theirs and of ours that are no worse than a WER.

    That of the greedy pipeline, and that of ours where it is best.
    """
    rows = []
    for batch in BATCHES:
        found = [row for row in measured if row.batch == batch]
        theirs, ours = ([row for row in found if row.name.startswith(OURS) == mine] for mine in (False, True))
        pipeline = next(row for row in theirs if row.name == PIPELINE)
        rows.append(_compared(pipeline, _quickest(ours, pipeline.wer)))
        best = min(ours, key=lambda row: (row.wer, row.cpu_per_audio_s))
        rows.append(_compared(_quickest(theirs, best.wer), best))
    return tuple(rows)


def _quickest(rows: Sequence[ServingRow], wer: float) -> ServingRow:
    """Of those that write no worse than that; the one that writes best, where all are worse."""
    fitting = [row for row in rows if row.wer <= wer] or [min(rows, key=lambda row: row.wer)]
    return min(fitting, key=lambda row: row.cpu_per_audio_s)


def _compared(theirs: ServingRow, ours: ServingRow) -> Row:
    said = " and ".join(f"{each.name} ({100 * each.wer:.1f} %)" for each in (theirs, ours))
    pair = theirs.cpu_per_audio_s, ours.cpu_per_audio_s
    return Row.of_pairs(f"serving, {ours.batch} a request: {said}", "CPU s/s", [pair])


def _theirs_named(dtype: torch.dtype, beams: int) -> str:
    return f"{PIPELINE.partition(', float32')[0]}, {dtype_name(dtype)}, {_beams(beams)}"


def _beams(count: int) -> str:
    return f"{count} beam{'s' if count > 1 else ''}"


def _ours_named(engine: str, beams: int) -> str:
    return f"{OURS}, {engine}, {_beams(beams)}"


def as_markdown(measured: Sequence[ServingRow]) -> str:
    """How it was measured, and the table."""
    return (
        f"Serving: a registered version on {CLIPS} test clips, one thread, in turn in one process, all with the same "
        "adapter. CPU s/s is processor time for a second of audio; a latency is of a whole request. faster-whisper "
        "takes one recording after the other. One beam is greedy; the version's own beams are its registered "
        "settings, with terms boosted while a text is written (torch) or among finished ones (CTranslate2). Above, "
        "each of ours stands beside the quickest of theirs that writes as well, or the one that comes nearest."
        f"\n\n{as_table(measured)}"
    )


def as_table(rows: Sequence[ServingRow]) -> str:
    """The rows as Markdown; the last column says how many times less processor time than the pipeline's each takes."""
    pipelines = {row.batch: row.cpu_per_audio_s for row in rows if row.name == PIPELINE}
    lines = [["", "clips a request", "CPU s/s", "wall s/s", "p50", "p99", "WER", "term recall", "times less CPU"]]
    for row in rows:
        seconds = [f"{value:.4f}" for value in (row.cpu_per_audio_s, row.wall_per_audio_s)]
        latencies = [f"{value:.0f} ms" for value in (row.p50_ms, row.p99_ms)]
        times = f"{pipelines[row.batch] / row.cpu_per_audio_s:.1f}"
        accuracy = [f"{100 * value:.2f} %" for value in (row.wer, row.term_recall)]
        lines.append([row.name, str(row.batch), *seconds, *latencies, *accuracy, times])
    return markdown_table(lines)


def _ways(prepared: Prepared, served: Served, scratch: Path) -> dict[str, Transcribe]:
    """Every way to serve the adapter, loaded, by name."""
    adapter, decode = served.adapter, served.decode
    beams = tuple(dict.fromkeys((decode.num_beams, 1)))
    ways: dict[str, Transcribe] = {}
    for dtype in dict.fromkeys((torch.float32, product_dtype(torch.device("cpu")))):
        pipeline = _pipeline(prepared, adapter, decode, dtype)
        ways |= {_theirs_named(dtype, count): partial(pipeline, beams=count) for count in beams}
    faster = _faster_whisper(prepared, adapter, scratch)
    ways |= {f"{FASTER_WHISPER}, {_beams(count)}": partial(faster, beams=count) for count in beams}
    for loaded in (served, load_served(served.settings, adapter, "ctranslate2")):
        for count in beams:
            chosen = decode.model_copy(update={"num_beams": count})
            ways[_ours_named(loaded.engine, count)] = partial(_ours, loaded, chosen)
    return ways


def _ours(served: Served, decode: DecodeConfig, clips: Sequence[Samples]) -> list[str]:
    return [found.text for found in transcribe_samples(served.whisper, clips, served.context, decode)]


def _pipeline(prepared: Prepared, adapter: Path, decode: DecodeConfig, dtype: torch.dtype) -> TranscribeBeams:
    """The field's usual way."""
    path, language = prepared.base.path, prepared.project.language
    model = merged(path, adapter, language).to(dtype)
    speech = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=load_wording(path, language)[0].tokenizer,
        feature_extractor=WhisperFeatureExtractor.from_pretrained(path, local_files_only=True),
        dtype=dtype,
        device="cpu",
    )
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": decode.max_new_tokens}
    options |= {"language": language, "task": "transcribe"} if model.generation_config.is_multilingual else {}

    def transcribe(clips: Sequence[Samples], beams: int) -> list[str]:
        inputs = [{"raw": clip, "sampling_rate": SAMPLE_RATE_HZ} for clip in clips]
        asked = options | {"num_beams": beams}
        return [str(answer["text"]) for answer in speech(inputs, batch_size=len(clips), generate_kwargs=asked)]

    return transcribe


def _faster_whisper(prepared: Prepared, adapter: Path, scratch: Path) -> TranscribeBeams:
    """One recording after the other: its `transcribe` takes no more; without its retries at temperatures."""
    from faster_whisper import WhisperModel

    for folder in (converted(prepared.base, adapter, prepared.project.language), prepared.base.path):
        for file in folder.iterdir():
            if not (scratch / file.name).exists():
                (scratch / file.name).symlink_to(file)
    model = WhisperModel(str(scratch), device="cpu", compute_type="int8", cpu_threads=torch.get_num_threads())
    once = {"temperature": 0.0, "without_timestamps": True}
    plain = {"language": prepared.project.language, "condition_on_previous_text": False, "vad_filter": False}

    def write(clip: Samples, beams: int) -> str:
        segments, _ = model.transcribe(clip, beam_size=beams, **once, **plain)
        return "".join(segment.text for segment in segments)

    return lambda clips, beams: [write(clip, beams) for clip in clips]


def _measured(
    prepared: Prepared, way: tuple[str, Transcribe], recordings: Sequence[Recording], batch: int
) -> ServingRow:
    """The recordings in requests of `batch`, after one that does not count: the first is slower than the others."""
    name, transcribe = way
    clips = [recording.samples() for recording in recordings]
    transcribe(clips[:batch])
    texts: list[str] = []
    seconds: list[float] = []
    cpu_started = time.process_time()
    for start in range(0, len(clips), batch):
        started = time.perf_counter()
        texts += transcribe(clips[start : start + batch])
        seconds.append(time.perf_counter() - started)
    cpu_s, audio_s = time.process_time() - cpu_started, sum(clip.size for clip in clips) / SAMPLE_RATE_HZ
    scores = prepared.score(recordings, texts)
    return ServingRow(
        name=name,
        batch=batch,
        cpu_per_audio_s=cpu_s / audio_s,
        wall_per_audio_s=sum(seconds) / audio_s,
        p50_ms=1000 * statistics.median(seconds),
        p99_ms=1000 * float(np.percentile(seconds, 99)),
        wer=scores.wer,
        term_recall=scores.terms.recall,
    )
