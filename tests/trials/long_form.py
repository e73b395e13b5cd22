"""`python -m tests.trials.long_form --set train.joined_ratio=0.4`: a run's adapter on long recordings of the demo.

Recordings are ten validation clips each, joined by pauses of 0.25 to 0.8 s, so that all borders are known. Prints the
WER of the clips alone, of the recordings cut at pauses, and read in windows of 30 s with times; and how far the times
of pieces, segments and words are from the borders. `--base` measures the untouched base, `--adapter FOLDER` one that
`--keep FOLDER` has kept, of several folders their mean, and `--plain` adds what plain libraries write of the adapter's
export, of all the recordings and of their clips alone.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from tests.support.trial import Log

from wertune.base.config import ContextConfig, DecodeConfig, TrialConfig, load_project, with_overrides
from wertune.base.files import write_files
from wertune.data.long_form import joined_recordings
from wertune.jobs.long_form import border_errors_s
from wertune.jobs.soup import RANKS
from wertune.jobs.tune import objective_of
from wertune.scores.long_form import border_errors_s as nearest_s
from wertune.scores.metrics import Scores
from wertune.serving.export import run_cards, write_folder
from wertune.serving.export_long import try_long, ways_of
from wertune.serving.long_form import score_long
from wertune.serving.served import Served, stored_settings
from wertune.training.baseline import baseline_decode, baseline_scores
from wertune.training.prepare import Prepared, prepare
from wertune.training.trial import run_trial
from wertune.whisper.adapter import average_adapters, load_adapter
from wertune.whisper.model import Whisper
from wertune.whisper.timed.windows import transcribe_windows
from wertune.whisper.timed.words import with_words
from wertune.whisper.transcription import score_set, transcribe_samples


def measure(prepared: Prepared, whisper: Whisper, context: ContextConfig, decode: DecodeConfig, seed: int) -> None:
    """Prints the table."""
    clips = prepared.evaluation_set("validation", context, whisper.mel_bins)
    long = joined_recordings(clips.recordings, len(clips.recordings), seed)
    heard = [recording.samples() for recording in long]
    _row("clips alone", score_set(whisper, clips, decode, prepared.normalise, prepared.finder))
    cut = transcribe_samples(whisper, heard, context, decode)
    by_piece = score_long(prepared, long, [each.segments for each in cut])
    _row("cut at pauses", by_piece)
    _errors("pieces", border_errors_s(by_piece))
    read = [each.segments for each in transcribe_windows(whisper, heard, context, decode)]
    by_segment = score_long(prepared, long, read)
    _row("in windows", by_segment)
    _errors("segments", border_errors_s(by_segment))
    timed = [with_words(whisper, samples, each, context) for samples, each in zip(heard, read, strict=True)]
    words = [[w for segment in spoken for w in segment.words] for spoken in timed]
    said = [[(each.start_s, each.end_s) for each in recording.said] for recording in long]
    spans = [[(word.start_s, word.end_s) for word in each] for each in words]
    pairs = [nearest_s(*each) for each in zip(said, spans, [r.duration_s for r in long], strict=True)]
    _errors("words", [error for each in pairs for pair in each for error in pair])


def measure_plain(prepared: Prepared, whisper: Whisper, config: TrialConfig, adapter: Path, seed: int) -> None:
    """Prints what faster-whisper writes of the adapter's CTranslate2 folder."""
    settings = stored_settings(config, prepared, adapter)
    served = Served(settings, adapter, config.context, config.decode, "torch", whisper)
    ways = ways_of("ctranslate2", prepared.project.language, whisper.wording.prompt_names)
    assert not isinstance(ways, str), ways
    clips = prepared.dataset["validation"]
    with tempfile.TemporaryDirectory() as scratch:
        write_folder(served, prepared.base, "ctranslate2", Path(scratch))
        recordings = joined_recordings(clips, len(clips), seed)
        tried = try_long(prepared, served, ways, recordings, lambda asked: run_cards(asked, Path(scratch)))
    print("\n".join(tried.lines), flush=True)


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
    parser.add_argument("--adapter", type=Path, nargs="+", help="measured in place of a run's; of several, their mean")
    parser.add_argument("--keep", type=Path, help="where the run's adapter is written to")
    parser.add_argument("--plain", action="store_true")
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
    with tempfile.TemporaryDirectory() as scratch:
        adapter = given.keep or Path(scratch) / "adapter"
        if not given.adapter:
            _train(prepared, config, adapter)
        elif len(given.adapter) > 1:
            average_adapters(given.adapter, adapter, RANKS * config.lora.r)
        else:
            (adapter,) = given.adapter
        whisper = load_adapter(prepared.whisper(config.quantization), adapter)
        measure(prepared, whisper, config.context, config.decode, given.seed)
        if given.plain:
            measure_plain(prepared, whisper, config, adapter, given.seed)


def _train(prepared: Prepared, config: TrialConfig, out: Path) -> None:
    log, objective = Log(), objective_of(prepared, baseline_scores(prepared, ("retention_validation",)))
    run_trial(config, prepared, objective, log, lambda result: print(result.line(), flush=True))
    out.mkdir(parents=True, exist_ok=True)
    write_files(log.adapter, out)


if __name__ == "__main__":
    main()
