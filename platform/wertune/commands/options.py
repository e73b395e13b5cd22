"""What commands ask for alike."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wertune.base.cli import NamedPath
from wertune.base.errors import ConfigError

if TYPE_CHECKING:
    from wertune.base.config import ProjectConfig

STAGES = ("None", "Staging", "Production", "Archived")


project_option = click.option(
    "--project", type=NamedPath(), default=Path("projects/sg_gov"), show_default=True, help="its folder"
)


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that replace values of project.yaml's `trial:`; an empty one keeps what the file says."""
    # The last is the first of the help.
    for option in (
        click.option("--seed", default="", help="empty: as in project.yaml"),
        click.option("--epochs", default="", help="epochs at most for a trial; empty: as in project.yaml"),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="such as train.learning_rate=5e-4"),
    ):
        command = option(command)
    return command


def configured(project: Path, overrides: tuple[str, ...], epochs: str, seed: str) -> "ProjectConfig":
    """project.yaml with the command line's values in its `trial:`, all of it checked."""
    from wertune.base.config import load_project, with_overrides

    values = {f"trial.{key}": value for key, value in trial_values(overrides, epochs, seed).items()}
    return with_overrides(load_project(project), values, "command line")


def trial_values(overrides: tuple[str, ...], epochs: str, seed: str) -> dict[str, Any]:
    """What `trial_options` were given, by its path in `trial:`; ConfigError."""
    given = [("--set", *_parted(item)) for override in overrides for item in filter(None, override.split())]
    given += [
        (f"--{key.rpartition('.')[2]}", key, text) for key, text in (("train.epochs", epochs), ("seed", seed)) if text
    ]
    values: dict[str, Any] = {}
    for option, key, text in given:
        value = value_of(f"--set {key}" if option == "--set" else option, text)
        if isinstance(value, dict):
            rule = "it would put back to its default whatever it does not name"
            raise ConfigError(f"--set {key} is {text!r}, but {rule}; give each value as {key}.NAME=VALUE")
        if key in values and values[key] != value:
            raise ConfigError(
                f"{key} is given twice, as {values[key]!r} and by {option} as {value!r}; give one of them"
            )
        values[key] = value
    return values


def _parted(item: str) -> tuple[str, str]:
    """Key and text of a value."""
    key, separator, text = item.partition("=")
    if not separator:
        raise ConfigError(f"--set is {item!r}, but must be KEY=VALUE, such as lora.r=8")
    return key, text


def value_of(option: str, text: str) -> Any:
    """An option's value as YAML has it; ConfigError."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        why = str(getattr(error, "problem", None) or error)
        raise ConfigError(
            f"{option} is {text!r}, but must be a value in YAML, such as 8 or [q_proj, v_proj]: {why}"
        ) from None


def version_uri(model: str, name: str) -> str:
    """`models:/…` as it is; a number, a stage (Production) or an alias (production) as that of the model `name`."""
    if model.startswith("models:"):
        return model
    if model.isdecimal() or model in STAGES:
        return f"models:/{name}/{model}"
    return f"models:/{name}@{model.removeprefix('@')}"
