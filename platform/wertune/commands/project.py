"""`init` and `schema`: a new project's files, and what editors know of them."""

import sys
from pathlib import Path

import click

from wertune.errors import ConfigError

ENGLISH_BASE, OTHER_BASE = "packaged:whisper-tiny.en", "packaged:whisper-base"


@click.command()
@click.argument("folder", default="")
@click.option("--name", default="", help="also the registered model's; empty: the folder's")
@click.option("--language", default="", help="as Whisper names it: en, zh, ms, ta, …; empty: en")
@click.option("--base-model", default="", help=f"empty: {ENGLISH_BASE} for en, {OTHER_BASE} for others")
@click.option("--term", "terms", multiple=True, metavar="TERM[=SPOKEN]", help='such as "CPF=see pee eff"; many times')
@click.option("--manifest", "manifests", multiple=True, metavar="SPLIT=PATH", help="such as train=a.jsonl; many times")
def init(
    folder: str, name: str, language: str, base_model: str, terms: tuple[str, ...], manifests: tuple[str, ...]
) -> None:
    """Makes a new project: FOLDER, or projects/FOLDER for a bare name.

    What is not given is asked for in a terminal, and takes its default elsewhere.
    """
    from wertune.scaffold import Wanted, make_project

    asks = sys.stdin.isatty()
    if not folder and asks:
        folder = click.prompt("name of the domain (my-domain)")
    if not folder:
        raise click.UsageError("FOLDER is empty, but must be given: the name of the domain, or a path")
    path = Path(folder) if len(Path(folder).parts) > 1 else Path("projects") / folder
    if asks:
        language = language or click.prompt("language, as Whisper names it", default="en")
        base_model = base_model or click.prompt("base model", default=_base(language))
        terms = terms or _asked_terms()
    wanted = Wanted(
        path,
        name or path.name,
        language or "en",
        base_model or _base(language or "en"),
        tuple(_term(each) for each in terms if each),
        dict(_manifest(each) for each in manifests if each),
    )
    for made in make_project(wanted):
        click.echo(f"made {made}")
    click.echo(
        f"next: fill {path / 'manifests'} as {path / 'README.md'} says, then `wertune validate --project {path}`"
    )


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
    """Written and spoken: `CPF=see pee eff`; a term alone is spoken as it is written."""
    written, _, spoken = (part.strip() for part in text.partition("="))
    return written, spoken or written


def _manifest(text: str) -> tuple[str, Path]:
    split, separator, path = text.partition("=")
    if not separator or not path:
        raise ConfigError(f"--manifest is {text!r}, but must be SPLIT=PATH, such as train=recordings/train.jsonl")
    return split.strip(), Path(path.strip())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("schemas"), show_default=True, help="the folder")
def schema(out: Path) -> None:
    """Writes JSON Schemas of the YAML files, with which editors complete and check them."""
    from wertune.schemas import write_schemas

    for path in write_schemas(out):
        click.echo(f"wrote {path}")
