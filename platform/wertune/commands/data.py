"""`validate` and `synthesize`: a project's clips and manifests."""

from pathlib import Path
from typing import Any

import click

from wertune.command_line import NamedPath, json_option
from wertune.commands.options import project_option


@click.command()
@project_option
@json_option
def validate(project: Path) -> dict[str, Any]:
    """Checks every row of every manifest; reports all faults at once with file and line."""
    from wertune.config import load_project

    config = load_project(project)  # before what takes long to import
    from wertune.prepare import prepare

    prepared = prepare(project, config)
    splits = {}
    for split, recordings in prepared.dataset.splits.items():
        minutes = sum(recording.duration_s for recording in recordings) / 60
        click.echo(f"{split}: {len(recordings)} clips, {minutes:.1f} minutes")
        splits[split] = {"clips": len(recordings), "minutes": round(minutes, 2)}
    skipped = [str(fault) for fault in prepared.dataset.skipped]
    for fault in skipped:
        click.echo(f"skipped {fault}")
    click.echo(f"base model {prepared.base.spec}, {prepared.base.digest}")
    base = {"source": prepared.base.spec, "digest": prepared.base.digest}
    return {"splits": splits, "skipped": skipped, "base_model": base}


@click.command()
@project_option
@click.option("--out", type=NamedPath(), default=None, help="another folder than the project's own")
@click.option("--processes", type=click.IntRange(0), default=0, help="0: one for every core")
@json_option
def synthesize(project: Path, out: Path | None, processes: int) -> dict[str, Any]:
    """Speaks the project's sentences in the voices of the installed engines, or in those of synthesis.yaml."""
    from wertune.synthesize import synthesize as run

    return run(project, out, processes, click.echo).to_json()
