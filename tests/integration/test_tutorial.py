"""The tutorial's shell blocks, run in their order in an empty folder as a reader would."""

from pathlib import Path

from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.reader import put_clip, put_everyday, said_by_speaker, typed
from tests.support.shown_commands import blocks_as_shown

AS_SHOWN = ("docs/tutorial.md", "")
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
    for speaker, rows in said_by_speaker(CLIPS_A_SPEAKER).items():
        for row in rows:
            put_clip(row, folder / "recordings" / speaker)
    put_everyday(folder / "everyday", PEOPLE)
