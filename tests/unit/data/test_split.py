"""Splits share no recording, speaker or sentence, whatever the rows; what is dropped is told with its reason."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import DataConfig, load_project
from wertune.base.errors import ConfigError, ManifestError
from wertune.base.kept import Kept
from wertune.base.text import TermFinder, normaliser
from wertune.commands.data import split_
from wertune.data.manifest import Looked, row_faults
from wertune.data.rows import At, Row
from wertune.data.split import Division, describe, divide, parse_shares, split_manifest
from wertune.data.split_search import SPLITS
from wertune.training.prepare import unusable_rows

NORMALISE = normaliser("en")
TERMS = ("CPF", "MediShield Life")
FINDER = TermFinder(TERMS, NORMALISE)
SHARES = (0.8, 0.1, 0.1)
ROWS = st.lists(
    st.builds(
        lambda speaker, file, text: Row(speaker=speaker, audio_filepath=f"{file}.wav", text=text),
        st.sampled_from(["", "ann", "bob", "eve", "dan"]),
        st.integers(0, 9),
        st.sampled_from(
            ["My CPF, please.", "my cpf please", "MediShield Life", "Good morning", "Yes", "No", "...", ""]
        ),
    ),
    max_size=30,
)


def _divide(rows: list[Row], shares: tuple[float, ...] = SHARES, per_term: int = 2, seed: int = 0) -> Division:
    return divide(rows, shares, NORMALISE, FINDER, per_term, seed)


def _reason(division: Division, number: int) -> tuple[str, str]:
    """Where a dropped row's speaker or recording is, and where its sentence."""
    found = re.fullmatch(r"its (?:speaker|recording) is in (\w+), its sentence in (\w+)", division.dropped[number])
    assert found
    return found[1], found[2]


def _keys(row: Row, speakers_apart: bool = True) -> set[tuple[str, str]]:
    """What may not be in two splits, but for its sentence."""
    return {("file", row.audio_filepath)} | ({("speaker", row.speaker)} if row.speaker and speakers_apart else set())


def _linked(row: Row, rows: list[Row]) -> set[tuple[str, str]]:
    """All that must stay together with it: of its recordings, their speakers, the recordings of these, …"""
    found: set[tuple[str, str]] = set()
    more = _keys(row)
    while more - found:
        found |= more
        more = {key for other in rows if NORMALISE(other.text) and _keys(other) & found for key in _keys(other)}
    return found


def _numbers(division: Division) -> list[int]:
    return sorted([*(number for split in division.splits.values() for number in split), *division.dropped])


@given(ROWS, st.integers(0, 5))
def test_no_two_splits_share_a_speaker_a_sentence_or_a_recording(rows: list[Row], seed: int) -> None:
    division = _divide(rows, seed=seed)
    assert _numbers(division) == list(range(len(rows)))
    keys: tuple[Callable[[Row], str], ...] = (
        lambda row: row.speaker,
        lambda row: NORMALISE(row.text),
        lambda row: row.audio_filepath,
    )
    for key in keys:
        seen = [{key(rows[i]) for i in division.splits[split]} - {""} for split in SPLITS]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]


@given(ROWS, st.integers(0, 5))
def test_the_same_rows_and_seed_are_divided_alike(rows: list[Row], seed: int) -> None:
    assert _divide(rows, seed=seed) == _divide(rows, seed=seed)


@given(ROWS, st.integers(0, 5))
def test_a_row_is_dropped_only_where_keeping_it_would_leak(rows: list[Row], seed: int) -> None:
    division = _divide(rows, seed=seed)
    kept = {split: [rows[i] for i in numbers] for split, numbers in division.splits.items()}
    for number in division.dropped:
        if NORMALISE(rows[number].text):
            by_speaker, by_sentence = _reason(division, number)
            assert any(_linked(rows[number], rows) & _keys(row) for row in kept[by_speaker])
            assert NORMALISE(rows[number].text) in [NORMALISE(row.text) for row in kept[by_sentence]]


