"""The command line: parse, load the configuration, call one function. Heavy imports wait for their command."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wertune.commands.data import import_, split_
from wertune.commands.hand_out import export
from wertune.commands.listen import page, transcribe
from wertune.commands.options import project_option
from wertune.errors import ConfigError, WertuneError

if TYPE_CHECKING:
    from wergate.policy import Policy
    from wertune.config import ProjectConfig, TrialConfig

STUDY_STORAGE_VARIABLE = "WERTUNE_STUDY_STORAGE"
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@click.group(context_settings={"show_default": True})
def cli() -> None:
    """Adapts Whisper to a domain: LoRA on an 8-bit base, searched, tracked and gated."""


cli.add_command(import_)
cli.add_command(split_)
cli.add_command(export)
cli.add_command(transcribe)
cli.add_command(page)


def main() -> None:
    """Runs a command; a user's mistake ends it with a message, and the run that `mlflow run` made with FAILED."""
    _quiet_libraries()
    try:
        cli.main(standalone_mode=False, prog_name="wertune")
    except click.ClickException as error:
        _refuse(error.format_message(), EXIT_USAGE)
    except WertuneError as error:
        _refuse(str(error), EXIT_REFUSED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)


def _refuse(reason: str, status: int) -> None:
    click.echo(f"wertune: {reason}", err=True)
    if "MLFLOW_RUN_ID" in os.environ:
        from wertune.tracking import fail_project_run

        fail_project_run(reason)
    sys.exit(status)


def _quiet_libraries() -> None:
    """What bitsandbytes says on import of kernels that it does without, and tokenizers of processes that fork."""
    import logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _say(text: str) -> None:
    click.echo(text)


@cli.command()
@project_option
def validate(project: Path) -> None:
    """Checks every row of every manifest; reports all faults at once with file and line."""
    from wertune.prepare import load_project, prepare

    prepared = prepare(project, load_project(project))
    for split, recordings in prepared.dataset.splits.items():
        minutes = sum(recording.duration_s for recording in recordings) / 60
        _say(f"{split}: {len(recordings)} clips, {minutes:.1f} minutes")
    for fault in prepared.dataset.skipped:
        _say(f"skipped {fault}")
    _say(f"base model {prepared.base.spec}, {prepared.base.digest}")


