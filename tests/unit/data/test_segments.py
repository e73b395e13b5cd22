"""A line with segments stands for rows of their own, in whichever form it has them; each fault is told by segment."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from wertune.base.config import DataConfig
from wertune.base.errors import ManifestError
from wertune.base.text import normaliser
from wertune.data import sounds
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, load_audio
from wertune.data.manifest import Dataset, Recording, count_rows, load_dataset, read_rows
from wertune.data.rows import At, Row, file_and_at, place_of
from wertune.data.segments import Line, listed_segments, read_line, with_segments

WriteNoise = Callable[..., Path]
WriteManifest = Callable[..., Path]

NORMALISE = normaliser("en")
LASTS_S = 8.0
CALL = {"audio_filepath": "call.flac", "speaker": "ann", "channel": "telephone", "weight": 2}
HELLO = {"text": "Hello.", "start_s": 0.5, "end_s": 2.0}
THANKS = {"text": "Thank you.", "start_s": 2.5, "end_s": 4.25, "speaker": "bob", "language": "de"}
TIMES_MS = st.lists(st.integers(0, 7900), unique=True, min_size=2, max_size=12).map(sorted)
WORDS = st.text("abc ,.äß\u4e2d", min_size=1, max_size=12)


def _load(manifests: dict[str, Path], **values: Any) -> Dataset:
    data = DataConfig(train=Path("train"), validation=Path("v"), test=Path("t"), **values)
    return load_dataset(manifests, data, NORMALISE, lambda text: len(text.split()))


def _faults(path: Path, **values: Any) -> list[str]:
    """After the manifest's name."""
    with pytest.raises(ManifestError) as caught:
        _load({"train": path}, **values)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()[:-1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_noise: WriteNoise) -> Path:
    """A recording of eight seconds, in two forms and rates."""
    folder = tmp_path_factory.mktemp("calls")
    write_noise(folder / "call.flac", LASTS_S, seed=1)
    write_noise(folder / "fine.wav", LASTS_S, seed=2, rate_hz=48_000)
    return folder


@pytest.fixture
def write_train(folder: Path, write_manifest: WriteManifest) -> Callable[..., Path]:
    return lambda *rows: write_manifest(folder / "train.jsonl", rows)


def _told(recording: Recording) -> tuple[Any, ...]:
    """All that anything downstream asks for."""
    row = recording.row
    heard = (recording.path, recording.duration_s, recording.digest, recording.origin, recording.samples().tobytes())
    return (*heard, row.text, row.speaker, row.channel, row.language, row.weight, row.offset, row.duration)


@given(TIMES_MS, st.data())
def test_segments_are_rows_of_their_own(folder: Path, times_ms: list[int], data: st.DataObject) -> None:
    spans = [(a / 1000, b / 1000) for a, b in zip(times_ms[::2], times_ms[1::2], strict=False) if b - a >= 200]
    if not spans:
        return
    named = st.fixed_dictionaries(
        {}, optional={"speaker": st.sampled_from(["bob", "", " eve"]), "lang": st.just("de-AT")}
    )
    own = [data.draw(named) for _ in spans]
    parts = [{"text": f"number {n}", "start_s": a, "end_s": b} | own[n] for n, (a, b) in enumerate(spans)]
    whole = CALL | {"audio_filepath": data.draw(st.sampled_from(["call.flac", "fine.wav"])), "language": "fr"}
    rows = []
    for part, (a, b), each in zip(parts, spans, own, strict=True):
        shared = {key: value for key, value in whole.items() if key != "language" or "lang" not in each}
        rows.append(shared | each | {"text": part["text"], "offset": a, "duration": round(b - a, 3)})
    one, many = folder / "one.jsonl", folder / "many.jsonl"
    one.write_text(json.dumps(whole | {"segments": parts}))
    many.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = _load({"train": one}), _load({"train": many})
    assert [_told(each) for each in first["train"]] == [_told(each) for each in second["train"]]
    assert first.digest("train") == second.digest("train")
    assert [each.place for each in first["train"]] == [f"{one}:1: segments[{n}]" for n in range(len(spans))]


