"""Every fault that a manifest can hold is told by file and line, all of them at once."""

import json
import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wertune.base.config import DataConfig
from wertune.base.errors import ManifestError
from wertune.base.text import normaliser
from wertune.data.audio import SAMPLE_RATE_HZ, load_audio
from wertune.data.manifest import Dataset, load_dataset, manifests_of
from wertune.data.rows import Row
from wertune.whisper.transcription import clips_of

WriteNoise = Callable[..., Path]
WriteManifest = Callable[..., Path]
Rows = list[dict[str, Any] | str]

NORMALISE = normaliser("en")
SPLITS = ("train", "replay", "validation", "retention_validation", "test", "retention_test")
NEARNESS = {"replay": 0, "train": 0, "retention_validation": 1, "validation": 1, "retention_test": 2, "test": 2}
GOOD = {"audio_filepath": "good.wav", "text": "please check the form", "speaker": "ann"}


def _count_words(text: str) -> int:
    return len(text.split())


def _config(**values: Any) -> DataConfig:
    return DataConfig(train=Path("train.jsonl"), validation=Path("v.jsonl"), test=Path("t.jsonl"), **values)


def _load(manifests: dict[str, Path], **values: Any) -> Dataset:
    project_dir = values.pop("project_dir", None)
    return load_dataset(manifests, _config(**values), NORMALISE, _count_words, project_dir)


