"""What commands ask for alike."""

from pathlib import Path

import click

STAGES = ("None", "Staging", "Production", "Archived")

project_option = click.option(
    "--project", type=click.Path(path_type=Path), default=Path("projects/sg_gov"), show_default=True, help="its folder"
)


def version_uri(model: str, name: str) -> str:
    """`models:/…` as it is; a number, a stage (Production) or an alias (production) as that of the model `name`."""
    if model.startswith("models:"):
        return model
    if model.isdecimal() or model in STAGES:
        return f"models:/{name}/{model}"
    return f"models:/{name}@{model.removeprefix('@')}"
