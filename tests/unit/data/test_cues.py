"""Every format of time-coded transcripts is read into the same cues, and each of its faults has its place."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.timed_transcripts import ANONYMOUS, WRITERS, Said, clock, srt, textgrid
from tests.trials.fuzz.mutations import mutated

from wertune.base.errors import ManifestError
from wertune.data.importers.annotations import read_elan, read_labels, read_textgrid
from wertune.data.importers.cue import Cue
from wertune.data.importers.item import Fault, Note
from wertune.data.importers.nist import LONGEST_S, read_ctm, read_stm
from wertune.data.importers.subtitles import read_srt, read_vtt
from wertune.data.importers.timed import READERS, is_transcript
from wertune.data.importers.whisper_json import read_whisper

TALK = [Said("Log in with Singpass.", 0.5, 2.25, "Ann"), Said("My CPF, please", 3.0, 4.125, "Bob")]
# Of Latin letters: words of Han are joined without blanks. Nothing that a format takes for markup of its own.
WORDS = st.text(
    st.characters(max_codepoint=0x24F, categories=("L", "N"), include_characters="'.,?&\"-"), min_size=1, max_size=8
)
TEXTS = st.lists(WORDS, min_size=1, max_size=5).map(" ".join).filter(lambda text: "-->" not in text)


@st.composite
def talks(draw: st.DrawFn) -> list[Said]:
    """Segments of whole milliseconds with pauses of a second or more."""
    said, at_ms = [], draw(st.integers(0, 3_600_000))
    for text in draw(st.lists(TEXTS, min_size=1, max_size=6)):
        lasts_ms = draw(st.integers(200, 20_000))
        said.append(
            Said(text, at_ms / 1000, (at_ms + lasts_ms) / 1000, draw(st.sampled_from(["Ann", "Béa & Co", "丙"])))
        )
        at_ms += lasts_ms + draw(st.integers(1000, 100_000))
    return said


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _cues(path: Path) -> list[Cue]:
    """Of a transcript without faults."""
    found = [each for each in READERS[path.suffix.lower()](path) if not isinstance(each, Note)]
    assert not [each for each in found if isinstance(each, Fault)]
    return sorted((each for each in found if isinstance(each, Cue)), key=lambda cue: cue.start_s)


def _faults(path: Path) -> list[str]:
    return [
        str(each).removeprefix(f"{path.parent}/")
        for each in READERS[path.suffix.lower()](path)
        if isinstance(each, Fault)
    ]


@pytest.mark.parametrize("name", WRITERS)
@given(said=talks())
def test_what_is_written_is_read(name: str, said: list[Said], tmp_path_factory: pytest.TempPathFactory) -> None:
    if name in ("talk.stm", "talk.ctm"):  # a blank ends a name there
        said = [each._replace(speaker=each.speaker.split()[0]) for each in said]
    path = _write(tmp_path_factory.getbasetemp() / "written", name, WRITERS[name](said))
    found = _cues(path)
    assert [" ".join(cue.text.split()) for cue in found] == [each.text for each in said]
    for cue, each in zip(found, said, strict=True):
        assert (cue.start_s, cue.end_s) == pytest.approx((each.start_s, each.end_s), abs=1e-3)
        assert name in ANONYMOUS or cue.speaker == each.speaker
    assert is_transcript(path)


@given(st.integers(0, 360_000_000), st.integers(1, 100_000), st.sampled_from([",", "."]))
def test_times_of_subtitles(tmp_path_factory: pytest.TempPathFactory, at_ms: int, lasts_ms: int, point: str) -> None:
    start, end = clock(at_ms / 1000, point), clock((at_ms + lasts_ms) / 1000, point)
    shown = [(start, end)] + ([(start[3:], end[3:])] if start[:3] == end[:3] == "00:" else [])
    for times in shown:  # WebVTT may leave the hours out
        path = _write(tmp_path_factory.getbasetemp(), "times.vtt", f"WEBVTT\n\n{times[0]} --> {times[1]}\nwords\n")
        (cue,) = _cues(path)
        assert (cue.start_s, cue.end_s) == (at_ms / 1000, (at_ms + lasts_ms) / 1000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith((".eaf", ".txt"))])
def test_utf_8_and_utf_16_are_read(name: str, encoding: str, tmp_path: Path) -> None:
    said = [each._replace(text="Où est le café 中文") for each in TALK]
    path = _write(tmp_path, name, WRITERS[name](said).encode(encoding))
    assert [cue.text.strip() for cue in _cues(path)] == ["Où est le café 中文"] * 2


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith(".eaf")])
def test_an_unknown_encoding_is_told(name: str, tmp_path: Path) -> None:
    path = _write(
        tmp_path, name, WRITERS[name]([each._replace(text="café") for each in TALK]).encode("latin-1", "replace")
    )
    path.write_bytes(path.read_bytes().replace(b"\\u00e9", b"\xe9"))
    with pytest.raises(ManifestError, match=r"talk\.\w+ is no UTF-8 text \(.*\); save it in UTF-8"):
        list(READERS[path.suffix.lower()](path))


@settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from(sorted(WRITERS)))
def test_damaged_transcripts_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    damaged = data.draw(mutated([WRITERS[name](TALK).encode()], lambda _: ()))
    path = _write(tmp_path_factory.getbasetemp() / "damaged", name, damaged)
    with contextlib.suppress(ManifestError):
        assert all(isinstance(each, Cue | Fault | Note) for each in READERS[path.suffix.lower()](path))


def test_markup_of_subtitles_is_dropped(tmp_path: Path) -> None:
    text = '{\\an8}<i>Log in</i> <font color="#fff">with\n<b>Singpass</b> &amp; a <unk>'
    path = _write(tmp_path, "a.srt", f"1\n00:00:01,000 --> 00:00:02,000 X1:40 X2:600\n{text}\n")
    assert [cue.text for cue in read_srt(path)] == ["Log in with Singpass &amp; a <unk>"]  # type: ignore[union-attr]
    text = "<v.loud Ann Lee><c.yellow>Log in</c> <00:00:01.500><lang en>with</lang> Singpass &amp; a &lt; b</v>"
    path = _write(tmp_path, "a.vtt", f"WEBVTT\n\nfirst\n00:01.000 --> 00:02.000 line:0\n{text}\n")
    (cue,) = _cues(path)
    assert (cue.text, cue.speaker) == ("Log in with Singpass & a < b", "Ann Lee")


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_faults_of_subtitles(form: str, tmp_path: Path) -> None:
    content = """WEBVTT

