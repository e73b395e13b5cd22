"""The command's own: what is refused before anything is heard, and what stands in the manifest."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wertune.alignment import segments
from wertune.alignment.align import Aligned, Segment
from wertune.alignment.segments import Written, align_files
from wertune.base.config import load_project
from wertune.base.errors import AudioError, BaseModelError, ConfigError, WertuneError

FOUND = Aligned((Segment("Hello.", 0.5, 1.25, 0.9), Segment("Bye.", 2.0, 2.5, 0.1)), ("Never.",), 3.0)


@pytest.fixture
def aligned(small_project: Path) -> Callable[..., Written]:
    """`aligned(recording=…, …)`: what becomes of a recording and a transcript of the small project."""
    soundfile.write(small_project / "a.wav", np.zeros(48000), 16000)
    (small_project / "a.txt").write_text("Hello.\nNever.\nBye.\n", encoding="utf-8")

    def run(recording: str = "a.wav", transcript: str = "a.txt", out: str = "", ctc: str = "") -> Written:
        config, folder = load_project(small_project), small_project
        out_path = folder / out if out else None
        return align_files(config, folder / recording, folder / transcript, out_path, 0.25, ctc, lambda _: None)

    return run


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ({"recording": "none.wav"}, AudioError, "none.wav does not exist"),
        ({"recording": "a.txt"}, AudioError, "cannot be decoded"),
        ({"transcript": "none.txt"}, ConfigError, "must be a text file"),
        ({"out": "project.yaml"}, ConfigError, "nothing is written over"),
        ({"ctc": "none"}, BaseModelError, "--ctc is none"),
        ({}, BaseModelError, "alignment_heads is"),
    ],
)
def test_a_mistake_is_told_before_anything_is_heard(
    aligned: Callable[..., Written], small_project: Path, values: dict[str, str], kind: type[WertuneError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        aligned(**values)
    assert not (small_project / "a.jsonl").exists()


def test_what_is_sure_is_written_and_the_rest_is_told(
    aligned: Callable[..., Written], small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "align", lambda *_: FOUND)
    monkeypatch.setattr(segments.Listener, "heads", ((0, 0),))
    done = aligned(out="manifests/a.jsonl")
    (row,) = map(json.loads, (small_project / "manifests" / "a.jsonl").read_text(encoding="utf-8").splitlines())
    assert row == {"audio_filepath": "../a.wav", "offset": 0.5, "duration": 0.75, "text": "Hello.", "score": 0.9}
    assert [each.text for each in done.doubtful] == ["Bye."]
    assert done.to_json()["absent"] == ["Never."]
