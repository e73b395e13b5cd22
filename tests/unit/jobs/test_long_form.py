"""The long part of an evaluation: which recordings, the same clips alone beside them, and the base that is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

import wertune.jobs.long_form
from wertune.base.config import ContextConfig, DecodeConfig, ServingConfig, load_project
from wertune.base.errors import TrackingError
from wertune.base.text import TermFinder, normaliser
from wertune.data.manifest import Dataset, Recording
from wertune.jobs.evaluate import _exports
from wertune.jobs.long_form import Long, LongSet, base_segments, compare_long, long_sets, skipped_share
from wertune.scores.comparison import Comparison
from wertune.scores.eval_report import ExportedLong
from wertune.serving.listener import Voice
from wertune.tracking.versions import RegisteredVersion
from wertune.training.prepare import Prepared, prepare
from wertune.whisper.features import here
from wertune.whisper.transcription import Segment, clips_of

ENGLISH = normaliser("en")
TEXTS = ["one of us", "two of them", "three for tea", "four more hours"]


@pytest.fixture
def prepared(make_recordings: Callable[..., list[Recording]]) -> Any:
    from wertune.scores.metrics import score

    finder = TermFinder((), ENGLISH)
    recordings = make_recordings(TEXTS, seconds=1.0)
    return SimpleNamespace(
        dataset=Dataset({"test": tuple(recordings)}),
        normalise=ENGLISH,
        finder=finder,
        score=lambda clips, texts: score(clips_of(clips), texts, ENGLISH, finder),
    )


class _Told(Voice):
    """Writes what it is told, whatever it hears."""

    segments: ClassVar[list[Segment]] = []

    def write(self, clips: Any, longest_s: float | None = None, language: str = "") -> list[list[Segment]]:
        return [self.segments for _ in clips]


def _compared(prepared: Any, monkeypatch: pytest.MonkeyPatch, segments: list[Segment]) -> Long:
    (long,) = long_sets(prepared)
    said = long.recordings[0].said
    base = [Segment(each.start_s + 0.2, each.end_s, each.clip.text, 0.0) for each in said]
    monkeypatch.setattr(wertune.jobs.long_form, "base_segments", lambda *_: [base])
    clips = prepared.dataset["test"]
    single = Comparison(prepared.score(clips, TEXTS), prepared.score(clips, [*TEXTS[:3], "four hours"]))
    voice: Any = _Told("", "", None, ContextConfig(), DecodeConfig(), ServingConfig())  # type: ignore[arg-type]
    monkeypatch.setattr(_Told, "segments", segments)
    return compare_long(prepared, voice, here, long, single)


def test_without_clips_there_is_no_long_set(prepared: Any) -> None:
    assert [each.name for each in long_sets(prepared)] == ["joined"]
    prepared.dataset = Dataset({"test": prepared.dataset["test"][:1]})
    assert long_sets(prepared) == []


def test_clips_in_place_stand_beside_the_same_alone(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (long,) = long_sets(prepared)
    said = long.recordings[0].said
    # The third of those joined is left out, and nothing else wrong; times are a tenth late.
    segments = [Segment(s.start_s + 0.1, s.end_s + 0.1, s.clip.text, 0.0) for s in (said[0], said[1], said[3])]
    found = _compared(prepared, monkeypatch, segments)
    assert [u.reference for u in found.both.after.utterances] == [s.clip.text for s in said]
    assert [u.skipped_words for u in found.both.after.utterances] == [0, 0, 3, 0]
    assert found.both.after.words.errors == 3
    assert found.single.after.words.errors == 1
    assert [u.id for u in found.single.after.utterances] == [u.id for u in found.both.after.utterances]
    metrics = found.metrics()
    assert metrics["joined_skipped_share"] == pytest.approx(3 / 12)
    assert metrics["joined_border_median_s"] == pytest.approx(0.1, abs=1e-3)
    assert metrics["baseline_joined_border_p95_s"] == pytest.approx(0.2, abs=1e-3)
    assert metrics["baseline_joined_clips_wer"] == metrics["joined_clips_skipped_share"] == 0
    assert "3 of 12 words left out" in found.text
    after, before = found.reports(SimpleNamespace(lexicon=SimpleNamespace(written=()), **vars(prepared)))  # type: ignore[arg-type]
    assert set(after) == set(before) == {"joined", "joined_clips"}
    assert {each.digest for each in (*after.values(), *before.values())} == {long.digest}
    assert after["joined"].utterances[2].skipped_words == 3
    assert after["joined"].utterances[0].border_errors_s == pytest.approx((0.1, 0.1), abs=1e-3)


def test_pieces_that_a_recording_was_cut_into_are_no_times(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (long,) = long_sets(prepared)
    whole = " ".join(each.clip.text for each in long.recordings[0].said)
    lasts_s = long.recordings[0].duration_s
    cut = _compared(prepared, monkeypatch, [Segment(0.0, 2.5, whole, 0.0), Segment(2.5, lasts_s, "", 0.0)])
    assert cut.both.after.wer == 0
    assert "joined_border_median_s" not in cut.metrics()
    assert "no times" in cut.text
    timed = _compared(prepared, monkeypatch, [Segment(0.0, lasts_s - 0.5, whole, 0.0)])
    assert "joined_border_median_s" in timed.metrics()


def _small(folder: Path) -> Prepared:
    """As the fixture has it, with a test set of three clips."""
    values = yaml.safe_load((folder / "project.yaml").read_text())
    values["data"] |= {"test": "train.jsonl", "train": "test.jsonl"}
    (folder / "project.yaml").write_text(yaml.safe_dump(values))
    return prepare(folder, load_project(folder))


def test_the_base_s_windows_are_kept_and_not_written_again(
    small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = _small(small_project)
    (long,) = long_sets(prepared)
    asked = []
    spoken = [Segment(0.0, 1.5, "One, two.", 0.0), Segment(1.52, 2.0, "Three: <b>", 0.0)]

    def windows(whisper: Any, clips: list[Any], *_: Any, language: str) -> list[Any]:
        asked.append(len(clips))
        return [SimpleNamespace(segments=spoken) for _ in clips]

    monkeypatch.setattr(wertune.jobs.long_form, "transcribe_windows", windows)
    first = base_segments(prepared, long.recordings)
    assert first == base_segments(prepared, long.recordings) == [spoken]
    assert asked == [1]
    base_segments(prepared, LongSet("joined", "test", long.recordings[:1] * 2).recordings)
    assert asked == [1, 2]


def test_the_base_writes_windows_with_times(small_project: Path) -> None:
    prepared = _small(small_project)
    (long,) = long_sets(prepared)
    (written,) = base_segments(prepared, long.recordings)
    assert all(0 <= each.start_s <= each.end_s <= long.recordings[0].duration_s + 0.1 for each in written)


def _version(**tags: str) -> RegisteredVersion:
    return RegisteredVersion("sg_gov", "1", {}, {}, {}, {}, (), {f"wertune.export.{k}": v for k, v in tags.items()})


def test_a_report_holds_what_exports_were_measured_to_be() -> None:
    found = ExportedLong(library="x 1", recordings=1, words=10, errors=1, deletions=0, skipped_words=0)
    assert _exports(_version(x=found.model_dump_json())) == {"x": found}
    assert _exports(_version()) == {}
    with pytest.raises(TrackingError, match=r"tag wertune.export.x of sg_gov version 1 is .*words.*export again"):
        _exports(_version(x=json.dumps(found.model_dump() | {"words": 0})))


def test_of_nothing_nothing_is_skipped(prepared: Any) -> None:
    assert skipped_share(prepared.score([], [])) == 0
