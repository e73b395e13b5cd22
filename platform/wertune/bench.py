"""Times of this machine, as ratios of one interleaved run: what a short context saves."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wertune.config import ContextConfig, DecodeConfig, LoraConfig
from wertune.evaluate import transcribe_features
from wertune.features import pad_features
from wertune.model import Whisper, add_lora
from wertune.prepare import Prepared, load_project, prepare
from wertune.report import markdown_table

REPEATS = 3
CLIPS = 16


def bench(folder: Path) -> str:
    """A table: seconds of a training step and of transcribing a batch at 30 s and at short context, and the ratio."""
    project = load_project(folder)
    prepared = prepare(folder, project, {"test": folder.resolve() / project.data.test})
    whisper = add_lora(prepared.whisper(project.trial.quantization), LoraConfig(), project.trial.seed)
    rows = [["", "30 s context", "short context", "ratio (least to most)"]]
    for name, work in (("training step, s", _step), ("transcription, s", _transcribe)):
        full, short = _interleaved(prepared, whisper, work)
        ratios = [slow / fast for slow, fast in zip(full, short, strict=True)]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        rows.append([name, f"{statistics.median(full):.2f}", f"{statistics.median(short):.2f}", spread])
    threads = torch.get_num_threads()
    return f"{CLIPS} clips of {project.name}, {whisper.device.type}, {threads} threads\n\n{markdown_table(rows)}"


Work = Callable[[Whisper, Sequence[torch.Tensor], Sequence[str], Sequence[float]], None]


def _interleaved(prepared: Prepared, whisper: Whisper, work: Work) -> tuple[list[float], list[float]]:
    """Seconds of `work` at full and at short context, in turn; the first round of each is not counted."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(REPEATS + 1):
        for short in (False, True):
            clips = prepared.evaluation_set("test", ContextConfig(short=short), whisper.mel_bins)
            texts = [recording.row.text for recording in clips.recordings[:CLIPS]]
            durations_s = [recording.duration_s for recording in clips.recordings[:CLIPS]]
            started = time.perf_counter()
            work(whisper, clips.features[:CLIPS], texts, durations_s)
            if turn:
                seconds[short].append(time.perf_counter() - started)
    return seconds[False], seconds[True]


def _step(whisper: Whisper, features: Sequence[torch.Tensor], texts: Sequence[str], _: Sequence[float]) -> None:
    whisper.model.train()
    labels = whisper.pad_labels([whisper.label_ids(text) for text in texts])
    whisper.loss(pad_features(features), labels).backward()  # type: ignore[no-untyped-call]
    whisper.model.zero_grad(set_to_none=True)


def _transcribe(
    whisper: Whisper, features: Sequence[torch.Tensor], _: Sequence[str], durations_s: Sequence[float]
) -> None:
    whisper.model.eval()
    transcribe_features(whisper, features, durations_s, DecodeConfig())
