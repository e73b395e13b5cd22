"""`train` and `tune`: one adapter, or the best of many, registered and put before the gates of Staging."""

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wertune.base.cli import is_mlflow_run, json_option
from wertune.commands.options import configured, project_option, trial_options

if TYPE_CHECKING:
    from wergate.gates.policy import Policy
    from wertune.base.config import ProjectConfig, TrialConfig
    from wertune.commands.next_steps import Verdict
    from wertune.search.search_space import SearchConfig


STUDY_STORAGE_VARIABLE = "WERTUNE_STUDY_STORAGE"


@click.command()
@project_option
@trial_options
@json_option
def train(project: Path, overrides: tuple[str, ...], epochs: str, seed: str) -> dict[str, Any]:
    """Trains one adapter with the configuration of project.yaml, and registers it."""
    config = configured(project, overrides, epochs, seed)
    policy = _policy(config.name)
    from wertune.jobs.opening import start_experiment
    from wertune.jobs.tune import BestTrial, objective_of, score_baseline
    from wertune.training.trial import run_trial

    with start_experiment(project, config, f"train {config.name}") as (run, prepared):
        _advise(prepared)
        click.echo("scoring the untouched base …")
        baseline = score_baseline(run, prepared)
        run_trial(
            config.trial, prepared, objective_of(prepared, baseline), run, lambda result: click.echo(result.line())
        )
        return _finish(project, run, prepared, baseline, BestTrial(run, "this one", config.trial), policy)


@click.command()
@project_option
@trial_options
@click.option("--trials", default="", help="empty: as in search.yaml")
@click.option("--gpus-per-trial", default="", help="a number, a fraction or auto; empty: as in search.yaml")
@click.option("--ray-address", default="", help="an existing Ray cluster; empty: a local Ray with every core and GPU")
@click.option(
    "--study-storage", default="", help="Optuna's database URL; empty: $WERTUNE_STUDY_STORAGE or .wertune/optuna.db"
)
@click.option("--resume", default="", metavar="RUN_ID", help="goes on with an interrupted search")
@click.option("--dry-run", is_flag=True, help="measures two steps, and prints what the search will take; logs nothing")
@json_option
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
    dry_run: bool,
) -> dict[str, Any]:
    """Searches for the best adapter and registers it."""
    config = configured(project, overrides, epochs, seed)
    search_config = _search_config(project, config.trial, trials, gpus_per_trial)
    if dry_run:
        return _plan(project, config, search_config)
    policy = _policy(config.name)
    from wertune.jobs.opening import start_experiment
    from wertune.jobs.tune import best_trial, log_search, objective_of, score_baseline
    from wertune.search.driver import SearchInterrupted, cluster, search, transcribe_across
    from wertune.search.study import open_study
    from wertune.tracking.credentials import check_holds_no_password
    from wertune.tracking.spool import held

    experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") if is_mlflow_run() else None  # before the run is taken up
    root = Path(".wertune").resolve()
    searches = root / "searches"
    root.mkdir(exist_ok=True)
    check_holds_no_password(study_storage, "study_storage", STUDY_STORAGE_VARIABLE)
    storage = study_storage or os.environ.get(STUDY_STORAGE_VARIABLE) or f"sqlite:///{root / 'optuna.db'}"
    with ExitStack() as until_the_end:
        study = None
        if resume:  # what is refused here leaves the run as it was
            study = open_study(resume, storage, search_config, resume=True)
            until_the_end.enter_context(held(searches / resume))
        with start_experiment(project, config, f"tune {config.name}", resume, search_config) as (run, prepared):
            if study is None:
                until_the_end.enter_context(held(searches / run.run_id))
                study = open_study(run.run_id, storage, search_config, resume=False)
            _advise(prepared)
            again = resume_command(click.get_current_context().params | {"resume": run.run_id}, experiment_id)
            click.echo(f"should this be interrupted or killed, go on with: {again}")
            with cluster(ray_address or None, search_config):
                click.echo("scoring the untouched base on validation, test and retention …")
                baseline = score_baseline(run, prepared, transcribe_across(search_config))
                click.echo(f"searching: {search_config.trials} trials of at most {config.trial.train.epochs} epochs …")
                try:
                    objective = objective_of(prepared, baseline)
                    search(prepared, search_config, objective, run, study, searches / run.run_id)
                except SearchInterrupted:
                    click.echo(f"interrupted; go on with: {again}")
                    raise
            log_search(run)
            rungs = search_config.asha.rungs(config.trial.train.epochs)
            return _finish(project, run, prepared, baseline, best_trial(run, prepared), policy, study, rungs)


def resume_command(given: Mapping[str, Any], experiment_id: str | None) -> str:
    """The command that goes on with a search, with all that it was given: another search would be refused.

    `mlflow run` gave the experiment, if it began the search; in its default one not everybody may write.
    """
    overrides = " ".join(given["overrides"])
    values = {key: str(value) for key, value in given.items() if key != "overrides" and value and value is not True}
    options = {**values, "set": overrides} if overrides else values
    if experiment_id is not None:
        parts = [part for key, value in options.items() for part in ("-P", f"{key}={value}")]
        mlflow = ["mlflow", "run", ".", "-e", "tune", "--env-manager", "local", "--experiment-id", experiment_id]
        return shlex.join([*mlflow, *parts])
    parts = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    return shlex.join(["python", "-m", "wertune", "tune", *parts])