@given(TIMES_MS, st.data())
def test_timestamps_in_a_text_mean_what_segments_mean(times_ms: list[int], data: st.DataObject) -> None:
    spans = list(zip(times_ms[::2], times_ms[1::2], strict=False))
    texts = [data.draw(WORDS) for _ in spans]
    blank = data.draw(st.sampled_from(["", " ", "\n"]))
    timed = [f"<|{a / 1000:.3f}|> {text}<|{b / 1000:.3f}|>" for (a, b), text in zip(spans, texts, strict=True)]
    parts = [
        {"text": text.strip(), "start_s": a / 1000, "end_s": b / 1000}
        for (a, b), text in zip(spans, texts, strict=True)
    ]
    assert read_line("m", 1, CALL | {"text": blank.join(timed)}) == read_line("m", 1, CALL | {"segments": parts})


def test_a_text_with_whispers_timestamps_is_read(folder: Path, write_train: Callable[..., Path]) -> None:
    text = "<|0.50|> Hello.<|2.00|><|2.50|> Thank you.<|4.25|>"
    first, second = _load({"train": write_train(CALL | {"text": text})})["train"]
    assert (first.text, second.text) == ("Hello.", "Thank you.")
    whole = load_audio(folder / "call.flac")
    np.testing.assert_array_equal(second.samples(), whole[40_000:68_000])
    assert (first.row.speaker, first.row.channel, first.row.weight, first.duration_s) == ("ann", "telephone", 2, 1.5)


def test_a_segment_may_name_what_is_otherwise_its_rows() -> None:
    found = read_line("m", 3, CALL | {"language": "en", "segments": [HELLO, THANKS, THANKS | {"speaker": ""}]})
    assert [(each.row.speaker, each.row.language) for each in found.rows] == [("ann", "en"), ("bob", "de"), ("", "de")]
    assert [each.at for each in found.rows] == [At(3, 0), At(3, 1), At(3, 2)]


SEGMENT_FAULTS = {
    "beyond the end": ({"end_s": 8.2}, "end_s is 8.2, but the recording has 8.00 s; mend the times, or fetch the reco"),
    "begun beyond the end": (
        {"start_s": 70, "end_s": 72},
        "start_s is 70, but the recording has 8.00 s; mend the times, or",
    ),
    "reversed": ({"start_s": 4, "end_s": 3}, "end_s is 3, but must be after start_s, which is 4; mend the times"),
    "of no length": ({"start_s": 4, "end_s": 4}, "end_s is 4, but must be after start_s, which is 4; mend the times"),
    "before the start": ({"start_s": -1}, "start_s is -1, but must be at least 0"),
    "not a number": ({"start_s": float("nan")}, "start_s is nan, but must be"),
    "without end": ({"end_s": float("inf")}, "end_s is inf, but must be"),
    "of a huge number": ({"end_s": 1e300}, "end_s is 1e+300, but must be at most 1000000"),
    "of a number in quotes": ({"start_s": "3.0"}, "start_s is '3.0', but must be a number"),
    "of a yes": ({"end_s": True}, "end_s is True, but must be a number"),
    "of a key that nobody knows": ({"begin": 3}, "begin is not a known key; remove it or mend its spelling"),
    "of a text that is none": ({"text": 5}, "text is 5, but must be a text"),
    "of an empty text": ({"text": " "}, "text is empty; transcribe the segment or remove it"),
    "of signs": ({"text": "…!"}, "text is empty after normalisation ('…!'); transcribe the segment or remove it"),
    "of a token": ({"text": "<|zh|> ja"}, "text holds <|zh|>, which is a token of Whisper's own"),
    "of a language that is none": ({"lang": "_x"}, "lang: '_x' is no language of Whisper's"),
    "too short": ({"end_s": 3.1}, "duration is 0.10 s, but must be >= 0.2; remove it"),
    "of too many words": ({"text": 449 * "a "}, "text has 449 tokens, but Whisper takes <= 448; split the segment"),
    "that is its own overlap": ({"start_s": 1.75}, "lasts from 1.75 to 4.00 s, but segments[0] from 0.50 to 2.00 s,"),
}


@pytest.mark.parametrize(("change", "problem"), SEGMENT_FAULTS.values(), ids=SEGMENT_FAULTS)
def test_a_bad_segment_is_told_by_its_number_and_costs_no_other(
    write_train: Callable[..., Path], change: dict[str, Any], problem: str
) -> None:
    bad = {"text": "Good morning.", "start_s": 3, "end_s": 4} | change
    good = {"text": "That is all.", "start_s": 5, "end_s": 6, "speaker": "eve"}
    path = write_train(CALL | {"segments": [HELLO, bad, good]})
    (fault,) = [fault for fault in _faults(path) if not fault.startswith("1: segments[0]: lasts")]
    assert fault.startswith(f"1: segments[1]: {problem}")
    dataset = _load({"train": path}, on_bad_row="skip")
    kept = [each.text for each in dataset["train"]]
    assert kept == ["That is all."] if "overlap" in problem or "segments[0]" in problem else ["Hello.", "That is all."]
    assert f"{path}:{fault}" in map(str, dataset.skipped)


