"""What the documentation shows in shell blocks and in code spans, as commands that can be checked or run."""

import ast
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from tests.support.places import ROOT

SHELL = ("sh", "bash", "console")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```", re.M | re.S)
HERE_DOCUMENT = re.compile(r"<<\s*'?(?P<word>\w+)'?.*?\n.*?^(?P=word)$", re.M | re.S)
PARAGRAPHS = re.compile(r"\n\s*\n")
SPAN = re.compile(r"`([^`]+)`")
ASSIGNMENT = re.compile(r"^[A-Za-z_]+=")
SUBSTITUTION = re.compile(r"\$\(((?:'[^']*'|[^')])*)\)")
BREAKS = {"&&", "||", ";", "|", "&"}
OURS = ("mlflow", "wertune", "wergate", "python", "make", "pytest", "ray", "docker")
# What the Makefile's recipes call beside them.
TOOLS = {"lint-imports", "mkdocs", "mypy", "python3", "ruff", "test", "touch", "uv"}
# What may be shown beside our own commands; another name is a slip or needs a place here.
OTHERS = {
    "apt-get", "base64", "cat", "cd", "cp", "curl", "deploy/make_env", "echo", "export", "git", "mv", "pip", "py-spy",
    "sed", "source", ".", "ssh", "time",
}  # fmt: skip
# A code span that is a command's name, and no use of it.
NAMES = re.compile(r"(wertune|wergate) [a-z]+|mlflow (ui|server|models serve)|ray (up|exec)|docker compose")


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
    found = [(m["language"], textwrap.dedent(m["body"])) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]
    return [body for language, body in found if language in SHELL or (not language and _is_command(body))]


def _is_command(text: str) -> bool:
    """Whether its first word, after assignments, is a program that may be shown, and other words follow."""
    words = [word for word in SUBSTITUTION.sub("x", text).split() if not ASSIGNMENT.match(word)]
    return bool(words) and (words[0] in OURS or words[0] in OTHERS) and len(words) + ("/" in words[0]) > 1


def shown(page: Path) -> Iterator[Shown]:
    """Each command of its shell blocks, and each code span that begins like one, wherever its lines break."""
    name = str(page.relative_to(ROOT))
    text = FENCE.sub("\n\n", page.read_text(encoding="utf-8"))
    for body in shell_blocks(page):
        yield from (Shown(name, words) for words in commands(body))
    for paragraph in PARAGRAPHS.split(text):
        for span in (" ".join(found.split()) for found in SPAN.findall(paragraph)):
            if _is_command(span) and span != "mlflow run .":  # which is told of, and asks for a way to go on
                alone = NAMES.fullmatch(span)
                yield from (Shown(name, words) for words in commands(f"{span} --help" if alone else span))


def commands(script: str) -> Iterator[tuple[str, ...]]:
    """The words of each simple command; assignments before it and redirections after it are left out.

    A substitution's commands come before the one in which its output stands.
    """
    script = HERE_DOCUMENT.sub("\n", script).replace("\\\n", " ")
    for inner in SUBSTITUTION.findall(script):
        yield from commands(inner)
    for line in SUBSTITUTION.sub("SUBSTITUTED", script).splitlines():
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
    while words and (ASSIGNMENT.match(words[0]) or words[0] in ("time", "nice")):
        words = words[1:]
    for number, word in enumerate(words):
        if word.startswith(("<", ">", "2>")):
            words = words[:number]
            break
    if words and words[0].startswith(".venv/bin/"):
        words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    return tuple(words)


def kind(words: tuple[str, ...]) -> str:
    """What a test must run to run the command: `wertune tune` for each way of giving it, its program for others."""
    match words:
        case ("mlflow", "run", ".", *rest):
            entry_point = rest[rest.index("-e") + 1]
            return kind(next(iter(commands(project_command(entry_point, dict.fromkeys(needed(entry_point), "x"))))))
        case ("python", "-m", "wertune" | "wergate" | "pytest" as tool, *rest):
            return kind((tool, *rest))
        case ("python", "-m", module, *_):
            return f"python -m {module}"
        case ("python", script, *_):
            return f"python {script}"
        case ("docker", "compose", *rest):
            return " ".join(("docker compose", *_arguments(rest, ("-f", "--profile", "--env-file"))[:1]))
        case ("make", *rest):
            return "make -n" if "-n" in rest else " ".join(("make", *_arguments(rest, ("-o", "-W"))[:1]))
        case ("mlflow" | "ray" | "wertune" | "wergate" as tool, name, *_) if not name.startswith("-"):
            return f"{tool} {name}"
    return words[0]


def _arguments(words: list[str], with_value: tuple[str, ...]) -> list[str]:
    """The words that are neither options, nor values of the named ones, nor variables."""
    values = {number + 1 for number, word in enumerate(words) if word in with_value}
    return [word for n, word in enumerate(words) if n not in values and not (word.startswith("-") or "=" in word)]


def fault(words: tuple[str, ...]) -> str:
    """Why the command cannot be run as it stands; empty where it can."""
    if any("…" in word for word in words):
        return f"{shlex.join(words)} leaves something out"
    match words:
        case ("mlflow", "run", ".", *rest):
            return _project_fault(rest)
        case ("mlflow", *rest):
            return _mlflow_fault(rest)
        case ("ray", *rest):
            return _ray_fault(rest)
        case ("docker", "compose", "-f", file, *rest):
            return _missing_file([file]) or _compose_fault(ROOT / file, rest)
        case ("wertune" | "wergate" as tool, *rest) | ("python", "-m", "wertune" | "wergate" as tool, *rest):
            return _tool_fault(tool, rest)
        case ("make", *rest):
            return _make_fault(rest)
        case ("pytest", *rest) | ("python", "-m", "pytest", *rest):
            return _missing_file(each.split("::")[0] for each in rest if each.startswith("tests"))
        case ("python", script, *_) if script.endswith(".py"):
            return _missing_file([script])
        case ("python", "-c", code):
            return _code_fault(code)
        case ("python", "-m", module, *_):
            return "" if module == "pip" or _is_runnable(module) else f"there is no module {module} to run"
        case ("pip", "install", *packages):
            return _extras_fault(packages)
        case (name, *_) if name in TOOLS:
            return ""
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


def _first_fault(each: Iterable[tuple[str, ...]]) -> str:
    return next((found for words in each if (found := fault(words))), "")


def _mlflow_fault(words: list[str]) -> str:
    from mlflow.cli import cli

    return _group_fault("mlflow", cli, words)


def _ray_fault(words: list[str]) -> str:
    """What Ray's own command line says; the file of the cluster is there, and so are the commands run on it."""
    from ray.scripts.scripts import cli

    cluster, *scripts = words[1:] if words[0] in ("up", "exec", "rsync-up") and words[1:] != ["--help"] else ["."]
    inside = (each for script in scripts if words[0] == "exec" for each in commands(script))
    return _group_fault("ray", cli, words) or _missing_file([cluster]) or _first_fault(inside)


def _group_fault(tool: str, group: click.Command, words: list[str]) -> str:
    """What a program's own command line says of them; a group's command may have groups before it."""
    while isinstance(group, click.Group) and words:
        name, *words = words
        command = group.get_command(click.Context(group), name)
        if command is None:
            return f"{tool} has no command {name}"
        group = command
    try:
        group.make_context(tool, words)
    except click.exceptions.Exit:  # --help
        return ""
    except click.ClickException as error:
        return error.format_message()
    return ""


def _code_fault(code: str) -> str:
    try:
        ast.parse(code)
    except SyntaxError as error:
        return f"{code}: {error.msg}"
    return ""


def _extras_fault(packages: list[str]) -> str:
    """The extras of ours that are asked for are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [extra for each in packages for extra in re.findall(r"^wertune\[(.*)\]$", each)]
    return "; ".join(f"there is no extra {each}" for each in asked if each not in project["optional-dependencies"])


def _compose_fault(file: Path, words: list[str]) -> str:
    """The service that a command is run in, and that command."""
    match words:
        case ("exec", service, *rest):
            services = yaml.safe_load(file.read_text(encoding="utf-8"))["services"]
            return fault(tuple(rest)) if service in services else f"{file.name} has no service {service}"
        case ("config",):
            return ""
        case ("up", *rest):
            return "; ".join(f"up has no option {each}" for each in rest if each not in ("-d", "--build", "--wait"))
    return f"docker compose has no command {words[:1]}"


def _project_fault(words: list[str]) -> str:
    """Entry point, parameters, MLflow's own options, and the command that MLflow then gives."""
    from mlflow.cli import cli as mlflow

    try:
        context = mlflow.commands["run"].make_context("run", [".", *words])
    except click.ClickException as error:
        return error.format_message()
    all_known = entry_points()
    name = context.params["entry_point"]
    if name not in all_known:
        return f"MLproject has no entry point {name}"
    known = all_known[name]["parameters"]
    given = dict(each.partition("=")[::2] for each in context.params["param_list"])
    unknown = sorted(set(given) - set(known))
    missing = sorted(set(needed(name)) - set(given))
    faults = [f"{name} has no parameter {key}" for key in unknown] + [f"{name} needs {key}" for key in missing]
    return "; ".join(faults) or _first_fault(commands(project_command(name, given)))


def entry_points() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    return found


def needed(entry_point: str) -> list[str]:
    return [key for key, spec in entry_points()[entry_point].get("parameters", {}).items() if "default" not in spec]


def project_command(entry_point: str, given: dict[str, str]) -> str:
    """The shell command that `mlflow run` makes of an entry point."""
    from mlflow.projects.utils import load_project

    return str(load_project(str(ROOT)).get_entry_point(entry_point).compute_command(given, None))


def _make_fault(words: list[str]) -> str:
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    return "; ".join(f"the Makefile has no target {word}" for word in words if "=" not in word and word not in targets)


def _is_runnable(module: str) -> bool:
    path = module.replace(".", "/")
    names = (f"{root}{path}{end}" for root in ("", "platform/", "registry/") for end in (".py", "/__main__.py"))
    return any((ROOT / name).is_file() for name in names)


def _missing_file(names: Any) -> str:
    return "; ".join(f"{name} does not exist" for name in names if not (ROOT / name).exists())


def started(test: Path) -> set[str]:
    """The kinds of commands that a test's source starts, by the lists of words and the calls that stand in it."""
    source = ast.parse(test.read_text(encoding="utf-8"))
    names = _Names(source)
    found = (_started(node, names) for node in ast.walk(source))
    return {kind(words) for words in found if words} | _as_shown(source)


class _Names:
    """What a test's names stand for: constants of its module, and modules that it imports or imports from."""

    def __init__(self, source: ast.Module) -> None:
        self.constants: dict[str, ast.expr] = {}
        self.modules: dict[str, str] = {}
        for node in source.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.constants[name] = value
                case ast.ImportFrom(module=str(module), names=imported):
                    self.modules |= {each.name: f"{module}.{each.name}".removesuffix(".main") for each in imported}


def _started(node: ast.AST, names: _Names) -> tuple[str, ...]:
    """`[sys.executable, "-m", "mlflow", "server", …]`, `workspace.run("tune", …)`, `writes.main([…])` as words."""
    match node:
        case ast.List(elts=[*parts]):
            words = [_word(part, names) for part in parts]
            while words and not words[-1]:  # such as `*arguments`
                words.pop()
            if words[:2] == ["python", "-m"]:
                words = words[2:] if words[2:3] == ["mlflow"] else words
            if words[:1] == ["make_env"]:
                words[0] = "deploy/make_env"
            return tuple(words) if words and words[0] in {*OURS, *OTHERS} else ()
        case ast.Call(func=ast.Attribute(attr="run" | "command"), args=[ast.Constant(value=str(first)), *_]):
            return "wertune", first  # a Workspace's
        case ast.Call(func=ast.Name(id="wertune" | "shell"), args=[ast.Constant(value=str(first)), *_]):
            return "wertune", first
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="main") | ast.Name(id="main" as name)):
            return ("python", "-m", names.modules[name]) if name in names.modules else ()
    return ()


def _word(node: ast.expr, names: _Names) -> str:
    """A word as it stands, `python` for this interpreter, a path by the names in it; empty for what is not known."""
    match node:
        case ast.Constant(value=str(word)):
            return word
        case ast.Attribute(attr="executable"):
            return "python"
        case ast.JoinedStr(values=parts):
            return "".join(_word(part, names) for part in parts)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return "/".join(filter(None, (_word(left, names), _word(right, names))))
        case ast.Call(func=ast.Name(id="str"), args=[path]):
            return _word(path, names)
        case ast.Name(id=name) if name in names.constants:
            return _word(names.constants[name], names)
    return ""


def _as_shown(source: ast.Module) -> set[str]:
    """`AS_SHOWN = (page, start)` in a test: it runs the page's shell blocks that begin so, as they stand."""
    for node in source.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="AS_SHOWN")], value=value):
                page, start = ast.literal_eval(value)
                return {kind(words) for block in blocks_as_shown(page, start) for words in commands(block)}
    return set()


def blocks_as_shown(page: str, start: str) -> list[str]:
    """The shell blocks of a page that begin so."""
    return [block for block in shell_blocks(ROOT / page) if block.startswith(start)]