00:00:01.000 --> 00:00:0x.000
words

words without times

00:00:03.000 --> 00:00:04.000
words
2
00:00:05.000 --> 00:00:06.000
more words

00:75:00.000 --> 00:76:00.000
words
"""
    path = _write(tmp_path, f"a.{form}", content if form == "vtt" else content.removeprefix("WEBVTT\n\n"))
    first = 0 if form == "vtt" else -2
    faults = _faults(path)
    expected = [
        (3, "the times are '00:00:01.000 --> 00:00:0x.000', but must be as 00:01:02.500 --> 00:01:04.000; mend them"),
        (
            6,
            "'words without times' stands without times, but a line such as 00:01:02.500 --> 00:01:04.000 must",
        ),
        (8, f"the cue's text holds the times of another, at line {11 + first}; put a blank line between"),
        (14, "the times are '00:75:00.000 --> 00:76:00.000', but must be as"),
    ]
    assert len(faults) == len(expected)
    for fault, (line, rule) in zip(faults, expected, strict=True):
        assert fault.startswith(f"a.{form}:{line + first}: {rule}")


def test_a_header_without_a_blank_line_hides_no_cue(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\nwords\n")
    assert [cue.text for cue in _cues(path)] == ["words"]


def test_two_voices_in_a_cue_are_told(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Yes.</v>\n<v Bob>No.</v>\n")
    assert _faults(path) == ["a.vtt:3: Ann and Bob speak in one cue, but it must be one; give each a cue"]


def test_tiers_that_name_nobody_and_tiers_of_parts(tmp_path: Path) -> None:
    said = [Said("one", 0.0, 1.0, "Ann"), Said("two", 1.0, 2.0, "Transcription"), Said("wʌn", 0.0, 1.0, "Ann - phones")]
    said += [Said("one", 1.0, 2.0, "words")]
    path = _write(tmp_path, "a.TextGrid", textgrid(said))
    assert [(cue.text, cue.speaker) for cue in _cues(path)] == [("one", "Ann"), ("two", "")]
    assert len([each for each in read_textgrid(path) if isinstance(each, Note)]) == 2


def test_a_textgrid_that_is_none_or_is_cut_off_is_told(tmp_path: Path) -> None:
    content = textgrid(TALK)
    path = _write(tmp_path, "a.TextGrid", content[: content.index("Singpass")])
    with pytest.raises(ManifestError, match=r"a\.TextGrid:\d+: the end stands where a text is due; save it in Praat"):
        list(read_textgrid(path))
    path.write_text(content.replace("intervals: size = 2", "intervals: size = many", 1))
    with pytest.raises(ManifestError, match=r"a\.TextGrid:\d+: .* stands where a count is due"):
        list(read_textgrid(path))
    path.write_text(content.replace('"TextGrid"', '"PitchTier"'))
    with pytest.raises(ManifestError, match=r"is no TextGrid; save it in Praat as a text file"):
        list(read_textgrid(path))
    path.write_text(content.replace("xmin = 0.5 ", "xmin = 0,5 "))
    assert _faults(path) == [
        "a.TextGrid:20: the times are '0,5' and '2.25', but must be numbers of seconds, such as 62.35; mend them"
    ]


ELAN = """<ANNOTATION_DOCUMENT><HEADER>
<MEDIA_DESCRIPTOR MEDIA_URL="file:///a.wav"{}/></HEADER><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="500"/>
<TIME_SLOT TIME_SLOT_ID="t2"/></TIME_ORDER><TIER TIER_ID="Ann"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"
TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2"><ANNOTATION_VALUE>words</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
</TIER></ANNOTATION_DOCUMENT>"""


def _laughs() -> str:
    """Entities of entities: a billion laughs."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE a [<!ENTITY l0 "laugh">{entities}]><a>&l9;</a>'


