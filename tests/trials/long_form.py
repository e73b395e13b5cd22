"""`python -m tests.trials.long_form --set train.joined_ratio=0.4`: a run's adapter on long recordings of the demo.

Recordings are ten validation clips each, joined by pauses of 0.25 to 0.8 s, so that all borders are known. Prints the
WER of the clips alone, of the recordings cut at pauses, and read in windows of 30 s with times; and how far the times
of segments and of words are from the borders. `--base` measures the untouched base.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from tests.support.trial import Log

from wertune.base.config import ContextConfig, DecodeConfig, load_project, with_overrides
from wertune.base.files import write_files
from wertune.base.text import joined
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.manifest import Recording
from wertune.data.nonspeech import speech_span_s
from wertune.jobs.tune import objective_of
from wertune.scores.metrics import Clip, Scores, score
from wertune.training.baseline import baseline_decode, baseline_scores
from wertune.training.prepare import Prepared, prepare
from wertune.training.trial import run_trial
from wertune.whisper.adapter import load_adapter
from wertune.whisper.model import Whisper
from wertune.whisper.timed.windows import transcribe_windows
from wertune.whisper.timed.words import with_words
from wertune.whisper.transcription import Segment, Word, score_set, transcribe_samples

CLIPS, PAUSE_S, HISS = 10, (0.25, 0.8), 1e-4


@dataclass(frozen=True)
class Long:
    """A recording, what is said in it, and the start and the end of each clip's speech in seconds."""

    samples: Samples
    text: str
    borders_s: tuple[tuple[float, float], ...]


def recordings(clips: Sequence[Recording], seed: int) -> list[Long]:
    """All clips in random order, ten to a recording."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(clips))
    return [
        _joined([clips[i] for i in order[start : start + CLIPS]], generator)
        for start in range(0, len(clips) - CLIPS + 1, CLIPS)
    ]


def _joined(clips: Sequence[Recording], generator: np.random.Generator) -> Long:
    parts, borders, size = list[Samples](), list[tuple[float, float]](), 0
    for clip in clips:
        samples = clip.samples()
        first_s, last_s = (size / SAMPLE_RATE_HZ + at_s for at_s in speech_span_s(samples))
        borders.append((first_s, last_s))
        pause = HISS * generator.standard_normal(round(generator.uniform(*PAUSE_S) * SAMPLE_RATE_HZ))
        parts += [samples, pause.astype(np.float32)]
        size += samples.size + pause.size
    return Long(np.concatenate(parts), joined(clip.text for clip in clips), tuple(borders))


def border_errors_s(found: Sequence[Sequence[Segment | Word]], long: Sequence[Long]) -> list[float]:
    """Of each clip's start and end, how far the nearest start and end of a segment or word are."""
    errors = list[float]()
    for spoken, recording in zip(found, long, strict=True):
        if spoken:
            for at, edge in enumerate(zip(*recording.borders_s, strict=True)):
                times = np.array([(each.start_s, each.end_s)[at] for each in spoken])
                errors += [float(np.abs(times - border).min()) for border in edge]
    return errors


def measure(prepared: Prepared, whisper: Whisper, context: ContextConfig, decode: DecodeConfig, seed: int) -> None:
    """Prints the table."""
    clips = prepared.evaluation_set("validation", context, whisper.mel_bins)
    long = recordings(clips.recordings, seed)
    texts = [recording.samples for recording in long]
    _row("clips alone", score_set(whisper, clips, decode, prepared.normalise, prepared.finder))
    cut = transcribe_samples(whisper, texts, context, decode)
    _row("cut at pauses", _scored(prepared, long, [each.text for each in cut]))
    read = transcribe_windows(whisper, texts, context, decode)
    _row("in windows", _scored(prepared, long, [each.text for each in read]))
    _errors("segments", border_errors_s([each.segments for each in read], long))
    timed = [with_words(whisper, samples, each.segments, context) for samples, each in zip(texts, read, strict=True)]
    _errors("words", border_errors_s([[w for segment in spoken for w in segment.words] for spoken in timed], long))


def _scored(prepared: Prepared, long: Sequence[Long], texts: Sequence[str]) -> Scores:
    said = [Clip(str(number), recording.text) for number, recording in enumerate(long)]
    return score(said, texts, prepared.normalise, prepared.finder)


def _errors(name: str, errors: Sequence[float]) -> None:
    within, most_s = 100 * np.mean(np.array(errors) <= 0.4), np.quantile(errors, 0.95)
    far = f"median {np.median(errors):.3f} s, 95 % within {most_s:.2f} s, {within:.0f} % within 0.4 s"
    print(f"borders by {name}: {far}", flush=True)


def _row(name: str, scores: Scores) -> None:
    words = scores.words
    recall = f"term recall {100 * scores.terms.recall:.1f} %"
    print(
        f"{name}: WER {100 * scores.wer:.2f} %, {words.deletions} of {words.length} words deleted, {recall}", flush=True
    )


def main() -> None:
    """Trains, unless the base is asked for, and measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, default=Path("projects/sg_gov"))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the recordings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    prepared = prepare(given.project, load_project(given.project))
    asked = {key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in given.set)}
    config = with_overrides(prepared.project.trial, asked, "command line")
    if given.base:
        whisper = prepared.whisper(config.quantization)
        measure(prepared, whisper, ContextConfig(short=False), baseline_decode(config.decode), given.seed)
        return
    log, objective = Log(), objective_of(prepared, baseline_scores(prepared, ("retention_validation",)))
    run_trial(config, prepared, objective, log, lambda result: print(result.line(), flush=True))
    with tempfile.TemporaryDirectory() as scratch:
        write_files(log.adapter, Path(scratch))
        whisper = load_adapter(prepared.whisper(config.quantization), Path(scratch))
        measure(prepared, whisper, config.context, config.decode, given.seed)


if __name__ == "__main__":
    main()
