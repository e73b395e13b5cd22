"""`align`: a long recording and its transcript without times, into a manifest of segments."""

from pathlib import Path
from typing import Any

import click

from wertune.base.cli import NamedPath, json_option
from wertune.commands.options import project_option

SHOWN_LETTERS = 80


@click.command()
@project_option
@click.argument("recording", type=NamedPath())
@click.argument("transcript", type=NamedPath())
@click.option("--out", default="", help="manifest to be written; empty: beside the recording, with its name")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.25,
    help="what is less sure is listed and left out; 0: all that was found is written",
)
@click.option("--ctc", default="", help="folder of a Wav2Vec2ForCTC that times the words; empty: the base's attention")
@json_option
def align(project: Path, recording: Path, transcript: Path, out: str, min_score: float, ctc: str) -> dict[str, Any]:
    """Finds when each sentence of a transcript is said in a recording of any length, by the project's base."""
    from wertune.base.config import load_project

    config = load_project(project)  # before what takes long to import
    from wertune.alignment.segments import align_files, clock

    done = align_files(config, recording, transcript, Path(out) if out else None, min_score, ctc, click.echo)
    for each in done.doubtful:
        click.echo(f"left out {clock(each.start_s)} to {clock(each.end_s)}, {each.score:.2f}: {_short(each.text)}")
    for text in done.absent:
        click.echo(f"not heard: {_short(text)}")
    total = len(done.kept) + len(done.doubtful) + len(done.absent)
    minutes = sum(each.end_s - each.start_s for each in done.kept) / 60
    click.echo(
        f"{done.manifest}: {len(done.kept)} of {total} sentences, {minutes:.1f} minutes; {len(done.doubtful)} doubtful "
        f"ones left out (--min-score {min_score:g}), {len(done.absent)} not heard"
    )
    return done.to_json()


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…"
