"""Recordings with time-coded transcripts: pairs, segments and their faults, and what a project gets of them."""

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from tests.support.timed_transcripts import ANONYMOUS, WRITERS, Said, cut, cuts, labels, srt, stm, textgrid, vtt
from tests.support.workspace import take

from wertune.base.config import DataConfig
from wertune.base.errors import ConfigError, ManifestError
from wertune.base.text import normaliser
from wertune.commands.data import import_
from wertune.data.audio import SAMPLE_RATE_HZ, load_audio
from wertune.data.importers.item import Columns
from wertune.data.importers.store import Imported, form_of, import_recordings
from wertune.data.manifest import load_dataset, read_rows
from wertune.data.rows import Row

WriteNoise = Callable[..., Path]
DATA = DataConfig(train=Path("train"), validation=Path("v"), test=Path("t"))
TALK = [Said("Log in with Singpass.", 0.5, 2.25, "Ann"), Said("My CPF, please", 3.0, 4.125, "Bob")]


@pytest.fixture
def source(tmp_path: Path, write_noise: WriteNoise) -> Path:
    write_noise(tmp_path / "source" / "talk.wav", 6.0, rate_hz=8000)
    return tmp_path / "source"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "project.yaml").touch()
    return tmp_path / "project"


def _import(source: Path, project: Path, skip: bool = False, **values: Any) -> Imported:
    name, language = values.pop("name", "new"), values.pop("language", "")
    form, columns = values.pop("form", ""), Columns(language=language)
    beside, whole = values.pop("transcripts", None), values.pop("whole", False)
    return import_recordings(source, form, project, name, values.pop("audio", "flac"), columns, skip, beside, whole)


def _rows(done: Imported) -> list[Row]:
    return [row for _, _, row in read_rows(done.manifest)]


def _faults(source: Path, project: Path) -> list[str]:
    """Of an import, which leaves nothing."""
    before = sorted(project.rglob("*"))
    with pytest.raises(ManifestError) as caught:
        _import(source, project, name="refused")
    assert {*project.rglob("*")} - {*before} <= {project / "audio"}
    *faults, last = str(caught.value).splitlines()
    assert last.startswith(f"{len(faults)} fault")
    return [fault.replace(f"{source}/", "") for fault in faults]


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Said], list[np.ndarray[Any, Any]]]:
    """A recording of six of the demo's test clips with pauses, what is said in it, and the clips."""
    folder = tmp_path_factory.mktemp("joined")
    take("test", 6, folder / "six.jsonl")
    pieces, said, clips, at = [], [], [], 0
    for row in (json.loads(line) for line in (folder / "six.jsonl").read_text().splitlines()):
        samples, pause = load_audio(Path(row["audio_filepath"])), np.zeros(12_000, np.float32)
        start, at = at + pause.size, at + pause.size + samples.size
        pieces += [pause, samples]
        said.append(Said(row["text"], start / SAMPLE_RATE_HZ, at / SAMPLE_RATE_HZ, row["speaker"]))
        clips.append(samples)
    soundfile.write(folder / "talk.flac", np.concatenate(pieces), SAMPLE_RATE_HZ)
    return folder / "talk.flac", said, clips


@pytest.mark.parametrize("name", [*WRITERS, "cuts.jsonl.gz"])
def test_a_long_recording_becomes_its_segments(
    name: str, joined: tuple[Path, list[Said], list[np.ndarray[Any, Any]]], tmp_path: Path, project: Path
) -> None:
    recording, said, clips = joined
    source = tmp_path / "source" / Path(name).name
    source.parent.mkdir()
    (source.parent / recording.name).symlink_to(recording)
    if name == "cuts.jsonl.gz":
        source.write_bytes(gzip.compress(cuts(said, recording.name).encode()))
    else:
        source.write_text(WRITERS[name](said), encoding="utf-8")
    done = CliRunner().invoke(import_, [str(source.parent), "--project", str(project), "--name", "new", "--json"])
    assert done.exit_code == 0, done.output
    rows = [row for _, _, row in read_rows(project / "manifests" / "new.jsonl")]
    assert [row.text for row in rows] == [each.text for each in said]
    if name not in ANONYMOUS:
        assert [row.speaker for row in rows] == [each.speaker for each in said]
    for row, clip in zip(rows, clips, strict=True):
        heard = load_audio(project / "manifests" / row.audio_filepath)
        size = min(heard.size, clip.size)
        assert abs(heard.size - clip.size) <= 0.002 * SAMPLE_RATE_HZ
        best = max(np.dot(heard[shift:size], clip[: size - shift]) for shift in range(20))
        assert best > 0.9 * np.linalg.norm(heard) * np.linalg.norm(clip)


