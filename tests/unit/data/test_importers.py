"""Every form of recordings gives the same manifest, and all of its faults at once, by file and line."""

import contextlib
import errno
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trials.fuzz.mutations import mutated

from wertune.base.errors import ConfigError, ManifestError, StorageError
from wertune.commands.data import import_
from wertune.data.audio import SAMPLE_RATE_HZ, load_audio
from wertune.data.importers.item import Columns, Fault, Item
from wertune.data.importers.saved_datasets import read_saved
from wertune.data.importers.store import READERS, Imported, form_of, import_recordings
from wertune.data.importers.tables import read_audiofolder
from wertune.data.manifest import read_rows

WriteNoise = Callable[..., Path]
TEXTS = ["Log in with Singpass.", "My CPF, please"]
SPEAKERS = ["ann", "bob"]


def _import(source: Path, project: Path, skip: bool = False, **values: Any) -> Imported:
    columns = Columns(*(values.pop(name, "") for name in ("text", "speaker", "language")))
    return import_recordings(source, values.pop("form", ""), project, "new", values.pop("audio", "flac"), columns, skip)


def _faults(source: Path, project: Path, **values: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _import(source, project, **values)
    assert not (project / "manifests").exists()
    assert not list((project / "audio").glob("*"))
    assert not list((project / "audio").glob(".*"))
    *faults, last = str(caught.value).splitlines()
    assert last.startswith(f"{len(faults)} fault")
    return faults


def _audiofolder(folder: Path, wavs: list[Path]) -> Path:
    lines = ["file_name,transcription,speaker_id"]
    lines += [f'{wav.name},"{text}",{who}' for wav, text, who in zip(wavs, TEXTS, SPEAKERS, strict=True)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return folder


def _audiofolder_lines(folder: Path, wavs: list[Path]) -> Path:
    rows = [
        {"file_name": wav.name, "text": text, "speaker": who}
        for wav, text, who in zip(wavs, TEXTS, SPEAKERS, strict=True)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _saved(folder: Path, wavs: list[Path]) -> Path:
    datasets = pytest.importorskip("datasets")
    columns = {"audio": [{"bytes": wav.read_bytes(), "path": wav.name} for wav in wavs], "sentence": TEXTS}
    made = datasets.Dataset.from_dict(columns | {"client_id": SPEAKERS}).cast_column(
        "audio", datasets.Audio(decode=False)
    )
    datasets.DatasetDict({"train": made.select([0]), "test": made.select([1])}).save_to_disk(folder / "saved")
    return folder / "saved"


def _kaldi(folder: Path, wavs: list[Path]) -> Path:
    (folder / "wav.scp").write_text(f"r0 {wavs[0]}\nr1 {wavs[1].name}\n")
    (folder / "text").write_text("".join(f"u{i} {text}\n" for i, text in enumerate(TEXTS)))
    (folder / "utt2spk").write_text("u0 ann\nu1 bob\n")
    (folder / "segments").write_text("u0 r0 0.00 1.00\nu1 r1 0 -1\n")
    return folder


def _common_voice(folder: Path, wavs: list[Path]) -> Path:
    (folder / "clips").mkdir()
    for wav in wavs:
        wav.rename(folder / "clips" / wav.name)
    rows = ["client_id\tpath\tsentence\tup_votes"]
    rows += [f"{who}\t{wav.name}\t{text}\t2" for wav, text, who in zip(wavs, TEXTS, SPEAKERS, strict=True)]
    (folder / "validated.tsv").write_text("\n".join(rows) + "\n")
    return folder


def _plain(folder: Path, wavs: list[Path]) -> Path:
    for wav, text, who in zip(wavs, TEXTS, SPEAKERS, strict=True):
        (folder / who).mkdir()
        wav.rename(folder / who / wav.name)
        (folder / who / wav.name).with_suffix(".txt").write_text(text.replace(" ", "\n") + "\n")
    return folder


FORMS = {
    "audiofolder": _audiofolder,
    "audiofolder with JSON lines": _audiofolder_lines,
    "datasets": _saved,
    "kaldi": _kaldi,
    "common-voice": _common_voice,
    "plain": _plain,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def wavs(source: Path, write_noise: WriteNoise) -> list[Path]:
    return [write_noise(source / f"{n}.wav", 1.0 + 0.5 * n, seed=n, rate_hz=8000) for n in range(2)]


@pytest.mark.parametrize("audio", ["flac", "opus"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_rows(form: str, audio: str, source: Path, wavs: list[Path], tmp_path: Path) -> None:
    heard = [load_audio(wav) for wav in wavs]
    folder = FORMS[form](source, wavs)
    assert form.startswith(form_of(folder))
    done = _import(folder, tmp_path / "project", audio=audio)
    rows = [row for _, _, row in read_rows(done.manifest)]
    assert [(row.text, row.speaker, row.duration) for row in rows] == [
        (TEXTS[0], "ann", 1.0),
        (TEXTS[1], "bob", 1.5),
    ]
    assert (done.clips, done.speakers, done.skipped) == (2, 2, ())
    for row, samples in zip(rows, heard, strict=True):
        written = load_audio(done.manifest.parent / row.audio_filepath)
        assert written.size == samples.size
        # White noise is what Opus keeps least of.
        assert abs(written - samples).max() < (1 / 32000 if audio == "flac" else 1)


def test_a_segment_is_the_part_of_its_recording(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    _kaldi(source, wavs)
    (source / "segments").write_text("u0 r1 0.25 1.00\nu1 r1 1.0 1.5\n")
    done = _import(source, tmp_path / "project")
    whole = load_audio(wavs[1])
    first = load_audio(done.manifest.parent / read_rows(done.manifest)[0][2].audio_filepath)
    assert abs(first[200:-200] - whole[4000:16000][200:-200]).max() < 1e-3


@pytest.mark.parametrize(("start", "end", "told"), [("0.5", "3.0", "0.5 to 3 s"), ("0", "600", "0 to 600 s")])
def test_a_segment_past_the_end_of_its_recording_is_a_fault(
    source: Path, wavs: list[Path], tmp_path: Path, start: str, end: str, told: str
) -> None:
    _kaldi(source, wavs)
    (source / "segments").write_text(f"u0 r0 {start} {end}\nu1 r1 0 1.55\n")  # 0.05 s more than there are: rounded
    assert _faults(source, tmp_path / "project") == [
        f"{source / 'segments'}:1: its part lasts from {told}, but the recording ends at 1.00 s; mend the times, or "
        "fetch the recording anew"
    ]


def test_kaldi_tells_all_faults_and_runs_no_command(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (source / "wav.scp").write_text(
        f"r0 {wavs[0]}\nr1 touch {ran} |\nr2 feats.ark:123\nr3 gone.wav\nr4 {wavs[1]}\nr4 {wavs[1]}\nr5 cat x.wav |\n"
    )
    names = "abcdefghi"
    (source / "text").write_text("".join(f"{name} some words\n" for name in names) + "j\n")
    (source / "utt2spk").write_text("".join(f"{name} ann\n" for name in names.replace("h", "") + "j"))
    (source / "segments").write_text(
        "a r1 0 1\nb r2 0 1\nc r3 0 1\nd r9 0 1\ne r0 1 0.5\nf r0 zero one\ng r0\nh r0 0 1\nj r4 0 1\nk r0 0 1\n"
    )
    faults = _faults(source, tmp_path / "project")
    expected = [
        ("wav.scp:6", "r4 stands at"),
        ("segments:1", "commands are never run; run it once with its output in a wav file"),
        ("segments:2", "archive feats.ark"),
        ("segments:3", "no file gone.wav"),
        ("segments:4", "recording r9 is not in wav.scp"),
        ("segments:5", "lasts from 1 to 0.5 s"),
        ("segments:6", "times are zero one"),
        ("segments:7", "times are missing"),
        ("text:8", "h is not in utt2spk"),
        ("text:9", "i is not in segments"),
        ("text:10", "the text is empty"),
        ("segments:10", "k is not in text"),
        ("wav.scp:7", "commands are never run"),
    ]
    found = {fault.partition(": ")[0].removeprefix(f"{source}/"): fault for fault in faults}
    assert found.keys() == dict(expected).keys()
    assert len(found) == len(faults)
    for place, rule in expected:
        assert rule in found[place]
    assert not ran.exists()


def test_a_table_tells_all_faults_by_line(
    source: Path, wavs: list[Path], write_noise: WriteNoise, tmp_path: Path
) -> None:
    write_noise(tmp_path / "secret.wav")
    write_noise(source / "short.wav", 0.1)
    write_noise(source / "long.wav", 31.0, rate_hz=4000)
    (source / "noise.wav").write_text("no sound")
    lines = [
        "file_name,text",
        "0.wav,good",
        "gone.wav,words",
        "../secret.wav,words",
        "1.wav,",
        "short.wav,words",
        "long.wav,words",
        '"noise.wav","two\nlines"',
        "a,b,c",
        ",words",
    ]
    (source / "metadata.csv").write_text("\n".join(lines))
    rules = ["no recording", "leads out of", "text is empty", "0.10 s, but must", "at least 31.00 s, but must"]
    rules += ["cannot be decoded", "3 values, but the header has 2", "must name a recording"]
    numbers = [3, 4, 5, 6, 7, 8, 10, 11]
    faults = _faults(source, tmp_path / "project")
    assert len(faults) == len(rules)
    for fault, number, rule in zip(faults, numbers, rules, strict=True):
        assert fault.startswith(f"{source / 'metadata.csv'}:{number}: ")
        assert rule in fault
    done = _import(source, tmp_path / "project", skip=True)
    assert (done.clips, len(done.skipped)) == (1, len(rules))


@pytest.mark.parametrize("end", ["-1", "600"])
def test_of_a_long_recording_no_more_is_decoded_than_may_be_used(source: Path, tmp_path: Path, end: str) -> None:
    soundfile.write(
        source / "long.flac", np.tile(np.array([999, -999], np.int16), 300 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ
    )
    (source / "wav.scp").write_text("r0 long.flac\n")
    (source / "text").write_text("u0 some words\n")
    (source / "utt2spk").write_text("u0 ann\n")
    (source / "segments").write_text(f"u0 r0 0 {end}\n")
    tracemalloc.start()
    try:
        (fault,) = _faults(source, tmp_path / "project")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "the recording lasts at least 31.00 s, but must last 0.2 to 30 s; split it" in fault
    assert peak < 10 * SAMPLE_RATE_HZ * 31 * 4  # all of it is twenty times as long


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"file_name;text\n0.wav;hello\n", r"csv:1: the columns are separated by semicolons, .* save it with commas"),
        (b"file_name,text,text\n0.wav,a,b\n", r"csv:1: the columns text stand there twice; name one of each otherwise"),
        ("file_name,text\n0.wav,é\n".encode("latin-1"), r"csv is no UTF-8 text \(.*\); save it in UTF-8$"),
    ],
)
def test_a_table_of_another_make_is_told(
    content: bytes, reason: str, source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    (source / "metadata.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=reason):
        _import(source, tmp_path / "project")


def test_columns_without_a_name_may_be_many(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "metadata.csv").write_text("file_name,text,,\n0.wav,hello,,\n")
    assert _import(source, tmp_path / "project").clips == 1


def test_columns_of_other_names_are_named(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "metadata.csv").write_text("file_name,words,who\n0.wav,hello,eve\n")
    with pytest.raises(ManifestError, match=r"no column of texts among file_name, words, who.*--text-column"):
        _import(source, tmp_path / "project")
    with pytest.raises(ManifestError, match="--speaker-column is nobody, but the columns are"):
        _import(source, tmp_path / "project", text="words", speaker="nobody")
    done = _import(source, tmp_path / "project", text="words", speaker="who")
    assert [row.speaker for _, _, row in read_rows(done.manifest)] == ["eve"]


def _parquet(path: Path, wavs: list[Path], **columns: list[Any]) -> None:
    rows = {"audio": [{"bytes": wav.read_bytes(), "path": None} for wav in wavs], "text": TEXTS} | columns
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(rows), path)


def _table_of(columns: dict[str, list[Any]], form: str, source: Path, wavs: list[Path]) -> Path:
    if form == "parquet":
        _parquet(source / "train.parquet", wavs, **columns)
        return source
    if form == "datasets":
        audio = _audio(*({"path": wav.name} for wav in wavs))
        return _saved_by_hand(source, _stream(audio, TEXTS, *columns.values(), names=("audio", "text", *columns)))
    rows: list[dict[str, Any]] = [
        {"path" if form == "common-voice" else "file_name": wav.name, "sentence": text}
        | dict(zip(columns, values, strict=True))
        for wav, text, *values in zip(wavs, TEXTS, *columns.values(), strict=True)
    ]
    if form == "json":
        rows[0] = {key: value for key, value in rows[0].items() if value}  # not every line has every key
        (source / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return source
    (source / "clips").mkdir()
    for wav in wavs:
        wav.rename((source / "clips" if form == "common-voice" else source) / wav.name)
    lines = [list(rows[0]), *([value or "" for value in row.values()] for row in rows)]
    name, between = ("validated.tsv", "\t") if form == "common-voice" else ("metadata.csv", ",")
    quoted = [[value.replace(",", " and") for value in values] for values in lines]
    (source / name).write_text("".join(between.join(values) + "\n" for values in quoted))
    return source


@pytest.mark.parametrize("form", ["parquet", "datasets", "json", "csv", "common-voice"])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"language": ["te", "te"]}, ["te", "te"]),
        ({"lang": [None, "te-IN"]}, ["", "te"]),
        ({"locale": ["zh-CN", "EN"]}, ["zh", "en"]),
        ({"language": ["", "ta"], "locale": ["ms", "ta"]}, ["ms", "ta"]),
    ],
)
def test_a_rows_language_is_read(
    form: str, columns: dict[str, list[Any]], expected: list[str], source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    rows = read_rows(_import(_table_of(columns, form, source, wavs), tmp_path / "project").manifest)
    assert [row.language for _, _, row in rows] == expected


def test_the_languages_of_a_kaldi_folder_are_read(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    _kaldi(source, wavs)
    (source / "utt2lang").write_text("u1 te-IN\n")
    rows = read_rows(_import(source, tmp_path / "project").manifest)
    assert [row.language for _, _, row in rows] == ["", "te"]
    (source / "utt2lang").write_text("u1 klingon\n")
    (fault,) = _faults(source, tmp_path / "other")
    assert f"{source / 'text'}:2: utt2lang: 'klingon' is no language of Whisper's" in fault
    assert _import(source, tmp_path / "other", language="-").clips == 2


@pytest.mark.parametrize("form", ["parquet", "csv", "common-voice"])
def test_a_language_that_is_none_is_a_fault_of_its_row(
    form: str, source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    columns = {"language": ["klingon", "te"], "locale": ["", "ta"], "tongue": ["ms", "en"]}
    folder = _table_of(columns, form, source, wavs)
    first, second = _faults(folder, tmp_path / "project")
    remedy = "or leave languages unread with --language-column -"
    assert "language: 'klingon' is no language of Whisper's; give its code, such as en, zh, ms, ta, " + remedy in first
    assert "language is 'te', but locale is 'ta': a clip is in one language; keep the one that is right" in second
    with pytest.raises(ManifestError, match="--language-column is words, but the columns are"):
        _import(folder, tmp_path / "project", language="words")
    for number, (column, expected) in enumerate([("-", ["", ""]), ("tongue", ["ms", "en"])]):
        rows = read_rows(_import(folder, tmp_path / f"project{number}", language=column).manifest)
        assert [row.language for _, _, row in rows] == expected


def test_a_plain_folder_tells_what_has_no_partner(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "0.txt").write_text("hello")
    (source / "lonely.txt").write_text("hello")
    wavs[0].with_suffix(".flac").write_bytes(b"")
    faults = _faults(source, tmp_path / "project")
    expected = [
        ("0.flac:1", "several recordings share this name"),
        ("0.wav:1", "several recordings share this name"),
        ("1.wav:1", "has no transcript 1.txt"),
        ("lonely.txt:1", "has no recording of its name"),
    ]
    for fault, (place, rule) in zip(faults, expected, strict=True):
        assert fault.startswith(f"{source / place}: {rule}")


@pytest.mark.parametrize("name", ["a/b", "../../evil", "/abs", "", "..", "a b", "a\n"])
def test_a_name_is_as_a_projects(name: str, source: Path, wavs: list[Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"^--name is .*, but must be letters, digits"):
        import_recordings(_audiofolder(source, wavs), "", tmp_path / "project", name, "flac", Columns(), False)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, source / "metadata.csv"])


def test_a_name_with_a_nul_is_a_fault(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "metadata.jsonl").write_text(json.dumps({"file_name": "0\0.wav", "text": "words"}) + "\n")
    (fault,) = _faults(source, tmp_path / "project")
    assert fault.endswith(
        "metadata.jsonl:1: file_name is '0\\x00.wav', which holds a NUL, which no file's name can hold; mend the name"
    )


def test_a_project_that_cannot_be_written_needs_no_space(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "project").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot be stored \(.*\); give a --project that can be written"):
        _import(_audiofolder(source, wavs), tmp_path / "project")


def test_nothing_is_written_over(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    _audiofolder(source, wavs)
    _import(source, tmp_path / "project")
    with pytest.raises(ConfigError, match="exists, and nothing is written over; give another --name"):
        _import(source, tmp_path / "project")
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        _import(tmp_path / "nowhere", tmp_path / "other")


@pytest.mark.parametrize("folder", ["manifests", "audio"])
@pytest.mark.parametrize("kind", ["a file", "a link to no folder"])
def test_what_stands_in_place_of_a_folder_is_named_and_nothing_is_left(
    folder: str, kind: str, source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    path = tmp_path / "project" / folder
    if kind == "a file":
        path.touch()
    else:
        path.symlink_to("gone")
    with pytest.raises(ConfigError, match=rf"{path} is {kind}, but must be a folder for new.*; remove or rename it"):
        _import(_audiofolder(source, wavs), tmp_path / "project")
    assert list((tmp_path / "project").iterdir()) == [path]
    path.unlink()
    assert _import(source, tmp_path / "project").clips == 2


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_manifest_that_cannot_be_written_leaves_no_recordings(
    error: BaseException, source: Path, wavs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, rows: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("wertune.data.importers.store.write_rows", fail)
        with pytest.raises((StorageError, KeyboardInterrupt)):
            _import(_audiofolder(source, wavs), tmp_path / "project")
    assert list((tmp_path / "project" / "audio").iterdir()) == []
    assert _import(source, tmp_path / "project").clips == 2


def test_of_two_imports_of_one_name_the_second_says_so(
    source: Path, wavs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _audiofolder(source, wavs)

    def another_comes_first(*values: Any) -> Any:
        monkeypatch.undo()
        _import(source, tmp_path / "project")
        return read_audiofolder(*values)

    monkeypatch.setitem(READERS, "audiofolder", another_comes_first)
    with pytest.raises(ConfigError, match=r"audio/new exists by now: another import of that name was first, .*--name"):
        _import(source, tmp_path / "project")
    assert [path.name for path in (tmp_path / "project" / "audio").iterdir()] == ["new"]
    assert len(read_rows(tmp_path / "project" / "manifests" / "new.jsonl")) == 2


@pytest.mark.parametrize(("form", "message"), [
    ("kaldi", "lacks wav.scp, text, utt2spk"),
    ("audiofolder", "has no metadata.csv or metadata.jsonl"),
    ("common-voice", "has no validated.tsv and no ss-corpus-"),
    ("datasets", "state.json cannot be read"),
    ("plain", "holds no recording"),
])  # fmt: skip
def test_a_folder_of_another_form_is_told(form: str, message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        _import(source, tmp_path / "project", form=form)


# The columns of corpus 17 and later; a sentence keeps its quotation marks, and one that opens none closes nothing.
SCRIPTED = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
)
SPONTANEOUS = (
    "client_id audio_id audio_file duration_ms prompt_id prompt transcription votes age gender accents variant "
    "language prompt_upvotes prompt_reports is_edited split char_per_sec quality_tags"
)


def _release(path: Path, columns: str, rows: list[dict[str, str]]) -> None:
    names = columns.split()
    lines = ["\t".join(names), *("\t".join(row.get(name, "") for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_release_of_common_voice_as_it_is_published(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "clips").mkdir()
    sentences = ['"Where is the CPF?" he asked.', "The 12\" screen is Ann's"]
    rows = []
    for number, (wav, text, who) in enumerate(zip(wavs, sentences, SPEAKERS, strict=True)):
        wav.rename(source / "clips" / wav.name)
        rows.append({"client_id": who * 40, "path": wav.name, "sentence_id": f"{number:064x}", "sentence": text})
        rows[-1] |= {"sentence_domain": "finance,general", "up_votes": "2", "down_votes": "0", "locale": "en"}
    _release(source / "validated.tsv", SCRIPTED, rows)
    _release(source / "invalidated.tsv", SCRIPTED, [rows[0] | {"path": "gone.mp3"}])
    (source / "clip_durations.tsv").write_text("clip\tduration[ms]\n0.wav\t1000\n")
    (source / "validated_sentences.tsv").write_text("sentence_id\tsentence\n1\tNo clip.\n")
    done = _import(source, tmp_path / "project")
    found = [row for _, _, row in read_rows(done.manifest)]
    spoken = [(row.text, row.speaker) for row in found]
    assert spoken == [(text, who * 40) for text, who in zip(sentences, SPEAKERS, strict=True)]
    assert _import(source / "validated.tsv", tmp_path / "other").clips == 2
    with pytest.raises(ManifestError, match=r"columns are sentence_id, sentence, but one must be path or audio_file"):
        _import(source / "validated_sentences.tsv", tmp_path / "third")


def test_spontaneous_speech_of_common_voice(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "audios").mkdir()
    rows = []
    for wav, text, who in zip(wavs, TEXTS, SPEAKERS, strict=True):
        wav.rename(source / "audios" / wav.name)
        rows.append({"client_id": who, "audio_file": wav.name, "prompt": "What do you do?", "transcription": text})
    _release(source / "ss-corpus-en.tsv", SPONTANEOUS, rows)
    found = [row for _, _, row in read_rows(_import(source, tmp_path / "project").manifest)]
    assert [(row.text, row.speaker) for row in found] == list(zip(TEXTS, SPEAKERS, strict=True))


def test_a_kaldi_folder_with_all_that_its_recipes_leave_there(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    """As validate_data_dir.sh wants it: sorted, speakers as prefixes of utterances; with files that are not read."""
    (source / "wav.scp").write_text(f"call1 {wavs[0]}\ncall2 {wavs[1]}\n")
    (source / "segments").write_text("ann-call1-0001 call1 0.10 0.60\nbob-call2-0001 call2 0.5 1.50\n")
    (source / "text").write_text("ann-call1-0001 LOG IN\nbob-call2-0001 MY CPF\n")
    (source / "utt2spk").write_text("ann-call1-0001 ann\nbob-call2-0001 bob\n")
    (source / "spk2utt").write_text("ann ann-call1-0001\nbob bob-call2-0001\n")
    (source / "spk2gender").write_text("ann f\nbob m\n")
    (source / "reco2dur").write_text("call1 1.0\ncall2 1.5\n")
    (source / "feats.scp").write_text("ann-call1-0001 raw_mfcc.1.ark:15\nbob-call2-0001 raw_mfcc.1.ark:99\n")
    found = [row for _, _, row in read_rows(_import(source, tmp_path / "project").manifest)]
    assert [(row.text, row.speaker, row.duration) for row in found] == [("LOG IN", "ann", 0.5), ("MY CPF", "bob", 1.0)]


def test_a_channel_of_a_kaldi_segment_is_refused(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    _kaldi(source, wavs)
    (source / "segments").write_text("u0 r0 0.00 1.00 1\nu1 r1 0 -1\n")
    (fault,) = _faults(source, tmp_path / "project")
    assert "segments:1: the segment names channel 1, but channels are not told apart; write that channel" in fault


def _stream(*columns: Any, names: tuple[str, ...] = ("audio", "text")) -> bytes:
    batch = pyarrow.record_batch(list(columns), names=list(names))
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def _saved_by_hand(folder: Path, stream: bytes, **state: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.arrow").write_bytes(stream)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]} | state))
    return folder


def _audio(*rows: dict[str, Any]) -> Any:
    return pyarrow.array([{"bytes": None, "path": None} | row for row in rows])


def test_a_saved_dataset_names_recordings_of_its_folder_or_whole_paths(
    source: Path, wavs: list[Path], write_noise: WriteNoise, tmp_path: Path
) -> None:
    private = write_noise(tmp_path / "private.wav")
    (source / "link.wav").symlink_to(private)
    (source / "round.wav").symlink_to("round.wav")
    names = ["../private.wav", "link.wav", "a\0b", "../source/../private.wav", "round.wav", "x" * 300]
    stream = _stream(_audio(*({"path": name} for name in names)), pyarrow.array(["words"] * len(names)))
    faults = _faults(_saved_by_hand(source, stream), tmp_path / "project")
    assert len(faults) == len(names)
    for number, (fault, name) in enumerate(zip(faults[:4], names[:4], strict=True), start=1):
        rule = f"the path is {name}, which leads out of {source}; put the recording into that folder"
        assert fault == f"{source / 'data.arrow'}:{number}: {rule}"
    rule = "links lead from there back to it; put the recording itself there"
    assert faults[4] == f"{source / 'data.arrow'}:5: the recording is {source / 'round.wav'}, but {rule}"
    assert "xxx…, but no file's name can be as long as its " in faults[5]
    stream = _stream(_audio({"path": "0.wav"}, {"path": str(wavs[1])}), pyarrow.array(TEXTS))
    assert _import(_saved_by_hand(source, stream), tmp_path / "project").clips == 2


@pytest.mark.parametrize("audio", [{"bytes": "../private.wav"}, {"bytes": [1]}, {"path": 7}, {"path": b"0.wav"}])
def test_bytes_of_a_saved_dataset_are_bytes_and_its_paths_text(
    source: Path, write_noise: WriteNoise, tmp_path: Path, audio: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path / "private.wav")
    monkeypatch.chdir(source)
    _saved_by_hand(source, _stream(_audio(audio), pyarrow.array(["words"])))
    (fault,) = _faults(source, tmp_path / "project")
    assert fault.startswith(f"{source / 'data.arrow'}:1: the recording's bytes and path are ")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["../other"], r"dataset_dict.json names ../other, which leads out of .*source; save the dataset again"),
        (["/"], "dataset_dict.json names /, which leads out of"),
        (7, r"dataset_dict.json is not what `datasets` writes \(splits is .*, but must be a list\); save the dataset"),
        ("ab", "splits is 'ab', but must be a list"),
        ([7], "splits.0 is 7, but must be a text"),
    ],
)
def test_splits_are_names_of_folders_within(source: Path, tmp_path: Path, splits: Any, message: str) -> None:
    stream = _stream(_audio({"path": "0.wav"}), pyarrow.array(["words"]))
    _saved_by_hand(tmp_path / "other", stream)
    (source / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(ManifestError, match=message):
        _import(source, tmp_path / "project")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('{"_data_files": 5}', r"state.json is not what `datasets` writes \(_data_files is 5, but must be a list\)"),
        ('{"_data_files": [5]}', "_data_files.0 is 5, but must be"),
        ('{"_data_files": [{}]}', r"_data_files.0.filename is missing; add it"),
        ('{"_data_files": [{"filename": 5}]}', "_data_files.0.filename is 5, but must be a text"),
        ('{"_data_files": [{"filename": ".."}]}', r"state.json names .., which leads out of"),
        ("{}", r"_data_files is missing; add it"),
        ("[]", r"\(it is \[\], but must be a mapping"),
        ("{", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ('{"_data_files": [{"filename": "\\ud800"}]}', "Invalid JSON"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "a"}]}', "flatten_indices"),
    ],
)
def test_a_state_of_another_shape_is_told(source: Path, tmp_path: Path, state: str, message: str) -> None:
    (source / "state.json").write_text(state)
    with pytest.raises(ManifestError, match=message):
        _import(source, tmp_path / "project", form="datasets")


def test_offsets_that_lead_out_of_an_arrow_file_are_refused(source: Path, tmp_path: Path) -> None:
    stream = _stream(_audio({"path": "0.wav"}), pyarrow.array(["w" * 77]))
    offsets, lying = (np.array([0, end], np.int32).tobytes() for end in (77, 2**31 - 1))
    before, found, after = stream.rpartition(offsets)
    assert found
    _saved_by_hand(source, before + lying + after)
    with pytest.raises(ManifestError, match=r"data\.arrow is no Arrow stream \(.*offset .*\); save the dataset again"):
        _import(source, tmp_path / "project")


def test_what_arrow_holds_and_python_cannot_is_told(source: Path, tmp_path: Path) -> None:
    audio, words = _audio({"path": "0.wav"}), pyarrow.array(["words"])
    no_text = pyarrow.StringArray.from_buffers(1, words.buffers()[1], pyarrow.py_buffer(b"w\xffrds"))
    after_the_year_9999 = pyarrow.array([2**30], pyarrow.int32()).cast(pyarrow.date32())
    for columns in ((audio, no_text), (audio, words, after_the_year_9999)):
        _saved_by_hand(source, _stream(*columns, names=("audio", "text", "day")[: len(columns)]))
        with pytest.raises(ManifestError, match=r"data\.arrow is no Arrow stream"):
            _import(source, tmp_path / "project")


@settings(max_examples=100, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_arrow_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = 20
    audio = _audio(*({"bytes": b"RIFF" * number, "path": f"{number}.wav"} for number in range(rows)))
    whole = _stream(audio, pyarrow.array([f"text number {number}" for number in range(rows)]))
    damaged = data.draw(mutated([whole], lambda _: ()))
    folder = _saved_by_hand(tmp_path_factory.getbasetemp() / "damaged", damaged)
    with contextlib.suppress(ManifestError):
        assert all(isinstance(found, Item | Fault) for found in read_saved(folder, Columns()))


def test_half_a_surrogate_pair_and_endless_numbers_are_told_by_line(
    source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    row = '{"file_name": "0.wav", "text": "words%s"%s}\n'
    (source / "metadata.jsonl").write_text(row % ("\\ud800", "") + row % ("", ', "a": ' + "1" * 5000) + row % ("", ""))
    faults = _faults(source, tmp_path / "project")
    problems = ((1, "holds half a surrogate pair ("), (2, "not JSON ("))
    places = [f"{source / 'metadata.jsonl'}:{number}: {problem}" for number, problem in problems]
    assert [fault[: len(place)] for fault, place in zip(faults, places, strict=True)] == places


def test_a_key_that_a_json_line_holds_twice_is_a_fault(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "metadata.jsonl").write_text('{"file_name": "0.wav", "text": "one", "text": "other"}\n')
    (fault,) = _faults(source, tmp_path / "project")
    assert fault.endswith("metadata.jsonl:1: text stands there twice; keep the one that is right")


def test_a_speaker_is_the_same_however_the_name_is_written(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    rows = [
        {"file_name": wav.name, "text": "a", "speaker": who}
        for wav, who in zip(wavs, ("Zoe\u0301 ", "Zo\u00e9"), strict=True)
    ]
    (source / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = _import(source, tmp_path / "project")
    assert done.speakers == 1
    assert [values["speaker"] for _, values, _ in read_rows(done.manifest)] == ["Zo\u00e9", "Zo\u00e9"]


@pytest.mark.parametrize(
    ("text", "named"),
    [("caf\ufffd", "U+FFFD REPLACEMENT CHARACTER"), ("wait\x85", "U+0085 (a control character)")],
)
@pytest.mark.parametrize("form", ["json", "plain"])
def test_a_text_of_a_wrong_encoding_is_a_fault(
    form: str, text: str, named: str, source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    wavs[1].unlink()
    if form == "plain":
        (source / "0.txt").write_text(text, encoding="utf-8")
    else:
        (source / "metadata.jsonl").write_text(json.dumps({"file_name": "0.wav", "text": text}))
    (fault,) = _faults(source, tmp_path / "project")
    assert fault.endswith(
        f":1: text holds {named}, which is what a wrong encoding leaves; write the text anew, in UTF-8"
    )


def test_a_file_whose_name_is_no_utf_8_is_to_be_renamed(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    _plain(source, wavs)
    for suffix in (b".wav", b".txt"):
        (source / "ann" / "0").with_suffix(suffix.decode()).rename(os.fsdecode(bytes(source) + b"/caf\xe9" + suffix))
    (fault,) = _faults(source, tmp_path / "project", form="plain")
    name = f"{source}/caf\\xe9"
    assert fault == f"{name}.txt:1: the file's name {name}.wav is no UTF-8; rename it"
    assert _import(source, tmp_path / "project", form="plain", skip=True).clips == 1


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("round.wav", "round.wav, but links lead from there back to it; put the recording itself there"),
        ("x" * 300, "xxx…, but no file's name can be as long as its "),
    ],
)
@pytest.mark.parametrize("form", ["kaldi", "json", "plain"])
def test_a_name_under_which_nothing_can_be_is_told(
    form: str, name: str, rule: str, source: Path, wavs: list[Path], tmp_path: Path
) -> None:
    (source / "round.wav").symlink_to("round.wav")
    if form == "plain":
        for wav in wavs:
            wav.with_suffix(".txt").write_text("words")
        (source / "round.txt").write_text("words")
        name, rule = "round.wav", "round.wav, but links lead from there back to it; put the recording itself there"
    elif form == "json":
        (source / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "words"}))
    else:
        (source / "wav.scp").write_text(f"u0 {name}\n")
        (source / "text").write_text("u0 words\n")
        (source / "utt2spk").write_text("u0 ann\n")
    (fault,) = _faults(source, tmp_path / "project", form="" if form != "plain" else form)
    assert f":1: the recording is {source}/" in fault
    assert rule in fault


def test_the_same_audio_is_taken_once_and_the_others_are_listed(
    source: Path, wavs: list[Path], tmp_path: Path, write_noise: WriteNoise
) -> None:
    for name, text in (("a", "the same words"), ("b", "the same words"), ("c", "others")):
        (source / f"{name}.wav").write_bytes(wavs[0].read_bytes())
        (source / f"{name}.txt").write_text(text)
    for wav in wavs:
        wav.unlink()
    done = _import(source, tmp_path / "project", form="plain")
    assert (done.clips, done.skipped) == (1, ())
    assert [str(each) for each in done.duplicates] == [
        f"{source / 'b.txt'}:1: the same audio as {source / 'a.txt'}:1",
        f"{source / 'c.txt'}:1: the same audio as {source / 'a.txt'}:1, with another text ('the same words')",
    ]
    assert len(list((tmp_path / "project" / "audio" / "new").iterdir())) == 1


def test_a_data_set_of_the_hub_is_read_from_its_parquet_files(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    folder = source / "data"
    folder.mkdir()
    for number, wav in enumerate(wavs):
        rows = [{"audio": {"bytes": wav.read_bytes(), "path": wav.name}, "text": TEXTS[number], "speaker_id": "ann"}]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / f"train-0000{number}-of-00002.parquet")
        wav.unlink()
    assert form_of(source) == "parquet"
    done = _import(source, tmp_path / "project")
    assert [row.text for _, _, row in read_rows(done.manifest)] == list(TEXTS)
    (folder / "broken.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ManifestError, match=r"broken\.parquet is no Parquet file .* download it again"):
        _import(source, tmp_path / "other")


def test_rows_of_several_files_of_the_hub_say_which_they_are_of(
    source: Path, wavs: list[Path], write_noise: WriteNoise, tmp_path: Path
) -> None:
    data = source / "data"
    third = write_noise(source / "2.wav", seed=9)
    _parquet(data / "train-00000-of-00002.parquet", wavs, speaker=["ann", "bob"])
    _parquet(data / "train-00001-of-00002.parquet", [third, wavs[0]], speaker=["ann", "eve"])
    _parquet(data / "test-00000-of-00001.parquet", [wavs[1], write_noise(source / "3.wav", seed=8)])
    done = _import(source, tmp_path / "project", form="parquet")
    assert [values["source"] for _, values, _ in read_rows(done.manifest)] == [
        "data/test-00000-of-00001.parquet:1",
        "data/test-00000-of-00001.parquet:2",
        "data/train-00000-of-00002.parquet:1",
        "data/train-00001-of-00002.parquet:1",
    ]
    assert done.origins == {"data/test-00000-of-00001.parquet": 2, "data/train-*.parquet": 2}
    test, first, second = (
        data / f"{name}.parquet" for name in ("test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002")
    )
    assert [str(each) for each in done.duplicates] == [
        f"{first}:2: the same audio as {test}:1, with another text ({TEXTS[0]!r}), by another speaker ('')",
        f"{second}:2: the same audio as {first}:1, with another text ({TEXTS[0]!r}), by another speaker ('ann')",
    ]
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "project.yaml").touch()
    said = CliRunner().invoke(import_, [str(data), "--project", str(tmp_path / "said")]).output
    assert "2 rows of test-00000-of-00001.parquet\n2 rows of train-*.parquet\nthey are one manifest now, which" in said
    (data / "test-00000-of-00001.parquet").unlink()
    assert _import(data, tmp_path / "other").origins == {"train-*.parquet": 3}


def test_splits_of_a_saved_dataset_and_of_tables_are_told(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    for name, wav, text in zip(("train", "test"), wavs, TEXTS, strict=True):
        audio = _audio({"bytes": wav.read_bytes(), "path": "clip.wav"})
        _saved_by_hand(source / "saved" / name, _stream(audio, pyarrow.array([text])))
        (source / "tables" / name).mkdir(parents=True)
        wav.rename(source / "tables" / name / "clip.wav")
        (source / "tables" / name / "metadata.csv").write_text('file_name,text\nclip.wav,"words"\n')
    (source / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    done = _import(source / "saved", tmp_path / "project")
    assert done.origins == {"train/data.arrow": 1, "test/data.arrow": 1}
    sources = [values["source"] for _, values, _ in read_rows(done.manifest)]
    assert sources == ["train/data.arrow:1 clip.wav", "test/data.arrow:1 clip.wav"]
    done = _import(source / "tables", tmp_path / "other")
    assert done.origins == {"test/metadata.csv": 1, "train/metadata.csv": 1}