def _plan(project: Path, config: "ProjectConfig", search_config: "SearchConfig") -> dict[str, Any]:
    from wertune.search.plan import as_text, make_plan

    plan = make_plan(project, config, search_config)
    click.echo(as_text(plan))
    return plan.to_json()


def _advise(prepared: Any) -> None:
    """A word where 8 bits save next to nothing on this base; the search goes on as it was asked for."""
    import torch

    from wertune.whisper.footprint import product_dtype, quantization_advice

    dtype = product_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    advice = quantization_advice(prepared.base.path, prepared.project.trial.quantization, dtype)
    if advice:
        click.echo(advice)


def _search_config(project: Path, trial: "TrialConfig", trials: str, gpus_per_trial: str) -> "SearchConfig":
    import yaml

    from wertune.base.config import load_yaml, with_overrides
    from wertune.search.search_space import SearchConfig, checked_space

    path = project / "search.yaml"
    given = {"trials": trials, "gpus_per_trial": gpus_per_trial}
    values = {key: yaml.safe_load(text) for key, text in given.items() if text}
    config = with_overrides(load_yaml(path, SearchConfig), values, "command line")
    checked_space(config, trial, str(path))
    return config


def _policy(name: str) -> "Policy":
    """The project's policy, read before anything is trained: nothing is worse than a night without a verdict."""
    from wergate.gates.policy import load_policy
    from wertune.base.config import policy_path

    return load_policy(policy_path(name))


def _finish(
    project: Path,
    run: Any,
    prepared: Any,
    baseline: Any,
    best: Any,
    policy: "Policy",
    study: Any = None,
    rungs: Sequence[int] = (),
) -> dict[str, Any]:
    """Final evaluation, registration, the gates' verdict, and the table that is printed at the end."""
    from wertune.commands.next_steps import Ended, as_text, next_steps
    from wertune.jobs.tune import describe, final_evaluation, log_figures, register
    from wertune.tracking.credentials import without_password

    click.echo(f"best: {best.name}; evaluating it on test and retention …")
    results = final_evaluation(run, prepared, baseline, best)
    comparisons = results.comparisons
    log_figures(run, prepared, comparisons, study, rungs)
    version = register(run, prepared, best, comparisons)
    name = prepared.project.name
    click.echo(f"registered as models:/{name}/{version}; evaluating it as it serves, for the gates of Staging …")
    verdict = _to_staging(project, name, version, policy)
    click.echo("\n" + describe(run, prepared, results, best, version, verdict.text) + "\n")
    click.echo(f"models:/{name}/{version}, stage {verdict.stage}: {verdict.text}\n")
    command = "train" if study is None else "tune"
    clip, has_replay = prepared.dataset["test"][0].path, bool(prepared.dataset["replay"])
    ended = Ended(command, project, name, version, run.tracking_uri, clip, best.config, has_replay)
    steps = next_steps(ended, verdict)
    click.echo(as_text(steps))
    return {
        "model": name,
        "version": version,
        "stage": verdict.stage,
        "verdict": verdict.text,
        "run_id": run.run_id,
        "tracking_uri": without_password(run.tracking_uri),
        "best_trial": best.name,
        "best_trial_run_id": best.run.run_id,
        "best_config": best.config.model_dump(mode="json"),
        "scores": {
            split: {"base": c.before.summary(), "adapter": c.after.summary()} for split, c in comparisons.items()
        },
        "what_it_brings": results.ablation.artifact() if results.ablation else [],
        "next": [step.to_json() for step in steps],
    }


def _to_staging(project: Path, name: str, version: str, policy: "Policy") -> "Verdict":
    """Moves the version to Staging if every gate passes; a refusal is a result, and the search was not in vain."""
    from wergate.commands.promote import promote
    from wergate.errors import Refused
    from wergate.gates.decision import Decision
    from wergate.registry.open import evaluate_in_a_clean_process, open_desk
    from wergate.trail.decisions import last_decision, page_of
    from wertune.commands.next_steps import Refusal, Verdict

    desk = open_desk(name, click.echo)
    try:
        outcome = promote(desk, version, "Staging", policy, evaluate_in_a_clean_process(project))
    except Refused as refused:
        click.echo("\n" + refused.table)
        gates = Decision.model_validate_json(refused.decision_json).refusals if refused.decision_json else ()
        place = last_decision(desk.shelf.look().version(version), "staging")
        return Verdict(
            "None",
            str(refused),
            refusals=tuple(Refusal(gate.kind, gate.name) for gate in gates),
            page=(place.run_id, page_of(place)) if place else None,
        )
    registrar = desk.shelf.registrar(desk.shelf.look().version(version))
    return Verdict("Staging", outcome.text, registrar, policy.approval.forbid_self)
