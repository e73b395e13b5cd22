"""`transcribe`, `page` and `export`: a version at work, and handed out to those who have none of this."""

from math import isnan
from pathlib import Path
from typing import Any, cast

import click

from wertune.base.cli import NamedPath, json_option
from wertune.base.errors import AudioError, ConfigError
from wertune.commands.options import project_option, version_uri


class _RangeOrNothing(click.FloatRange):
    """A number of the range, or none where it is empty: so `mlflow run` passes on what was not given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            return None
        number = super().convert(value, param, ctx)
        if isnan(number):  # no number is less or more than that
            self.fail(f"{number} is not in the range {self._describe_range()}.", param, ctx)
        return number


@click.command()
@project_option
@click.argument("files", nargs=-1, required=True, type=NamedPath())
@click.option("--model", default="", help="models:/sg_gov/1, or a version, stage or alias of the project's model")
@click.option("--base", default="", help="an untouched base instead, such as packaged:whisper-tiny.en")
@click.option(
    "--format",
    "form",
    type=click.Choice(["txt", "json", "verbose_json", "srt", "vtt"]),
    default="txt",
    help="json: with the times of each segment; verbose_json: as OpenAI and faster-whisper name them; of several "
    "recordings one list. srt, vtt: cues of two lines of 42 characters and 7 s at most",
)
@click.option(
    "--words", is_flag=True, help="the times of each word, too: in JSON, and for better cues; it takes longer"
)
@click.option("--out", default="", help="folder, a file in it for each recording; empty: the terminal")
@click.option(
    "--piece-s",
    type=_RangeOrNothing(5, 28),
    default=None,
    help="cuts what is longer at pauses, whatever the version does. Not given, or empty: as the version serves",
)
@click.option("--language", default="", help="that is spoken, as Whisper names it; empty: the project's")
def transcribe(
    project: Path,
    files: tuple[Path, ...],
    model: str,
    base: str,
    form: str,
    words: bool,
    out: str,
    piece_s: float | None,
    language: str,
) -> None:
    """Writes what recordings say; one that cannot be decoded is told, the others go on, and the status is 1."""
    if bool(model) == bool(base):
        raise ConfigError("give one of --model and --base: what is to transcribe")
    if words and form == "txt":
        raise ConfigError(
            "--words is given and --format is txt, which holds no times; give --format verbose_json or srt"
        )
    from wertune.base.config import load_project

    config = load_project(project)  # before what takes long to import
    from wertune.data.rows import one_language

    try:
        language = one_language({"--language": language})
    except ValueError as error:
        raise ConfigError(str(error)) from None
    from wertune.serving.listener import base_voice, version_voice
    from wertune.serving.transcribe import TextFormat, check_out, recordings_of, transcribe_files

    chosen = recordings_of(files)  # before the model is loaded, which takes a while
    folder = Path(out) if out else None
    if folder:
        check_out(chosen, folder, cast(TextFormat, form))
    voice = version_voice(version_uri(model, config.name)) if model else base_voice(base, config)
    if words:
        voice.check_words()
    failed = transcribe_files(
        voice,
        chosen,
        cast(TextFormat, form),
        folder,
        piece_s,
        language,
        click.echo,
        lambda text: click.echo(text, err=True),
        words,
    )
    if failed:
        raise AudioError(f"{failed} of {len(chosen)} recordings could not be read; the others were transcribed")


@click.command()
@project_option
@click.option("--model", default="production", help="models:/sg_gov/1, or a version, stage or alias of the project's")
@click.option("--beside", default="", help="another version to stand beside it; empty: an untouched base")
@click.option("--base", default="", help="the base beside it, such as packaged:whisper-base; empty: the project's")
@click.option(
    "--host", default="127.0.0.1", help="another than this machine lets others in, and browsers ask for https"
)
@click.option("--port", type=click.IntRange(0, 65535), default=8300)
def page(project: Path, model: str, beside: str, base: str, host: str, port: int) -> None:
    """A web page to speak to a version and to see what it writes beside its base."""
    if beside and base:
        raise ConfigError("give one of --beside and --base: the page shows two models")
    from wertune.base.config import load_project

    config = load_project(project)
    from wertune.serving.listener import base_voice, version_voice
    from wertune.serving.page.app import serve

    voice = version_voice(version_uri(model, config.name))
    if beside:
        other = version_voice(version_uri(beside, config.name))
    else:
        other = base_voice(base or config.base_model.source, config)
    serve([other, voice], host, port, click.echo)


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
@click.option(
    "--recordings",
    type=click.IntRange(0, 14),
    default=3,
    help="long ones, joined of ten test clips each, read by plain libraries in their own ways; 0: none",
)
@click.option("--licence", default="", help="of the adapter, for the card; empty: the card says that none is given")
@click.option("--force", type=click.BOOL, default=False, help="true: replaces an export that stands there")
@json_option
def export(
    project: Path,
    model: str,
    form: str,
    out: Path,
    clips: int,
    limit: float,
    recordings: int,
    licence: str,
    force: bool,
) -> dict[str, Any]:
    """Writes a registered version as a folder that plain libraries load, and tries it in them."""
    from wertune.base.config import load_project

    uri = version_uri(model, load_project(project).name)
    from wertune.serving.export import export as run
    from wertune.serving.export import free_for_export

    if not limit >= 0:  # NaN, too
        raise ConfigError(f"--limit is {limit:g}, but must be a share from 0, such as 0.03; correct it")
    free_for_export(out, force)
    done = run(project, uri, form, out, clips, limit, licence, recordings)
    click.echo(done.text)
    return {"folder": str(done.folder), **done.record}