def test_transcripts_may_lie_in_a_folder_of_their_own(
    source: Path, project: Path, tmp_path: Path, write_noise: WriteNoise
) -> None:
    write_noise(source / "ann" / "call.wav", 6.0, seed=1)
    transcripts = tmp_path / "transcripts"
    (transcripts / "ann").mkdir(parents=True)
    (transcripts / "talk.wav.srt").write_text(srt(TALK))  # as whisper.cpp calls it
    (transcripts / "ann" / "call.vtt").write_text(vtt(TALK))
    options = ["--project", str(project), "--transcripts", str(transcripts)]
    said = CliRunner().invoke(import_, [str(source), *options])
    assert "4 clips, 0.1 minutes, 2 speakers" in said.output
    sources = [values["source"] for _, values, _ in read_rows(project / "manifests" / "imported.jsonl")]
    assert sources == ["ann/call.wav"] * 2 + ["talk.wav"] * 2
    said = CliRunner().invoke(import_, [str(source), *options, "--form", "kaldi", "--name", "other"])
    assert "--transcripts is" in str(said.exception)
    assert "but --form kaldi has none; leave one of the two out" in str(said.exception)
    with pytest.raises(ConfigError, match=r"--transcripts is .*gone, which does not exist; give a folder, or a CTM"):
        _import(source, project, transcripts=tmp_path / "gone")
    with pytest.raises(ManifestError, match=r"project holds no transcript with times \(\.srt, .*give another --tran"):
        _import(source, project, transcripts=project)


def test_one_file_of_nist_names_many_recordings(source: Path, project: Path, write_noise: WriteNoise) -> None:
    write_noise(source / "day2" / "other.wav", 6.0, seed=1)
    gap = "talk 1 inter_segment_gap 4.2 5 <o,,> ignore_time_segment_in_scoring\n"
    (source.parent / "all.stm").write_text(stm(TALK) + gap + stm(TALK[:1]).replace("talk", "other"))
    done = _import(source, project, transcripts=source.parent / "all.stm")
    assert [(row.text, row.speaker) for row in _rows(done)] == [(each.text, each.speaker) for each in (*TALK, TALK[0])]
    assert done.notes == {"left out of texts, ignore_time_segment_in_scoring": 1}


def test_which_form_a_folder_has(source: Path) -> None:
    (source / "talk.txt").write_text("Log in with Singpass.")
    assert form_of(source) == "plain"
    (source / "talk.json").write_text('{"rate": 8000}')
    assert form_of(source) == "plain"
    (source / "talk.txt").write_text(labels(TALK))
    assert form_of(source) == "timed"
    (source / "my_cuts_train.jsonl").touch()
    assert form_of(source) == form_of(source / "my_cuts_train.jsonl") == "lhotse"


def test_events_are_left_out_and_counted(source: Path, project: Path) -> None:
    texts = ["[noise]", "Log [noise] in (%uh) <unk>", "♪♪", "<unk>", "{BREATH} my CPF"]
    (source / "talk.srt").write_text(srt([Said(text, n, n + 0.9) for n, text in enumerate(texts)]))
    said = CliRunner().invoke(import_, [str(source), "--project", str(project)]).output
    assert [row.text for _, _, row in read_rows(project / "manifests" / "imported.jsonl")] == ["Log in", "my CPF"]
    for note in ("[noise]: 2", "<unk>: 2", "♪♪: 1", "{BREATH}: 1", "(%uh): 1"):
        assert f"left out of texts, {note}\n" in said


