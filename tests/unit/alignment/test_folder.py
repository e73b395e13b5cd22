"""A folder of recordings: what is paired, what is told before anything is heard, and a manifest that grows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from wertune.__main__ import cli
from wertune.alignment import folder as folders
from wertune.alignment.align import Aligned, Segment
from wertune.alignment.folder import align_folder, pairs_in
from wertune.base.config import load_project
from wertune.base.errors import ManifestError

SENTENCES = {"calls/ann/monday": "Hello.", "calls/ben/monday": "Good bye.", "calls/hearing": "Who is there?"}


@pytest.fixture
def calls(small_project: Path) -> Path:
    """Two recordings of named speakers, and one of nobody's."""
    for name, sentence in SENTENCES.items():
        path = small_project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path.with_suffix(".wav"), np.zeros(16000), 16000)
        path.with_suffix(".txt").write_text(sentence, encoding="utf-8")
    return small_project / "calls"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The recordings that were heard since, in order; each is a second of its first sentence."""
    names = list[str]()

    def aligner(recording: Path, sentences: Sequence[str]) -> Aligned:
        names.append(f"{recording.parent.name}/{recording.name}")
        if sentences[0] == "Nonsense.":
            raise ManifestError(f"{recording}: it is the transcript of another recording")
        return Aligned((Segment(sentences[0], 0.25, 0.75, 0.9),), (), 1.0)

    monkeypatch.setattr(folders, "load_aligner", lambda *_: aligner)
    return names


def _align(project: Path, say: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    given = load_project(project), project / "calls", project / "manifests" / "calls.jsonl", 0.25, ""
    out = align_folder(*given, say, lambda *_: None)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_folder_is_its_speaker_s_and_each_recording_has_rows(
    calls: Path, heard: list[str], small_project: Path
) -> None:
    rows = _align(small_project)
    said = {row["audio_filepath"]: (row["text"], row.get("speaker")) for row in rows}
    assert said == {
        "../calls/ann/monday.wav": ("Hello.", "ann"),
        "../calls/ben/monday.wav": ("Good bye.", "ben"),
        "../calls/hearing.wav": ("Who is there?", None),
    }
    assert [(row["offset"], row["duration"]) for row in rows] == [(0.25, 0.5)] * 3


def test_what_the_manifest_has_is_left_as_it_is(calls: Path, heard: list[str], small_project: Path) -> None:
    rows = _align(small_project)
    manifest, said = small_project / "manifests" / "calls.jsonl", list[str]()
    mended = rows[0] | {"text": "Hello there."}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in (mended, rows[2])), encoding="utf-8")
    heard.clear()
    assert _align(small_project, said.append) == [mended, rows[2], rows[1]]
    assert heard == ["ben/monday.wav"]
    assert "has 2 of 3 recordings already" in said[0]
    heard.clear()
    _align(small_project)
    assert heard == []


def test_what_others_write_meanwhile_stays(
    calls: Path, heard: list[str], small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who mends the manifest while an hour is heard, or a second process of the same command."""
    manifest, theirs = small_project / "manifests" / "calls.jsonl", list[dict[str, Any]]()
    aligner = folders.load_aligner(load_project(small_project), "", lambda _: None)

    def slow(recording: Path, sentences: Sequence[str]) -> Aligned:
        if recording.parent.name == "ben":
            rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
            other = {"audio_filepath": "../calls/hearing.wav", "text": "Who?"}
            theirs.extend([rows[0] | {"text": "Hello, Ann."}, other])
            manifest.write_text("".join(json.dumps(row) + "\n" for row in theirs), encoding="utf-8")
        return aligner(recording, sentences)

    monkeypatch.setattr(folders, "load_aligner", lambda *_: slow)
    said = list[str]()
    rows = _align(small_project, said.append)
    assert rows[:2] == theirs
    assert [row["text"] for row in rows[2:]] == ["Good bye."]
    assert [line for line in said if "hearing.wav: " in line and "stay as they are" in line]


def test_the_manifest_of_this_folder_lies_beside_it(
    calls: Path, heard: list[str], small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(calls / "ann")
    for here, beside in (("..", "calls.jsonl"), (".", "calls/ann.jsonl")):
        found = align_folder(load_project(small_project), Path(here), None, 0.25, "", print, lambda *_: None)
        assert found == small_project.resolve() / beside


def test_a_transcript_of_another_recording_costs_its_own_rows_alone(
    calls: Path, heard: list[str], small_project: Path
) -> None:
    (calls / "ann" / "monday.txt").write_text("Nonsense.", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"(?s)another recording\n1 of 3 recordings; what was found of the others"):
        _align(small_project)
    assert len(heard) == 3
    (calls / "ann" / "monday.txt").write_text("Hello.", encoding="utf-8")
    assert [row["text"] for row in _align(small_project)] == ["Good bye.", "Who is there?", "Hello."]


def test_all_faults_of_a_folder_are_told_before_anything_is_heard(
    calls: Path, heard: list[str], small_project: Path
) -> None:
    (calls / "ann" / "monday.txt").unlink()
    (calls / "ben" / "monday.wav").write_bytes(b"RIFF")
    (calls / "hearing.txt").write_text(" -- ", encoding="utf-8")
    (calls / "lonely.txt").write_text("Nobody.", encoding="utf-8")
    with pytest.raises(ManifestError) as told:
        _align(small_project)
    lines = str(told.value).splitlines()
    wanted = ("has no transcript monday.txt", "cannot be decoded", "holds no words", "has no recording of its name")
    assert all(any(each in line for line in lines) for each in wanted)
    assert "4 of" in lines[-1]
    assert heard == []


def test_a_transcript_keeps_its_lines(calls: Path) -> None:
    (calls / "hearing.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert [pair.sentences for pair in pairs_in(calls) if not pair.speaker] == [("one", "two")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["calls", "calls/hearing.txt"], "TRANSCRIPT is"),
        (["calls", "--speaker", "ann"], "--speaker is ann"),
        (["calls/hearing.wav"], "is given alone"),
    ],
)
def test_a_recording_needs_a_transcript_and_a_folder_takes_none(
    calls: Path, small_project: Path, words: list[str], said: str
) -> None:
    given = [str(small_project / each) if "calls" in each else each for each in words]
    done = CliRunner().invoke(cli, ["align", *given, "--project", str(small_project)])
    assert done.exit_code == 1
    assert said in f"{done.output}{done.exception}"


def test_a_recording_outside_of_the_project_is_told(
    calls: Path, heard: list[str], small_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "outside"
    calls.rename(outside)
    done = CliRunner().invoke(cli, ["align", str(outside), "--project", str(small_project), "--json"])
    assert done.exit_code == 0, done.output
    assert "lies outside of" in done.stderr
    told = json.loads(done.stdout)
    assert [each["kept"][0]["text"] for each in told["recordings"]] == ["Hello.", "Good bye.", "Who is there?"]
    assert Path(told["manifest"]) == outside.with_name("outside.jsonl")
