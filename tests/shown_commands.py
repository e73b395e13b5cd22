"""What the documentation shows in shell blocks and in code spans, as commands that can be checked or run."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).resolve().parents[1]
SHELL = ("sh", "bash", "console")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```", re.M | re.S)
HERE_DOCUMENT = re.compile(r"<<\s*'?(?P<word>\w+)'?.*?\n.*?^(?P=word)$", re.M | re.S)
OURS = ("mlflow run", "wertune ", "wergate ", "python -m ", "make ", "pytest ")
SPAN = re.compile(r"`([^`\n]+)`")
BREAKS = {"&&", "||", ";", "|", "&"}
# What may be shown beside our own commands; another name is a slip or needs a place here.
OTHERS = {
    "apt-get", "cat", "cd", "cp", "curl", "deploy/make_env", "docker", "export", "git", "mlflow", "mv", "pip", "ray",
    "source", ".", "ssh", "time",
}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """One command and where it stands."""

    place: str
    words: tuple[str, ...]


def pages() -> list[Path]:
    """Every page that people read."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    below = [path for folder in ("docs", "deploy", "projects", "registry") for path in (ROOT / folder).rglob("*.md")]
    return [path for path in (*top, *sorted(below)) if path.is_file()]


def shell_blocks(page: Path) -> list[str]:
    """The bodies of its shell blocks, in order; an unnamed block is one where it begins like a command."""
    found = [(match["language"], match["body"]) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]
    starts = (*OURS, *(f"{other} " for other in OTHERS), "MLFLOW_")
    return [body for language, body in found if language in SHELL or (not language and body.startswith(starts))]


def shown(page: Path) -> Iterator[Shown]:
    """Each command of its shell blocks, and each code span that begins like one of ours and leaves nothing out."""
    name = str(page.relative_to(ROOT))
    text = page.read_text(encoding="utf-8")
    for body in shell_blocks(page):
        yield from (Shown(name, words) for words in commands(body))
    for span in SPAN.findall(FENCE.sub("", text)):
        left_out = "…" in span or " | " in span or span == "mlflow run ."
        if span.startswith(OURS) and not left_out:
            alone = re.fullmatch(r"(wertune|wergate) [a-z]+", span)  # a command's name, and no use of it
            yield from (Shown(name, words) for words in commands(f"{span} --help" if alone else span))


def commands(script: str) -> Iterator[tuple[str, ...]]:
    """The words of each simple command; assignments before it and redirections after it are left out."""
    script = HERE_DOCUMENT.sub("\n", script).replace("\\\n", " ")
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in (*lexer, ";"):
            if word not in BREAKS:
                words.append(word)
                continue
            if plain := _plain(words):
                yield plain
            words = []


def _plain(words: list[str]) -> tuple[str, ...]:
    while words and (re.match(r"^[A-Za-z_]+=", words[0]) or words[0] in ("time", "nice")):
        words = words[1:]
    for number, word in enumerate(words):
        if word.startswith(("<", ">", "2>")):
            words = words[:number]
            break
    if words and words[0].startswith(".venv/bin/"):
        words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    return tuple(words)


def fault(words: tuple[str, ...]) -> str:
    """Why the command cannot be run as it stands; empty where it can."""
    match words:
        case ("mlflow", "run", ".", *rest):
            return _project_fault(rest)
        case ("wertune" | "wergate" as tool, *rest) | ("python", "-m", "wertune" | "wergate" as tool, *rest):
            return _tool_fault(tool, rest)
        case ("make", *rest):
            return _make_fault(rest)
        case ("pytest", *rest) | ("python", "-m", "pytest", *rest):
            return _missing_file(each.split("::")[0] for each in rest if each.startswith("tests"))
        case ("python", script, *_) if script.endswith(".py"):
            return _missing_file([script])
        case ("python", "-m", module, *_):
            path = module.replace(".", "/")
            return _missing_file([f"{path}.py"]) and _missing_file([f"{path}/__main__.py"])
        case (name, *_) if name in OTHERS:
            return _missing_file([name]) if "/" in name else ""
    return f"{words[0]} is neither one of our commands nor in OTHERS"


def _tool_fault(tool: str, words: list[str]) -> str:
    from wergate.__main__ import cli as wergate
    from wertune.__main__ import cli as wertune

    group = {"wertune": wertune, "wergate": wergate}[tool]
    if not words or words[0] == "--help":
        return ""
    try:
        command = group.get_command(click.Context(group), words[0])
        if command is None:
            return f"{tool} has no command {words[0]}"
        command.make_context(words[0], list(words[1:]))
    except click.exceptions.Exit:  # --help
        return ""
    except click.ClickException as error:
        return error.format_message()
    return ""


def _project_fault(words: list[str]) -> str:
    """Entry point, parameters, and MLflow's own options."""
    from mlflow.cli import cli as mlflow

    try:
        context = mlflow.commands["run"].make_context("run", [".", *words])
    except click.ClickException as error:
        return error.format_message()
    entry_points: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    name = context.params["entry_point"]
    if name not in entry_points:
        return f"MLproject has no entry point {name}"
    known = entry_points[name]["parameters"]
    given = dict(each.partition("=")[::2] for each in context.params["param_list"])
    unknown = sorted(set(given) - set(known))
    missing = sorted(key for key, spec in known.items() if "default" not in spec and key not in given)
    return "; ".join([f"{name} has no parameter {key}" for key in unknown] + [f"{name} needs {key}" for key in missing])


def _make_fault(words: list[str]) -> str:
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    return "; ".join(f"the Makefile has no target {word}" for word in words if "=" not in word and word not in targets)


def _missing_file(names: Any) -> str:
    return "; ".join(f"{name} does not exist" for name in names if not (ROOT / name).exists())