def _faults(manifests: dict[str, Path], **values: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _load(manifests, **values)
    *faults, last = str(caught.value).splitlines()
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    assert last == f"{count}; mend the rows, or set data.on_bad_row: skip to go on without them"
    return faults


@pytest.fixture
def folder(tmp_path: Path, write_noise: WriteNoise) -> Path:
    """Good and bad recordings, and a text file called bad.wav."""
    write_noise(tmp_path / "good.wav", seed=1)
    write_noise(tmp_path / "other.wav", seed=2)
    write_noise(tmp_path / "third.wav", seed=3)
    write_noise(tmp_path / "short.wav", seconds=0.19)
    write_noise(tmp_path / "long.wav", seconds=30.1)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE_HZ)
    broken = np.full(SAMPLE_RATE_HZ, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", broken, SAMPLE_RATE_HZ, subtype="FLOAT")
    (tmp_path / "bad.wav").write_text("this is no sound")
    (tmp_path / "folder.wav").mkdir()
    return tmp_path


ROW_FAULTS = {
    "audio that is missing": ({"audio_filepath": "gone.wav"}, "audio_filepath is gone.wav, but there is no such file"),
    "audio that is a folder": ({"audio_filepath": "folder.wav"}, "audio_filepath is folder.wav, but there is no such"),
    "a name too long for a file": (
        {"audio_filepath": 5000 * "a"},
        "aaa…, but no file's name can be as long as its 5000 bytes; give",
    ),
    "audio that is empty": ({"audio_filepath": "empty.wav"}, "empty.wav holds no samples from 0 s on"),
    "audio that is unreadable": ({"audio_filepath": "bad.wav"}, "bad.wav cannot be decoded"),
    "audio with NaN": ({"audio_filepath": "nan.wav"}, "nan.wav holds NaN or infinite samples"),
    "audio that is too short": ({"audio_filepath": "short.wav"}, "duration is 0.19 s, but must be >= 0.2; remove"),
    "audio that is too long": ({"audio_filepath": "long.wav"}, "duration is 30.10 s, but must be <= 30; split"),
    "a segment behind the end": ({"offset": 2}, "good.wav holds no samples from 2 s on"),
    "a segment that is too short": ({"offset": 0.9}, "duration is 0.10 s, but must be >= 0.2; remove the row"),
    "a duration beyond the end": ({"duration": 1.2}, "duration is 1.2 s, but the audio ends after 1.00 s"),
    "a duration of nothing": ({"duration": 0}, "duration is 0, but must be above 0"),
    "a duration without end": ({"duration": float("inf")}, "duration is inf, but must be at most"),
    "a duration that is no number": ({"duration": "long"}, "duration is 'long', but must be a number"),
    "an offset before the start": ({"offset": -1}, "offset is -1, but must be at least 0"),
    "an offset without end": ({"offset": float("inf")}, "offset is inf, but must be at most"),
    "an empty text": ({"text": ""}, "text is empty; transcribe the clip or remove the row"),
    "a blank text": ({"text": " \t\n"}, "text is empty; transcribe the clip or remove the row"),
    "a text of punctuation": (
        {"text": " ... ?!"},
        "text is empty after normalisation (' ... ?!'); transcribe the clip",
    ),
    "a text that is a number": ({"text": 5}, "text is 5, but must be a text"),
    "a label over 448 tokens": ({"text": 449 * "a "}, "text has 449 tokens, but Whisper takes <= 448; split the reco"),
    "half a surrogate pair": ({"text": "\ud83d"}, "holds half a surrogate pair"),
    "a NUL": ({"audio_filepath": "a\0.wav"}, "audio_filepath is 'a\\x00.wav': holds a NUL, which no file's name"),
    "two languages": (
        {"language": "en", "lang": "zh"},
        "language is 'en', but lang is 'zh': a clip is in one language",
    ),
    "a language of a sign": ({"language": "-"}, "language: '-' is no language of Whisper's; give its code, such as en"),
    "a language of a region": ({"lang": "_x"}, "lang: '_x' is no language of Whisper's; give its code, such as en"),
    "a language that is a number": ({"language": 5, "lang": "zh"}, "language is 5, but must be a text"),
    "a letter that was lost": ({"text": "caf\ufffd"}, "text holds U+FFFD REPLACEMENT CHARACTER, which is what a wrong"),
    "an apostrophe of Windows": ({"text": "it\x92s"}, "text holds U+0092 (a control character), which is what a wrong"),
    "an ellipsis of Windows": ({"text": "wait\x85"}, "text holds U+0085 (a control character), which is what a wrong"),
    "a NUL in a text": ({"text": "a\0b\x7f"}, "text holds U+0000 (a control character), U+007F (a control character),"),
    "an empty name": ({"audio_filepath": ""}, "audio_filepath is '', but must have at least 1 character"),
}


@pytest.mark.parametrize(("change", "problem"), ROW_FAULTS.values(), ids=ROW_FAULTS)
def test_a_bad_row_is_told_by_file_and_line(
    folder: Path, write_manifest: WriteManifest, change: dict[str, Any], problem: str
) -> None:
    other = GOOD | {"audio_filepath": "other.wav"}
    path = write_manifest(folder / "train.jsonl", [other, GOOD | change])
    (fault,) = _faults({"train": path})
    assert fault.startswith(f"{path}:2: ")
    assert problem in fault


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "not JSON (Expecting value: line 1 column 1 (char 0)); a line holds one object"),
        ('{"text": "a"', "not JSON (Expecting ',' delimiter"),
        ('{"a": 1} {"b": 2}', "not JSON (Extra data"),
        (100_000 * "[", "not JSON (maximum recursion depth exceeded"),
        ("5" * 5000, "not JSON (Exceeds the limit"),
        (
            '{"audio_filepath": "a.wav", "text": "a", "text": "b"}',
            "text stands there twice; keep the one that is right",
        ),
        ('{"text": "a", "more": {"b": 1, "c": 2, "b": 1}}', "b stands there twice; keep the one that is right"),
        ("[1]", "the line is [1], but must be a mapping of keys to values"),
        ("null", "the line is None, but must be a mapping of keys to values"),
        ("{}", "audio_filepath is missing; add it; text is missing; add it"),
    ],
)
def test_a_line_that_is_no_row_is_told_by_file_and_line(
    folder: Path, write_manifest: WriteManifest, line: str, problem: str
) -> None:
    path = write_manifest(folder / "train.jsonl", [GOOD, line])
    (fault,) = _faults({"train": path})
    assert fault.startswith(f"{path}:2: {problem}")