def test_each_fault_of_a_segment_is_told_with_its_place(source: Path, project: Path) -> None:
    said = [
        Said("good", 0.0, 0.5),
        Said("reversed", 2.0, 1.0),
        Said("of no length", 1.0, 1.0),
        Said("<i></i>", 1.0, 1.5),
        Said("too short", 2.0, 2.1),
        Said("goes on", 3.0, 4.0),
        Said("begins too early", 3.5, 5.0),
        Said("goes past the end", 5.5, 9.0),
        Said("after the end", 60.0, 61.0),
        Said("too long", 100.0, 131.0),
    ]
    (source / "talk.srt").write_text(srt(said))
    faults = dict(fault.split(": ", 1) for fault in _faults(source, project))
    lasts = "the segment lasts from"
    rule = "s, but must start at 0 or later and end after its start"
    assert faults.pop("talk.srt:6") == f"{lasts} 2 to 1 {rule}"
    assert faults.pop("talk.srt:10") == f"{lasts} 1 to 1 {rule}"
    assert faults.pop("talk.srt:14") == "the text is empty; transcribe the clip or remove the row"
    assert "lasts 0.10 s, but must last 0.2 to 30 s" in faults.pop("talk.srt:18")
    both = "and no speakers are named; mend the times"
    assert faults.pop("talk.srt:22") == (f"{lasts} 3.00 to 4.00 s, but that of talk.srt:26 from 3.50 to 5.00 s, {both}")
    assert faults.pop("talk.srt:26") == f"{lasts} 3.50 to 5.00 s, but that of talk.srt:22 from 3.00 to 4.00 s, {both}"
    assert "lasts from 5.5 to 9 s, but the recording ends at 6.00 s; mend the times" in faults.pop("talk.srt:30")
    assert "holds no samples from 60 s on" in faults.pop("talk.srt:34")
    assert "holds no samples from 100 s on" in faults.pop("talk.srt:38")
    assert not faults
    done = _import(source, project, skip=True)
    assert [row.text for row in _rows(done)] == ["good"]
    assert len(done.skipped) == len(said) - 1


def test_a_segment_that_is_too_long_is_told_as_a_recording_is(
    source: Path, project: Path, write_noise: WriteNoise
) -> None:
    write_noise(source / "talk.wav", 32.0, rate_hz=4000)
    (source / "talk.srt").write_text(srt([Said("for too long", 0.5, 31.6)]))
    (fault,) = _faults(source, project)
    assert fault == (
        "talk.srt:2: the recording lasts at least 31.00 s, but must last 0.2 to 30 s; split it or remove the row"
    )


def test_speakers_may_speak_at_once_and_one_may_not(source: Path, project: Path) -> None:
    said = [Said("one", 0.0, 2.0, "Ann"), Said("two", 1.0, 3.0, "Bob"), Said("three", 2.05, 2.5, "Ann")]
    (source / "talk.vtt").write_text(vtt([*said, Said("four", 2.45, 4.0, "Ann")]))
    done = _import(source, project)
    assert [row.text for row in _rows(done)] == ["one", "two", "three", "four"]  # 0.05 s are rounding
    assert done.notes == {"segments that begin while another speaker's goes on, so that both are heard": 3}
    (source / "talk.vtt").write_text(vtt([*said, Said("four", 2.2, 4.0, "Ann"), Said("five", 4.2, 5.0, "Ann")]))
    first, second = _faults(source, project)
    assert first == (
        "talk.vtt:15: the segment lasts from 2.05 to 2.50 s, but that of talk.vtt:18 from 2.20 to 4.00 s, "
        "and 'Ann' says both; mend the times"
    )
    assert second.startswith("talk.vtt:18: the segment lasts from 2.20 to 4.00 s, but that of talk.vtt:15 from 2.05")


def test_what_has_no_partner_or_too_many_is_told(source: Path, project: Path, write_noise: WriteNoise) -> None:
    for number, name in enumerate(("twice.wav", "twice.flac", "lonely.wav", "silent.wav"), start=1):
        write_noise(source / name, 6.0, seed=number)
    for name in ("talk.srt", "twice.srt", "gone.srt"):
        (source / name).write_text(srt(TALK))
    (source / "talk.vtt").write_text(vtt(TALK))
    (source / "silent.TextGrid").write_text(textgrid([Said("", 0.0, 1.0, "Ann")]))
    (source / "broken.eaf").write_text("<a")
    (source / "cut.TextGrid").write_text(textgrid(TALK)[:200])
    (source / "old.srt").write_bytes(srt([Said("caf\u00e9", 0.0, 1.0)]).encode("latin-1"))
    faults = [fault.replace(f"{source}", "SOURCE") for fault in _faults(source, project)]
    assert [re.sub(r" \('utf-8' codec .*\)", "", fault) for fault in faults] == [
        "broken.eaf:1: is no XML (unclosed token: line 1, column 0); save it in ELAN anew",
        "cut.TextGrid:12: the end stands where a number is due; save it in Praat anew",
        "gone.srt:2: there is no recording gone in SOURCE; add it or remove the transcript",
        "old.srt:1: is no UTF-8 text; save it in UTF-8",
        "silent.TextGrid:1: holds no segment with a text; transcribe it or remove the file",
        "talk.vtt:9: talk.wav has a transcript already, talk.srt; keep one of the two",
        "twice.srt:2: twice.flac and twice.wav are both called twice; keep the one that this is said in",
        "lonely.wav:1: has no transcript with times; add it, mend it or remove the recording",
    ]
    assert _import(source, project, skip=True).clips == 2


