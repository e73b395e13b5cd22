"""`import`, `split`, `validate`, `synthesize` and `battery`: clips and manifests."""

import shlex
from collections import Counter
from pathlib import Path
from typing import Any, cast

import click

from wertune.base.cli import NamedPath, json_option
from wertune.base.errors import ConfigError
from wertune.commands.options import project_option

SHOWN_NOTES = 20


@click.command("import")
@project_option
@click.argument("source", type=NamedPath())
@click.option("--name", default="imported", help="of the manifest and of the folder of recordings")
@click.option(
    "--form",
    type=click.Choice(["", "audiofolder", "datasets", "parquet", "kaldi", "common-voice", "lhotse", "timed", "plain"]),
    default="",
    help="empty: by the files that are there",
)
@click.option(
    "--transcripts",
    default="",
    help="folder of transcripts with times, for the form timed; empty: beside the recordings",
)
@click.option(
    "--audio", type=click.Choice(["flac", "opus"]), default="flac", help="opus: a fifth of the size, not the same"
)
@click.option(
    "--whole",
    type=click.BOOL,
    default=False,
    help="true: a recording stays one file, and its row holds the segments; otherwise each segment is a clip and a row",
)
@click.option("--text-column", default="", help="of a table; empty: the first of the usual names")
@click.option("--speaker-column", default="", help="of a table; empty: the first of the usual names, or none")
@click.option(
    "--language-column", default="", help="of a table; empty: those called language, lang or locale; -: none is read"
)
@click.option(
    "--skip", type=click.BOOL, default=False, help="true: bad rows are left out; otherwise nothing is imported"
)
@json_option
def import_(
    project: Path,
    source: Path,
    name: str,
    form: str,
    transcripts: str,
    audio: str,
    whole: bool,
    text_column: str,
    speaker_column: str,
    language_column: str,
    skip: bool,
) -> dict[str, Any]:
    """Takes recordings and transcripts of another form into the project, as 16 kHz mono and a manifest."""
    from wertune.data.importers.clip import Encoding
    from wertune.data.importers.item import Columns
    from wertune.data.importers.store import import_recordings

    _check_is_project(project)
    if transcripts and form not in ("", "timed"):
        raise ConfigError(f"--transcripts is {transcripts}, but --form {form} has none; leave one of the two out")
    columns = Columns(text_column, speaker_column, language_column)
    beside = Path(transcripts) if transcripts else None
    done = import_recordings(source, form, project, name, cast(Encoding, audio), columns, skip, beside, whole)
    for bad in done.skipped:
        click.echo(f"skipped {bad}")
    for duplicate in done.duplicates:
        click.echo(f"left out {duplicate}")
    notes = Counter(done.notes).most_common()
    for note, count in notes[:SHOWN_NOTES]:
        click.echo(f"{note}: {count}")
    if len(notes) > SHOWN_NOTES:
        click.echo(f"… and {len(notes) - SHOWN_NOTES} more, all in --json")
    if len(done.origins) > 1:
        for origin, count in done.origins.items():
            click.echo(f"{count} rows of {origin}")
        click.echo("they are one manifest now, which `split` divides anew; import a file by itself to keep it apart")
    click.echo(f"{done.manifest}: {done.clips} clips, {done.minutes:.1f} minutes, {done.speakers} speakers")
    return {
        "manifest": str(done.manifest),
        "clips": done.clips,
        "minutes": round(done.minutes, 2),
        "speakers": done.speakers,
        "skipped": [str(bad) for bad in done.skipped],
        "duplicates": [str(duplicate) for duplicate in done.duplicates],
        "origins": dict(done.origins),
        "notes": dict(done.notes),
    }


def _check_is_project(folder: Path) -> None:
    """Raises ConfigError for any other folder: recordings are not put where nobody looks for them."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--project is {folder}, but must be a project's folder; give a folder")
    if not (folder / "project.yaml").is_file():
        # As `init` takes it for that folder: a bare name would be one in projects/.
        path = str(folder) if len(folder.parts) != 1 else f"./{folder}"
        made = f"make one with `wertune init {shlex.quote(path)}`"
        raise ConfigError(f"--project is {folder}, but must be a project's folder, with a project.yaml; {made}")


@click.command("split")
@project_option
@click.argument("manifest", type=NamedPath())
@click.option("--out", type=NamedPath(), default=None, help="folder; not given: the project's manifests")
@click.option("--shares", default="80,10,10", help="of train, validation and test")
@click.option(
    "--per-term", type=click.IntRange(0), default=2, help="wanted occurrences of a term in train, and in test"
)
@click.option("--seed", type=int, default=0)
@json_option
def split_(project: Path, manifest: Path, out: Path | None, shares: str, per_term: int, seed: int) -> dict[str, Any]:
    """Divides a manifest into train, validation and test that share no recording, no speaker and no sentence."""
    from wertune.base.config import load_project
    from wertune.base.text import TermFinder, load_lexicon, normaliser
    from wertune.data.split import describe, parse_shares, split_manifest
    from wertune.training.prepare import unusable_rows

    config = load_project(project)
    normalise = normaliser(config.language)
    finder = TermFinder(load_lexicon(project / config.lexicon if config.lexicon else None).written, normalise)
    out = out or project / "manifests"
    asked = parse_shares(shares)
    looked = unusable_rows(manifest, project, config)
    apart = config.data.disjoint_speakers
    report = split_manifest(manifest, out, asked, normalise, finder, per_term, seed, looked, apart)
    click.echo(describe(report))
    return report


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
    clips = prepared.dataset.splits
    durations_s = {split: [clip.duration_s for clip in found] for split, found in clips.items()}
    spoken = {split: [(clip.text, clip.row.speaker) for clip in found] for split, found in clips.items()}
    told = outlook(config, spoken, prepared.finder, battery)
    if battery:
        durations_s["battery"] = [row.duration for row in battery.rows]
    splits: dict[str, dict[str, Any]] = {}
    for split, durations in durations_s.items():
        minutes = sum(durations) / 60
        splits[split] = {"clips": len(durations), "minutes": round(minutes, 2)}
        shown = told.sets.get(split)
        click.echo(f"{split}: {len(durations)} clips, {minutes:.1f} minutes" + (f", {shown.text}" if shown else ""))
        if by_language := Counter(clip.language for clip in clips.get(split, ()) if clip.language):
            splits[split]["languages"] = dict(by_language)
            click.echo(f"  in {', '.join(f'{name} ({count} clips)' for name, count in by_language.most_common())}")
        for line in shown.advice if shown else ():
            click.echo(f"  → {line}")
    for line in told.missing:
        click.echo(f"→ {line}")
    click.echo(told.assumed)
    if prepared.limits and prepared.limits.told:
        click.echo(prepared.limits.told)
    for note in prepared.dataset.notes:
        click.echo(note)
    if lost := prepared.finder.lost:
        click.echo(f"terms {' '.join(lost)} hold no letter, digit or sign, and are never found")
    if as_written := prepared.finder.as_written:
        rule = "are one, another or no word once case and signs are gone, and are counted as they are written"
        click.echo(f"terms {', '.join(as_written)} {rule}")
    skipped = [str(fault) for fault in prepared.dataset.skipped]
    for fault in skipped:
        click.echo(f"skipped {fault}")
    click.echo(f"base model {prepared.base.spec}, {prepared.base.digest}")
    base = {"source": prepared.base.spec, "digest": prepared.base.digest}
    also = {"skipped": skipped, "notes": list(prepared.dataset.notes)}
    return {"splits": splits, **also, "base_model": base, "can_show": told.to_json()}


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