@pytest.mark.parametrize(
    ("named", "language"),
    [
        ({"language": "", "lang": "zh"}, "zh"),
        ({"language": "te", "lang": ""}, "te"),
        ({"language": None, "lang": "ta"}, "ta"),
        ({"language": "te-IN", "lang": "TE"}, "te"),
        ({"lang": "zh_Hans"}, "zh"),
        ({"language": ""}, ""),
        ({}, ""),
    ],
)
def test_a_rows_language_is_the_one_that_its_keys_name(named: dict[str, str | None], language: str) -> None:
    assert Row.model_validate(GOOD | named).language == language


def test_what_lies_on_a_limit_is_good(folder: Path, write_noise: WriteNoise, write_manifest: WriteManifest) -> None:
    write_noise(folder / "0.2.wav", seconds=0.2, seed=4)
    write_noise(folder / "30.wav", seconds=30.0, seed=5)
    rows = [
        {"audio_filepath": "0.2.wav", "text": 448 * "a ", "duration": 0.2},
        {"audio_filepath": "30.wav", "text": "a", "duration": 30.0},
    ]
    recordings = _load({"train": write_manifest(folder / "train.jsonl", rows)})["train"]
    assert [recording.duration_s for recording in recordings] == [0.2, 30.0]


def test_the_limits_of_duration_are_the_projects_own(folder: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(folder / "train.jsonl", [GOOD])
    (fault,) = _faults({"train": path}, max_duration_s=0.9)
    assert fault.endswith("duration is 1.00 s, but must be <= 0.9; split the recording or raise max_duration_s")


def test_all_faults_come_at_once(folder: Path, write_manifest: WriteManifest) -> None:
    train: Rows = [
        GOOD,
        "not json",
        {"audio_filepath": "gone.wav", "text": "a"},
        {"audio_filepath": "short.wav", "text": ""},
        {"audio_filepath": "good.wav", "text": "again"},
    ]
    manifests = {
        "train": write_manifest(folder / "train.jsonl", train),
        "validation": write_manifest(folder / "validation.jsonl", [{"audio_filepath": "nan.wav", "text": "b"}]),
        "test": write_manifest(folder / "test.jsonl", [{"audio_filepath": "other.wav", "text": "c", "speaker": "ann"}]),
    }
    places = [fault.split(": ")[0].removeprefix(f"{folder}/") for fault in _faults(manifests)]
    assert places == [
        "train.jsonl:1",  # its speaker is in the test split
        "train.jsonl:2",
        "train.jsonl:3",
        "train.jsonl:4",  # too short
        "train.jsonl:4",  # and without a text
        "train.jsonl:5",
        "validation.jsonl:1",
    ]


def test_faults_stand_in_the_order_of_their_lines(folder: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(folder / "train.jsonl", 12 * ["not json"])
    assert [fault.split(": ")[0] for fault in _faults({"train": path})] == [f"{path}:{line}" for line in range(1, 13)]


def test_two_rows_of_the_same_sound_are_told(folder: Path, write_manifest: WriteManifest) -> None:
    samples, rate = soundfile.read(folder / "good.wav", dtype="int16")
    soundfile.write(folder / "copy.flac", samples, rate)
    rows = [GOOD, GOOD | {"audio_filepath": "other.wav"}, GOOD | {"audio_filepath": "copy.flac", "text": "else"}]
    path = write_manifest(folder / "train.jsonl", rows)
    assert _faults({"train": path}) == [f"{path}:3: the same audio as {path}:1; remove one of the two rows"]


def test_two_segments_of_one_file_are_two_recordings(folder: Path, write_manifest: WriteManifest) -> None:
    rows = [GOOD | {"offset": 0.0, "duration": 0.5}, GOOD | {"offset": 0.5, "duration": 0.5}]
    first, second = _load({"train": write_manifest(folder / "train.jsonl", rows)})["train"]
    whole = load_audio(folder / "good.wav")
    np.testing.assert_array_equal(first.samples(), whole[:8000])
    np.testing.assert_array_equal(second.samples(), whole[8000:])
    assert (first.duration_s, second.duration_s) == (0.5, 0.5)
    assert first.digest != second.digest


def _shares(kind: str) -> tuple[dict[str, str], dict[str, str]]:
    """Two rows that have one thing in common."""
    left = {"audio_filepath": "good.wav", "text": "one sentence", "speaker": "ann"}
    right = {"audio_filepath": "other.wav", "text": "another sentence", "speaker": "ben"}
    common = {
        "audio": {"audio_filepath": "good.wav"},
        "sentence": {"text": "One sentence!"},
        "speaker": {"speaker": "ann"},
    }
    return left, right | common[kind]


def _is_leak(kind: str, splits: set[str]) -> bool:
    if kind == "audio":
        return True
    if splits == {"train", "replay"}:
        return False
    return kind == "sentence" or not splits & {"retention_validation", "retention_test"}


@pytest.mark.parametrize("kind", ["audio", "sentence", "speaker"])
@pytest.mark.parametrize("pair", combinations(SPLITS, 2), ids="+".join)
def test_splits_share_neither_audio_nor_sentences_nor_speakers(
    folder: Path, write_manifest: WriteManifest, pair: tuple[str, str], kind: str
) -> None:
    rows = dict(zip(pair, _shares(kind), strict=True))
    manifests = {split: write_manifest(folder / f"{split}.jsonl", [row]) for split, row in rows.items()}
    if not _is_leak(kind, set(pair)):
        assert all(len(_load(manifests)[split]) == 1 for split in pair)
        return
    guilty, other = sorted(pair, key=lambda split: (NEARNESS[split], split))
    (fault,) = _faults(manifests)
    assert fault.startswith(f"{manifests[guilty]}:1: leaks: the same {kind} as {manifests[other]}:1 ('")
    assert fault.endswith("); keep it in one split only")


@pytest.mark.parametrize(("one", "other"), [("Zo\u00e9", "Zoe\u0301"), ("ann ", "\tann")])
def test_a_speakers_name_is_the_same_however_it_is_written(
    folder: Path, write_manifest: WriteManifest, one: str, other: str
) -> None:
    left, right = _shares("audio")
    rows = {"train": left | {"speaker": one}, "test": right | {"audio_filepath": "other.wav", "speaker": other}}
    (fault,) = _faults({split: write_manifest(folder / f"{split}.jsonl", [row]) for split, row in rows.items()})
    assert f"leaks: the same speaker as {folder / 'test.jsonl'}:1 (" in fault


def test_speakers_may_be_shared_where_the_project_says_so(folder: Path, write_manifest: WriteManifest) -> None:
    left, right = _shares("speaker")
    manifests = {
        "train": write_manifest(folder / "train.jsonl", [left]),
        "test": write_manifest(folder / "test.jsonl", [right]),
    }
    assert len(_load(manifests, disjoint_speakers=False)["train"]) == 1


def test_what_is_unknown_is_not_shared(folder: Path, write_manifest: WriteManifest) -> None:
    rows = {
        "train": {"audio_filepath": "good.wav", "text": "one"},
        "test": {"audio_filepath": "other.wav", "text": "two"},
    }
    manifests = {split: write_manifest(folder / f"{split}.jsonl", [row]) for split, row in rows.items()}
    assert _load(manifests).skipped == ()


def test_skip_leaves_bad_rows_out_and_lists_them(folder: Path, write_manifest: WriteManifest) -> None:
    train: Rows = [
        GOOD,
        "not json",
        {"audio_filepath": "short.wav", "text": ""},
        {"audio_filepath": "third.wav", "text": "leaks by its speaker", "speaker": "cat"},
    ]
    manifests = {
        "train": write_manifest(folder / "train.jsonl", train),
        "test": write_manifest(
            folder / "test.jsonl", [{"audio_filepath": "other.wav", "text": "said by another", "speaker": "cat"}]
        ),
    }
    dataset = _load(manifests, on_bad_row="skip")
    assert [recording.place for recording in dataset["train"]] == [f"{manifests['train']}:1"]
    assert [recording.place for recording in dataset["test"]] == [f"{manifests['test']}:1"]
    assert [fault.place for fault in dataset.skipped] == [f"{manifests['train']}:{line}" for line in (2, 3, 3, 4)]
    assert "the same speaker" in str(dataset.skipped[-1])


def _skipped(folder: Path, write_manifest: WriteManifest, **splits: Rows) -> list[str]:
    """Which rows are left out, as `train:1`."""
    manifests = {split: write_manifest(folder / f"{split}.jsonl", rows) for split, rows in splits.items()}
    places = [Path(fault.place) for fault in _load(manifests, on_bad_row="skip").skipped]
    return sorted({place.name.replace(".jsonl", "") for place in places})


def test_a_bad_row_makes_no_duplicate_of_a_good_one(folder: Path, write_manifest: WriteManifest) -> None:
    assert _skipped(folder, write_manifest, train=[GOOD | {"text": ""}, GOOD, GOOD | {"text": "else"}]) == [
        "train:1",
        "train:3",
    ]


def test_a_bad_row_of_a_test_split_costs_no_row_of_training(folder: Path, write_manifest: WriteManifest) -> None:
    test: Rows = [GOOD | {"text": ""}, GOOD | {"audio_filepath": "other.wav", "text": "other", "speaker": "ben"}]
    assert _skipped(folder, write_manifest, train=[GOOD], test=test) == ["test:1"]


def test_a_leak_into_a_row_that_is_left_out_as_a_leak_is_none(folder: Path, write_manifest: WriteManifest) -> None:
    third = {"audio_filepath": "third.wav", "text": "third", "speaker": "cat"}
    validation: Rows = [GOOD | {"audio_filepath": "other.wav", "text": "leaks to test", "speaker": "ben"}, third]
    test: Rows = [{"audio_filepath": "long.wav", "offset": 9, "duration": 1, "text": "leaks to test", "speaker": "dan"}]
    train: Rows = [GOOD | {"speaker": "ben"}]
    assert _skipped(folder, write_manifest, train=train, validation=validation, test=test) == ["validation:1"]


def test_the_copy_of_a_row_that_leaks_is_judged_by_itself(folder: Path, write_manifest: WriteManifest) -> None:
    test: Rows = [{"audio_filepath": "other.wav", "text": "other", "speaker": "ben"}]
    assert _skipped(folder, write_manifest, train=[GOOD | {"speaker": "ben"}, GOOD], test=test) == ["train:1"]


def test_without_skip_the_faults_of_bad_rows_beside_others_are_told_too(
    folder: Path, write_manifest: WriteManifest
) -> None:
    path = write_manifest(folder / "train.jsonl", [GOOD | {"text": ""}, GOOD])
    assert [fault.split(": ")[0] for fault in _faults({"train": path})] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize("lines", [[], ["", "  "], ["not json"]])
def test_a_split_left_empty_is_an_error_even_when_bad_rows_are_skipped(
    folder: Path, write_manifest: WriteManifest, lines: list[str]
) -> None:
    path = write_manifest(folder / "train.jsonl", lines)
    with pytest.raises(ManifestError) as caught:
        _load({"train": path}, on_bad_row="skip")
    assert str(caught.value) == f"no usable row in {path}; a split needs at least one clip"


def test_a_manifest_without_rows_is_an_error(folder: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(folder / "train.jsonl", [])
    with pytest.raises(ManifestError, match=rf"no usable row in {path}"):
        _load({"train": path})


@pytest.mark.parametrize(
    ("name", "fault", "remedy"),
    [
        ("latin1.jsonl", "is no UTF-8 text (", "write it in UTF-8, or name another file"),
        ("folder.wav", "cannot be read as UTF-8 text (", "mend data.validation in project.yaml"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(folder: Path, name: str, fault: str, remedy: str) -> None:
    (folder / "latin1.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    with pytest.raises(ManifestError) as caught:
        _load({"validation": folder / name})
    assert str(caught.value).startswith(f"{folder / name} {fault}")
    assert str(caught.value).endswith(f"; {remedy}")


def test_a_manifest_that_is_not_there_names_the_key(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone.jsonl does not exist; write it, or mend data.validation in"):
        _load({"validation": folder / "gone.jsonl"})


def test_blank_lines_are_passed_over_but_counted(folder: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(folder / "train.jsonl", ["", GOOD, "  ", "not json"])
    (fault,) = _faults({"train": path})
    assert fault.startswith(f"{path}:4: not JSON")


@pytest.mark.parametrize("character", ["\u2028", "\u001d", "\u2029", "\t"])
def test_a_line_separator_in_a_text_ends_no_line(folder: Path, character: str) -> None:
    text = f"please{character}check"
    path = folder / "train.jsonl"
    path.write_text(json.dumps(GOOD | {"text": text}, ensure_ascii=False) + "\r\nnot json\r\n", encoding="utf-8")
    dataset = _load({"train": path}, on_bad_row="skip")
    assert dataset["train"][0].row.text == text
    assert [fault.place for fault in dataset.skipped] == [f"{path}:2"]


def test_keys_of_others_are_no_fault(folder: Path, write_manifest: WriteManifest) -> None:
    row = GOOD | {"id": "s0001", "channel": "phone", "pred_text": "x"}
    (recording,) = _load({"train": write_manifest(folder / "train.jsonl", [row])})["train"]
    (clip,) = clips_of([recording])
    assert (clip.reference, clip.speaker, clip.channel, clip.duration_s) == (GOOD["text"], "ann", "phone", 1.0)
    assert clip.id == f"{folder / 'train.jsonl'}:1"


def test_paths_start_at_the_manifests_folder_or_at_the_root(folder: Path, write_manifest: WriteManifest) -> None:
    rows = [GOOD | {"audio_filepath": "../good.wav"}, GOOD | {"audio_filepath": str(folder / "other.wav")}]
    manifest = write_manifest(folder / "manifests" / "train.jsonl", rows)
    recordings = _load({"train": manifest}, project_dir=folder)["train"]
    assert [recording.path.resolve().name for recording in recordings] == ["good.wav", "other.wav"]


@pytest.fixture
def outside(folder: Path, tmp_path_factory: pytest.TempPathFactory, write_noise: WriteNoise) -> Path:
    """A recording outside the project, and links to it and to its folder inside."""
    path = write_noise(tmp_path_factory.mktemp("outside") / "secret.wav", seed=9)
    (folder / "link.wav").symlink_to(path)
    (folder / "linked").symlink_to(path.parent)
    (folder / "inner.wav").symlink_to("good.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "{0}",
        "../{0.parent.name}/secret.wav",
        "link.wav",
        "linked/secret.wav",
        "/etc/passwd",
        "/dev/zero",
        "..",
        "/no/a",
    ],
)
def test_no_row_leads_out_of_the_project(folder: Path, outside: Path, write_manifest: WriteManifest, name: str) -> None:
    name = name.format(outside)
    path = write_manifest(folder / "train.jsonl", [GOOD, GOOD | {"audio_filepath": name}])
    (fault,) = _faults({"train": path}, project_dir=folder)
    rule = f"links followed, it must lie in {folder}"
    assert fault == f"{path}:2: audio_filepath is {name}, but {rule}; move it, or set data.audio_root to its folder"


def test_links_inside_the_project_are_followed(folder: Path, outside: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(folder / "train.jsonl", [GOOD | {"audio_filepath": "inner.wav"}])
    assert _load({"train": path}, project_dir=folder)["train"][0].path == folder / "good.wav"
    path = write_manifest(folder / "train.jsonl", [GOOD | {"audio_filepath": "loop.wav"}])
    (fault,) = _faults({"train": path}, project_dir=folder)
    rule = "links lead from there back to it; put the recording itself there"
    assert fault == f"{path}:1: audio_filepath is loop.wav, but {rule}"


def test_an_audio_root_lets_rows_name_its_files(folder: Path, outside: Path, write_manifest: WriteManifest) -> None:
    rows = [GOOD | {"audio_filepath": name} for name in ("link.wav", "good.wav")]
    path = write_manifest(folder / "train.jsonl", rows)
    for root in (outside.parent, Path("linked")):
        first, _ = _load({"train": path}, project_dir=folder, audio_root=root)["train"]
        assert first.path == outside
    with pytest.raises(ManifestError, match=r"data\.audio_root is gone, but .*gone is no folder; mend it in project"):
        _load({"train": path}, project_dir=folder, audio_root=Path("gone"))


def test_a_pipe_is_neither_waited_for_as_audio_nor_as_a_manifest(folder: Path, write_manifest: WriteManifest) -> None:
    os.mkfifo(folder / "pipe.wav")
    path = write_manifest(folder / "train.jsonl", [GOOD, GOOD | {"audio_filepath": "pipe.wav"}])
    (fault,) = _faults({"train": path})
    assert "audio_filepath is pipe.wav, but there is no such file" in fault
    with pytest.raises(ManifestError, match="it is no plain file"):
        _load({"train": folder / "pipe.wav"})


def test_of_a_recording_that_is_too_long_no_more_is_read_than_tells_so(
    folder: Path, write_manifest: WriteManifest
) -> None:
    soundfile.write(
        folder / "hour.flac", np.tile(np.array([999, -999], np.int16), SAMPLE_RATE_HZ * 1800), SAMPLE_RATE_HZ
    )
    path = write_manifest(folder / "train.jsonl", [GOOD, GOOD | {"audio_filepath": "hour.flac", "duration": 3600}])
    (fault,) = _faults({"train": path})
    assert fault == f"{path}:2: duration is at least 31.00 s, but must be <= 30; split the recording"


def test_a_splits_digest_tells_audio_text_and_order(folder: Path, write_manifest: WriteManifest) -> None:
    other = GOOD | {"audio_filepath": "other.wav", "text": "another"}

    def digest(name: str, rows: Rows) -> str:
        return _load({"train": write_manifest(folder / name, rows)}).digest("train")

    first = digest("a.jsonl", [GOOD, other])
    assert digest("b.jsonl", [GOOD, other]) == first
    changes: list[Rows] = [[other, GOOD], [GOOD], [GOOD, other | {"text": "changed"}]]
    changes.append([GOOD, other | {"audio_filepath": "third.wav"}])
    assert len({first, *(digest(f"{i}.jsonl", rows) for i, rows in enumerate(changes))}) == 5


def test_a_split_that_the_project_lacks_is_empty(folder: Path, write_manifest: WriteManifest) -> None:
    assert _load({"train": write_manifest(folder / "train.jsonl", [GOOD])})["replay"] == ()


def test_the_manifests_are_those_that_the_project_names() -> None:
    found = manifests_of(_config(retention_test=Path("r/t.jsonl")), Path("/project"))
    names = {"train": "train.jsonl", "validation": "v.jsonl", "test": "t.jsonl", "retention_test": "r/t.jsonl"}
    assert found == {split: Path("/project") / name for split, name in names.items()}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
likely = st.sampled_from(["good.wav", "bad.wav", "nan.wav", ".", "", "a\0b", 1.0, 0.5, 1e308, -0.0, 1e-300])
rows = st.fixed_dictionaries(
    {"audio_filepath": likely | anything, "text": anything | st.text(st.characters(), min_size=1)},
    optional=dict.fromkeys(("duration", "offset", "speaker", "terms", "channel"), likely | anything),
)


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory, write_noise: WriteNoise) -> Path:
    """Three recordings for manifests of any kind."""
    folder = tmp_path_factory.mktemp("any")
    write_noise(folder / "good.wav")
    (folder / "bad.wav").write_bytes(b"RIFF")
    soundfile.write(folder / "nan.wav", np.full(9, np.nan), SAMPLE_RATE_HZ, subtype="FLOAT")
    return folder


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60) | rows.map(lambda row: json.dumps(row).encode()), max_size=3))
@example([b'{"audio_filepath": "good.wav", "text": "a", "duration": 1e999}'])
@example([b'{"audio_filepath": "good.wav", "text": "a", "offset": 1e305}'])
@example([b'{"audio_filepath": "good.wav", "text": "\\ud800"}'])
@example([b"\xef\xbb\xbf{}"])
@example([b"{" * 3000])
def test_whatever_a_manifest_holds_only_manifest_errors_are_raised(bad_folder: Path, lines: list[bytes]) -> None:
    path = bad_folder / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        dataset = _load({"train": path})
    except ManifestError:
        return
    assert len(dataset["train"]) > 0
    assert len(dataset.digest("train")) == 64


@pytest.mark.parametrize("command", ["<|endoftext|>", "<|0.00|>", "<|zh|>", "<|team|>"])
def test_a_token_of_whispers_own_is_no_text(folder: Path, write_manifest: WriteManifest, command: str) -> None:
    path = write_manifest(folder / "m.jsonl", [GOOD | {"text": f"pay {command} now"}])
    assert _faults({"train": path}) == [
        f"{path}:1: text holds {command}, which is a token of Whisper's own and nothing that is said; take it out, or "
        "write it as it is said"
    ]


def test_what_rows_hold_that_is_not_read_is_said_once(folder: Path, write_manifest: WriteManifest) -> None:
    rows: Rows = [
        GOOD | {"text": "reply\u200b by \u00adFriday", "lang": "en", "sentence": 1},
        GOOD | {"audio_filepath": "other.wav", "lang": "en", "emotion": "calm"},
    ]
    path = write_manifest(folder / "m.jsonl", rows)
    assert _load({"train": path}).notes == (
        "characters that nobody sees are taken out of the texts of "
        f"{path}:1 (U+00AD SOFT HYPHEN, U+200B ZERO WIDTH SPACE)",
        f"{path}: keys that are not read: emotion (1 rows)",
    )
    assert _load({"train": write_manifest(folder / "n.jsonl", [GOOD])}).notes == ()


def test_a_silent_recording_of_speech_is_a_fault(folder: Path, write_manifest: WriteManifest) -> None:
    soundfile.write(folder / "silent.wav", np.zeros(8000), 8000)
    path = write_manifest(folder / "m.jsonl", [GOOD | {"audio_filepath": "silent.wav"}])
    assert _faults({"train": path}) == [
        f"{path}:1: the recording is silent, but must reach -66 dBFS for speech to be heard; record it anew or remove "
        "the row"
    ]


def test_an_audio_root_that_no_folder_can_be_called_is_refused(folder: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(folder / "train.jsonl", [GOOD])
    with pytest.raises(ManifestError, match=r"data\.audio_root is .*no file's name can be as long"):
        _load({"train": path}, audio_root=Path("x" * 300))


def _whole(name: str, text: str, start_s: float = 0.0, **values: Any) -> dict[str, Any]:
    return {"audio_filepath": name, "segments": [{"text": text, "start_s": start_s, "end_s": start_s + 0.5}], **values}


LONG: list[tuple[str, Rows, str]] = [
    ("train", [_whole("good.wav", "another one", 0.5)], "leaks: the same recording as"),
    ("replay", [GOOD | {"speaker": "bob"}], "leaks: the same recording as"),
    ("validation", [GOOD | {"audio_filepath": "other.wav"}], "leaks: the same speaker as"),
    ("final", [GOOD | {"audio_filepath": "other.wav"}], "leaks: the same speaker as"),
    ("train", [GOOD | {"audio_filepath": "other.wav", "speaker": "bob", "text": "thank you"}], ""),
    ("retention_validation", [GOOD | {"audio_filepath": "other.wav", "text": "thank you"}], ""),
    ("test", [_whole("good.wav", "thank you", speaker="ann")], ""),
    ("retention_test", [GOOD | {"text": "thank you"}], ""),
]


@pytest.mark.parametrize(("split", "rows", "fault"), LONG, ids=[f"{split} {fault}" for split, _, fault in LONG])
def test_whole_recordings_are_kept_apart_by_recording_and_speaker_and_not_by_sentence(
    split: str, rows: Rows, fault: str, folder: Path, write_manifest: WriteManifest
) -> None:
    long = write_manifest(folder / "long.jsonl", [_whole("good.wav", "thank you", speaker="ann")])
    manifests = {"long": long, split: write_manifest(folder / "near.jsonl", rows)}
    if not fault:
        assert len(_load(manifests)["long"]) == 1
    else:
        (found,) = _faults(manifests)
        assert fault in found


def test_a_whole_recording_says_when_each_of_its_segments_is_said(folder: Path, write_manifest: WriteManifest) -> None:
    (fault,) = _faults({"long": write_manifest(folder / "long.jsonl", [GOOD])})
    assert fault.startswith(f"{folder / 'long.jsonl'}:1: has no segments, but data.long is of whole recordings")
