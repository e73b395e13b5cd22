"""JSON Schemas of the YAML files, for editors: they complete keys and mark faults while one types."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wertune.base.config import ProjectConfig
from wertune.base.text import Lexicon
from wertune.search.search_space import SearchConfig
from wertune.synthesis.config import SynthesisConfig

FOLDER = Path("schemas")
STRING = {"type": "string", "minLength": 1}


def schemas() -> dict[str, dict[str, Any]]:
    """Each by its name: project, search, lexicon, synthesis, policy."""
    from wergate.gates.policy import Policy

    models: dict[str, type[BaseModel]] = {
        "project": ProjectConfig,
        "search": SearchConfig,
        "lexicon": Lexicon,
        "synthesis": SynthesisConfig,
        "policy": Policy,
    }
    found = {name: model.model_json_schema() for name, model in models.items()}
    project = found["project"]
    _also_string(project["properties"], "base_model", "short for its source")
    _also_string(project["$defs"]["LoraConfig"]["properties"], "target_modules", "such as q_proj,v_proj")
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | schema for name, schema in found.items()}


def _also_string(properties: dict[str, Any], key: str, meaning: str) -> None:
    """What a validator of the model makes of a string, which pydantic cannot know."""
    kept = {name: properties[key].pop(name) for name in ("default", "description", "title") if name in properties[key]}
    properties[key] = {"anyOf": [properties[key], STRING | {"description": meaning}]} | kept


def write_schemas(folder: Path, over: bool = True) -> list[Path]:
    """Writes NAME.json for each, without `over` where there is none, and returns the paths of those written."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {folder / f"{name}.json": schema for name, schema in schemas().items()}
    wanted = sorted(path for path in found if over or not path.exists())
    for path in wanted:
        path.write_text(json.dumps(found[path], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return wanted


def reference(file: Path, name: str) -> str:
    """The first line of a YAML `file` that tells an editor's language server which schema is the file's."""
    path = Path(os.path.relpath((FOLDER / f"{name}.json").absolute(), file.absolute().parent))
    return f"# yaml-language-server: $schema={path.as_posix()}\n"
