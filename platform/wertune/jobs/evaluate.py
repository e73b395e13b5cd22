"""A registered version as it serves, measured for the gates or on any manifest; or a base."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from wertune.base import contract
from wertune.base.config import BaseModelConfig, Engine, ProjectConfig, load_project
from wertune.base.errors import ConfigError, TrackingError
from wertune.base.steps import Steps, heard_by
from wertune.base.text import normaliser_version
from wertune.battery.counts import set_report
from wertune.battery.score import base_texts, battery_sets, write_battery
from wertune.battery.shelf import Battery, project_battery
from wertune.battery.table import metrics as battery_metrics
from wertune.battery.table import table
from wertune.data.manifest import FINAL_SPLIT, LONG_SPLIT
from wertune.data.rows import problem
from wertune.jobs.logged import log_comparison, log_error_report
from wertune.jobs.long_form import Long, LongSet, compare_long, long_sets
from wertune.jobs.measures import (
    leakage,
    made_up_words,
    real_time_factor,
    score_split,
    timed_clips,
    training_terms,
)
from wertune.jobs.opening import start_experiment
from wertune.jobs.writers import Writers, writers
from wertune.scores.comparison import Comparison
from wertune.scores.eval_report import Cost, EvalReport, ExportedLong, Provenance
from wertune.scores.metrics import Scores
from wertune.serving.listener import served_voice
from wertune.serving.pyfunc import load_registered, registered_engine
from wertune.serving.served import Served, load_served
from wertune.tracking.runs import DESCRIPTION_TAG, tracking_uri
from wertune.tracking.versions import RegisteredVersion, registered_version
from wertune.training.baseline import FULL_CONTEXT, baseline_decode, baseline_scores
from wertune.training.prepare import Prepared, prepare
from wertune.whisper.adapter import adapter_digest
from wertune.whisper.transcription import Transcriber

SCORED_SPLITS = ("test", "retention_test")


def evaluate_manifest(folder: Path, model_uri: str, base: str, manifest: Path | None, engine: str = "") -> Scores:
    """Scores of a registered version as it serves, or of an untouched base at 30 s, on the rows of a manifest."""
    project = load_project(folder)
    if base:
        project = project.model_copy(update={"base_model": BaseModelConfig(source=base)})
    path = manifest or folder / project.data.test
    prepared = prepare(folder, project, {"test": path})
    if model_uri and project.data.final:
        _refuse_final_recordings(folder, project, path, prepared)
    if base:
        return baseline_scores(prepared, ["test"])["test"]
    served = load_registered(model_uri, engine)
    with served_by_several(served, len(prepared.dataset["test"])) as hands:
        return score_split(prepared, hands, "test", served.context, served.decode, served.longest_piece_s)


@dataclass(frozen=True)
class Evaluated:
    """Test scores of a version by `engine`, and the WER of the 8-bit artefact in torch where that is another one.

    `battery` is a table of ordinary speech beside the base's, empty where the project has none; `long` says how long
    recordings were written, a line a set.
    """

    scores: Scores
    engine: str
    artefact_wer: float | None
    battery: str
    long: tuple[str, ...]


def evaluate_version(
    folder: Path, model_uri: str, engine: str = "", say: Callable[[str], object] = lambda line: None
) -> Evaluated:
    """Measures a registered version as it serves, or in another `engine`, and keeps its EvalReport as a run.

    `say` hears how far it is.
    """
    project = load_project(folder)
    version = registered_version(tracking_uri(), model_uri)
    with start_experiment(folder, project, f"evaluate {version.name} v{version.version}") as (run, prepared):
        uri = f"models:/{version.name}/{version.version}"
        served = load_registered(uri, engine)
        battery = project_battery(folder, project)
        long = long_sets(prepared)
        clips = sum(len(prepared.dataset[split]) for split in (*SCORED_SPLITS, LONG_SPLIT))
        clips += sum(each.clips for each in long) + (len(battery.rows) if battery else 0)
        with heard_by(Steps("the version as it serves", clips, say)), served_by_several(served, clips) as hands:
            assessed = assess(prepared, served, hands, version, battery, long)
        report, comparisons = assessed.report, assessed.comparisons
        told = table(report.sets, report.baseline) if battery else ""
        run.metrics(battery_metrics(report.sets) | battery_metrics(report.baseline, "baseline_"))
        for split, both in comparisons.items():
            log_comparison(run, split, both)
        for each in assessed.long:
            log_comparison(run, each.of.name, each.both)
            run.metrics(each.metrics())
        log_error_report(run, prepared, comparisons, f"{uri} as it serves in {served.engine}, on {prepared.base.spec}")
        lines = tuple(each.text for each in assessed.long)
        artefact = report.sets.get(contract.ARTEFACT_SET)
        if artefact:
            run.metrics({f"{contract.ARTEFACT_SET}_wer": artefact.wer})
        run.text(report.model_dump_json(indent=1), contract.EVAL_REPORT)
        # The gates find a report by this tag: one of an engine that does not serve the version is none of theirs.
        is_served = served.engine == registered_engine(uri)
        run.tags(
            {
                contract.REPORT_FOR_TAG if is_served else contract.OTHER_ENGINE_TAG: uri.removeprefix("models:/"),
                contract.TEST_DIGEST_TAG: report.sets["test"].digest,
                contract.REPORT_DIGEST_TAG: report.digest,
                contract.ENGINE_TAG: served.engine,
                DESCRIPTION_TAG: f"`{uri}` as it serves in {served.engine}, beside the untouched base.",
            }
        )
    return Evaluated(comparisons["test"].after, served.engine, artefact.wer if artefact else None, told, lines)


def served_by_several(served: Served, clips: int) -> AbstractContextManager[Writers]:
    """The version in as many processes as so many clips are worth."""
    return writers(served.whisper, partial(_loaded, served.settings, served.adapter, served.engine), clips)


def _loaded(settings: Mapping[str, Any], adapter: Path, engine: Engine) -> Transcriber:
    return load_served(settings, adapter, engine).whisper


@dataclass(frozen=True)
class Assessed:
    """The report, and the scores on test and retention, and on long recordings, beside the untouched base's."""

    report: EvalReport
    comparisons: dict[str, Comparison]
    long: tuple[Long, ...]


