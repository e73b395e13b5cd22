"""`import` and `split`: from recordings in other forms to the manifests of a project."""

import shlex
from pathlib import Path
from typing import Any, cast

import click

from wertune.base.cli import NamedPath, json_option
from wertune.base.errors import ConfigError
from wertune.commands.options import project_option


@click.command("import")
@project_option
@click.argument("source", type=NamedPath())
@click.option("--name", default="imported", help="of the manifest and of the folder of recordings")
@click.option(
    "--form",
    type=click.Choice(["", "audiofolder", "datasets", "kaldi", "common-voice", "plain"]),
    default="",
    help="empty: by the files that are there",
)
@click.option(
    "--audio", type=click.Choice(["flac", "opus"]), default="flac", help="opus: a fifth of the size, not the same"
)
@click.option("--text-column", default="", help="of a table; empty: the first of the usual names")
@click.option("--speaker-column", default="", help="of a table; empty: the first of the usual names, or none")
@click.option(
    "--skip", type=click.BOOL, default=False, help="true: bad rows are left out; otherwise nothing is imported"
)
@json_option
def import_(
    project: Path, source: Path, name: str, form: str, audio: str, text_column: str, speaker_column: str, skip: bool
) -> dict[str, Any]:
    """Takes recordings and transcripts of another form into the project, as 16 kHz mono and a manifest."""
    from wertune.data.importers.item import Columns
    from wertune.data.importers.store import Encoding, import_recordings

    _check_is_project(project)
    columns = Columns(text_column, speaker_column)
    done = import_recordings(source, form, project, name, cast(Encoding, audio), columns, skip)
    for bad in done.skipped:
        click.echo(f"skipped {bad}")
    click.echo(f"{done.manifest}: {done.clips} clips, {done.minutes:.1f} minutes, {done.speakers} speakers")
    return {
        "manifest": str(done.manifest),
        "clips": done.clips,
        "minutes": round(done.minutes, 2),
        "speakers": done.speakers,
        "skipped": [str(bad) for bad in done.skipped],
    }


def _check_is_project(folder: Path) -> None:
    """Raises ConfigError for any other folder: recordings are not put where nobody looks for them."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--project is {folder}, but must be a project's folder; give a folder")
    if not (folder / "project.yaml").is_file():
        made = f"make one with `wertune init {shlex.quote(_as_path(folder))}`"
        raise ConfigError(f"--project is {folder}, but must be a project's folder, with a project.yaml; {made}")


def _as_path(folder: Path) -> str:
    """As `init` takes it for that folder: a bare name would be one in projects/."""
    return str(folder) if len(folder.parts) != 1 else f"./{folder}"


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
    """Divides a manifest into train, validation and test that share no speaker and no sentence."""
    from wertune.base.text import TermFinder, load_lexicon, normaliser
    from wertune.data.split import describe, parse_shares, split_manifest

    language, lexicon = _language_and_lexicon(project)
    normalise = normaliser(language)
    finder = TermFinder(load_lexicon(lexicon).written, normalise)
    out = out or project / "manifests"
    report = split_manifest(manifest, out, parse_shares(shares), normalise, finder, per_term, seed)
    click.echo(describe(report))
    return report


def _language_and_lexicon(project: Path) -> tuple[str, Path | None]:
    from wertune.base.config import ProjectConfig, load_yaml

    config = load_yaml(project / "project.yaml", ProjectConfig)
    return config.language, project / config.lexicon if config.lexicon else None
