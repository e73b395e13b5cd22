"""What the rules need of a registry, whoever keeps it: MLflow in store.py, a dictionary in the tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wergate.errors import RegistryError
from wertune.base.contract import ENGINE_TAG
from wertune.scores.eval_report import EvalReport


@dataclass(frozen=True)
class Version:
    """One registered version."""

    number: str
    stage: str
    created_ms: int = 0
    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        """What serves it; versions from before there was a choice are served by torch."""
        return self.tags.get(ENGINE_TAG, "torch")


@dataclass(frozen=True)
class Snapshot:
    """The model as it stood when it was read."""

    name: str
    versions: Mapping[str, Version]
    aliases: Mapping[str, str]
    tags: Mapping[str, str]

    def holders(self, stage: str) -> list[str]:
        """Versions in a stage, oldest first."""
        return sorted((v.number for v in self.versions.values() if v.stage == stage), key=int)

    def version(self, number: str) -> Version:
        """The version, or a RegistryError that lists those that there are."""
        found = self.versions.get(number)
        if found is None:
            known = ", ".join(sorted(self.versions, key=int)) or "none"
            raise RegistryError(f"version is {number!r}, but {self.name} has {known}; give one of these")
        return found


@dataclass(frozen=True)
class FoundReport:
    """A report and the run that carries it as an artifact."""

    run_id: str
    report: EvalReport


class ModelTags(Protocol):
    """The tags of one registered model: all that a lease needs."""

    name: str

    def tags(self) -> Mapping[str, str]: ...

    def set_tag(self, key: str, value: str) -> None: ...

    def delete_tag(self, key: str) -> None: ...


class RegisteredModel(ModelTags, Protocol):
    """One registered model. Every write is whole or not at all, and may be done twice without harm."""

    def look(self) -> Snapshot: ...

    def registrar(self, version: Version) -> str: ...

    def set_version_tag(self, version: str, key: str, value: str) -> None: ...

    def set_stage(self, version: str, stage: str) -> None:
        """Staging and Production hold one version: who was there is archived in the same transaction."""

    def set_alias(self, alias: str, version: str) -> None: ...

    def delete_alias(self, alias: str) -> None: ...

    def find_report(self, version: Version, test_digest: str) -> FoundReport | None: ...

    def write_artifact(self, run_id: str, path: str, text: str) -> None: ...

    def read_card(self, version: Version) -> str | None:
        """The version's card in Markdown, where it has one; RegistryError when the store does not answer."""

    def write_card(self, version: Version, card: str) -> None: ...
