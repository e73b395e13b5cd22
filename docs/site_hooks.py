"""Pages that MkDocs gets from the code while it builds, so that none falls behind: commands, keys, gates, modules."""

import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "registry"), str(ROOT / "docs")]

from site_figures import figures  # noqa: E402

from wergate.__main__ import cli as wergate  # noqa: E402
from wertune.__main__ import cli as wertune  # noqa: E402
from wertune.commands.new_project.schemas import schemas  # noqa: E402

FILES = {
    "project": "projects/NAME/project.yaml",
    "search": "projects/NAME/search.yaml",
    "lexicon": "projects/NAME/lexicon.yaml",
    "synthesis": "projects/NAME/synthesis.yaml",
    "policy": "registry/policies/NAME.yaml",
}
FROM_ELSEWHERE = {"CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md", "deploy.md": "deploy/README.md"}
# What other code may rely on; modules beside these are listed with their first line alone.
PUBLIC = (
    "wertune.data.manifest",
    "wertune.scores.metrics",
    "wertune.base.text",
    "wertune.whisper.features",
    "wertune.whisper.model",
    "wertune.whisper.adapter",
    "wertune.training.train",
    "wertune.training.batches",
    "wertune.whisper.transcription",
    "wertune.search.search_space",
    "wertune.training.trial",
    "wertune.serving.pyfunc",
    "wertune.scores.bootstrap",
    "wertune.scores.eval_report",
    "wertune.base.errors",
    "wergate.gates.policy",
    "wergate.gates.decision",
    "wergate.gates.evidence",
    "wergate.gates.gate",
)
Schema = Mapping[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, the figures, and the pages that stand elsewhere in the repository."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        "reference/gates.md": gates_page(),
        "reference/python.md": python_page(),
        **{name: (ROOT / source).read_text(encoding="utf-8") for name, source in FROM_ELSEWHERE.items()},
        **{f"figures/{name}.svg": svg for name, svg in figures(ROOT / "docs").items()},
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Puts each figure into its page, where the colours of the theme reach it: `<!-- figure: NAME -->`."""
    if page.file.src_uri.startswith("howto/"):
        page.meta["hide"] = ["toc"]  # they have no headings to list, and long commands
    for name, svg in figures(ROOT / "docs").items():
        markdown = markdown.replace(f"<!-- figure: {name} -->", svg)
    return markdown


def commands_page() -> str:
    """Every command of both tools, as its own `--help` has it."""
    head = "# Commands\n\nMade from the commands. `python -m wertune` and `python -m wergate` are the same.\n"
    return head + "".join(_tool(name, tool) for name, tool in (("wertune", wertune), ("wergate", wergate)))


def _tool(name: str, tool: click.Group) -> str:
    context = click.Context(tool, info_name=name, **tool.context_settings)
    text = f"\n## {name}\n\n{tool.help}\n\n{tool.epilog or ''}\n"
    for command_name in tool.list_commands(context):
        command = tool.get_command(context, command_name)
        assert command is not None
        text += _command(command, click.Context(command, info_name=command_name, parent=context))
    return text


def _command(command: click.Command, context: click.Context) -> str:
    usage = command.get_usage(context).removeprefix("Usage: ")
    rows = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    table = _table(("option", "meaning"), [(f"`{row[0]}`", _cell(row[1])) for row in rows if row])
    return f"\n### {context.command_path}\n\n```text\n{usage}\n```\n\n{command.help}\n\n{table}"


def configuration_page() -> str:
    """Every key of every YAML file with its default and its rule, out of the JSON Schemas."""
    text = (
        "# Configuration\n\nMade from the models that read the files. `wertune schema` writes them as JSON Schemas, "
        "with which editors complete and check; an unknown key is an error. The gates of a policy have "
        "[a page of their own](gates.md).\n"
    )
    for name, schema in schemas().items():
        text += f"\n## {FILES[name]}\n\n{_first_paragraph(schema)}\n\n"
        text += _table(("key", "type and rule", "default", "meaning"), list(_keys(schema, schema)))
    return text


def _keys(schema: Schema, root: Schema, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A row a leaf: dotted key, type and rule, default, meaning; gates are left to their own page."""
    for key, given in schema.get("properties", {}).items():
        value = _resolved(given, root)
        if value.get("properties"):
            yield from _keys(value, root, f"{prefix}{key}.")
            continue
        needed = key in schema.get("required", ())
        default = "must be given" if needed else _default(given)
        yield f"`{prefix}{key}`", _cell(_kind(value, root)), default, _cell(given.get("description", ""))


def _resolved(value: Schema, root: Schema) -> Schema:
    """What a `$ref` points at, where there is just one."""
    choices = value.get("allOf") or value.get("anyOf") or [value]
    found = [root["$defs"][each["$ref"].rsplit("/", 1)[1]] for each in choices if "$ref" in each]
    return found[0] if found and found[0].get("properties") else value


_MANY = 8
RULES = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "pattern": "like `{}`",
}


