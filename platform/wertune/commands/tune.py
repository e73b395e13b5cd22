"""`train` and `tune`: one adapter, or the best of many, registered and put before the gates of Staging."""

import functools
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wertune.base.cli import is_mlflow_run, json_option, typed
from wertune.base.errors import ConfigError
from wertune.commands.options import configured, project_option, trial_options, trial_values, value_of

if TYPE_CHECKING:
    from wergate.gates.policy import Policy
    from wertune.base.config import TrialConfig, TrialPlaces
    from wertune.jobs.tune import Registered
    from wertune.search.search_space import SearchConfig


STUDY_STORAGE_VARIABLE = "WERTUNE_STUDY_STORAGE"


ray_option = click.option(
    "--ray-address", default="", help="an existing Ray cluster; empty: a local Ray with every core and GPU"
)


@click.command()
@project_option
@trial_options
@click.option(
    "--workers", default="", help="processes that train it together, a GPU each where there are any; empty: this one"
)
@ray_option
@json_option
def train(
    project: Path, overrides: tuple[str, ...], epochs: str, seed: str, workers: str, ray_address: str
) -> dict[str, Any]:
    """Trains one adapter with the configuration of project.yaml, and registers it."""
    config = configured(project, overrides, epochs, seed)
    places = _places(project, workers)
    if ray_address and places.workers == 1:
        raise ConfigError(f"--ray-address is {ray_address}, but goes with --workers of two and more; give both")
    if places.workers > 1:
        _check_room_for_ray(ray_address)
        if not ray_address:
            _check_room_for_workers(places)
    policy = _policy(config.name)
    from wertune.jobs.tune import Task, Team
    from wertune.jobs.tune import train as run

    team = Team(places, ray_address or None) if places.workers > 1 else None
    return _told("train", project, run(Task(project, config, policy, click.echo), team))


@click.command()
@project_option
@trial_options
@click.option("--trials", default="", help="empty: as in search.yaml")
@click.option("--gpus-per-trial", default="", help="a number, a fraction or auto; empty: as in search.yaml")
@ray_option
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
    fixed = trial_values(overrides, epochs, seed)
    search_config = _search_config(project, config.trial, fixed, trials, gpus_per_trial)
    if dry_run:
        from wertune.search.plan import as_text, make_plan

        plan = make_plan(project, config, search_config)
        click.echo(as_text(plan))
        return asdict(plan)
    _check_room_for_ray(ray_address)
    policy = _policy(config.name)
    from wertune.jobs.tune import Search, Task
    from wertune.jobs.tune import tune as run
    from wertune.tracking.credentials import check_holds_no_password

    root = Path(".wertune").resolve()
    root.mkdir(exist_ok=True)
    check_holds_no_password(study_storage, "study_storage", STUDY_STORAGE_VARIABLE)
    storage = study_storage or os.environ.get(STUDY_STORAGE_VARIABLE) or f"sqlite:///{root / 'optuna.db'}"
    experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") if is_mlflow_run() else None  # before the run is taken up
    command = functools.partial(resume_command, click.get_current_context().params, experiment_id)
    search = Search(search_config, storage, root / "searches", ray_address or None, resume, command)
    return _told("tune", project, run(Task(project, config, policy, click.echo), search))


def resume_command(given: Mapping[str, Any], experiment_id: str | None, run_id: str) -> str:
    """The command that goes on with a run's search, with all that it was given: another search would be refused.

    `mlflow run` gave the experiment, if it began the search; in its default one not everybody may write.
    """
    overrides = " ".join(given["overrides"])
    values = {key: str(value) for key, value in given.items() if key != "overrides" and value and value is not True}
    options = values | {"resume": run_id} | ({"set": overrides} if overrides else {})
    if experiment_id is not None:
        parts = [part for key, value in options.items() for part in ("-P", f"{key}={value}")]
        mlflow = ["mlflow", "run", ".", "-e", "tune", "--env-manager", "local", "--experiment-id", experiment_id]
        return typed(shlex.join([*mlflow, *parts]))
    parts = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    return typed(shlex.join(["python", "-m", "wertune", "tune", *parts]))


