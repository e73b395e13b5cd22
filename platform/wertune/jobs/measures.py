"""What is measured of a model: a split's scores, made-up words, leaks, terms of training, speed."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.battery.counts import set_report
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.manifest import Recording
from wertune.data.nonspeech import hallucination_sets
from wertune.jobs.writers import Writers
from wertune.scores.eval_report import SetReport
from wertune.scores.metrics import Clip, Scores, score
from wertune.tracking.versions import TrainingRow
from wertune.training.prepare import Prepared
from wertune.whisper.transcription import Transcriber, score_set, transcribe_samples

TIMED_CLIPS = 12


def leakage(prepared: Prepared, trained_on: Sequence[TrainingRow], split: str = "test") -> tuple[str, ...]:
    """Clips of the split whose audio, recording or normalised text was trained on."""
    audio = {row.digest for row in trained_on}
    recordings = {row.recording for row in trained_on if row.recording}
    texts = {prepared.normalise(row.text) for row in trained_on}
    found = []
    for recording in prepared.dataset[split]:
        name = Path(recording.place).name
        if recording.digest in audio:
            found.append(f"{name}: the same audio as a clip of training")
        elif recording.origin in recordings:
            found.append(f"{name}: the same recording as a clip of training")
        elif prepared.normalise(recording.row.text) in texts:
            found.append(f"{name}: the same sentence as a clip of training")
    return tuple(found)


def training_terms(prepared: Prepared, texts: Sequence[str]) -> dict[str, int]:
    """How often each term of the lexicon stands in `texts`; 0 for those that do not."""
    counts = dict.fromkeys(prepared.lexicon.written, 0)
    for text in texts:
        for term, times in prepared.finder.find(text).items():
            counts[term] += times
    return counts


def made_up_words(
    writers: Writers, prepared: Prepared, context: ContextConfig, decode: DecodeConfig
) -> dict[str, SetReport]:
    """What the model writes where nothing is said."""
    speech = [recording.samples() for recording in prepared.dataset["test"]]
    reports = {}
    for name, clips in hallucination_sets(speech).items():
        written = transcribe_samples(writers.whisper, clips, context, decode, across=writers.across)
        texts = [transcript.text for transcript in written]
        silent = [Clip(f"{name}:{i}", "", duration_s=clip.size / SAMPLE_RATE_HZ) for i, clip in enumerate(clips, 1)]
        digest = hashlib.sha256(b"".join(clip.tobytes() for clip in clips)).hexdigest()
        reports[name] = set_report(prepared, score(silent, texts, prepared.normalise, prepared.finder), digest)
    return reports


def real_time_factor(
    whisper: Transcriber, clips: Sequence[Samples], context: ContextConfig, decode: DecodeConfig
) -> float:
    """Seconds of work for a second of speech, clip by clip as a service gets them."""
    started = time.perf_counter()
    for clip in clips:
        transcribe_samples(whisper, [clip], context, decode)
    return (time.perf_counter() - started) * SAMPLE_RATE_HZ / sum(clip.size for clip in clips)


def timed_clips(recordings: Sequence[Recording]) -> list[Samples]:
    """Every so manyth clip, so that all speakers have their turn."""
    step = max(1, len(recordings) // TIMED_CLIPS)
    return [recording.samples() for recording in recordings[::step]][:TIMED_CLIPS]


def score_split(
    prepared: Prepared,
    writers: Writers,
    split: str,
    context: ContextConfig,
    decode: DecodeConfig,
    longest_s: float,
) -> Scores:
    """One split transcribed and scored; what is longer than `longest_s` is cut at pauses, as where it is served."""
    recordings, whisper = prepared.dataset[split], writers.whisper
    if all(recording.duration_s <= longest_s for recording in recordings):
        clips = prepared.evaluation_set(split, context, whisper.mel_bins)
        return score_set(whisper, clips, decode, prepared.normalise, prepared.finder, writers.across)
    samples = [recording.samples() for recording in recordings]
    languages = [recording.language for recording in recordings]
    transcripts = transcribe_samples(
        whisper, samples, context, decode, longest_s=longest_s, languages=languages, across=writers.across
    )
    return prepared.score(recordings, [each.text for each in transcripts])