def _kind(value: Schema, root: Schema) -> str:
    """Type and limits in words, or the choices."""
    if "$ref" in value:
        return _kind(root["$defs"][value["$ref"].rsplit("/", 1)[1]], root)
    if "enum" in value or "const" in value:
        return _choices(value.get("enum", [value.get("const")]))
    if "anyOf" in value or "oneOf" in value:
        kinds = dict.fromkeys(_kind(each, root) for each in value.get("anyOf", value.get("oneOf")))
        return "a gate" if len(kinds) > 4 else " or ".join(kinds)
    if value.get("type") == "array":
        return f"list of {_kind(value['items'], root)}" if "items" in value else "list"
    if isinstance(value.get("additionalProperties"), dict):
        return f"mapping to {_kind(value['additionalProperties'], root)}"
    if value.get("properties"):
        return f"mapping ({', '.join(value['properties'])})"
    rules = [text.format(value[rule]) for rule, text in RULES.items() if rule in value]
    return ", ".join([value.get("type", "any"), *rules])


def _choices(values: Sequence[Any]) -> str:
    """All of a few; of many the first, and how many there are, for a column is narrow."""
    if len(values) > _MANY:
        return f"{', '.join(f'`{each}`' for each in values[:3])}, … ({len(values)} values)"
    return " or ".join(f"`{each}`" for each in values)


def _default(value: Schema) -> str:
    default = value.get("default")
    if isinstance(default, list) and default:
        default = ", ".join(each if isinstance(each, str) else json.dumps(each) for each in default)
    if default in (None, "", []):
        return "none" if default is None else "empty"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def gates_page() -> str:
    """Every kind of gate, its unit and its own keys, out of the policy's JSON Schema."""
    schema = schemas()["policy"]
    text = (
        "# Gates\n\nMade from the models. A gate is an item under `staging:` or `production:` of "
        "`registry/policies/NAME.yaml`. Each also has `blocks` (false: it warns) and `name` (in decisions; empty: made "
        "from the kind and what it looks at). Rates are judged by the less favourable end of their confidence interval "
        "unless `judge: point` stands there.\n"
    )
    for kind in schema["$defs"].values():
        if "kind" not in kind.get("properties", {}):
            continue
        text += f"\n## {kind['properties']['kind']['const']}\n\n{_first_paragraph(kind)}\n\n"
        rows = [row for row in _keys(kind, schema) if row[0] not in ("`kind`", "`blocks`", "`name`")]
        text += _table(("key", "type and rule", "default", "meaning"), rows)
    return text


def python_page() -> str:
    """All modules by their first line, and the public ones in full."""
    text = (
        "# Python\n\nMade from docstrings. What stands in full is what other code may rely on; "
        "`import wertune.scores.metrics` and what `wergate` decides with need no torch.\n"
    )
    for root in ("platform/wertune", "registry/wergate"):
        package = Path(root).name
        files = sorted((ROOT / root).rglob("*.py"))
        rows = [(f"`{_module(path, ROOT / root, package)}`", _cell(_docstring(path))) for path in files]
        text += f"\n## All modules of {package}\n\n" + _table(("module", "what it is"), [row for row in rows if row[1]])
    return text + "".join(f"\n::: {module}\n" for module in PUBLIC)


def _module(path: Path, root: Path, package: str) -> str:
    parts = [part for part in path.relative_to(root).with_suffix("").parts if part != "__init__"]
    return ".".join([package, *parts])


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0]


def _first_paragraph(schema: Schema) -> str:
    return str(schema.get("description", "")).split("\n\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