@pytest.mark.parametrize("clips", [(30, 14, 14), (40, 3, 2, 2), (9, 9, 9)])
def test_a_sentence_that_one_speaker_says_is_kept_with_its_speaker(clips: tuple[int, ...]) -> None:
    rows = [
        Row(speaker=f"s{s}", audio_filepath=f"{s}-{i}.wav", text=f"sentence {s} of {i} words")
        for s, count in enumerate(clips)
        for i in range(count)
    ]
    for seed in range(3):
        division = _divide(rows, seed=seed)
        assert not division.dropped
        assert sum(len(numbers) for numbers in division.splits.values()) == sum(clips)


@given(ROWS)
def test_a_row_is_dropped_for_the_reason_that_is_told(rows: list[Row]) -> None:
    division = _divide(rows)
    for number, reason in division.dropped.items():
        if reason == "text is empty after normalisation":
            assert not NORMALISE(rows[number].text)
        else:
            by_speaker, by_sentence = _reason(division, number)
            assert {by_speaker, by_sentence} <= set(SPLITS)
            assert by_speaker != by_sentence


def _read_by_own_speakers(speakers: int, each: int) -> list[Row]:
    return [
        Row(speaker=f"s{s}", audio_filepath=f"{s}-{i}.wav", text=f"sentence {s} of {i} words")
        for s in range(speakers)
        for i in range(each)
    ]


def test_where_speakers_share_no_sentence_nothing_is_dropped_and_the_shares_are_met() -> None:
    division = _divide(_read_by_own_speakers(20, 5))
    assert not division.dropped
    assert [len(division.splits[split]) for split in SPLITS] == [80, 10, 10]


def test_prompts_that_everyone_reads_are_divided_with_losses_near_the_shares() -> None:
    rows = [
        Row(speaker=f"s{s}", audio_filepath=f"{s}-{i}.wav", text=f"prompt number {i}")
        for s in range(12)
        for i in range(12)
    ]
    division = _divide(rows)
    kept = sum(len(split) for split in division.splits.values())
    assert kept + len(division.dropped) == 144
    # Of 12 x 12 no assignment keeps more than 10 x 10 + 1 + 1, and shares of 10 % cost half of the rows.
    assert kept >= 0.35 * 144
    assert all(
        abs(len(division.splits[split]) / kept - share) < 0.06 for split, share in zip(SPLITS, SHARES, strict=True)
    )


def test_a_term_is_in_train_and_in_test_where_it_can_be() -> None:
    rows = _read_by_own_speakers(30, 4)
    # Six speakers say it twice each: by shares alone, test is as good without them.
    for s in range(6):
        for i in range(2):
            rows[4 * s + i] = rows[4 * s + i].model_copy(update={"text": f"my CPF account {s} {i}"})
    for seed in range(5):
        division = _divide(rows, seed=seed)
        assert division.terms["train"]["CPF"] >= 2
        assert division.terms["test"]["CPF"] >= 2
        assert division.short_terms(2) == {}


def test_a_term_that_one_sentence_holds_is_told_as_short() -> None:
    rows = [*_read_by_own_speakers(10, 3), Row(speaker="s0", audio_filepath="x.wav", text="MediShield Life")]
    short = _divide(rows).short_terms(2)
    assert list(short) == ["MediShield Life"]
    assert sum(short["MediShield Life"].values()) <= 1


def _manifest(folder: Path, write_manifest: Callable[..., Path]) -> Path:
    rows: list[dict[str, Any]] = [
        {
            "audio_filepath": f"../audio/{s}.opus",
            "text": f"I am speaker {s}",
            "speaker": f"s{s}",
            "duration": 60,
            "x": s,
        }
        for s in range(10)
    ]
    return write_manifest(
        folder / "all" / "all.jsonl", [*rows, {"audio_filepath": "/a.wav", "text": "?", "speaker": "z"}]
    )