def test_faults_of_elan(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.eaf", ELAN.format(""))
    assert _faults(path) == [
        "a.eaf, tier Ann, annotation a1: the times are '500' and '', but must be milliseconds; mend its time slots"
    ]
    for content, rule in [
        (ELAN.format(' TIME_ORIGIN="1200"'), "file:///a.wav begins at 1200 ms of ELAN's time, but times must be those"),
        (ELAN[:-30], r"is no XML \(.*\); save it in ELAN anew"),
        ("<html></html>", "is a html, but must be ELAN's ANNOTATION_DOCUMENT"),
        (_laughs(), r"is no XML \(limit on input amplification factor .*\); save it in ELAN anew"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', r"is no XML \(.*\); save it in ELAN anew"),
    ]:
        path.write_text(content)
        with pytest.raises(ManifestError, match=rule):
            list(read_elan(path))


def test_labels_are_told_from_texts(tmp_path: Path) -> None:
    assert not is_transcript(_write(tmp_path, "a.txt", "My CPF, please\n"))
    assert not is_transcript(_write(tmp_path, "b.txt", "10 o'clock\t11 o'clock\n"))
    assert is_transcript(_write(tmp_path, "c.txt", "\ufeff0.5\t1.5\twords\n"))
    path = _write(tmp_path, "c.txt", "0.5\t1.5\twords\n1.5\tx\twords\n2.0\t2.0\tpoint\n")
    assert _faults(path) == [
        "c.txt:2: the times are '1.5' and 'x', but must be numbers of seconds, such as 62.35; mend them"
    ]
    assert [each.text for each in read_labels(path) if isinstance(each, Cue)] == ["words", "point"]


def test_alternatives_and_labels_of_stm(tmp_path: Path) -> None:
    lines = [
        ";; a comment",
        "talk 1 ann 0.5 2.5 <o,f0,female> i { gonna / going to / @ } pay <unk>",
        "talk 1 ann",
        "talk 1 ann 3 four words",
        "talk 1 ann 5 6",
    ]
    path = _write(tmp_path, "a.stm", "\n".join(lines))
    found = [each for each in read_stm(path) if isinstance(each, Cue)]
    assert [" ".join(each.text.split()) for each in found] == ["i gonna pay <unk>", ""]
    assert _faults(path) == [
        "a.stm:3: 'talk 1 ann' is no segment: recording channel speaker start end text; mend the line",
        "a.stm:4: the times are '3' and 'four', but must be numbers of seconds, such as 62.35; mend them",
    ]


def _words(*times: tuple[float, float], recording: str = "talk", channel: str = "1") -> str:
    return "".join(f"{recording} {channel} {start} {lasts} w{n}\n" for n, (start, lasts) in enumerate(times))


def test_words_of_ctm_are_joined_until_a_pause(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.ctm", _words((0.5, 0.2), (0.8, 0.3), (1.6, 0.2), (1.85, 0.2)))
    assert [(c.text, c.start_s, round(c.end_s, 3), c.speaker) for c in _cues(path)] == [
        ("w0 w1", 0.5, 1.1, ""),
        ("w2 w3", 1.6, 2.05, ""),
    ]
    path.write_text("".join(_words((start, 1.0), channel=channel) for start, channel in ((1, "A"), (1.5, "B"))))
    assert [(cue.text, cue.speaker) for cue in _cues(path)] == [("w0", "talk-A"), ("w0", "talk-B")]
    path.write_text("talk 1 0.1 0.4 你\ntalk 1 0.5 0.4 好\n")
    assert [cue.text for cue in _cues(path)] == ["你好"]


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 499)), min_size=1, max_size=120))
def test_utterances_of_ctm_keep_every_word_and_are_short(
    tmp_path_factory: pytest.TempPathFactory, words: Sequence[tuple[int, int]]
) -> None:
    at, times = 0, []
    for lasts, pause in words:
        times.append((at / 1000, lasts / 1000))
        at += lasts + pause
    found = _cues(_write(tmp_path_factory.getbasetemp(), "long.ctm", _words(*times)))
    assert " ".join(cue.text for cue in found) == " ".join(f"w{number}" for number in range(len(words)))
    assert all(cue.end_s - cue.start_s <= LONGEST_S + 1e-6 for cue in found)


