"""What a run says of its data is what a version of it is later held to."""

import json
from pathlib import Path

from mlflow.tracking import MlflowClient

from wertune.base.config import load_project
from wertune.base.contract import TRAINING_ROWS
from wertune.jobs.measures import leakage
from wertune.jobs.opening import log_inputs
from wertune.tracking.opening import open_run
from wertune.tracking.versions import registered_version
from wertune.training.prepare import prepare


def test_a_version_knows_which_recordings_it_was_trained_on(small_project: Path, mlflow_store: str) -> None:
    train = small_project / "train.jsonl"
    lines = train.read_text().splitlines()
    segments = [{"text": f"number {n}", "start_s": n / 4, "end_s": n / 4 + 0.2} for n in range(2)]
    row = {key: value for key, value in json.loads(lines[0]).items() if key != "text"}
    train.write_text("\n".join([json.dumps(row | {"segments": segments}), *lines[1:]]))
    prepared = prepare(small_project, load_project(small_project))
    with open_run("small", "a run") as run:
        log_inputs(run, prepared)
    client = MlflowClient(mlflow_store)
    client.create_registered_model("small")
    client.create_model_version("small", f"runs:/{run.run_id}/model", run.run_id)
    found = registered_version(mlflow_store, "models:/small/1")
    assert [tuple(row) for row in found.training_rows] == [
        (clip.digest, clip.text, clip.origin) for clip in prepared.dataset["train"]
    ]
    assert len({row.recording for row in found.training_rows}) == 6 == len(found.training_rows) - 1
    inputs = {
        each.dataset.name: json.loads(each.dataset.source) for each in client.get_run(run.run_id).inputs.dataset_inputs
    }
    assert inputs["small/train"] == {"uri": str(train)}
    assert leakage(prepared, found.training_rows) == ()
    assert len(leakage(prepared, found.training_rows, "train")) == 7
    run.text(json.dumps([["digest", "a text"]]), TRAINING_ROWS)  # as versions of before have it
    assert registered_version(mlflow_store, "models:/small/1").training_rows == (("digest", "a text", ""),)