def test_written_rows_keep_their_values_and_find_their_audio(
    tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    manifest = _manifest(tmp_path, write_manifest)
    report = split_manifest(manifest, tmp_path / "deep" / "out", SHARES, NORMALISE, FINDER, 2, 0)
    rows = [
        json.loads(line)
        for split in SPLITS
        for line in (tmp_path / "deep" / "out" / f"{split}.jsonl").read_text().splitlines()
    ]
    assert sorted(row["x"] for row in rows) == list(range(10))
    assert {row["audio_filepath"] for row in rows} == {f"../../audio/{s}.opus" for s in range(10)}
    assert report["dropped"] == [{"line": 11, "reason": "text is empty after normalisation"}]
    assert json.loads((tmp_path / "deep" / "out" / "split.json").read_text()) == report
    assert report["splits"]["train"] == {
        "rows": 8, "share": 0.8, "asked": 0.8, "minutes": 8.0, "speakers": 8, "terms": 0,
    }  # fmt: skip
    assert "dropped 1 of 11 rows: text is empty after normalisation" in describe(report)
    with pytest.raises(ConfigError, match=r"train\.jsonl.*nothing is written over"):
        split_manifest(manifest, tmp_path / "deep" / "out", SHARES, NORMALISE, FINDER, 2, 0)


def test_what_cannot_be_divided_is_refused_and_nothing_is_written(
    tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    path = write_manifest(tmp_path / "one.jsonl", [{"audio_filepath": "a.wav", "text": "hello", "speaker": "ann"}])
    with pytest.raises(ManifestError, match="validation, test would be empty"):
        split_manifest(path, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0)
    bad = write_manifest(tmp_path / "bad.jsonl", ["[]", {"text": "hello"}, "nonsense"])
    with pytest.raises(ManifestError) as caught:
        split_manifest(bad, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()[:3]] == [f"{bad}:{n}" for n in (1, 2, 3)]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "80,10", "80,10,10,0", "80,10,0", "a,b,c", "nan,1,1", "inf,1,1", "-1,1,1"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="three numbers above 0"):
        parse_shares(text)


def test_shares_are_of_their_sum() -> None:
    assert parse_shares("8,1,1") == parse_shares("80, 10, 10") == (0.8, 0.1, 0.1)


def test_rows_that_validate_would_refuse_are_dropped_with_their_reasons(
    tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    manifest = _manifest(tmp_path, write_manifest)
    copy = f"the same audio as {manifest}:1; remove one of the two rows"
    looked = Looked({At(2): copy, At(5): "text has 450 tokens, but no more"}, {}, {})
    report = split_manifest(manifest, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0, looked)
    assert (report["rows"], report["kept"]) == (11, 8)
    assert [each["line"] for each in report["dropped"]] == [2, 5, 11]
    assert "dropped 1 of 11 rows: the same audio" in describe(report)


@pytest.mark.parametrize("named_s", [None, 1.05])
def test_the_minutes_of_a_split_are_those_that_were_heard(
    tmp_path: Path,
    write_manifest: Callable[..., Path],
    write_noise: Callable[..., Path],
    named_s: float | None,
) -> None:
    rows = []
    for s in range(4):
        write_noise(tmp_path / f"{s}.wav", 1.0 + 2 * s, seed=s)
        rows.append({"audio_filepath": f"{s}.wav", "text": f"I am speaker {s}", "speaker": f"s{s}"})
    if named_s:
        rows[0] |= {"duration": named_s}
    manifest = write_manifest(tmp_path / "all.jsonl", rows)
    data = DataConfig(train=Path("a"), validation=Path("b"), test=Path("c"))
    looked = row_faults(manifest, data, NORMALISE, len, tmp_path, Kept(None), lambda _: "")
    assert looked[:2] == ({}, {At(1): 1.0, At(2): 3.0, At(3): 5.0, At(4): 7.0})
    assert len(set(looked.origins.values())) == 4
    report = split_manifest(manifest, tmp_path / "out", (0.5, 0.25, 0.25), NORMALISE, FINDER, 2, 0, looked)
    assert sum(split["minutes"] for split in report["splits"].values()) == pytest.approx(16 / 60, abs=0.02)
    assert all(split["minutes"] > 0 for split in report["splits"].values())
    assert json.loads((tmp_path / "out" / "split.json").read_text()) == report


@pytest.mark.parametrize("languages", [("te", "ta"), ("te",)])
def test_rows_in_a_language_that_the_base_lacks_are_unusable(
    small_project: Path, write_noise: Callable[..., Path], languages: tuple[str, ...]
) -> None:
    rows = []
    for s, language in enumerate(("en", "", *languages)):
        write_noise(small_project / f"new{s}.wav", seed=50 + s)
        rows.append({"audio_filepath": f"new{s}.wav", "text": f"I am {s}", "speaker": f"s{s}", "language": language})
    manifest = small_project / "new.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    looked = unusable_rows(manifest, small_project, load_project(small_project))
    assert sorted(looked.faults) == [At(3), At(4)][: len(languages)]
    for line, language in enumerate(languages, start=3):
        assert looked.faults[At(line)].startswith(f"language is {language}, which ")
        assert looked.faults[At(line)].endswith(
            "does not know; take a base that does, such as packaged:whisper-base, or leave such rows out"
        )
    with pytest.raises(
        ManifestError, match=r"dropped 1 of \d rows: language is te, which .*\n(.*\n)*.* would be empty"
    ):
        split_manifest(manifest, small_project / "out", SHARES, NORMALISE, FINDER, 2, 0, looked)


def _calls(count: int, agent: str = "") -> list[dict[str, Any]]:
    """Recordings of three segments, the second an agent's."""
    return [
        {
            "audio_filepath": f"../audio/{c}.flac",
            "speaker": f"caller {c}",
            "duration": 60,
            "x": c,
            "segments": [
                {"text": f"This is number {c}.", "start_s": 1, "end_s": 3},
                {"text": f"Number {c} it is.", "start_s": 4, "end_s": 6.5, "speaker": agent or f"agent {c}"},
                {"text": f"Bye from {c}." if c else "...", "start_s": 7, "end_s": 9},
            ],
        }
        for c in range(count)
    ]


def _written(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {split: [json.loads(line) for line in (out / f"{split}.jsonl").read_text().splitlines()] for split in SPLITS}


def test_a_recording_is_in_one_split_with_all_of_its_segments(
    tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    calls = _calls(10)
    manifest = write_manifest(tmp_path / "all" / "all.jsonl", calls)
    report = split_manifest(manifest, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0)
    written = _written(tmp_path / "out")
    rows = {row["x"]: row for rows in written.values() for row in rows}
    assert sorted(row["x"] for rows in written.values() for row in rows) == list(range(10))
    assert rows[3] == calls[3] | {"audio_filepath": "../audio/3.flac"}
    assert [part["text"] for part in rows[0]["segments"]] == ["This is number 0.", "Number 0 it is."]
    assert report["dropped"] == [{"line": 1, "segment": 2, "reason": "text is empty after normalisation"}]
    assert (report["rows"], report["kept"]) == (30, 29)
    assert report["splits"]["test"] | {"share": 0} == {
        "rows": 3, "share": 0, "asked": 0.1, "minutes": 0.11, "speakers": 2, "terms": 0,
    }  # fmt: skip


def test_segments_that_validate_would_refuse_are_left_out_of_their_recording(
    tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    manifest = write_manifest(tmp_path / "all.jsonl", _calls(10))
    looked = Looked({At(2, 1): "end_s is 6.5, but the recording has 5 s", At(3): "cannot be decoded"}, {}, {})
    report = split_manifest(manifest, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0, looked)
    rows = {row["x"]: row for rows in _written(tmp_path / "out").values() for row in rows}
    assert [part["text"] for part in rows[1]["segments"]] == ["This is number 1.", "Bye from 1."]
    assert 2 not in rows
    assert [(each["line"], each.get("segment")) for each in report["dropped"]] == [(1, 2), (2, 1), (3, None)]


def test_a_speaker_of_all_recordings_keeps_them_together_unless_speakers_may_be_shared(
    tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    manifest = write_manifest(tmp_path / "all.jsonl", _calls(10, agent="agent"))
    with pytest.raises(ManifestError, match=r"where speakers may be in several, set data\.disjoint_speakers: false"):
        split_manifest(manifest, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0)
    split_manifest(manifest, tmp_path / "out", SHARES, NORMALISE, FINDER, 2, 0, speakers_apart=False)
    written = _written(tmp_path / "out")
    assert sorted(row["x"] for rows in written.values() for row in rows) == list(range(10))
    assert all(len(row["segments"]) == 3 - (row["x"] == 0) for rows in written.values() for row in rows)


@given(ROWS, st.integers(0, 5))
def test_where_speakers_may_be_shared_recordings_are_still_kept_apart(rows: list[Row], seed: int) -> None:
    division = divide(rows, SHARES, NORMALISE, FINDER, 2, seed, speakers_apart=False)
    files = [{rows[i].audio_filepath for i in division.splits[split]} for split in SPLITS]
    assert sum(map(len, files)) == len(set().union(*files))


def test_the_same_recording_is_known_by_its_digest_and_by_its_name(
    small_project: Path, write_noise: Callable[..., Path]
) -> None:
    rows = []
    for n in range(4):
        write_noise(small_project / f"call{n}.flac", 4.0, seed=60 + n)
        (small_project / f"copy{n}.flac").write_bytes((small_project / f"call{n}.flac").read_bytes())
        for name, start in ((f"call{n}.flac", 0), (f"copy{n}.flac", 2)):
            part = {"text": f"part {start} of {n}", "start_s": start, "end_s": start + 1}
            rows.append({"audio_filepath": name, "segments": [part, part | {"start_s": start + 1, "end_s": 9}]})
    for n in range(2):  # clips of one recording
        write_noise(small_project / f"clip{n}.flac", seed=70 + n)
        rows.append({"audio_filepath": f"clip{n}.flac", "text": f"clip {n}", "recording": "monday"})
    manifest = small_project / "new.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    looked = unusable_rows(manifest, small_project, load_project(small_project))
    assert sorted(looked.faults) == [At(line, 1) for line in range(1, 9)]
    report = split_manifest(manifest, small_project / "out", (0.5, 0.25, 0.25), NORMALISE, FINDER, 2, 0, looked)
    assert report["kept"] == 10
    in_split = [
        {row.get("recording") or row["audio_filepath"].replace("copy", "call") for row in rows}
        for rows in _written(small_project / "out").values()
    ]
    assert sum(map(len, in_split)) == 5


def test_a_project_whose_speakers_may_be_shared_is_divided_by_its_recordings(
    small_project: Path, write_noise: Callable[..., Path]
) -> None:
    rows = []
    for n in range(5):
        write_noise(small_project / f"call{n}.flac", 2.0, seed=80 + n)
        parts = [{"text": f"part {part} of {n}", "start_s": part, "end_s": part + 1} for part in range(2)]
        rows.append({"audio_filepath": f"call{n}.flac", "speaker": "ann", "segments": parts})
    manifest = small_project / "all.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [str(manifest), "--project", str(small_project), "--out", str(small_project / "out"), "--shares", "3,1,1"]
    refused = CliRunner().invoke(split_, given)
    assert "validation, test would be empty" in str(refused.exception)
    project = small_project / "project.yaml"
    project.write_text(project.read_text().replace("data:\n", "data:\n  disjoint_speakers: false\n"))
    assert CliRunner().invoke(split_, given, catch_exceptions=False).exit_code == 0
    assert [len(rows) for rows in _written(small_project / "out").values()] == [3, 1, 1]
