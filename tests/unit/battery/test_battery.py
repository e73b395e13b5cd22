"""The battery of ordinary speech: what it holds, how its texts are counted, one made for another language."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wertune_battery
from wergate.gates.kinds.battery import MEASURES
from wertune.base.errors import ConfigError, ManifestError, SynthesisError
from wertune.base.text import TermFinder, normaliser
from wertune.battery.counts import entities_in, entity_errors, false_terms, formatted_edits
from wertune.battery.form import PARTS, read_line, read_out
from wertune.battery.make import make_battery
from wertune.battery.shelf import Battery, load_battery
from wertune.battery.table import rates, table
from wertune.data.audio import SAMPLE_RATE_HZ, load_audio
from wertune.scores.alignment import align, skipped_words
from wertune.scores.eval_report import SetReport, UtteranceCounts

ENGLISH = normaliser("en")
SHIPPED = Path(next(iter(wertune_battery.__path__))) / "en"
PROJECT = Path("projects/sg_gov")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TERMS = ("MOM", "CPF", "MediSave")
words = st.lists(st.sampled_from(["the", "soup", "needs", "more", "pepper", "now"]), max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def shipped() -> Battery:
    return load_battery(SHIPPED)


def test_the_shipped_battery_is_as_large_as_it_says_and_of_many_voices(shipped: Battery) -> None:
    assert len(shipped.rows) >= 600
    assert sum(len(row.text.split()) for row in shipped.rows) >= 5000
    assert len({row.speaker for row in shipped.rows if row.text}) >= 20
    assert tuple(shipped.by_part) == PARTS
    people = {row.speaker for row in shipped.rows if row.source in ("allison", "warzone", "tuxpaint")}
    assert len(people) >= 4
    assert Counter(bool(row.text) for row in shipped.by_part["nonspeech"]) == Counter({False: 34})


def test_each_clip_is_there_and_its_source_has_a_licence(shipped: Battery) -> None:
    sources = json.loads((SHIPPED / "sources.json").read_text())
    for row in shipped.rows:
        assert (SHIPPED / row.audio_filepath).is_file()
        assert sources[row.source]["licence"]
    for row in shipped.rows[::40]:
        assert shipped.samples(row).size / SAMPLE_RATE_HZ == pytest.approx(row.duration, abs=0.01)


def test_no_sentence_of_it_is_trained_on_and_no_voice(shipped: Battery) -> None:
    trained = {"train", "replay"}
    rows = [json.loads(line) for split in trained for line in (PROJECT / f"manifests/{split}.jsonl").open()]
    texts, speakers = {ENGLISH(row["text"]) for row in rows}, {row["speaker"] for row in rows}
    shared = {text for row in shipped.rows if len((text := ENGLISH(row.text)).split()) > 3 and text in texts}
    assert not shared
    assert not speakers & {row.speaker for row in shipped.rows if row.text}


@given(words, words)
def test_texts_that_are_alike_have_no_edits_as_written(reference: str, other: str) -> None:
    assert formatted_edits(reference, reference).errors == 0
    assert formatted_edits(reference, other).length == len(reference.split())
    assert formatted_edits("It costs $300.", "it costs three hundred dollars").errors == 4  # It, $300., and two more


@pytest.mark.parametrize(
    ("entities", "written", "errors"),
    [
        (("$300",), "It costs three hundred dollars a month.", 0),
        (("$300",), "It costs $3,000 a month.", 1),
        (("6225-5322", "6225-5322"), "My number is 6 2 2 5 5 3 2 2. That is 62255322.", 0),
        (("6225-5322", "6225-5322"), "My number is 6225-5322.", 1),
        (("4444",), "The code is 444.", 1),
        (("B-R-A-N-D-T",), "It's BRANDT, B R A N D T.", 0),
        (("B-R-A-N-D-T",), "It's Brent.", 1),
    ],
)
def test_an_entity_is_right_where_all_of_it_stands_in_its_order(
    entities: tuple[str, ...], written: str, errors: int
) -> None:
    assert entity_errors(entities, written, ENGLISH) == errors


@given(st.text("0123456789", min_size=1, max_size=9))
def test_a_number_is_found_as_it_is_written_and_not_within_another(number: str) -> None:
    assert entities_in(f"The code is {number}.") == (number,)
    assert entity_errors((f"1{number}",), f"The code is 1{number}.", ENGLISH) == 0
    assert entity_errors((f"1{number}",), f"The code is 21{number}9.", ENGLISH) == 1


@pytest.mark.parametrize(
    ("reference", "written", "count"),
    [
        ("My mom is here.", "My mom is here.", 0),
        ("My mom is here.", "My MOM is here.", 1),
        ("She introduces herself.", "She introduces CPF.", 1),
        ("I pay CPF.", "I pay CPF.", 0),
        ("I saved some.", "I MediSave some.", 1),
        ("I saved some.", "I medisave some.", 1),
        ("That is C-P-F-A.", "That is CPF, A.", 0),
        ("That is C-P-A.", "That is CPF.", 1),
    ],
)
def test_false_terms_are_those_that_nobody_said_acronyms_by_their_case(
    reference: str, written: str, count: int
) -> None:
    assert false_terms(TERMS, reference, written, TermFinder(TERMS, ENGLISH)) == count


@given(words)
def test_what_is_written_whole_skips_nothing(reference: str) -> None:
    count = len(reference.split())
    assert skipped_words(align(reference, reference)) == 0
    assert skipped_words(align(reference, "")) == (count if count >= 3 else 0)


def _clip(**values: object) -> UtteranceCounts:
    counts = dict.fromkeys(("words", "substitutions", "deletions", "insertions", "characters", "character_errors"), 0)
    fixed = {"id": "a", "duration_s": 1.0, "reference": "", "hypothesis": "", "terms": {}, "compression_ratio": 1.0}
    rest = {"lexicon_words": 0, "lexicon_errors": 0, "hypothesis_words": 0}
    return UtteranceCounts.model_validate({**counts, **fixed, **rest, **values})


def test_rates_tell_what_is_erased_and_what_is_made_up() -> None:
    said = SetReport(
        digest="a",
        utterances=(
            _clip(words=1, deletions=1, formatted_words=1),
            _clip(words=1, hypothesis_words=1, formatted_words=1),
        ),
    )
    found = rates(said)
    assert (found["erased"], found["wer"], found["deletion_rate"]) == (0.5, 0.5, 0.5)
    quiet = SetReport(digest="a", utterances=(_clip(hypothesis_words=3, insertions=3), _clip()))
    assert (rates(quiet)["made_up_words"], rates(quiet)["written_to"]) == (3, 0.5)
    assert "| short_answers | 2 | erased |  | 0.5 |" in table({"battery.short_answers": said}, {})


def test_a_term_where_nobody_speaks_is_made_up_and_not_false() -> None:
    babble, said = _clip(false_terms=2, hypothesis_words=2), _clip(words=4, false_terms=1, hypothesis_words=4)
    assert [MEASURES["false_terms"].wrong(clip) for clip in (babble, said)] == [0, 1]
    assert [MEASURES["made_up"].wrong(clip) for clip in (babble, said)] == [2, 0]


def test_numbers_are_read_sign_by_sign() -> None:
    assert read_out("62-5K", DIGITS, {}) == "six two, five K"
    line = read_line("It costs [$300|three hundred dollars], code [41].", DIGITS, {})
    assert (line.text, line.entities) == ("It costs $300, code 41.", ("$300", "41"))
    assert line.said == "It costs three hundred dollars, code four one."


def test_a_manifest_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"manifest.jsonl:1: audio_filepath is missing; add it; .*\nmake the battery"):
        load_battery(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match=r"manifest.jsonl holds no row, but a battery has a clip at least"):
        load_battery(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_battery(tmp_path / "none")


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_a_battery_of_another_language_is_made_of_its_form(tmp_path: Path) -> None:
    form = tmp_path / "battery.yaml"
    voice = "{id: ms-m1, engine: espeak, name: ms+m1, speaker: m1}"
    parts = "{short_answers: {padded: true, texts: [Ya., Tidak.]}, digits: {texts: ['Nombor saya [62].']}}"
    form.write_text(f"language: ms\nvoices: [{voice}]\nparts: {parts}\nsounds: false\n")
    rows = make_battery(form, "ms", tmp_path / "ms")
    assert [row.text for row in rows if row.part == "digits"] == ["Nombor saya 62."]
    assert len(rows) == 5
    assert load_battery(tmp_path / "ms").rows[0].part == "short_answers"
    assert all(load_audio(tmp_path / "ms" / row.audio_filepath).size for row in rows)
    with pytest.raises(SynthesisError, match="is for ms"):
        make_battery(form, "en", tmp_path / "en")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_battery_that_no_folder_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(.*\); make it with"):
        load_battery(Path(name))


def test_clips_that_are_missing_cut_off_or_named_twice_are_told_of_at_once(tmp_path: Path, shipped: Battery) -> None:
    """Before a version is measured on what is left of them."""
    (tmp_path / "audio").mkdir()
    rows = shipped.by_part["everyday"][:4]
    for row in rows:
        shutil.copy(shipped.folder / row.audio_filepath, tmp_path / row.audio_filepath)
    (tmp_path / "manifest.jsonl").write_text("".join(f"{row.model_dump_json()}\n" for row in (*rows, rows[3])))
    missing, cut, empty = (tmp_path / row.audio_filepath for row in rows[:3])
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    empty.write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        load_battery(tmp_path)
    told = str(caught.value).splitlines()
    assert [line.partition("manifest.jsonl:")[2][:1] for line in told[:-1]] == ["1", "2", "3", "5"]
    assert "no such file" in told[0]
    assert "another row already" in told[3]


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("parts: {everyday: {texts: ['…']}}", "parts.everyday.texts has '…', but nothing of it is said"),
        ("parts: {everyday: {texts: ['Pay [|x].']}}", "its brackets are no mark"),
        ("{parts: {}, sounds: false}", "parts and recordings are empty and sounds is false"),
        (f"{{parts: {{}}, voices: [{', '.join(['{id: a, engine: flite, name: a, speaker: a}'] * 2)}]}}", "'a' twice"),
    ],
)
def test_a_form_of_what_nobody_can_say_is_refused(tmp_path: Path, form: str, told: str) -> None:
    (tmp_path / "battery.yaml").write_text(form, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        make_battery(tmp_path / "battery.yaml", "en", tmp_path / "out")
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


PEOPLE = "[{source: x, folder: clips, package: p, licence: l, transcripts: said.tsv}]"


def test_transcripts_of_recordings_that_cannot_be_read_are_told_with_their_lines(tmp_path: Path) -> None:
    form = tmp_path / "battery.yaml"
    form.write_text(f"{{parts: {{}}, sounds: false, recordings: {PEOPLE}}}", encoding="utf-8")
    (tmp_path / "people" / "clips").mkdir(parents=True)
    with pytest.raises(ManifestError, match=r"said\.tsv cannot be read"):
        make_battery(form, "en", tmp_path / "out", tmp_path / "people", print)
    lines = ["a.wav\teveryday\tann", "a.wav\tfoo\tann\tSoup.", "a.wav#1-\teveryday\tann\tSoup."]
    (tmp_path / "said.tsv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        make_battery(form, "en", tmp_path / "out", tmp_path / "people", print)
    assert [line.partition("said.tsv:")[2][:1] for line in str(caught.value).splitlines()] == ["1", "2", "3"]
