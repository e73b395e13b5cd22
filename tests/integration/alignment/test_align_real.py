"""`wertune align` with the real tiny.en, on two minutes joined from the demo's clips."""

import json
from collections.abc import Callable

import pytest
from tests.support.joined import changed, join
from tests.support.workspace import Workspace

from wertune.base.config import load_project
from wertune.training.prepare import unusable_rows

WITHIN_S = 0.2


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable[..., Workspace]) -> Workspace:
    return make_workspace("align")


def test_a_transcript_that_is_not_quite_what_is_said_becomes_a_manifest(workspace: Workspace) -> None:
    said = {each.text: each for each in join(["train"], 2.0, 5, workspace.project / "call.wav")}
    transcript = changed(list(said.values()), 0.1, 0.1, 5)
    (workspace.project / "call.txt").write_text("\n".join(transcript), encoding="utf-8")
    done = workspace.run(
        "align", "project/call.wav", "project/call.txt", "--project", "project",
        "--out", "project/manifests/call.jsonl", "--json",
    )  # fmt: skip
    told = json.loads(done.stdout)
    manifest = workspace.project / "manifests" / "call.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == [each["text"] for each in told["kept"]]
    strange = [text for text in transcript if text not in said]
    assert strange
    assert not {row["text"] for row in rows} & set(strange)
    assert len(rows) >= 0.8 * (len(transcript) - len(strange))
    assert {row["audio_filepath"] for row in rows} == {"../call.wav"}
    errors_s = [_error_s(row, said[row["text"]].start_s, said[row["text"]].end_s) for row in rows]
    assert sum(error <= WITHIN_S for error in errors_s) >= 0.9 * len(errors_s)
    # What was written is what `split` and `validate` read.
    assert unusable_rows(manifest, workspace.project, load_project(workspace.project)).faults == {}


def _error_s(row: dict[str, float], start_s: float, end_s: float) -> float:
    return max(abs(row["offset"] - start_s), abs(row["offset"] + row["duration"] - end_s))


def test_the_transcript_of_another_recording_is_told(workspace: Workspace) -> None:
    join(["train"], 0.3, 6, workspace.project / "short.wav")
    other = "Grüß Gott, heute fällt der Unterricht aus.\nÜbermorgen fährt kein Zug nach Würzburg.\n"
    (workspace.project / "other.txt").write_text(other, encoding="utf-8")
    done = workspace.run("align", "project/short.wav", "project/other.txt", "--project", "project", check=False)
    assert done.returncode == 1
    assert "it is the transcript of another recording" in done.stderr
    assert not (workspace.project / "short.jsonl").exists()
