"""`align`: a long recording and its transcript without times, into a manifest of segments."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wertune.base.cli import NamedPath, json_option
from wertune.base.errors import ConfigError
from wertune.commands.options import project_option

if TYPE_CHECKING:
    from wertune.alignment.segments import Written
    from wertune.base.config import ProjectConfig

SHOWN_LETTERS = 80


@click.command()
@project_option
@click.argument("recording", type=NamedPath())
@click.argument("transcript", default="")
@click.option(
    "--out", default="", help="manifest to be written; empty: beside the recording or the folder, with its name"
)
@click.option("--speaker", default="", help="of a recording in which one person speaks; a folder's are its folders")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.25,
    help="what is less sure is listed and left out; 0: all that was found is written",
)
@click.option("--ctc", default="", help="folder of a Wav2Vec2ForCTC that times the words; empty: the base's attention")
@json_option
def align(
    project: Path, recording: Path, transcript: str, out: str, speaker: str, min_score: float, ctc: str
) -> dict[str, Any]:
    """Finds when each sentence of a transcript is said in a recording of any length, by the project's base.

    RECORDING may be a folder of them, each with its transcript in a .txt of its name; TRANSCRIPT is left out then.
    """
    from wertune.base.config import load_project

    _check(recording, transcript, speaker)
    config = load_project(project)  # before what takes long to import
    from wertune.alignment.folder import align_folder
    from wertune.alignment.segments import align_files

    to = Path(out) if out else None
    if not recording.is_dir():
        done = align_files(config, recording, Path(transcript), to, min_score, ctc, click.echo, speaker)
        _tell(recording, done, min_score)
        _tell_where(project, config, recording, done.manifest)
        return done.to_json()
    found: list[dict[str, Any]] = []

    def tell(each: Path, done: "Written") -> None:
        _tell(each, done, min_score)
        found.append({"recording": str(each)} | done.to_json())

    manifest = align_folder(config, recording, to, min_score, ctc, click.echo, tell)
    _tell_where(project, config, recording, manifest)
    return {"manifest": str(manifest), "recordings": found}


def _check(recording: Path, transcript: str, speaker: str) -> None:
    if recording.is_dir() and (transcript or speaker):
        given = f"TRANSCRIPT is {transcript}" if transcript else f"--speaker is {speaker}"
        rule = "has its transcripts beside its recordings, and its speakers' folders"
        raise ConfigError(f"{given}, but {recording} is a folder, which {rule}; leave it out, or give one recording")
    if not recording.is_dir() and not transcript:
        rule = "a recording needs its transcript, a text file"
        raise ConfigError(f"{recording} is given alone, but {rule}; give it behind the recording, or give a folder")


def _tell(recording: Path, done: "Written", min_score: float) -> None:
    """What was left out, and how much was found."""
    from wertune.alignment.segments import clock

    for each in done.doubtful:
        click.echo(f"left out {clock(each.start_s)} to {clock(each.end_s)}, {each.score:.2f}: {_short(each.text)}")
    for text in done.absent:
        click.echo(f"not heard: {_short(text)}")
    total = len(done.kept) + len(done.doubtful) + len(done.absent)
    minutes = sum(each.end_s - each.start_s for each in done.kept) / 60
    click.echo(
        f"{recording}: {len(done.kept)} of {total} sentences, {minutes:.1f} minutes; {len(done.doubtful)} doubtful "
        f"ones left out (--min-score {min_score:g}), {len(done.absent)} not heard"
    )


def _tell_where(project: Path, config: "ProjectConfig", recording: Path, manifest: Path) -> None:
    """Where the rows stand; that the project will not read the recordings where they lie outside of it."""
    click.echo(f"{manifest} has their rows")
    roots = [project, *([project / config.data.audio_root] if config.data.audio_root else [])]
    if not any(recording.resolve().is_relative_to(root.resolve()) for root in roots):
        remedy = f"move it there before it is aligned, or set data.audio_root in {project / 'project.yaml'}"
        click.echo(f"{recording} lies outside of {project}, whose manifests may not name it: {remedy}")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…"
