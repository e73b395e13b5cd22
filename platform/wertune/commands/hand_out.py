"""`export`: a version for those who have none of this."""

from pathlib import Path
from typing import Any

import click

from wertune.base.cli import NamedPath, json_option
from wertune.commands.options import project_option, version_uri


@click.command()
@project_option
@click.option("--model", required=True, help="models:/sg_gov/1, or a version, stage or alias of the project's model")
@click.option(
    "--format",
    "form",
    type=click.Choice(["peft", "merged", "ctranslate2"]),
    default="peft",
    help="peft: the adapter for peft and transformers; merged: base and adapter as one float16 model for transformers; "
    "ctranslate2: the same in 8 bits for faster-whisper",
)
@click.option("--out", type=NamedPath(), required=True, help="the folder to write")
@click.option(
    "--clips", type=click.IntRange(1), default=16, help="of the test split, transcribed with what was written"
)
@click.option(
    "--limit", type=float, default=0.03, help="how much higher its WER may be than the version's: 0.03 is 3 points"
)
@click.option("--licence", default="", help="of the adapter, for the card; empty: the card says that none is given")
@click.option("--force", type=click.BOOL, default=False, help="true: replaces an export that stands there")
@json_option
def export(
    project: Path, model: str, form: str, out: Path, clips: int, limit: float, licence: str, force: bool
) -> dict[str, Any]:
    """Writes a registered version as a folder that plain libraries load, and tries it in them."""
    from wertune.base.config import load_project

    uri = version_uri(model, load_project(project).name)
    from wertune.serving.export import export as run
    from wertune.serving.export import free_for_export

    free_for_export(out, force)
    done = run(project, uri, form, out, clips, limit, licence)
    click.echo(done.text)
    return {"folder": str(done.folder), **done.record}
