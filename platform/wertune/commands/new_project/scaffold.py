"""A new project: its folder, with every value that may be set and what it means, and the gates of its adapters."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wertune.base.config import ProjectConfig, parse, policy_path
from wertune.base.errors import ConfigError, StorageError
from wertune.base.text import Lexicon
from wertune.battery.shelf import SHIPPED, shipped
from wertune.commands.new_project import scaffold_texts as texts
from wertune.commands.new_project.schemas import FOLDER, reference, write_schemas
from wertune.commands.new_project.yaml_page import flow, yaml_page
from wertune.search.search_space import SearchConfig

NEEDED = ("train", "validation", "test")
SPLITS = (*NEEDED, "replay", "retention_validation", "retention_test")


@dataclass(frozen=True)
class Wanted:
    """What a person says of a new project; `terms` are (written, spoken), the latter empty where it is not known."""

    folder: Path
    name: str
    language: str
    base_model: str
    terms: Sequence[tuple[str, str]] = ()
    manifests: Mapping[str, Path] = field(default_factory=dict)

    @property
    def policy(self) -> Path:
        return policy_path(self.name)

    @property
    def has_battery(self) -> bool:
        """Whether the platform brings ordinary speech of this language."""
        return shipped(self.language) is not None


def make_project(wanted: Wanted) -> list[Path]:
    """Writes the project, its policy and the schemas that are not there yet; returns the files.

    Raises ConfigError before anything is written: a value that breaks its rule, or a file that stands there already.
    """
    _check(wanted)
    files = {wanted.folder / name: text for name, text in _project_files(wanted).items()}
    files[wanted.policy] = _policy(wanted)
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another name or folder, or remove it first")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        made = write_schemas(FOLDER, over=False)
    except OSError as error:
        raise StorageError(f"{wanted.folder} cannot be made ({error}); choose a folder that can be written") from None
    return [*files, *made]


def _check(wanted: Wanted) -> None:
    if wanted.language != "en" and wanted.base_model.endswith(".en"):
        remedy = "take one of many languages, such as packaged:whisper-base or openai/whisper-small"
        raise ConfigError(f"language is {wanted.language}, but {wanted.base_model} knows English only; {remedy}")
    for folder in (*wanted.folder.parents, wanted.folder):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file, but a project is a folder; choose another name or folder")
    unknown = sorted(set(wanted.manifests) - set(SPLITS))
    if unknown:
        raise ConfigError(f"--manifest names {unknown[0]!r}, but a split is one of {', '.join(SPLITS)}")


def project_config(wanted: Wanted) -> ProjectConfig:
    """The model's defaults, a boost of terms, the platform's battery where it has one, and what was said."""
    data = {split: f"manifests/{split}.jsonl" for split in NEEDED}
    if wanted.has_battery:
        data["battery"] = SHIPPED
    for split, path in wanted.manifests.items():
        data[split] = Path(os.path.relpath(path.absolute(), wanted.folder.absolute())).as_posix()
    values = {
        "name": wanted.name,
        "language": wanted.language,
        "base_model": wanted.base_model,
        "lexicon": "lexicon.yaml",
        "data": data,
        "trial": {"decode": {"term_boost": texts.TERM_BOOST}},
    }
    return parse(ProjectConfig, values, "init")


def _project_files(wanted: Wanted) -> dict[str, str]:
    folder = wanted.folder
    project = texts.PROJECT + _project_page(wanted)
    search = SearchConfig.model_validate({"space": texts.SPACE, "strengths": texts.STRENGTHS})
    space = "\n".join(f"{key}: {flow(texts.SPACE[key])}" for key in search.space)
    terms = parse(Lexicon, {"terms": [{"term": t, "spoken": s or None} for t, s in wanted.terms]}, "--term").terms
    listed = "terms:\n" + "".join(f"  - {flow(term.model_dump())}\n" for term in terms) if terms else "terms: []\n"
    return {
        "project.yaml": reference(folder / "project.yaml", "project") + project,
        "search.yaml": reference(folder / "search.yaml", "search") + texts.SEARCH + yaml_page(search, {"space": space}),
        "lexicon.yaml": reference(folder / "lexicon.yaml", "lexicon") + texts.LEXICON + listed,
        "manifests/example.jsonl": json.dumps(texts.EXAMPLE_ROW, ensure_ascii=False) + "\n",
        "README.md": texts.README.format(
            name=wanted.name,
            folder=shlex.quote(folder.as_posix()),
            policy=wanted.policy.as_posix(),
            battery=texts.BATTERY_THERE if wanted.has_battery else texts.BATTERY_TO_MAKE,
        ),
    }


def _project_page(wanted: Wanted) -> str:
    page = yaml_page(project_config(wanted))
    if wanted.has_battery:
        return page
    none = "  battery: null\n"
    folder = shlex.quote(wanted.folder.as_posix())
    return page.replace(none, texts.NO_BATTERY.format(language=wanted.language, folder=folder) + none)


def _policy(wanted: Wanted) -> str:
    """Gates whose set, terms or battery the project does not have are there as comments."""
    text = texts.POLICY
    has = {
        "forgetting": "retention_test" in wanted.manifests,
        "term": bool(wanted.terms),
        "battery": wanted.has_battery,
    }
    for marker, there in has.items():
        text = text.replace(f"  @{marker} ", "  " if there else "  # ")
    return reference(wanted.policy, "policy") + text.replace("@name", wanted.name)
