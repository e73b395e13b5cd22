"""What is said of an export: by which library it was read, and by which it was not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wertune.base.errors import ExportError, TrackingError
from wertune.base.text import TermFinder, normaliser
from wertune.data.long_form import joined_recordings
from wertune.data.manifest import Recording
from wertune.scores.eval_report import ExportedLong
from wertune.scores.metrics import score
from wertune.serving import export as export_module
from wertune.serving import export_long
from wertune.serving.export import _judged, _keep
from wertune.serving.export_long import Tried, try_long, ways_of
from wertune.tracking.versions import RegisteredVersion
from wertune.whisper.transcription import clips_of

RATES = {"exported": 0.1, "version_same_decoding": 0.1, "version_as_served": 0.08}


def _record(form: str, **libraries: str) -> dict[str, Any]:
    shared = {"model": "demo 1", "clips": 4, "wer": RATES, "difference": 0.0, "limit": 0.03, "passed": True}
    return shared | {"format": form, "libraries": libraries}


@pytest.mark.parametrize(
    ("record", "library", "is_missing"),
    [
        (_record("ctranslate2", **{"faster-whisper": "1.2.0", "ctranslate2": "4.6"}), "faster-whisper 1.2.0", False),
        (_record("ctranslate2", ctranslate2="4.6", transformers="5.0"), "ctranslate2 4.6", True),
        (_record("peft", peft="0.18", transformers="5.0"), "peft 0.18", False),
    ],
)
def test_the_library_that_read_the_folder_is_named(record: dict[str, Any], library: str, is_missing: bool) -> None:
    text = _judged(Path("out"), record).text
    assert f"10.00% in {library}, " in text
    assert ("faster-whisper is not installed, so that CTranslate2 alone has read the folder" in text) == is_missing


ENGLISH = normaliser("en")
FOUND = ExportedLong(library="x 1", recordings=1, words=10, errors=1, deletions=0, skipped_words=0)


def test_each_form_is_read_in_the_ways_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "whole models" in str(ways_of("peft", "en", ["<|startoftranscript|>", "<|notimestamps|>"]))
    for form, language, prompt, parts in (
        ("ctranslate2", "te", ["1", "2", "3"], ('language="te")', 'language="te", without_timestamps=True)')),
        ("merged", "en", ["1", "2"], ("chunk_length_s=30)", "return_timestamps=True)")),
        ("merged", "te", ["1", "2", "3"], ('{"language": "te", "task": "transcribe"})',) * 2),
    ):
        ways = ways_of(form, language, prompt)  # type: ignore[arg-type]
        assert not isinstance(ways, str)
        assert all(part in way.code for way, part in zip(ways, parts, strict=True))
        for way in ways:
            compile(way.code, way.name, "exec")
    monkeypatch.setattr(export_long, "find_spec", lambda name: None)
    assert "pip install faster-whisper" in str(ways_of("ctranslate2", "en", ["1", "2"]))


def _tried(
    make_recordings: Callable[..., list[Recording]], monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> Tried:
    clips = make_recordings(["one of us", "two of them"], seconds=0.5)
    finder = TermFinder((), ENGLISH)
    prepared: Any = SimpleNamespace(
        normalise=ENGLISH, finder=finder, score=lambda c, texts: score(clips_of(c), texts, ENGLISH, finder)
    )
    monkeypatch.setattr(export_long, "_as_served", lambda *_: FOUND)
    ways = ways_of("merged", "en", ["1", "2"])
    assert not isinstance(ways, str)
    return try_long(prepared, SimpleNamespace(), ways, joined_recordings(clips), run)  # type: ignore[arg-type]


def test_a_long_recording_and_its_clips_are_counted_in_each_way(
    make_recordings: Callable[..., list[Recording]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(asked: Sequence[tuple[str, Sequence[Any]]]) -> list[list[str]]:
        (_, with_clips), (_, long) = asked
        said = [clip.text for clip in with_clips[1:]]
        assert list(long) == list(with_clips[:1])
        return [[said[0], *said], [" ".join(said)]]

    tried = _tried(make_recordings, monkeypatch, run)
    chunked, in_turn = tried.ways["transformers-chunked"], tried.ways["transformers-sequential"]
    assert (chunked.words, chunked.errors, chunked.deletions, chunked.skipped_words, chunked.clips_errors) == (
        6,
        3,
        3,
        3,
        0,
    )
    assert (in_turn.errors, in_turn.clips_errors) == (0, None)
    assert [row["how"] for row in tried.record()["rows"]] == [
        "transformers' pipeline, chunk_length_s=30",
        "transformers' pipeline, sequential",
        "the registered version as it serves",
    ]
    assert "WER 50.00% (the same clips alone 0.00%), 3 of 6 words left out" in tried.lines[1]


def test_what_fails_in_a_plain_library_is_told_and_stops_nothing(
    make_recordings: Callable[..., list[Recording]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> list[list[str]]:
        raise ExportError("the code of the card failed (no pipeline)")

    tried = _tried(make_recordings, monkeypatch, run)
    assert tried.record() == {"not_tried": "the code of the card failed (no pipeline)", "rows": []}
    assert tried.lines == ["long recordings were not tried: the code of the card failed (no pipeline)"]


def test_a_registry_that_takes_no_tag_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    version = RegisteredVersion("sg_gov", "1", {}, {}, {}, {}, ())
    monkeypatch.setattr(export_module, "tag_version", lambda *_: None)
    assert _keep(version, {"x": FOUND}) == ""

    def refuse(*_: Any) -> None:
        raise TrackingError("PERMISSION_DENIED")

    monkeypatch.setattr(export_module, "tag_version", refuse)
    assert "could not be kept with the version (PERMISSION_DENIED)" in _keep(version, {"x": FOUND})
