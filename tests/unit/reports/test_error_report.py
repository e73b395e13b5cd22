"""What the error report holds, what it leaves out, and that no text in it becomes markup."""

import base64
import json
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from wertune.base.text import TermFinder
from wertune.data.clip_files import encode_opus
from wertune.data.manifest import Recording
from wertune.reports.error_report import MAX_PAGE_BYTES, SHOWN_CONFUSIONS, ScoredSet, clip_audio, error_report
from wertune.reports.html_page import embedded_json, page
from wertune.scores.comparison import Comparison, rate_interval, summary_rows, wer_change
from wertune.scores.metrics import Clip, Scores, score
from wertune.whisper.transcription import clips_of

FINDER = TermFinder(["cpf", "singpass"], str.lower)


def scored_set(recordings: list[Recording], before: list[str], after: list[str]) -> ScoredSet:
    clips = clips_of(recordings)
    both = Comparison(*(score(clips, texts, str.lower, FINDER) for texts in (before, after)))
    return ScoredSet("test", recordings, both)


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_row_has_both_transcripts_its_terms_and_its_sound(make_recordings: Callable[..., list[Recording]]) -> None:
    recordings = make_recordings(["log in with singpass", "top up cpf"])
    html = error_report(
        "t", "f", [scored_set(recordings, ["log in", "top up"], ["log in with singpass cpf", "top up CPF"])], str.lower
    )
    first, second = data_of(html)[0]["rows"]
    assert first["id"] == "clips.jsonl:1"
    assert first["columns"] == [
        ["log", "log", "log"],
        ["in", "in", "in"],
        ["with", "", "with"],
        ["singpass", "", "singpass"],
        ["", "", "cpf"],
    ]
    assert first["systems"][0]["missed"] == ["singpass"]
    assert first["systems"][1] == {"text": "log in with singpass cpf", "errors": 1, "missed": [], "false": ["cpf"]}
    assert second["systems"][1]["errors"] == 0
    assert ["with", "", 1, 0] in data_of(html)[0]["confusions"]
    sound = re.search(rf'id="clip-{first["clip"]}">([^<]*)<', html)
    assert sound
    with soundfile.SoundFile(BytesIO(base64.b64decode(sound[1]))) as file:
        assert file.subtype == "OPUS"
        assert len(file) / file.samplerate == pytest.approx(0.5, abs=0.05)
    assert str(recordings[0].path.parent) not in html


def test_each_system_s_own_most_frequent_errors_are_listed(make_recordings: Callable[..., list[Recording]]) -> None:
    many = range(SHOWN_CONFUSIONS + 1)
    said, wrong = (" ".join(f"{letter}{n}" for n in many) for letter in "ab")
    recordings = make_recordings([f"{said} cpf singpass"])
    scored = scored_set(recordings, [f"{said} sea password"], [f"{wrong} sea singpass"])
    listed = data_of(error_report("t", "f", [scored], str.lower))[0]["confusions"]
    assert listed[0] == ["cpf", "sea", 1, 1]
    assert ["singpass", "password", 1, 0] in listed
    assert sum(tuned > 0 for *_, tuned in listed) == SHOWN_CONFUSIONS


def test_the_summary_has_intervals_of_the_change_and_counts_each_kind_of_error(
    make_recordings: Callable[..., list[Recording]],
) -> None:
    recordings = make_recordings(["a b c d"] * 40)
    html = error_report("t", "f", [scored_set(recordings, ["x y z d"] * 40, ["a b c"] * 20 + ["a b c d e"] * 20)], str)
    assert re.search(r"<td>−50\.00 <span>−50\.0 to −50\.0</span></td>", html)
    assert "<td>120, 0, 0</td><td>0, 20, 20</td>" in html
    assert "too few clips" not in html  # though neither rate has an interval: every clip has as many errors


def test_a_base_that_writes_no_term_has_no_precision_and_certainty_no_interval(
    make_recordings: Callable[..., list[Recording]],
) -> None:
    recordings = make_recordings(["top up cpf"] * 40)
    scored = scored_set(recordings, ["top up"] * 40, ["top up cpf"] * 30 + ["top up cpf singpass"] * 10)
    html = error_report("t", "f", [scored], str)
    precision = re.search(r'<th scope="row">Term precision</th>(.*?)<td><svg.*?</tr>', html)
    assert precision
    assert re.fullmatch(r"<td>–</td><td><b>80\.00 %</b> <span>[\d.]+ to [\d.]+</span></td><td>–</td>", precision[1])
    assert precision[0].count("<g ") == 1
    assert '<th scope="row">Term recall</th><td><b>0.00 %</b></td><td><b>100.00 %</b></td><td>+100.00</td>' in html
    rows = {name: values for name, *values in summary_rows({"test": scored.both})}
    assert rows["test term precision"][0] == "–"
    assert rows["test term recall"] == ["0.00 %", "100.00 %", ""]