def assess(
    prepared: Prepared,
    served: Served,
    hands: Writers,
    version: RegisteredVersion,
    battery: Battery | None = None,
    long: Sequence[LongSet] = (),
) -> Assessed:
    """The whole report of a `served` version, and its scores beside the untouched base's.

    Its texts are written by `hands`, processes that hold it; how fast it is is measured in this one.

    A `battery` of ordinary speech is written by both, and so are `long` recordings: sets of the report, too.

    What it was trained on is what its own run says of that. Where another engine than torch serves it, the 8-bit
    artefact in torch is scored on the test set too.
    """
    whisper, context, decode, longest_s = served.whisper, served.context, served.decode, served.longest_piece_s
    clips = timed_clips(prepared.dataset["test"])
    real_time_factor(whisper, clips[:1], context, decode)  # the first call is slower than those that follow
    speed = real_time_factor(whisper, clips, context, decode)
    sets = made_up_words(hands, prepared, context, decode)
    comparisons = {}
    for split, before in baseline_scores(prepared, SCORED_SPLITS).items():
        after = score_split(prepared, hands, split, context, decode, longest_s)
        comparisons[split] = Comparison(before, after)
        sets[split] = set_report(prepared, after, prepared.dataset.digest(split))
    baseline = {
        split: set_report(prepared, both.before, prepared.dataset.digest(split)) for split, both in comparisons.items()
    }
    if battery:
        written = write_battery(hands.whisper, battery, context, decode, longest_s, hands.across)
        sets |= battery_sets(prepared, battery, written)
        baseline |= battery_sets(prepared, battery, base_texts(prepared, battery))
    written_long = _long_part(prepared, served, hands, comparisons, long)
    for each in written_long:
        ours, theirs = each.reports(prepared)
        sets, baseline = sets | ours, baseline | theirs
    peak_mb = hands.peak_memory_mb()
    artefact = served.artefact()
    if served.engine != "torch":
        scores = score_split(prepared, Writers(artefact), "test", context, decode, longest_s)
        sets[contract.ARTEFACT_SET] = set_report(prepared, scores, prepared.dataset.digest("test"))
    base = prepared.whisper(prepared.project.trial.quantization)
    base_speed = real_time_factor(base, clips, FULL_CONTEXT, baseline_decode(decode))
    report = EvalReport(
        model=version.name,
        version=version.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sets=sets,
        baseline=baseline,
        training_terms=training_terms(prepared, [row.text for row in version.training_rows]),
        leakage=leakage(prepared, version.training_rows),
        cost=Cost(
            trainable_parameters=int(version.metrics.get(contract.TRAINABLE_PARAMETERS, 0)),
            trainable_percent=version.metrics.get(contract.TRAINABLE_PERCENT, 0.0),
            adapter_mb=version.metrics.get(contract.ADAPTER_MB, 0.0),
            peak_memory_mb=peak_mb,
            real_time_factor=speed,
            baseline_real_time_factor=base_speed,
        ),
        provenance=_provenance(prepared, served, adapter_digest(artefact), version),
        exports=_exports(version),
    )
    return Assessed(report, comparisons, written_long)