def test_a_transcript_is_not_given_to_a_recording_of_another_folder(
    source: Path, project: Path, write_noise: WriteNoise
) -> None:
    (source / "talk.wav").unlink()
    write_noise(source / "ben" / "0001.wav", 6.0)
    (source / "ann").mkdir()
    (source / "ann" / "0001.srt").write_text(srt(TALK))
    assert [fault.partition(":")[0] for fault in _faults(source, project)] == ["ann/0001.srt", "ben/0001.wav"]


def test_languages_are_kept_and_may_be_left_unread(source: Path, project: Path) -> None:
    (source / "talk.json").write_text(WRITERS["talk.json"](TALK))
    assert [row.language for row in _rows(_import(source, project))] == ["en", "en"]
    (source / "talk.json").write_text(WRITERS["talk.json"](TALK).replace("english", "klingon"))
    assert "language: 'klingon' is no language of Whisper's" in _faults(source, project)[0]
    assert [row.language for row in _rows(_import(source, project, name="none", language="-"))] == ["", ""]


def test_faults_of_lhotses_cuts(source: Path, project: Path) -> None:
    good, changed, many, mixed, bare, gone = (json.loads(json.dumps(cut(TALK[0], "talk.wav"))) for _ in range(6))
    changed["recording"]["transforms"] = [{"name": "Speed"}]
    many["recording"]["sources"][0] |= {"channels": [0, 1]}
    mixed |= {"type": "MixedCut"}
    bare["supervisions"] = []
    gone["recording"]["sources"][0]["source"] = "gone.wav"
    url = json.loads(json.dumps(good).replace('"file"', '"url"'))
    no_text = json.loads(json.dumps(cut(TALK[1], "talk.wav", 1)))
    del no_text["supervisions"][0]["text"]
    lines = [good, changed, many, mixed, bare, gone, url, no_text]
    (source / "cuts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n")
    expected = [
        "cuts.jsonl:2: the recording is changed on its way (transforms); write what is heard as a wav file",
        "cuts.jsonl:3: the cut is of one channel of several, but channels are not told apart; write that channel as",
        "cuts.jsonl:4: type is 'MixedCut', but must be 'MonoCut' or 'MultiCut'",
        "cuts.jsonl:5: cut c0 has no supervision and so no text; add one or remove the line",
        "cuts.jsonl:6: there is no file gone.wav; it may be absolute, or start at",
        "cuts.jsonl:7: the recording is of url, but must be one file; write it as a wav file",
        "cuts.jsonl:9: the line is",
        "cuts.jsonl:8, supervision s1: the text is empty",
    ]
    faults = _faults(source, project)
    assert len(faults) == len(expected)
    for fault, start in zip(faults, expected, strict=True):
        assert fault.startswith(start)
    (row,) = _rows(_import(source, project, skip=True))
    assert (row.text, row.speaker, row.language, row.duration) == (TALK[0].text, "Ann", "en", 1.75)
    (source / "cuts.jsonl").rename(source / "cuts.jsonl.gz")
    with pytest.raises(ManifestError, match=r"cuts\.jsonl\.gz cannot be read \(.*\); write the cuts anew"):
        _import(source, project, name="other")
    (source / "cuts.jsonl.gz").unlink()
    with pytest.raises(
        ManifestError, match=r"has no \*cuts\*\.jsonl or \*cuts\*\.jsonl\.gz; give the file of the cuts"
    ):
        _import(source, project, name="other", form="lhotse")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_no_more_of_a_long_recording_is_decoded_than_is_said(
    suffix: str, tmp_path: Path, project: Path, write_noise: WriteNoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, minutes, rate_hz = tmp_path / "hours", 10, 4000
    write_noise(source / f"talk.{suffix}", 60.0 * minutes, rate_hz=rate_hz)
    said = [Said("words", 12.0 * number, 12.0 * number + 1) for number in range(5 * minutes)]
    (source / "talk.srt").write_text(srt(said))
    decoded = []
    read = soundfile.SoundFile.read

    def counted(file: soundfile.SoundFile, frames: int = -1, *values: Any, **named: Any) -> Any:
        decoded.append(frames)
        return read(file, frames, *values, **named)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert _import(source, project).clips == len(said)
    assert sum(decoded) == len(said) * rate_hz


def _lines(done: Imported) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.manifest.read_text().splitlines()]


def test_clips_say_of_which_recording_they_were_cut(source: Path, project: Path, write_noise: WriteNoise) -> None:
    write_noise(source / "other.wav", 6.0, seed=5)
    for name in ("talk", "other"):
        (source / f"{name}.srt").write_text(srt(TALK))
    digests = {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in ("talk.wav", "other.wav")}
    rows = _lines(_import(source, project))
    assert len(rows) == 4
    assert all(row["recording"] == digests[row["source"]] for row in rows)