def _search_config(
    project: Path, trial: "TrialConfig", fixed: Mapping[str, Any], trials: str, gpus_per_trial: str
) -> "SearchConfig":
    """search.yaml with the command line's values; what is `fixed` there is not searched."""
    from wertune.base.config import load_yaml, with_overrides
    from wertune.search.search_space import SearchConfig, checked_space

    path = project / "search.yaml"
    given = {"trials": trials, "gpus_per_trial": gpus_per_trial}
    values = {key: value_of(f"--{key.replace('_', '-')}", text) for key, text in given.items() if text}
    config = with_overrides(load_yaml(path, SearchConfig), values, "command line")
    varied = [*config.space, *(("lora.strength",) if config.strengths else ())]
    if searched := [key for key in varied if key in fixed]:
        click.echo(f"not searched, since it has a value: {', '.join(searched)}")
        config = config.without(fixed)
    checked_space(config, trial, str(path))
    return config


def _check_room_for_ray(ray_address: str) -> None:
    """A local Ray speaks through files in the folder for temporary ones, whose paths must be short."""
    from wertune.base.machine import require_short_temp

    if not ray_address:
        require_short_temp()


def _places(project: Path, workers: str) -> "TrialPlaces":
    """What search.yaml, if there is one, says that each worker gets, for so many of them; by default for one."""
    from wertune.base.config import TrialPlaces, load_yaml, with_overrides
    from wertune.search.search_space import SearchConfig

    path = project / "search.yaml"
    places = TrialPlaces()
    if workers and path.is_file():
        places = TrialPlaces.model_validate(
            load_yaml(path, SearchConfig).model_dump(include={*TrialPlaces.model_fields})
        )
    values: dict[str, Any] = {"workers_per_trial": value_of("--workers", workers) if workers else 1}
    if places.gpus_per_trial:  # each has one of its own, whatever a trial of a search gets
        values["gpus_per_trial"] = "auto"
    with _as_it_is_called_here():
        return with_overrides(places, values, "command line")


def _check_room_for_workers(places: "TrialPlaces") -> None:
    """Before anything is read."""
    import torch

    from wertune.base.machine import room_for_trials

    with _as_it_is_called_here():
        room_for_trials(places, torch.cuda.device_count())


@contextmanager
def _as_it_is_called_here() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace("workers_per_trial", "--workers")) from None


def _policy(name: str) -> "Policy":
    from wergate.gates.policy import load_policy
    from wertune.base.config import policy_path

    return load_policy(policy_path(name))


def _told(command: str, project: Path, done: "Registered") -> dict[str, Any]:
    """Prints what to type next; returns all of it for a program."""
    from wertune.commands.next_steps import Ended, as_text, next_steps
    from wertune.tracking.credentials import without_password

    name, dataset, results = done.prepared.project.name, done.prepared.dataset, done.results
    clip, has_replay = dataset["test"][0].path, bool(dataset["replay"])
    ended = Ended(command, project, name, done.version, done.run.tracking_uri, clip, done.best.config, has_replay)
    steps = next_steps(ended, done.verdict)
    click.echo(as_text(steps))
    return {
        "model": name,
        "version": done.version,
        "stage": done.verdict.stage,
        "verdict": done.verdict.text,
        "run_id": done.run.run_id,
        "tracking_uri": without_password(done.run.tracking_uri),
        "best_trial": done.best.name,
        "best_trial_run_id": done.best.run.run_id,
        "best_config": done.best.config.model_dump(mode="json"),
        "scores": {
            split: {"base": c.before.summary(), "adapter": c.after.summary()}
            for split, c in results.comparisons.items()
        },
        "what_it_brings": results.ablation.artifact() if results.ablation else [],
        "next": [asdict(step) for step in steps],
    }
