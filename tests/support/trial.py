"""What a trial is given and keeps where its tests have neither MLflow nor a search: a log, a store, a tiny project."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wertune.base.config import ProjectConfig, parse
from wertune.base.text import Lexicon
from wertune.data.manifest import Dataset, Recording
from wertune.training.prepare import Prepared
from wertune.whisper.base_model import resolve_base_model

# What a clock says is another thing in every run.
CLOCKS = {"train_s": 0.0, "evaluation_s": 0.0, "clips_per_s": 0.0}


class Log:
    """What a run keeps: the last words on each subject."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self.steps: dict[int, dict[str, float]] = {}
        self.tagged: dict[str, str] = {}
        self.adapter: dict[str, bytes] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            assert self.logged.setdefault(key, value) == value, "MLflow lets nobody change a parameter"

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.steps.setdefault(step, {}).update(values)

    def tags(self, values: Mapping[str, Any]) -> None:
        self.tagged.update({key: str(value) for key, value in values.items()})

    def artifacts(self, folder: Path, name: str) -> None:
        assert name == "adapter"
        self.adapter = {file.name: file.read_bytes() for file in folder.iterdir()}


class FolderStore:
    """A trial's state in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.short: list[str] = []

    def shortages(self) -> list[str]:
        return self.short

    def load(self, into: Path) -> bool:
        if self.folder.exists():
            shutil.copytree(self.folder, into, dirs_exist_ok=True)
        return self.folder.exists()

    def save(self, folder: Path) -> None:
        partial = self.folder.with_name("partial")
        try:
            shutil.copytree(folder, partial)
            shutil.rmtree(self.folder, ignore_errors=True)
            partial.rename(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def prepared_of(base: Path, splits: Mapping[str, Sequence[Recording]]) -> Prepared:
    """A project of these clips, by split, on the base in a folder."""
    data = dict.fromkeys(("train", "validation", "test"), "nowhere.jsonl")
    settings = {"name": "tiny", "base_model": str(base), "data": data}
    return Prepared(
        parse(ProjectConfig, settings, "test"),
        Lexicon(terms=()),
        resolve_base_model(str(base)),
        Dataset({name: tuple(clips) for name, clips in splits.items()}),
    )