LINE_FAULTS = {
    "neither": ({}, "text is missing; add it, or segments with their times"),
    "both": ({"text": "Hello.", "segments": [HELLO]}, "text and segments stand there both; keep the one that holds"),
    "times twice": ({"text": "<|0.00|> a<|1.00|>", "segments": [HELLO]}, "text and segments stand there both; keep"),
    "no segment": ({"segments": []}, "segments is empty; transcribe the recording, or remove the row"),
    "segments that are none": ({"segments": "all"}, "segments is 'all', but must be a list"),
    "an offset": ({"segments": [HELLO], "offset": 3}, "offset is 3, but times of segments are those of the whole reco"),
    "a weight of nothing": ({"segments": [HELLO], "weight": 0}, "weight is 0, but must be at least 1"),
    "audio that is missing": ({"segments": [HELLO, THANKS], "audio_filepath": "gone.wav"}, "audio_filepath is gone.wa"),
    "audio that is none": ({"segments": [HELLO, THANKS], "audio_filepath": "train.jsonl"}, "{}/train.jsonl cannot be"),
}


@pytest.mark.parametrize(("change", "problem"), LINE_FAULTS.values(), ids=LINE_FAULTS)
def test_what_is_wrong_with_a_line_is_told_once(
    folder: Path, write_train: Callable[..., Path], change: dict[str, Any], problem: str
) -> None:
    (fault,) = _faults(write_train(CALL | change))
    assert fault.startswith(f"1: {problem.format(folder)}")


TIMED_FAULTS = {
    "a text before the times": ("Hi <|0.00|> Hello.<|2.00|>", ["1: text holds <|0.00|>, which is a token of Whisper"]),
    "no end": (
        "<|0.00|> Hello.<|2.00|><|2.50|> And",
        ["1: segments[1]: <|2.50|> begins a segment that has no end, but"],
    ),
    "a text between": (
        "<|0.00|> Hello.<|2.00|> and<|2.50|> then<|3.00|><|4.00|>",
        [
            "1: segments[0]: 'and' stands behind the end, <|2.00|>, but the text between two times is a segment, and",
            "1: segments[2]: <|4.00|> begins a segment that has no end",
        ],
    ),
    "a token at the end": (
        "<|0.00|> Hello.<|2.00|><|endoftext|>",
        ["1: segments[0]: '<|endoftext|>' stands behind the end, <|2.00|>, but"],
    ),
    "nothing said": ("<|0.00|><|2.00|>", ["1: segments[0]: text is empty; transcribe the segment or remove it"]),
    "more digits than a number has": (f"<|0.00|> a<|{500 * '9'}|>", ["1: segments[0]: end_s is inf, but must be a"]),
}


@pytest.mark.parametrize(("text", "problems"), TIMED_FAULTS.values(), ids=TIMED_FAULTS)
def test_what_is_wrong_with_timestamps_is_told(
    write_train: Callable[..., Path], text: str, problems: list[str]
) -> None:
    found = _faults(write_train(CALL | {"text": text}))
    assert [fault[: len(problem)] for fault, problem in zip(found, problems, strict=True)] == problems


def test_all_faults_come_at_once_in_the_order_of_lines_and_segments(write_train: Callable[..., Path]) -> None:
    many = [HELLO | {"start_s": 0.5 * n, "end_s": 0.5 * n + 0.1} for n in range(11)]
    path = write_train(CALL | {"segments": [{"text": 1}, *many], "weight": 0}, "no json", CALL | {"segments": many})
    places = [fault.split(": ")[:2] for fault in _faults(path)]
    assert [place[1] for place in places if place[0] == "3"] == [f"segments[{n}]" for n in range(11)]
    assert [place[0] for place in places] == ["1", "1", "2", *11 * ["3"]]


