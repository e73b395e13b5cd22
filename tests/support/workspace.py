"""Small projects: rows of the demo's own manifests, a base, a tracking store of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.places import ACTORS, DEMO

CLIPS = {"train": 16, "replay": 4, "validation": 4, "test": 5, "retention_validation": 4, "retention_test": 4}
TINY_EN = "packaged:whisper-tiny.en"


@dataclass(frozen=True)
class Workspace:
    """A folder with a small project in it and the command line pointed at it."""

    folder: Path
    forks: Forks

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def write_search(self, values: Mapping[str, Any]) -> None:
        (self.project / "search.yaml").write_text(yaml.safe_dump(dict(values)), encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wertune", *arguments]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command's output; a failure shows it."""
        done = self.forks.run(self.command(*arguments), self.folder, self.environment())
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",  # what GPUs do is tests/gpu's
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }


def take(split: str, count: int, target: Path) -> None:
    """Every so many rows of the demo's manifest, with absolute paths."""
    source = DEMO / "manifests" / f"{split}.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    # Actors, and in replay what sounds like terms, came later: a model of so few clips loops with them.
    rows = [row for row in rows if not row["speaker"].startswith(ACTORS)]
    if split == "replay":
        rows = [row for row in rows if row["sentence"] <= "g1091"]
    chosen = rows[:: len(rows) // count][:count]
    for row in chosen:
        row["audio_filepath"] = str((source.parent / row["audio_filepath"]).resolve())
    target.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")


def workspace_in(folder: Path, name: str, forks: Forks | None = None, base_model: str = TINY_EN) -> Workspace:
    """A small project called `name` in a folder that holds none yet."""
    workspace = Workspace(folder, forks or Forks(folder / "forks"))
    manifests = workspace.project / "manifests"
    manifests.mkdir(parents=True)
    for split, count in CLIPS.items():
        take(split, count, manifests / f"{split}.jsonl")
    (workspace.project / "lexicon.yaml").write_bytes((DEMO / "lexicon.yaml").read_bytes())
    settings = {
        "name": name,
        "base_model": base_model,
        "lexicon": "lexicon.yaml",
        "data": {split: f"manifests/{split}.jsonl" for split in CLIPS} | {"audio_root": str(DEMO)},
        "trial": {"train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.001}},
    }
    (workspace.project / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    policies = workspace.folder / "registry" / "policies"
    policies.mkdir(parents=True)
    gate = {"kind": "wer", "limit": 1.0, "judge": "point"}  # of five clips an interval has no end
    (policies / f"{name}.yaml").write_text(yaml.safe_dump({"staging": [gate], "production": [gate]}))
    return workspace
