"""How a command that keeps a run begins: project checked, run opened, inputs logged; a search bound to them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from wertune.base import contract
from wertune.base.config import ProjectConfig, flatten
from wertune.base.errors import ConfigError
from wertune.base.files import content_digest
from wertune.base.text import normaliser_version
from wertune.data.rows import file_and_at
from wertune.search.search_space import SearchConfig, checked_space
from wertune.tracking.opening import check_artifacts, kept_text, open_run
from wertune.tracking.runs import RunRef
from wertune.training.prepare import Prepared, prepare

SEARCH_FILE = "search_settings.yaml"
# What changes nothing of a trial: a search may go on with more trials, or on another machine.
FREE_TO_CHANGE = {
    "trials", "max_concurrent", "gpus_per_trial", "cpus_per_trial", "workers_per_trial", "worker_timeout_s",
    "take_over", "restarts", "strengths",
}  # fmt: skip
# The columns in which trials, searches and evaluations are compared.
COMPARED_METRICS = (
    "test_wer", "term_recall", "retention_wer", "best_val_wer", "best_retention_val_wer", "best_epoch",
    contract.TRAINABLE_PERCENT, contract.PEAK_MEMORY_MB, "clips_per_s",
)  # fmt: skip
COMPARED_PARAMS = ("lora_r", "lora_target_modules", "learning_rate")


@contextmanager
def start_experiment(
    folder: Path, project: ProjectConfig, run_name: str, resume: str = "", search: SearchConfig | None = None
) -> Iterator[tuple[RunRef, Prepared]]:
    """The project checked and its run opened: whatever is wrong with it ends a new run as FAILED with the reason.

    Raises ConfigError when the `search` to `resume` is another than was begun; that run stays as it was.
    """
    to_resume = _same_search(resume, folder, project, search) if resume and search else None
    with open_run(project.name, run_name, resume) as run:
        check_artifacts(run)
        prepared = to_resume or _prepare(folder, project, search)
        if search is not None:
            run.text(yaml.safe_dump(_search_settings(prepared, search), sort_keys=False), SEARCH_FILE)
        log_inputs(run, prepared)
        run.share_view(COMPARED_METRICS, COMPARED_PARAMS, contract.BEST_OBJECTIVE)
        yield run, prepared


def _prepare(folder: Path, project: ProjectConfig, search: SearchConfig | None) -> Prepared:
    """The project, checked with every trial that a search may draw."""
    drawn = checked_space(search, project.trial, "search.yaml") if search else []
    return prepare(folder, project, drawn=drawn)


def _same_search(run_id: str, folder: Path, project: ProjectConfig, search: SearchConfig) -> Prepared:
    """Trials of one search are compared with one another: a resumed one must train the same on the same data."""
    began = kept_text(run_id, SEARCH_FILE)
    if began is None:
        remedy = "give the run ID of a search that was interrupted or is to have more trials"
        raise ConfigError(f"resume is {run_id}, but that run is no search: it has no {SEARCH_FILE}; {remedy}")
    try:
        settings = dict(yaml.safe_load(began))
    except (yaml.YAMLError, TypeError, ValueError):
        rule = "must be as the search wrote it"
        raise ConfigError(f"resume: {SEARCH_FILE} of run {run_id} cannot be read, but {rule}; restore it") from None
    prepared = _prepare(folder, project, search)
    if differences := _differences(settings, _search_settings(prepared, search)):
        remedy = "resume with the project, options and data that it began with, or start a new search"
        raise ConfigError(f"resume: the search of run {run_id} began with {'; '.join(differences)}; {remedy}")
    return prepared


def _search_settings(prepared: Prepared, search: SearchConfig) -> dict[str, Any]:
    """All that a trial's outcome depends on, and what may change beside it."""
    return {
        "search": search.model_dump(mode="json"),
        "trial": prepared.project.trial.model_dump(mode="json"),
        "data": {split: prepared.dataset.digest(split) for split in prepared.dataset.splits},
        "base_model": prepared.base.digest,
        "base_texts": prepared.base.texts_digest,
        "language": prepared.project.language,
        "retention": prepared.project.retention.model_dump(mode="json"),
        "lexicon": content_digest(prepared.lexicon.written),
        "weights": content_digest(
            [[r.digest, r.row.weight] for rows in prepared.dataset.splits.values() for r in rows if r.row.weight != 1]
        ),
    }


def _differences(began: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, of all that a trial depends on."""
    known = {key: value for key, value in now.items() if key in began}  # what an older search did not keep
    was, is_now = flatten(began), flatten(known)
    keys = [key for key in was | is_now if key.removeprefix("search.") not in FREE_TO_CHANGE]
    return [f"{key} {was.get(key)}, not {is_now.get(key)}" for key in keys if was.get(key) != is_now.get(key)]


def log_inputs(run: RunRef, prepared: Prepared) -> None:
    """The resolved configuration, the data with their digests, and what the scores depend on."""
    run.text(yaml.safe_dump(prepared.project.model_dump(mode="json"), sort_keys=False), "project.yaml")
    if prepared.dataset.skipped:
        run.text("\n".join(map(str, prepared.dataset.skipped)) + "\n", "skipped_rows.txt")
    run.metrics({"skipped_rows": len(prepared.dataset.skipped)})
    trained_on = [(r.digest, r.row.text, r.origin) for split in ("train", "replay") for r in prepared.dataset[split]]
    run.text(json.dumps(trained_on, ensure_ascii=False), contract.TRAINING_ROWS)
    for split, recordings in prepared.dataset.splits.items():
        minutes = sum(recording.duration_s for recording in recordings) / 60
        profile = json.dumps({"clips": len(recordings), "minutes": round(minutes, 2)})
        source = json.dumps({"uri": file_and_at(recordings[0].place)[0]})
        name = f"{prepared.project.name}/{split}"
        run.dataset(name, prepared.dataset.digest(split), source, context=split, profile=profile)
    run.tags(
        {
            contract.BASE_MODEL_TAG: prepared.base.spec,
            contract.BASE_DIGEST_TAG: prepared.base.digest,
            contract.NORMALISER_TAG: normaliser_version(prepared.project.language),
        }
    )