@cli.command()
@project_option
@click.option("--out", type=click.Path(path_type=Path), default=None, help="another folder than the project's own")
@click.option("--processes", type=click.IntRange(0), default=0, help="0: one for every core")
def synthesize(project: Path, out: Path | None, processes: int) -> None:
    """Speaks the project's sentences in the voices of the installed engines, or in those of synthesis.yaml."""
    from wertune.synthesize import synthesize as run

    run(project, out, processes, _say)


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that replace values of project.yaml's `trial:`; an empty one keeps what the file says."""
    options = [
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="such as train.learning_rate=5e-4"),
        click.option("--epochs", default="", help="epochs at most for a trial; empty: as in project.yaml"),
        click.option("--seed", default="", help="empty: as in project.yaml"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _configured(project: Path, overrides: tuple[str, ...], epochs: str, seed: str) -> "ProjectConfig":
    """project.yaml with the command line's values in its `trial:`, all of it checked."""
    import yaml

    from wertune.config import with_overrides
    from wertune.prepare import load_project

    values: dict[str, Any] = {}
    for override in overrides:
        for item in filter(None, override.split()):
            key, separator, text = item.partition("=")
            if not separator:
                raise ConfigError(f"--set is {item!r}, but must be KEY=VALUE, such as lora.r=8")
            values[f"trial.{key}"] = yaml.safe_load(text)
    for key, text in (("train.epochs", epochs), ("seed", seed)):
        if text:
            values[f"trial.{key}"] = yaml.safe_load(text)
    return with_overrides(load_project(project), values, "command line")


@cli.command()
@project_option
@trial_options
def train(project: Path, overrides: tuple[str, ...], epochs: str, seed: str) -> None:
    """Trains one adapter with the configuration of project.yaml, and registers it."""
    config = _configured(project, overrides, epochs, seed)
    policy = _policy(config.name)
    from wertune.experiment import BestTrial, objective_of, score_baseline, start_experiment
    from wertune.trial import run_trial

    with start_experiment(project, config, f"train {config.name}") as (run, prepared):
        _advise(prepared)
        _say("scoring the untouched base …")
        baseline = score_baseline(run, prepared)
        run_trial(config.trial, prepared, objective_of(prepared, baseline), run, lambda result: _say(result.line()))
        _finish(project, run, prepared, baseline, BestTrial(run, "this one", config.trial), policy)


@cli.command()
@project_option
@trial_options
@click.option("--trials", default="", help="empty: as in search.yaml")
@click.option("--gpus-per-trial", default="", help="a number, a fraction or auto; empty: as in search.yaml")
@click.option("--ray-address", default="", help="an existing Ray cluster; empty: a local Ray with every core and GPU")
@click.option(
    "--study-storage", default="", help="Optuna's database URL; empty: $WERTUNE_STUDY_STORAGE or .wertune/optuna.db"
)
@click.option("--resume", default="", metavar="RUN_ID", help="goes on with an interrupted search")
def tune(
    project: Path,
    overrides: tuple[str, ...],
    epochs: str,
    seed: str,
    trials: str,
    gpus_per_trial: str,
    ray_address: str,
    study_storage: str,
    resume: str,
) -> None:
    """Searches for the best adapter and registers it."""
    config = _configured(project, overrides, epochs, seed)
    search_config = _search_config(project, config.trial, trials, gpus_per_trial)
    policy = _policy(config.name)
    from wertune.credentials import check_holds_no_password
    from wertune.experiment import best_trial, log_search, objective_of, score_baseline, start_experiment
    from wertune.spool import check_unused
    from wertune.tune import SearchInterrupted, SearchPlace, cluster, search, transcribe_across

    root = Path(".wertune").resolve()
    root.mkdir(exist_ok=True)
    check_holds_no_password(study_storage, "study_storage", STUDY_STORAGE_VARIABLE)
    storage = study_storage or os.environ.get(STUDY_STORAGE_VARIABLE) or f"sqlite:///{root / 'optuna.db'}"
    if resume:
        check_unused(SearchPlace(root / "searches" / resume, storage).spool)
    with start_experiment(project, config, f"tune {config.name}", resume, search_config) as (run, prepared):
        _advise(prepared)
        again = f"mlflow run . -e tune --env-manager local -P resume={run.run_id}"
        _say(f"should this be interrupted or killed, go on with: {again}")
        with cluster(ray_address or None, search_config):
            _say("scoring the untouched base on validation, test and retention …")
            baseline = score_baseline(run, prepared, transcribe_across(search_config))
            place = SearchPlace(root / "searches" / run.run_id, storage)
            _say(f"searching: {search_config.trials} trials of at most {config.trial.train.epochs} epochs …")
            try:
                study = search(prepared, search_config, objective_of(prepared, baseline), run, place, bool(resume))
            except SearchInterrupted:
                _say(f"interrupted; go on with: {again}")
                raise
        log_search(run, study)
        _finish(project, run, prepared, baseline, best_trial(run, prepared), policy)


def _advise(prepared: Any) -> None:
    """A word where 8 bits save next to nothing on this base; the search goes on as it was asked for."""
    import torch

    from wertune.footprint import quantization_advice
    from wertune.model import product_dtype

    dtype = product_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    advice = quantization_advice(prepared.base.path, prepared.project.trial.quantization, dtype)
    if advice:
        _say(advice)


def _search_config(project: Path, trial: "TrialConfig", trials: str, gpus_per_trial: str) -> Any:
    import yaml

    from wertune.config import load_yaml, with_overrides
    from wertune.search_space import SearchConfig, check_space

    path = project / "search.yaml"
    given = {"trials": trials, "gpus_per_trial": gpus_per_trial}
    values = {key: yaml.safe_load(text) for key, text in given.items() if text}
    config = with_overrides(load_yaml(path, SearchConfig), values, "command line")
    check_space(config, trial, str(path))
    return config


def _policy(name: str) -> "Policy":
    """The project's policy, read before anything is trained: nothing is worse than a night without a verdict."""
    from wergate.policy import load_policy

    return load_policy(Path("registry/policies") / f"{name}.yaml")


def _finish(project: Path, run: Any, prepared: Any, baseline: Any, best: Any, policy: "Policy") -> None:
    """Final evaluation, registration, the gates' verdict, and the table that is printed at the end."""
    from wertune.credentials import how_to_look
    from wertune.experiment import describe, final_evaluation, register

    _say(f"best: {best.name}; evaluating it on test and retention …")
    comparisons = final_evaluation(run, prepared, baseline, best)
    version = register(prepared, best)
    name = prepared.project.name
    _say(f"registered as models:/{name}/{version}; evaluating it as it serves, for the gates of Staging …")
    stage, verdict = _to_staging(project, name, version, policy)
    _say("\n" + describe(run, prepared, comparisons, best, version, stage) + "\n")
    _say(f"models:/{name}/{version}, stage {stage}: {verdict}")
    _say(f"look at it: {how_to_look(run.tracking_uri)}")


def _to_staging(project: Path, name: str, version: str, policy: "Policy") -> tuple[str, str]:
    """Moves the version to Staging if every gate passes; a refusal is a result, and the search was not in vain."""
    from wergate.errors import Refused
    from wergate.open import evaluate_in_a_clean_process, open_desk
    from wergate.promote import promote

    try:
        outcome = promote(open_desk(name, _say), version, "Staging", policy, evaluate_in_a_clean_process(project))
    except Refused as refused:
        _say("\n" + refused.table)
        return "None", str(refused)
    return "Staging", outcome.text


@cli.command()
@project_option
@click.option("--model-uri", default="", help="a registered version, such as models:/sg_gov/1")
@click.option("--base", default="", help="an untouched base instead, such as packaged:whisper-tiny.en")
@click.option(
    "--manifest", default="", help="any manifest; empty: the test split, and for a version all that the gates ask for"
)
@click.option(
    "--engine",
    type=click.Choice(["", "torch", "ctranslate2"]),
    default="",
    help="what transcribes in the place of the version's own engine; empty: as registered",
)
@click.option("--json", "json_path", default="", help="where to write the scores; empty: nowhere")
def evaluate(project: Path, model_uri: str, base: str, manifest: str, engine: str, json_path: str) -> None:
    """Scores a registered version, or an untouched base at 30 s.

    A version without a manifest is measured for the gates, its report kept as a run; on a manifest it is only scored.
    """
    if bool(model_uri) == bool(base):
        raise ConfigError("give one of --model-uri and --base: what is to be scored")
    if engine and base:
        raise ConfigError(f"--engine is {engine}, but goes with --model-uri: a base is scored in torch; remove it")
    from wertune.experiment import evaluate_manifest, evaluate_version

    if model_uri and not manifest:
        found = evaluate_version(project, model_uri, engine)
        scores = found.scores
        _say(f"engine: {found.engine}")
        if found.artefact_wer is not None:
            _say(f"wer of the 8-bit artefact in torch: {found.artefact_wer:.4f}")
    else:
        scores = evaluate_manifest(project, model_uri, base, Path(manifest) if manifest else None, engine)
    if json_path:
        Path(json_path).write_text(json.dumps(scores.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, value in scores.summary().items():
        _say(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


@cli.command()
@project_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True, help="folder of results"
)
@click.option("--model-uri", default="", help="a registered version whose serving is measured too; empty: none")
def bench(project: Path, out: Path, model_uri: str) -> None:
    """Ours beside the field's recipe in one run, as ratios, and the time of the gates' bootstrap."""
    from wergate.bench import bench_bootstrap
    from wertune.bench import bench as run

    _say(run(project, out, model_uri))
    _say(bench_bootstrap())


if __name__ == "__main__":
    main()
