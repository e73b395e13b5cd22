"""`validate`, `synthesize` and `battery`: clips and manifests."""

from pathlib import Path
from typing import Any

import click

from wertune.base.cli import NamedPath, json_option
from wertune.commands.options import project_option


@click.command()
@project_option
@json_option
def validate(project: Path) -> dict[str, Any]:
    """Checks every row of every manifest; reports all faults at once with file and line. Says what sets can show."""
    from wertune.base.config import load_project

    config = load_project(project)  # before what takes long to import
    from wertune.battery.shelf import project_battery
    from wertune.commands.doctor.sets import outlook
    from wertune.training.prepare import prepare

    battery = project_battery(project, config)
    prepared = prepare(project, config, final=True)
    durations_s = {
        split: [recording.duration_s for recording in recordings]
        for split, recordings in prepared.dataset.splits.items()
    }
    spoken = {
        split: [(r.text, r.row.speaker) for r in recordings] for split, recordings in prepared.dataset.splits.items()
    }
    found = outlook(config, spoken, prepared.finder, battery)
    if battery:
        durations_s["battery"] = [row.duration for row in battery.rows]
    splits = {}
    for split, durations in durations_s.items():
        minutes = sum(durations) / 60
        splits[split] = {"clips": len(durations), "minutes": round(minutes, 2)}
        shown = found.sets.get(split)
        click.echo(f"{split}: {len(durations)} clips, {minutes:.1f} minutes" + (f", {shown.text}" if shown else ""))
        for line in shown.advice if shown else ():
            click.echo(f"  → {line}")
    for line in found.missing:
        click.echo(f"→ {line}")
    click.echo(found.assumed)
    skipped = [str(fault) for fault in prepared.dataset.skipped]
    for fault in skipped:
        click.echo(f"skipped {fault}")
    click.echo(f"base model {prepared.base.spec}, {prepared.base.digest}")
    base = {"source": prepared.base.spec, "digest": prepared.base.digest}
    return {"splits": splits, "skipped": skipped, "base_model": base, "can_show": found.to_json()}


@click.command()
@project_option
@click.option("--out", type=NamedPath(), default=None, help="another folder than the project's own")
@click.option("--processes", type=click.IntRange(0), default=0, help="0: one for every core")
@json_option
def synthesize(project: Path, out: Path | None, processes: int) -> dict[str, Any]:
    """Speaks the project's sentences in the voices of the installed engines, or in those of synthesis.yaml."""
    from wertune.synthesis.synthesize import synthesize as run

    return run(project, out, processes, click.echo).to_json()


@click.command()
@click.option("--form", default="", help="what is said, a battery.yaml; empty: no clips are made")
@click.option("--language", default="en", show_default=True, help="as Whisper names it; the form is of the same")
@click.option("--out", type=NamedPath(), required=True, help="a folder, to be named as `data.battery` in project.yaml")
@click.option("--recordings", default="", help="where packages of recordings were unpacked; empty: /")
@click.option(
    "--base-of", default="", help="a project: what its untouched base writes is kept beside the clips; empty: nothing"
)
@json_option
def battery(form: str, language: str, out: Path, recordings: str, base_of: str) -> dict[str, Any]:
    """Makes a battery of ordinary speech, to measure versions on beside the base; English comes with wertune."""
    if not form and not base_of:
        raise click.UsageError("give --form, of which clips are made, or --base-of, a project whose base writes them")
    from wertune.battery.shelf import load_battery

    if form:
        from wertune.battery.make import make_battery

        make_battery(Path(form), language, out, Path(recordings) if recordings else None, click.echo)
    found = load_battery(out)
    if base_of:
        from wertune.base.config import load_project
        from wertune.battery.score import ship_base_texts
        from wertune.training.prepare import prepare

        project = load_project(Path(base_of))
        click.echo(f"the untouched {project.base_model.source} writes {len(found.rows)} clips at 30 s …")
        click.echo(f"kept as {ship_base_texts(prepare(Path(base_of), project), found)}")
    speakers = {row.speaker for row in found.rows if row.text}
    return {"clips": len(found.rows), "speakers": len(speakers), "folder": str(out)}
