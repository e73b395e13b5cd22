"""What a project still needs for `validate` and `tune`, once its sentences are spoken."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from wertune.base.config import ProjectConfig, policy_path
from wertune.data.manifest import manifests_of

_START = "`wertune init NAME` makes one for a new project; start from that"


def missing_steps(folder: Path, project: ProjectConfig | None, manifests: Mapping[str, Path]) -> list[str]:
    """One paragraph for each file or key that is missing or names other manifests; none where all is there."""
    if project is None:
        steps = [f"{folder / 'project.yaml'} does not exist; write this there:\n\n{_project_text(folder, manifests)}"]
    else:
        steps = list(_unnamed(folder, project, manifests))
    if "replay" not in manifests and not (project and project.data.replay):
        remedy = "write everyday sentences into general.txt, one a line, and run this again"
        steps.append(f"there is no replay, without which a tuned model forgets other speech; {remedy}")
    if not (folder / "search.yaml").exists():
        steps.append(f"`tune` reads {folder / 'search.yaml'}, which does not exist; {_START}")
    policy = policy_path(project.name if project else _name(folder))
    if not policy.exists():
        steps.append(f"`train` and `tune` read {policy}, which does not exist; {_START}")
    return steps


def _project_text(folder: Path, manifests: Mapping[str, Path]) -> str:
    lexicon = ["lexicon: lexicon.yaml"] if (folder / "lexicon.yaml").exists() else []
    data = [f"  {split}: {_relative(path, folder)}" for split, path in manifests.items()]
    data.append("  battery: shipped")
    return "\n".join(
        [f"name: {_name(folder)}", "language: en", "base_model: packaged:whisper-tiny.en", *lexicon, "data:", *data]
    )


def _unnamed(folder: Path, project: ProjectConfig, manifests: Mapping[str, Path]) -> Iterable[str]:
    place = folder / "project.yaml"
    if project.lexicon is None and (folder / "lexicon.yaml").exists():
        yield f"{place} names no lexicon, so that no term is counted; add `lexicon: lexicon.yaml`"
    named = manifests_of(project.data, folder, final=True)
    for split, path in manifests.items():
        wanted = f"`{split}: {_relative(path, folder)}`"
        if split not in named:
            yield f"{place}: data.{split} is not given; add {wanted} under `data:` to use what was spoken"
        elif named[split].resolve() != path.resolve():
            given = _relative(named[split], folder)
            yield f"{place}: data.{split} is {given}, which is not what was spoken; to use that, put {wanted} there"


def _name(folder: Path) -> str:
    """The folder's, with what a project may not be named replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", folder.resolve().name).lstrip(".-") or "domain"


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())