def _long_part(
    prepared: Prepared, served: Served, hands: Writers, comparisons: Mapping[str, Comparison], long: Sequence[LongSet]
) -> tuple[Long, ...]:
    """Long recordings as they are served; of clips that no split has scored yet each is written alone, too."""
    voice = served_voice(served, "", hands.whisper)
    found = []
    for each in long:
        single = comparisons.get(each.split)
        if single is None:
            alone = score_split(prepared, hands, each.split, served.context, served.decode, served.longest_piece_s)
            single = Comparison(baseline_scores(prepared, [each.split])[each.split], alone)
        found.append(compare_long(prepared, voice, hands.across, each, single))
    return tuple(found)


def _exports(version: RegisteredVersion) -> dict[str, ExportedLong]:
    """What exports of the version were measured to be; TrackingError where that cannot be read."""
    found = {}
    for key, value in version.own_tags.items():
        if key.startswith(contract.EXPORT_PREFIX):
            try:
                found[key.removeprefix(contract.EXPORT_PREFIX)] = ExportedLong.model_validate_json(value)
            except ValueError as error:
                rule = "must be as `wertune export` wrote it; export again, or delete the tag"
                where = f"tag {key} of {version.name} version {version.version}"
                raise TrackingError(f"{where} is {value[:60]!r} ({problem(error, 'the value')}), but {rule}") from None
    return found


def _provenance(prepared: Prepared, served: Served, adapter: str, version: RegisteredVersion) -> Provenance:
    seed = version.tags.get("best_seed", version.params.get("best_seed", ""))  # a tag: the resumed search's
    return Provenance(
        git_commit=version.tags.get("mlflow.source.git.commit", ""),
        data_digests=dict(version.dataset_digests),
        base_model=version.tags.get(contract.BASE_MODEL_TAG, ""),
        base_model_digest=version.tags.get(contract.BASE_DIGEST_TAG, ""),
        adapter_digest=adapter,
        seed=int(seed) if seed.lstrip("-").isdigit() else None,
        normaliser=normaliser_version(prepared.project.language),
        decode=served.decode.model_dump(),
        context=served.context.model_dump(),
        engine=served.engine,
    )


def _refuse_final_recordings(folder: Path, project: ProjectConfig, manifest: Path, prepared: Prepared) -> None:
    """A ConfigError where a version would be scored on the final set without a word of it in the registry."""
    final = prepare(folder, project, {FINAL_SPLIT: folder.resolve() / str(project.data.final)}).dataset[FINAL_SPLIT]
    kept = {recording.digest for recording in final}
    if found := sum(recording.digest in kept for recording in prepared.dataset["test"]):
        rule = f"{found} of its recordings are of the final set (data.final), which is opened for a version by --final"
        raise ConfigError(f"--manifest is {manifest}, but {rule}, so that it is recorded; give --final in its place")