def test_a_segments_length_is_bounded_and_not_its_recordings(
    tmp_path: Path, write_noise: WriteNoise, write_manifest: WriteManifest
) -> None:
    write_noise(tmp_path / "call.flac", 62.0, seed=3)
    part = {"text": "A long sentence.", "start_s": 1, "end_s": 31}
    path = write_manifest(tmp_path / "m.jsonl", [CALL | {"segments": [part, HELLO | {"start_s": 40, "end_s": 42}]}])
    assert [each.duration_s for each in _load({"train": path})["train"]] == [30.0, 2.0]
    assert _faults(path, max_duration_s=20.0) == [
        "1: segments[0]: duration is 30.00 s, but must be <= 20; split the segment or raise max_duration_s"
    ]
    path = write_manifest(tmp_path / "m.jsonl", [CALL | {"segments": [part | {"end_s": 61.2}]}])
    assert _faults(path) == ["1: segments[0]: duration is 60.20 s, but must be <= 30; split the segment"]


def test_two_speakers_may_be_heard_at_once_and_that_is_counted(write_train: Callable[..., Path]) -> None:
    path = write_train(CALL | {"segments": [HELLO, THANKS | {"start_s": 1.5}]})
    dataset = _load({"train": path})
    assert len(dataset["train"]) == 2
    assert dataset.notes == (f"{path}: segments that begin while another speaker's goes on, so that both are heard: 1",)


def test_a_segment_is_read_without_the_rest_of_its_recording(
    tmp_path: Path, write_noise: WriteNoise, write_manifest: WriteManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path / "call.flac", 60.0, seed=4)
    decoded: list[int] = []
    hashed: list[Path] = []

    def load(*part: Any) -> Samples:
        samples = load_audio(*part)
        decoded.append(samples.size)
        return samples

    def digest(path: Path) -> str:
        hashed.append(path)
        return "digest"

    monkeypatch.setattr(sounds, "load_audio", load)
    monkeypatch.setattr("wertune.data.manifest.sha256_of", digest)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    parts = [{"text": f"number {n}", "start_s": n, "end_s": n + 0.5} for n in range(50)]
    _load({"train": write_manifest(tmp_path / "m.jsonl", [CALL | {"segments": parts}])})
    assert sum(decoded) == 50 * SAMPLE_RATE_HZ // 2
    assert len(hashed) == 1


def test_rows_are_read_without_audio(tmp_path: Path, write_manifest: WriteManifest) -> None:
    path = write_manifest(tmp_path / "m.jsonl", [CALL | {"segments": [HELLO, THANKS]}, CALL | {"text": "Alone."}])
    found = read_rows(path)
    assert [(at, row.text) for at, _, row in found] == [
        (At(1, 0), "Hello."),
        (At(1, 1), "Thank you."),
        (At(2), "Alone."),
    ]
    assert count_rows(path) == 3
    bad = write_manifest(tmp_path / "m.jsonl", [CALL | {"segments": [HELLO, HELLO | {"end_s": 0.5}]}, "[]"])
    with pytest.raises(ManifestError) as caught:
        read_rows(bad)
    first, second, last = str(caught.value).splitlines()
    assert first.startswith(f"{bad}:1: segments[1]: end_s is 0.5, but must be after")
    assert second.startswith(f"{bad}:2: the line is []")
    assert last == "2 faults; mend the rows"


@given(st.text(min_size=1), st.integers(1, 10**6), st.integers(-1, 10**6))
@example("a:1: segments[3]", 1, -1)
def test_a_place_says_where_it_is(file: str, line: int, segment: int) -> None:
    assert file_and_at(place_of(file, At(line, segment))) == (file, At(line, segment))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "start_s", "end_s"]), inner),
    max_leaves=10,
)


@given(ANYTHING, ANYTHING, ANYTHING)
@example(None, [{"text": "a", "start_s": 0, "end_s": 10**400}], None)
def test_whatever_stands_there_is_a_row_or_a_fault(text: Any, segments: Any, offset: Any) -> None:
    found = read_line("m", 1, CALL | {"text": text, "segments": segments, "offset": offset})
    assert found.rows or found.faults
    for each in found.rows:
        assert each.start_s < each.end_s or each.row.duration is None


@given(st.text(st.sampled_from("<|>0.5 ab")))
@example("<|0.0|>a<|0.5|>")
def test_whatever_a_text_holds_is_a_row_or_a_fault(text: str) -> None:
    found = read_line("m", 1, CALL | {"text": text})
    assert found.rows or found.faults
    assert not any("<|0" in each.row.text for each in found.rows if listed_segments({"text": text}) is not None)


