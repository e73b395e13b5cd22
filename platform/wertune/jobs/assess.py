"""A registered version, measured as it will serve: every set that a gate may ask for, beside the untouched base."""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.text import normaliser_version
from wertune.battery.counted import set_report
from wertune.battery.score import base_texts, battery_sets, write_battery
from wertune.battery.shelf import Battery
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.manifest import Recording
from wertune.data.nonspeech import hallucination_sets
from wertune.scores.comparison import Comparison
from wertune.scores.eval_report import ARTEFACT_SET, Cost, EvalReport, Provenance, SetReport
from wertune.scores.metrics import Clip, Scores, score
from wertune.serving.served import Served
from wertune.tracking.versions import RegisteredVersion
from wertune.training.baseline import baseline_decode, baseline_scores
from wertune.training.prepare import Prepared
from wertune.training.trial import peak_memory_mb
from wertune.whisper.evaluate import Transcriber, clips_of, score_set, transcribe_samples
from wertune.whisper.model import adapter_digest

SCORED_SPLITS = ("test", "retention_test")
TIMED_CLIPS = 12
FULL_CONTEXT = ContextConfig(short=False)


def leakage(prepared: Prepared, trained_on: Sequence[tuple[str, str]], split: str = "test") -> tuple[str, ...]:
    """Clips of the split whose audio or normalised text stood among the `(audio digest, text)` of training."""
    audio = {digest for digest, _ in trained_on}
    texts = {prepared.normalise(text) for _, text in trained_on}
    found = []
    for recording in prepared.dataset[split]:
        name = Path(recording.place).name
        if recording.digest in audio:
            found.append(f"{name}: the same audio as a clip of training")
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
    whisper: Transcriber, prepared: Prepared, context: ContextConfig, decode: DecodeConfig
) -> dict[str, SetReport]:
    """What the model writes where nothing is said."""
    speech = [recording.samples() for recording in prepared.dataset["test"]]
    reports = {}
    for name, clips in hallucination_sets(speech).items():
        texts = [transcript.text for transcript in transcribe_samples(whisper, clips, context, decode)]
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


def assess(
    prepared: Prepared, served: Served, version: RegisteredVersion, battery: Battery | None = None
) -> tuple[EvalReport, dict[str, Comparison]]:
    """The whole report of a `served` version, and its scores on test and retention beside the untouched base's.

    A `battery` of ordinary speech is written by both; its parts are sets of the report.

    What it was trained on is what its own run says of that. Where another engine than torch serves it, the 8-bit
    artefact in torch is scored on the test set too.
    """
    whisper, context, decode, longest_s = served.whisper, served.context, served.decode, served.longest_piece_s
    clips = timed_clips(prepared.dataset["test"])
    real_time_factor(whisper, clips[:1], context, decode)  # the first call is slower than those that follow
    speed = real_time_factor(whisper, clips, context, decode)
    sets = made_up_words(whisper, prepared, context, decode)
    comparisons = {}
    for split, before in baseline_scores(prepared, SCORED_SPLITS).items():
        after = score_split(prepared, whisper, split, context, decode, longest_s)
        comparisons[split] = Comparison(before, after)
        sets[split] = set_report(prepared, after, prepared.dataset.digest(split))
    baseline = {
        split: set_report(prepared, both.before, prepared.dataset.digest(split)) for split, both in comparisons.items()
    }
    if battery:
        sets |= battery_sets(prepared, battery, write_battery(whisper, battery, context, decode, longest_s))
        baseline |= battery_sets(prepared, battery, base_texts(prepared, battery))
    peak_mb = peak_memory_mb(whisper)
    artefact = served.artefact()
    if served.engine != "torch":
        scores = score_split(prepared, artefact, "test", context, decode, longest_s)
        sets[ARTEFACT_SET] = set_report(prepared, scores, prepared.dataset.digest("test"))
    base = prepared.whisper(prepared.project.trial.quantization)
    base_speed = real_time_factor(base, clips, FULL_CONTEXT, baseline_decode(decode))
    report = EvalReport(
        model=version.name,
        version=version.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sets=sets,
        baseline=baseline,
        training_terms=training_terms(prepared, [text for _, text in version.training_rows]),
        leakage=leakage(prepared, version.training_rows),
        cost=Cost(
            trainable_parameters=int(version.metrics.get("trainable_parameters", 0)),
            trainable_percent=version.metrics.get("trainable_percent", 0.0),
            adapter_mb=version.metrics.get("adapter_mb", 0.0),
            peak_memory_mb=peak_mb,
            real_time_factor=speed,
            baseline_real_time_factor=base_speed,
        ),
        provenance=_provenance(prepared, served, adapter_digest(artefact), version),
    )
    return report, comparisons


def score_split(
    prepared: Prepared,
    whisper: Transcriber,
    split: str,
    context: ContextConfig,
    decode: DecodeConfig,
    longest_s: float,
) -> Scores:
    """One split transcribed and scored; what is longer than `longest_s` is cut at pauses, as where it is served."""
    recordings = prepared.dataset[split]
    if all(recording.duration_s <= longest_s for recording in recordings):
        clips = prepared.evaluation_set(split, context, whisper.mel_bins)
        return score_set(whisper, clips, decode, prepared.normalise, prepared.finder)
    samples = [recording.samples() for recording in recordings]
    texts = [each.text for each in transcribe_samples(whisper, samples, context, decode, longest_s=longest_s)]
    return score(clips_of(recordings), texts, prepared.normalise, prepared.finder)


def _provenance(prepared: Prepared, served: Served, adapter: str, version: RegisteredVersion) -> Provenance:
    seed = version.params.get("best_seed", "")
    return Provenance(
        git_commit=version.tags.get("mlflow.source.git.commit", ""),
        data_digests=dict(version.dataset_digests),
        base_model=version.tags.get("wertune.base_model", ""),
        base_model_digest=version.tags.get("wertune.base_model_digest", ""),
        adapter_digest=adapter,
        seed=int(seed) if seed.lstrip("-").isdigit() else None,
        normaliser=normaliser_version(prepared.project.language),
        decode=served.decode.model_dump(),
        context=served.context.model_dump(),
        engine=served.engine,
    )
