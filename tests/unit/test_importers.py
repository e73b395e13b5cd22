"""Every form of recordings gives the same manifest, and all of its faults at once, by file and line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wertune.audio import load_audio
from wertune.errors import ConfigError, ManifestError
from wertune.importers.item import Columns
from wertune.importers.store import Imported, form_of, import_recordings
from wertune.manifest import read_rows

WriteNoise = Callable[..., Path]
TEXTS = ["Log in with Singpass.", "My CPF, please"]
SPEAKERS = ["ann", "bob"]


def _import(source: Path, project: Path, skip: bool = False, **values: Any) -> Imported:
    columns = Columns(values.pop("text", ""), values.pop("speaker", ""))
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
    rules = ["no recording", "leads out of", "text is empty", "0.10 s, but must", "31.00 s, but must"]
    rules += ["cannot be decoded", "3 values, but the header has 2", "must name a recording"]
    numbers = [3, 4, 5, 6, 7, 8, 10, 11]
    faults = _faults(source, tmp_path / "project")
    assert len(faults) == len(rules)
    for fault, number, rule in zip(faults, numbers, rules, strict=True):
        assert fault.startswith(f"{source / 'metadata.csv'}:{number}: ")
        assert rule in fault
    done = _import(source, tmp_path / "project", skip=True)
    assert (done.clips, len(done.skipped)) == (1, len(rules))


def test_columns_of_other_names_are_named(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    (source / "metadata.csv").write_text("file_name,words,who\n0.wav,hello,eve\n")
    with pytest.raises(ManifestError, match=r"no column of texts among file_name, words, who.*--text-column"):
        _import(source, tmp_path / "project")
    with pytest.raises(ManifestError, match="--speaker-column is nobody, but the columns are"):
        _import(source, tmp_path / "project", text="words", speaker="nobody")
    done = _import(source, tmp_path / "project", text="words", speaker="who")
    assert [row.speaker for _, _, row in read_rows(done.manifest)] == ["eve"]


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


def test_nothing_is_written_over(source: Path, wavs: list[Path], tmp_path: Path) -> None:
    _audiofolder(source, wavs)
    _import(source, tmp_path / "project")
    with pytest.raises(ConfigError, match="exists, and nothing is written over; give another --name"):
        _import(source, tmp_path / "project")
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        _import(tmp_path / "nowhere", tmp_path / "other")


@pytest.mark.parametrize(("form", "message"), [
    ("kaldi", "lacks wav.scp, text, utt2spk"),
    ("audiofolder", "has no metadata.csv or metadata.jsonl"),
    ("common-voice", "validated.tsv does not exist"),
    ("datasets", "state.json cannot be read"),
    ("plain", "holds no recording"),
])  # fmt: skip
def test_a_folder_of_another_form_is_told(form: str, message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        _import(source, tmp_path / "project", form=form)
