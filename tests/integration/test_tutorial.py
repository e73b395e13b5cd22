"""The tutorial's shell blocks, run in their order in an empty folder as a reader would."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.places import ACTORS, DEMO
from tests.support.reader import typed
from tests.support.shown_commands import blocks_as_shown

AS_SHOWN = ("docs/tutorial.md", "")
TERMS = {"CPF", "Singpass", "HDB", "TADM", "SRS", "ICA", "NOA"}
SPEAKERS = ("joe", "slt", "rms", "heart", "jf-alpha", "jf-gongitsune")
# As many as the page says are enough: sixty clips of six speakers, forty of everyday speech.
CLIPS_A_SPEAKER = 10
PEOPLE = {"retention_validation": 16, "retention_test": 24}


def test_a_reader_who_types_the_tutorial_has_a_version_in_production(tmp_path: Path, forks: Forks) -> None:
    _record(tmp_path)
    blocks = blocks_as_shown(*AS_SHOWN)
    script = "\n".join(f'echo "== block {number} after $SECONDS s"\n{block}' for number, block in enumerate(blocks, 1))
    said = typed(script, tmp_path, forks)
    print(said)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_model_version_by_alias("counter", "production").current_stage == "Production"
    experiment = client.get_experiment_by_name("counter")
    (search,) = client.search_runs([experiment.experiment_id], "tags.mlflow.runName = 'tune counter'")
    assert {"error_report.html", "figures.html"} <= {each.path for each in client.list_artifacts(search.info.run_id)}
    assert "CPF" in said.rsplit("== block", 1)[1]  # what `transcribe` wrote


def _record(folder: Path) -> None:
    """The reader's recordings: clips of the demo that say the tutorial's terms, and people's everyday speech."""
    said: Counter[str] = Counter()
    sentences = set()
    for row in _rows("train"):
        fits = row["speaker"] in SPEAKERS and TERMS & set(row["terms"]) and row["sentence"] not in sentences
        if fits and said[row["speaker"]] < CLIPS_A_SPEAKER:
            said[row["speaker"]] += 1
            sentences.add(row["sentence"])
            _put(row, folder / "recordings" / row["speaker"])
    for split, count in PEOPLE.items():
        # No actors: of their speech an adapter of a minute's training writes loops, which the tutorial's gates refuse.
        people = [row for row in _rows(split) if not row["speaker"].startswith(ACTORS)]
        for row in people[:: len(people) // count][:count]:
            _put(row, folder / "everyday")


def _rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / "manifests" / f"{split}.jsonl").open(encoding="utf-8")]


def _put(row: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = (DEMO / "manifests" / row["audio_filepath"]).resolve()
    (folder / source.name).write_bytes(source.read_bytes())
    (folder / source.name).with_suffix(".txt").write_text(row["text"], encoding="utf-8")
