"""Someone who types a page's shell blocks in a folder of their own, with this checkout's commands on the path."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.forked import Forks
from tests.support.places import ACTORS, DEMO, ROOT

FORKED = ROOT / "tests" / "support" / "forked.py"
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("platform", "registry"))

# What the pages' field says, and who says it in the reader's recordings.
TERMS = {"CPF", "Singpass", "HDB", "TADM", "SRS", "ICA", "NOA"}
SPEAKERS = ("joe", "slt", "rms", "heart", "jf-alpha", "jf-gongitsune")


def said_by_speaker(clips: int) -> dict[str, list[dict[str, Any]]]:
    """So many rows of the demo for each speaker, in which the terms are said, no sentence twice."""
    said: dict[str, list[dict[str, Any]]] = {speaker: [] for speaker in SPEAKERS}
    sentences = set()
    for row in _rows("train"):
        fits = row["speaker"] in SPEAKERS and TERMS & set(row["terms"]) and row["sentence"] not in sentences
        if fits and len(said[row["speaker"]]) < clips:
            said[row["speaker"]].append(row)
            sentences.add(row["sentence"])
    return said


def put_everyday(folder: Path, clips: Mapping[str, int]) -> None:
    """Everyday speech of people, so many clips of each of the demo's splits."""
    for split, count in clips.items():
        # No actors: of their speech an adapter of a minute's training writes loops, which the pages' gates refuse.
        people = [row for row in _rows(split) if not row["speaker"].startswith(ACTORS)]
        for row in people[:: len(people) // count][:count]:
            put_clip(row, folder)


def put_clip(row: Mapping[str, Any], folder: Path) -> None:
    """A recording with a text file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    source = (DEMO / "manifests" / row["audio_filepath"]).resolve()
    (folder / source.name).write_bytes(source.read_bytes())
    (folder / source.name).with_suffix(".txt").write_text(row["text"], encoding="utf-8")


def _rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / "manifests" / f"{split}.jsonl").open(encoding="utf-8")]


def typed(script: str, folder: Path, forks: Forks) -> str:
    """What bash says of the script, which must end well; its tools stand beside the folder."""
    forks.start()
    tools = folder.with_name(f"{folder.name}-bin")
    tools.mkdir()
    for name in ("wertune", "wergate"):
        # As when installed: only PYTHONPATH, and not the folder itself, leads to the reader's own modules.
        run = f'"{sys.executable}" -S "{FORKED}" "{forks.folder}" -P -m {name} "$@"'
        command = f'export PYTHONPATH="{SOURCES}:$PYTHONPATH"\nexec {run}'
        (tools / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    paths = [str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=kept | {"PATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