@pytest.mark.parametrize("audio", ["flac", "opus"])
def test_a_recording_may_be_kept_whole_with_its_segments(
    source: Path, project: Path, write_noise: WriteNoise, audio: str
) -> None:
    write_noise(source / "other.wav", 6.0, seed=5)
    spoken = [*TALK, Said("And again", 1.5, 2.0, "Bob")]
    (source / "talk.vtt").write_text(vtt(sorted(spoken, key=lambda each: each.start_s)))
    (source / "other.srt").write_text(srt(TALK))
    done = _import(source, project, whole=True, audio=audio)
    other, talk = _lines(done)
    assert (done.clips, done.speakers, round(done.minutes * 60, 3)) == (5, 2, 6.25)
    assert talk == {
        "audio_filepath": f"../audio/new/000004.{audio}",
        "duration": 6.0,
        "source": "talk.wav",
        "recording": hashlib.sha256((source / "talk.wav").read_bytes()).hexdigest(),
        "segments": [
            {"text": "Log in with Singpass.", "start_s": 0.5, "end_s": 2.25, "speaker": "Ann"},
            {"text": "And again", "start_s": 1.5, "end_s": 2.0, "speaker": "Bob"},
            {"text": "My CPF, please", "start_s": 3.0, "end_s": 4.125, "speaker": "Bob"},
        ],
    }
    assert [row.text for row in _rows(done)] == [each["text"] for line in (other, talk) for each in line["segments"]]
    heard = load_audio(project / "manifests" / talk["audio_filepath"])
    whole = load_audio(source / "talk.wav")
    assert abs(heard.size - whole.size) <= 0.01 * SAMPLE_RATE_HZ
    assert np.dot(heard[: whole.size], whole[: heard.size]) > 0.7 * np.linalg.norm(heard) * np.linalg.norm(whole)
    dataset = load_dataset({"train": done.manifest}, DATA, normaliser("en"), len, project)
    assert [each.duration_s for each in dataset["train"]] == [1.75, 1.125, 1.75, 0.5, 1.125]


def test_faults_of_a_recording_that_is_kept_whole_are_those_of_its_clips(source: Path, project: Path) -> None:
    said = [*TALK, Said("x" * 5, 4.5, 4.6), Said("Beyond", 5.5, 6.5), Said("Far beyond", 7.0, 8.0)]
    (source / "talk.srt").write_text(srt([*said, Said("caf\ufffd", 4.7, 5.2)]))
    faults = []
    for whole in (False, True):
        with pytest.raises(ManifestError) as caught:
            _import(source, project, whole=whole)
        faults.append(sorted(line.split(": ")[0] for line in str(caught.value).splitlines()))
    assert faults[0] == faults[1]
    assert len(faults[0]) == 5
    assert "begins at 7 s, but the recording ends at 6.00 s" in str(caught.value)
    done = _import(source, project, whole=True, skip=True)
    assert [each["text"] for each in _lines(done)[0]["segments"]] == [each.text for each in TALK]


def test_a_segment_of_silence_is_a_fault_of_its_own(source: Path, project: Path) -> None:
    samples, rate = soundfile.read(source / "talk.wav")
    samples[int(2.5 * rate) :] = 0
    soundfile.write(source / "talk.wav", samples, rate)
    (source / "talk.srt").write_text(srt(TALK))
    with pytest.raises(ManifestError, match=r"talk\.srt:6: the segment .* must reach -66 dBFS"):
        _import(source, project, whole=True)


def test_a_recording_that_is_kept_whole_is_taken_once(source: Path, project: Path) -> None:
    shutil.copy(source / "talk.wav", source / "copy.wav")
    (source / "talk.srt").write_text(srt(TALK))
    (source / "copy.srt").write_text(srt(TALK[:1]))
    done = _import(source, project, whole=True)
    assert len(_lines(done)) == 1
    assert "the same audio as " in str(done.duplicates[0])
    assert str(done.duplicates[0]).endswith(", with other segments")
    assert len(list((project / "audio" / "new").iterdir())) == 1


def test_what_is_no_part_of_a_recording_is_a_clip_in_any_case(source: Path, project: Path) -> None:
    (source / "talk.txt").write_text("Log in.")
    (row,) = _lines(_import(source, project, whole=True, form="plain"))
    assert (row["text"], row["duration"]) == ("Log in.", 6.0)
    assert "recording" not in row