def test_a_line_keeps_the_segments_that_are_asked_for() -> None:
    values = CALL | {"segments": [HELLO, THANKS]}
    assert with_segments(values, [1, 0]) == values
    assert with_segments(values, [1]) == CALL | {"segments": [THANKS]}
    timed = CALL | {"text": "<|0.50|> Hello.<|2.00|><|2.50|> Thank you.<|4.25|>", "x": 1}
    assert with_segments(timed, [0, 1]) == timed
    assert with_segments(timed, [0]) == CALL | {"x": 1, "segments": [HELLO]}
    assert with_segments(CALL | {"text": "Alone."}, [-1]) == CALL | {"text": "Alone."}


def test_a_line_without_segments_is_one_row() -> None:
    assert read_line("m", 1, CALL | {"text": "Alone."}) == Line([(At(1), Row(**CALL, text="Alone."))])  # type: ignore[list-item, arg-type]


def _parts(seconds: float, count: int) -> list[dict[str, Any]]:
    return [{"text": f"{seconds} number {n}", "start_s": n, "end_s": n + seconds} for n in range(count)]


@pytest.mark.parametrize("other", ["call.flac", "copy.flac"])
@pytest.mark.parametrize("alone", [False, True])
def test_one_recording_in_two_splits_is_a_leak_whatever_is_said_in_it(
    folder: Path, write_manifest: WriteManifest, other: str, alone: bool
) -> None:
    (folder / "copy.flac").write_bytes((folder / "call.flac").read_bytes())
    test: dict[str, Any] = {"audio_filepath": other, "speaker": "eve"}
    test |= {"text": "alone", "offset": 6, "duration": 0.7} if alone else {"segments": _parts(0.6, 3)}
    manifests = {
        "train": write_manifest(folder / "train.jsonl", [CALL | {"segments": _parts(0.5, 4)}]),
        "test": write_manifest(folder / "test.jsonl", [test]),
    }
    with pytest.raises(ManifestError) as caught:
        _load(manifests, disjoint_speakers=False)
    fault, _ = str(caught.value).splitlines()
    where = f"{manifests['test']}:1" + ("" if alone else ": segments[0]")
    assert fault.startswith(f"{manifests['train']}:1: leaks: the same recording as {where} ('")
    manifests["replay"] = write_manifest(folder / "replay.jsonl", [test])
    del manifests["test"]
    assert len(_load(manifests)["train"]) == 4  # both are trained on


def test_a_recording_that_leaks_is_left_out_whole(
    folder: Path, write_manifest: WriteManifest, write_noise: WriteNoise
) -> None:
    train = [CALL | {"segments": _parts(0.5, 4)}, CALL | {"audio_filepath": "fine.wav", "text": "one", "duration": 2}]
    test = [{"audio_filepath": "call.flac", "segments": _parts(0.6, 3)}]
    manifests = {
        "train": write_manifest(folder / "train.jsonl", train),
        "test": write_manifest(folder / "test.jsonl", test),
    }
    dataset = _load(manifests, on_bad_row="skip")
    assert ([each.text for each in dataset["train"]], len(dataset["test"])) == (["one"], 3)
    assert [fault.place for fault in dataset.skipped] == [f"{manifests['train']}:1"]


def test_clips_of_files_of_their_own_may_name_their_recording(
    folder: Path, write_manifest: WriteManifest, write_noise: WriteNoise
) -> None:
    rows = []
    for n in range(2):
        write_noise(folder / f"clip{n}.wav", seed=10 + n)
        rows.append({"audio_filepath": f"clip{n}.wav", "text": f"number {n}", "recording": "monday"})
    manifests = {
        split: write_manifest(folder / f"{split}.jsonl", [row])
        for split, row in zip(("train", "test"), rows, strict=True)
    }
    with pytest.raises(ManifestError, match=r"leaks: the same recording as .*test.jsonl:1 \('monday'\); keep it in"):
        _load(manifests)


def test_audio_that_was_cut_off_is_told_once(tmp_path: Path, write_manifest: WriteManifest) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "call.opus", noise, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    whole = (tmp_path / "call.opus").read_bytes()
    (tmp_path / "call.opus").write_bytes(whole[: len(whole) // 2])
    row = CALL | {"audio_filepath": "call.opus", "segments": _parts(0.5, 5)}
    (fault,) = _faults(write_manifest(tmp_path / "m.jsonl", [row]))
    assert fault.startswith("1: ")
    assert "it was cut off on its way" in fault
