"""What the sets of a project can show, before anything is trained: told by `validate`, and a check of the doctor."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wertune.base.config import ProjectConfig, load_project, policy_path
from wertune.base.errors import ConfigError, ManifestError
from wertune.base.text import TermFinder, load_lexicon, normaliser
from wertune.battery.shelf import Battery, project_battery
from wertune.commands.doctor import Check, Finding, Site, warn
from wertune.data.manifest import TRAINING_SPLITS, manifests_of, read_rows

if TYPE_CHECKING:
    from wergate.gates.policy import Policy
    from wergate.gates.sizes import SetSize, Shown

Spoken = Iterable[tuple[str, str]]  # the text of each clip, and who says it


@dataclass(frozen=True)
class Outlook:
    """By set, what it can show; what gates ask for that the project does not have; and what was assumed."""

    sets: Mapping[str, "Shown"]
    missing: list[str]
    assumed: str

    def to_json(self) -> dict[str, Any]:
        sets = {name: shown.model_dump(mode="json") for name, shown in self.sets.items()}
        return {"sets": sets, "missing": self.missing, "assumed": self.assumed}


def outlook(
    project: ProjectConfig, splits: Mapping[str, Spoken], finder: TermFinder, battery: Battery | None
) -> Outlook:
    """Of the splits that nothing is trained on, and of the battery; by the project's policy where there is one."""
    from wergate.gates.sizes import ASSUMED, can_show, missing

    policy = _policy(project.name)
    words = _words(project.language)
    sizes = [_size(name, spoken, words, finder) for name, spoken in splits.items() if name not in TRAINING_SPLITS]
    if battery:
        sizes.append(_battery_size(battery, words))
    return Outlook(
        {size.name: can_show(size, policy) for size in sizes}, missing(sizes, policy) if policy else [], ASSUMED
    )


def _policy(name: str) -> "Policy | None":
    from wergate.gates.policy import load_policy

    path = policy_path(name)
    return load_policy(path) if path.exists() else None


def _words(language: str) -> Callable[[str], int]:
    normalise = normaliser(language)
    return lambda text: len(normalise(text).split())


def _size(name: str, spoken: Spoken, words: Callable[[str], int], finder: TermFinder) -> "SetSize":
    from wergate.gates.sizes import SetSize

    texts, speakers = zip(*spoken, strict=True)
    terms = sum(finder.find(text).total() for text in texts)
    return SetSize(name, [words(text) for text in texts], speakers, terms)


def _battery_size(battery: Battery, words: Callable[[str], int]) -> "SetSize":
    from wergate.gates.sizes import BATTERY, SetSize

    counts = [words(row.text) for row in battery.rows]
    speakers = [row.speaker for row in battery.rows]
    return SetSize(BATTERY, counts, speakers, parts=frozenset(battery.by_part))


def evaluation_sets(site: Site) -> Finding:
    """What each can show, by its manifest alone: no recording is opened."""
    name = "evaluation sets"
    try:
        project = load_project(site.project)
        manifests = manifests_of(project.data, site.project)
        if absent := [str(path) for path in manifests.values() if not path.exists()]:
            remedy = "write it, or name another in project.yaml; `wertune validate` then checks every row"
            return warn(name, f"{absent[0]} does not exist", remedy)
        rows = {split: read_rows(path) for split, path in manifests.items()}
        lexicon = load_lexicon(site.project / project.lexicon if project.lexicon else None)
        finder = TermFinder(lexicon.written, normaliser(project.language))
        splits = {split: [(row.text, row.speaker) for _, _, row in found] for split, found in rows.items() if found}
        found = outlook(project, splits, finder, project_battery(site.project, project))
    except (ConfigError, ManifestError) as error:
        problem, _, remedy = str(error).rpartition("; ")
        return warn(name, problem or remedy, remedy)
    told = "\n".join(f"{split}: {shown.text}" for split, shown in found.sets.items())
    advice = [line for shown in found.sets.values() for line in shown.advice] + found.missing
    return Finding(name, told, "\n→ ".join(advice), found.to_json(), state="warn" if advice else "ok")


CHECKS: dict[str, Check] = {"evaluation sets": evaluation_sets}
