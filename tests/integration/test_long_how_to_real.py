"""The shell blocks of the how-to on long recordings, run in their order in an empty folder as a reader would."""

import json
import sys
from pathlib import Path

import numpy as np
from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.joined import lay
from tests.support.places import ROOT
from tests.support.reader import SOURCES, put_everyday, said_by_speaker, typed
from tests.support.shown_commands import blocks_as_shown

AS_SHOWN = ("docs/howto/long-recordings.md", "")
NAMES = ("ann", "ben", "cho", "dev", "eve", "fay")
CLIPS_A_RECORDING = 5
PEOPLE = {"retention_validation": 10, "retention_test": 14}
DAMAGE = ROOT / "registry" / "examples" / "damaged_adapters.py"
# One that has lost the order of its weights: what the page's limits are there to stop.
DAMAGED = f"""
PYTHONPATH="{SOURCES}" "{sys.executable}" "{DAMAGE}" models:/hotline/1 projects/hotline "rows in another order"
wergate promote --project projects/hotline --version 2 --to Staging && exit 1 || echo "refused: $?"
"""


def test_a_reader_who_types_the_page_has_a_version_in_staging_and_no_damaged_one(tmp_path: Path, forks: Forks) -> None:
    said = _record(tmp_path)
    blocks = blocks_as_shown(*AS_SHOWN)
    script = "\n".join(f'echo "== block {number} after $SECONDS s"\n{block}' for number, block in enumerate(blocks, 1))
    told = typed(f"{script}\n{DAMAGED}", tmp_path, forks)
    print(told)
    rows = [json.loads(line) for line in (tmp_path / "projects/hotline/manifests/calls.jsonl").open(encoding="utf-8")]
    assert {row["speaker"] for row in rows} == set(NAMES)
    assert len(rows) >= 0.9 * len(said)
    assert {row["text"] for row in rows} <= set(said)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    stages = {str(each.version): each.current_stage for each in client.search_model_versions("name = 'hotline'")}
    assert stages == {"1": "Staging", "2": "None"}
    assert "refused: 1" in told
    assert "-->" in (tmp_path / "subtitles" / "monday.srt").read_text(encoding="utf-8")


def _record(folder: Path) -> list[str]:
    """A recording of each speaker with its sentences as running text, and people's everyday speech; what is said."""
    generator, texts = np.random.default_rng(0), list[str]()
    for name, rows in zip(NAMES, said_by_speaker(CLIPS_A_RECORDING).values(), strict=True):
        own = folder / "calls" / name
        own.mkdir(parents=True)
        sentences = [each.text for each in lay(rows, generator, own / "monday.wav")]
        (own / "monday.txt").write_text(" ".join(sentences), encoding="utf-8")
        texts += sentences
    put_everyday(folder / "everyday", PEOPLE)
    return texts
