"""A registry in memory, and processes of it that die before any write."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from wergate.errors import RegistryError
from wergate.trail.registered_model import FoundReport, Snapshot, Version
from wertune.scores.eval_report import EvalReport


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing that the process does afterwards reaches the registry."""


@dataclass
class World:
    """What the registry holds, whoever looks."""

    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    reports: list[FoundReport] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)
    cards: dict[str, str] = field(default_factory=dict)
    cards_refuse: bool = False
    registrar: str = "alice"

    def register(self, number: str) -> None:
        self.versions[number] = Version(number, "None")
        self.cards[number] = f"# demo version {number}\n\n## Standing\n\nRegistered.\n\n## Limits\n\nNone.\n"

    def evaluate(self, report: EvalReport) -> None:
        self.reports.append(FoundReport(f"run-{len(self.reports)}", report))

    def holders(self, stage: str) -> list[str]:
        return [version.number for version in self.versions.values() if version.stage == stage]

    def state(self) -> tuple[object, ...]:
        """All but artifacts and the versions' tags: what a refusal must leave as it was."""
        stages = {number: version.stage for number, version in self.versions.items()}
        return stages, dict(self.aliases), dict(self.tags)


class FakeModel:
    """One process's view; it is killed before its write number `dies_at`."""

    name = "demo"

    def __init__(self, world: World, dies_at: int | None = None) -> None:
        self.world = world
        self.writes = 0
        self._dies_at = dies_at

    def _write(self) -> World:
        if self.writes == self._dies_at:
            raise Killed
        self.writes += 1
        return self.world

    def tags(self) -> Mapping[str, str]:
        return dict(self.world.tags)

    def look(self) -> Snapshot:
        world = self.world
        return Snapshot(self.name, dict(world.versions), dict(world.aliases), dict(world.tags))

    def registrar(self, version: Version) -> str:
        return self.world.registrar

    def set_tag(self, key: str, value: str) -> None:
        self._write().tags[key] = value

    def delete_tag(self, key: str) -> None:
        self._write().tags.pop(key, None)

    def set_version_tag(self, version: str, key: str, value: str) -> None:
        found = self._write().versions[version]
        self.world.versions[version] = replace(found, tags={**found.tags, key: value})

    def set_stage(self, version: str, stage: str) -> None:
        world = self._write()
        for number, found in world.versions.items():
            if found.stage == stage and stage in ("Staging", "Production"):
                world.versions[number] = replace(found, stage="Archived")
        world.versions[version] = replace(world.versions[version], stage=stage)

    def set_alias(self, alias: str, version: str) -> None:
        self._write().aliases[alias] = version

    def delete_alias(self, alias: str) -> None:
        self._write().aliases.pop(alias, None)

    def find_report(self, version: Version, test_digest: str) -> FoundReport | None:
        fitting = (
            found
            for found in reversed(self.world.reports)
            if found.report.version == version.number and test_digest in ("", found.report.sets["test"].digest)
        )
        return next(fitting, None)

    def write_artifact(self, run_id: str, path: str, text: str) -> None:
        self._write().artifacts[f"{run_id}/{path}"] = text

    def read_card(self, version: Version) -> str | None:
        if self.world.cards_refuse:
            raise RegistryError("no room")
        return self.world.cards.get(version.number)

    def write_card(self, version: Version, card: str) -> None:
        self._write().cards[version.number] = card


class Free:
    """A lock that nobody else wants."""

    def check(self) -> None: ...


@contextmanager
def free_lock() -> Iterator[Free]:
    yield Free()
