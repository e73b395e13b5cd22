"""`evaluate` and `bench`: what a version is worth, and what this program is."""

import functools
import json
from pathlib import Path
from typing import Any

import click

from wertune.base.cli import NamedPath, answering
from wertune.base.errors import ConfigError
from wertune.commands.options import project_option

STDOUT = "-"
SCORES, JSON_REMEDY = "the scores", "free some space there, or give --json the path of a file that can be written"


@click.command()
@project_option
@click.option("--model-uri", default="", help="a registered version, such as models:/sg_gov/1")
@click.option("--base", default="", help="an untouched base instead, such as packaged:whisper-tiny.en")
@click.option(
    "--manifest", default="", help="any manifest; empty: the test split, and for a version all that the gates ask for"
)
@click.option(
    "--engine",
    type=click.Choice(["", "torch", "ctranslate2"]),
    default="",
    help="what transcribes in the place of the version's own engine; empty: as registered",
)
@click.option(
    "--final",
    is_flag=False,
    flag_value="true",
    type=click.BOOL,
    default=False,
    help="opens the final set for the version, once: base and version, the opening kept with it",
)
@click.option(
    "--json",
    "json_path",
    is_flag=False,
    flag_value=STDOUT,
    default="",
    metavar="[PATH]",
    help="a file for the scores of every clip; without a path: stdout, and text for people on stderr",
)
def evaluate(project: Path, model_uri: str, base: str, manifest: str, engine: str, final: bool, json_path: str) -> None:
    """Scores a registered version, or an untouched base at 30 s.

    A version without a manifest is measured for the gates, its report kept as a run; on a manifest it is only scored.
    """
    if bool(model_uri) == bool(base):
        raise ConfigError("give one of --model-uri and --base: what is to be scored")
    if engine and base:
        raise ConfigError(f"--engine is {engine}, but goes with --model-uri: a base is scored in torch; remove it")
    if final and (other := base or manifest or engine):
        raise ConfigError(f"--final is given with {other}, but opens a version as it serves; remove the other")
    if manifest and not Path(manifest).is_file():
        found = "is no plain file" if Path(manifest).exists() else "does not exist"
        raise ConfigError(f"--manifest is {manifest}, which {found}; name another, or none for the test split")
    if json_path not in ("", STDOUT):
        from wertune.base.files import check_writable, storing

        check_writable(Path(json_path), SCORES, JSON_REMEDY)
    score = functools.partial(_scored, project, model_uri, base, manifest, engine)
    if final:
        score = functools.partial(_opened, project, model_uri)
    values = answering(score, json_path == STDOUT)
    if json_path not in ("", STDOUT):
        text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        with storing(SCORES, Path(json_path), JSON_REMEDY):
            Path(json_path).write_text(text, encoding="utf-8")


def _scored(project: Path, model_uri: str, base: str, manifest: str, engine: str) -> dict[str, Any]:
    """The scores as JSON; their summary is printed."""
    from wertune.jobs.evaluate import evaluate_manifest, evaluate_version

    if model_uri and not manifest:
        found = evaluate_version(project, model_uri, engine, click.echo)
        scores = found.scores
        click.echo(f"{found.battery}\n" if found.battery else "no battery of ordinary speech: see docs/battery.md")
        for line in found.long:
            click.echo(line)
        click.echo(f"engine: {found.engine}")
        if found.artefact_wer is not None:
            click.echo(f"wer of the 8-bit artefact in torch: {found.artefact_wer:.4f}")
    else:
        scores = evaluate_manifest(project, model_uri, base, Path(manifest) if manifest else None, engine)
    for name, value in scores.summary().items():
        if name.startswith("term_") and not scores.terms.said:
            continue  # as nothing of terms is logged then
        click.echo(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    return scores.to_json()


def _opened(project: Path, model_uri: str) -> dict[str, Any]:
    """The opening as JSON; what it says is printed, once or again."""
    from wertune.jobs.final_set import open_final_set
    from wertune.scores.final_set import opened_for

    opening, versions = open_final_set(project, model_uri)
    click.echo(opening.text)
    click.echo(opened_for(versions))
    return {**opening.model_dump(mode="json"), "opened_for_versions": versions}


@click.command()
@project_option
@click.option("--out", type=NamedPath(), default=Path("docs"), show_default=True, help="folder of results")
@click.option("--model-uri", default="", help="a registered version whose serving is measured too; empty: none")
@click.option(
    "--of-theirs",
    type=click.IntRange(2, 16),
    default=4,
    show_default=True,
    help="of the search's 16 configurations, how many the field's recipe runs; all take an hour on two cores",
)
def bench(project: Path, out: Path, model_uri: str, of_theirs: int) -> None:
    """Ours beside the field's recipe in one run, as ratios, and the time of the gates' bootstrap."""
    from wertune.bench import bench as run
    from wertune.bench.bootstrap import bench_bootstrap

    click.echo(run(project, out, model_uri, of_theirs, functools.partial(click.echo, err=True)))
    click.echo(bench_bootstrap())
