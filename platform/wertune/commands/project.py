"""`init` and `schema`: a new project's files, and what editors know of them."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from wertune.base.cli import NamedPath, json_option
from wertune.base.errors import ConfigError

ENGLISH_BASE, OTHER_BASE = "packaged:whisper-tiny.en", "packaged:whisper-base"


@click.command()
@click.argument("folder", default="")
@click.option("--name", default="", help="also the registered model's; empty: the folder's")
@click.option("--language", default="", help="as Whisper names it: en, zh, ms, ta, …; empty: en")
@click.option("--base-model", default="", help=f"empty: {ENGLISH_BASE} for en, {OTHER_BASE} for others")
@click.option("--term", "terms", multiple=True, metavar="TERM[=SPOKEN]", help='such as "CPF=see pee eff"; many times')
@click.option("--manifest", "manifests", multiple=True, metavar="SPLIT=PATH", help="such as train=a.jsonl; many times")
@json_option
def init(
    folder: str, name: str, language: str, base_model: str, terms: tuple[str, ...], manifests: tuple[str, ...]
) -> dict[str, Any]:
    """Makes a new project: FOLDER, or projects/FOLDER for a bare name.

    What is not given is asked for in a terminal, and takes its default elsewhere.
    """
    from wertune.commands.new_project.scaffold import Wanted, make_project

    asks = sys.stdin.isatty()
    if not folder and asks:
        folder = click.prompt("name of the domain (my-domain)")
    if not folder:
        raise click.UsageError("FOLDER is empty, but must be given: the name of the domain, or a path")
    is_path = os.sep in folder or folder in (os.curdir, os.pardir)
    path = Path(folder) if is_path else Path("projects") / folder
    if asks:
        language = language or click.prompt("language, as Whisper names it", default="en")
        base_model = base_model or click.prompt("base model", default=_base(language))
        terms = terms or _asked_terms()
    wanted = Wanted(
        path,
        name or path.resolve().name,
        language or "en",
        base_model or _base(language or "en"),
        tuple(_term(each) for each in terms if each),
        dict(_manifest(each) for each in manifests if each),
    )
    made = make_project(wanted)
    for file in made:
        click.echo(f"made {file}")
    project = shlex.quote(str(path))
    click.echo(
        f"next: fill {path / 'manifests'} as {path / 'README.md'} says, or write {path / 'sentences.txt'} and let "
        f"`wertune synthesize --project {project}` speak it; then `wertune validate --project {project}`"
    )
    return {"project": str(path), "made": [str(file) for file in made]}


def _base(language: str) -> str:
    return ENGLISH_BASE if language == "en" else OTHER_BASE


def _asked_terms() -> tuple[str, ...]:
    """One a line, until an empty one."""
    found = []
    while text := click.prompt(
        "a term that matters (TERM or TERM=SPOKEN; empty: no more)", default="", show_default=False
    ):
        found.append(text)
    return tuple(found)


def _term(text: str) -> tuple[str, str]:
    """Written and spoken: `CPF=see pee eff`; of a term alone `synthesize` spells the abbreviations."""
    written, _, spoken = (part.strip() for part in text.partition("="))
    return written, spoken


def _manifest(text: str) -> tuple[str, Path]:
    split, separator, path = text.partition("=")
    if not separator or not path:
        raise ConfigError(f"--manifest is {text!r}, but must be SPLIT=PATH, such as train=recordings/train.jsonl")
    return split.strip(), Path(path.strip())


@click.command()
@click.option("--out", type=NamedPath(), default=Path("schemas"), show_default=True, help="the folder")
@json_option
def schema(out: Path) -> dict[str, Any]:
    """Writes JSON Schemas of the YAML files, with which editors complete and check them."""
    from wertune.base.files import storing
    from wertune.commands.new_project.schemas import write_schemas

    with storing("the schemas", out, "free some space there, or give --out a folder that can be written"):
        written = write_schemas(out)
    for path in written:
        click.echo(f"wrote {path}")
    return {"wrote": [str(path) for path in written]}