def test_of_a_recording_with_a_word_that_cannot_be_read_nothing_is_taken(tmp_path: Path) -> None:
    content = _words((0.5, 0.2)) + "talk 1 one 0.2 lost\ntalk 1 0.9\n" + _words((0, 1), recording="other")
    path = _write(tmp_path, "a.ctm", content)
    assert _faults(path) == [
        "a.ctm:2: the times are 'one' and '0.2', but must be numbers of seconds, such as 62.35; mend them",
        "a.ctm:3: 'talk 1 0.9' is no word: recording channel start duration word; mend the line",
    ]
    assert [each.recording for each in read_ctm(path) if isinstance(each, Cue)] == ["other"]


def test_what_whispers_programs_write(tmp_path: Path) -> None:
    segments = [
        {"start": 0.0, "end": 1.0, "text": " one", "speaker": "SPEAKER_00"},
        {"start": "x", "end": 2.0, "text": "two"},
        {"start": 2.0, "end": 3.0},
        {"start": 3.0, "end": 4.0, "text": "four", "speaker": "Ann Lee"},
    ]
    path = _write(tmp_path, "talk.json", json.dumps({"language": "Javanese", "segments": segments}))
    found = [each for each in read_whisper(path) if isinstance(each, Cue)]
    assert [(cue.speaker, cue.language) for cue in found] == [("talk-SPEAKER_00", "jw"), ("Ann Lee", "jw")]
    assert _faults(path) == [
        "talk.json, segment 2: start is 'x', but must be a number",
        "talk.json, segment 3: text is missing; add it",
    ]
    for content, rule in [('{"segments": 5}', "segments is 5, but must be a list"), ("[{]", "Invalid JSON")]:
        path.write_text(content)
        with pytest.raises(ManifestError, match=rf"talk\.json is no transcript of Whisper's \(.*{rule}"):
            list(read_whisper(path))
    assert not is_transcript(_write(tmp_path, "other.json", '{"rate": 16000}'))


def test_a_transcript_of_subtitles_may_end_without_a_line_feed(tmp_path: Path) -> None:
    assert [cue.text for cue in _cues(_write(tmp_path, "a.srt", srt(TALK).rstrip()))] == [each.text for each in TALK]
    assert _cues(_write(tmp_path, "b.vtt", "WEBVTT")) == []
    assert list(read_vtt(tmp_path / "b.vtt")) == []