def test_where_sound_does_not_fit_the_clips_with_fewest_errors_go_without(
    make_recordings: Callable[..., list[Recording]],
) -> None:
    recordings = make_recordings([f"word{number} b" for number in range(12)], 2.0)
    texts = [f"word{number} b" for number in range(6)] + ["wrong b"] * 6
    scored = scored_set(recordings, texts, texts)
    whole = error_report("t", "f", [scored], str.lower)
    limit = len(whole.encode()) - sum(len(clip_audio(recording)) for recording in recordings) // 2
    html = error_report("t", "f", [scored], str.lower, max_bytes=limit)
    assert len(html.encode()) <= limit
    rows = data_of(html)[0]["rows"]
    heard = [row["clip"] is not None for row in rows]
    assert True in heard
    assert False in heard[:6]
    assert min(row["systems"][1]["errors"] for row, has in zip(rows, heard, strict=True) if has) >= max(
        row["systems"][1]["errors"] for row, has in zip(rows, heard, strict=True) if not has
    )
    assert all(row["clip"] is not None for row in data_of(whole)[0]["rows"])
    assert len(whole) < MAX_PAGE_BYTES


def test_a_small_opus_file_goes_in_as_it_stands(make_recordings: Callable[..., list[Recording]]) -> None:
    (recording,) = make_recordings(["a"], 2.0)
    path = recording.path.with_suffix(".opus")
    path.write_bytes(encode_opus(recording.samples(), 16))
    fields = vars(recording)
    assert clip_audio(Recording(**fields | {"path": path})) == path.read_bytes()
    part = Recording(
        **fields | {"path": path, "duration_s": 1.0, "row": recording.row.model_copy(update={"duration": 1.0})}
    )
    assert len(clip_audio(part)) < len(path.read_bytes())


@given(st.text())
def test_no_text_ends_its_script_element(text: str) -> None:
    inside = embedded_json([text])
    assert "<" not in inside
    assert json.loads(inside) == [text]


@given(st.text())
def test_what_is_filled_in_is_not_looked_through_again(text: str) -> None:
    title = text + "{{ body }}{% raw %}"
    assert f"<title>{escape(title)}</title>" in page(title, "<p>body</p>")


def test_hostile_texts_stay_texts(make_recordings: Callable[..., list[Recording]]) -> None:
    evil = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>"
    (recording,) = make_recordings([evil])
    html = error_report(evil, evil, [scored_set([recording], [evil], [evil])], str)
    assert "<script>alert" not in html
    assert "<img" not in html
    assert data_of(html)[0]["rows"][0]["reference"] == evil


def test_only_the_page_s_own_script_may_run_and_nothing_is_fetched() -> None:
    html = page("t", "<p>body</p>", script="let a = 1;")
    assert "default-src 'none'" in html
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", html)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)


def _scores(errors: list[int], speakers: list[str]) -> Scores:
    clips = [Clip(str(i), "a b c d", speaker) for i, speaker in enumerate(speakers)]
    texts = [" ".join(["x"] * wrong + ["a", "b", "c", "d"][wrong:]) for wrong in errors]
    return score(clips, texts, str.lower, FINDER)


def test_intervals_hold_their_value_and_need_enough_clips() -> None:
    speakers = [f"speaker {number % 8}" for number in range(40)]
    worse, better = _scores([2] * 20 + [1] * 20, speakers), _scores([1] * 20 + [0] * 20, speakers)
    ends, change = rate_interval(worse, "wer"), wer_change(worse, better)
    assert ends
    assert ends.low <= worse.wer <= ends.high
    assert ends.note == "8 speaker blocks"
    assert change
    assert change.point == pytest.approx(better.wer - worse.wer)
    assert change.high < 0
    assert rate_interval(worse, "term_recall") is None  # no term was said
    assert rate_interval(_scores([1], ["ann"]), "wer") is None
