"""The pure parts of speech synthesis: spoken forms, splits, plans, retention, trimming, levels, rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.base.config import ConfigError, parse
from wertune.base.errors import SynthesisError
from wertune.base.text import Lexicon, Term, normaliser
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.clip_files import check, level, trim, write_clip, write_manifest
from wertune.synthesis.config import RetentionSizes, SynthesisConfig
from wertune.synthesis.plan import plan_clips
from wertune.synthesis.retention import assign, build_retention
from wertune.synthesis.sentences import (
    Sentence,
    Speller,
    load_sentences,
    read_plain_sentences,
    split_sentences,
)
from wertune.synthesis.synthesize import manifest_row

TERMS = {"Life": "life", "MediShield Life": "meddy shield life", "CPF": "see pee eff", "NEA": "en ee ay"}
LEXICON = Lexicon(terms=tuple(Term(term=term, spoken=spoken) for term, spoken in TERMS.items()))
SPELLER = Speller(LEXICON)


def voice(number: int, split: str, speaker: str | None = None, weight: float = 1.0) -> dict[str, object]:
    name = f"v{number}"
    return {
        "id": name, "engine": "flite", "name": "slt", "speaker": speaker or name, "split": split, "licence": "free",
        "weight": weight,
    }  # fmt: skip


def config(**changes: object) -> SynthesisConfig:
    voices = [voice(0, "train"), voice(1, "train"), voice(2, "validation"), voice(3, "test"), voice(4, "test")]
    clips = {"train": 60, "validation": 0, "test": 0, "replay": 0}
    return parse(SynthesisConfig, {"clips": clips, "voices": voices, **changes}, "synthesis.yaml")


def sentences(natural: int, templated: int = 0) -> list[Sentence]:
    """Each holds one term, in turn."""
    terms = list(TERMS)
    made = [Sentence(id=f"s{i}", text=f"Number {i} asks about {terms[i % 4]}.") for i in range(natural)]
    for i in range(templated):
        text = f"{terms[i % 4]} is on page {i}."
        made.append(Sentence(id=f"t{i}", text=text, kind="template", template=f"t{i % 3}"))
    return made


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Is CPF part of MediShield Life?", "Is see pee eff part of meddy shield life?"),
        ("Life, CPF.", "life, see pee eff."),
        ("The CPF's rules", "The see pee eff's rules"),
        ("A CPF-funded plan", "A see pee eff-funded plan"),
        ("CPFs and cpf and XCPF stay", "CPFs and cpf and XCPF stay"),
    ],
)
def test_spoken_form(text: str, spoken: str) -> None:
    assert SPELLER.spoken(text) == spoken


def test_an_engine_gets_its_own_spelling_of_terms_only() -> None:
    assert SPELLER.spoken("Ay, NEA and CPF.", {"ay": "eigh", "Ay": "no"}) == "Ay, en ee eigh and see pee eff."


def test_terms_are_listed_once_longest_match_first() -> None:
    assert SPELLER.terms("CPF or MediShield Life or CPF") == ("CPF", "MediShield Life")


def test_an_empty_lexicon_changes_nothing() -> None:
    assert Speller(Lexicon(terms=())).spoken("CPF") == "CPF"
    assert Speller(Lexicon(terms=())).terms("CPF") == ()


@settings(max_examples=40)
@given(natural=st.integers(40, 200), templated=st.integers(0, 60), seed=st.integers(0, 1000))
def test_splits_share_no_sentence_and_cover_every_term(natural: int, templated: int, seed: int) -> None:
    pool = sentences(natural, templated)
    splits = split_sentences(pool, SPELLER, config(seed=seed))
    ids = [sentence.id for found in splits.values() for sentence in found]
    assert sorted(ids) == sorted(sentence.id for sentence in pool)
    assert all(sentence.kind == "natural" for split in ("validation", "test") for sentence in splits[split])
    count = {split: Counter(t for s in found for t in SPELLER.terms(s.text)) for split, found in splits.items()}
    assert set(count["test"]) == set(TERMS)
    assert all(count["train"][term] >= 3 for term in TERMS)
    assert splits == split_sentences(pool, SPELLER, config(seed=seed))


def test_too_few_sentences_of_a_term_are_named() -> None:
    with pytest.raises(SynthesisError, match="NEA has no test sentence"):
        split_sentences([s for s in sentences(60) if "NEA" not in s.text], SPELLER, config(missing_term="stop"))


@settings(max_examples=40)
@given(count=st.integers(30, 120), seed=st.integers(0, 1000))
def test_clips_have_exact_channels_and_no_speaker_twice_for_a_sentence(count: int, seed: int) -> None:
    settings_ = config(seed=seed)
    voices = [voice for voice in settings_.voices if voice.split == "train"]
    plans = plan_clips("train", sentences(count), voices, SPELLER, settings_)
    assert len(plans) == max(60, count)
    channels = Counter(plan.channel for plan in plans)
    assert channels["telephone"] == round(0.12 * len(plans))
    assert channels["noisy"] == round(0.13 * len(plans))
    assert all((plan.snr_db is not None) == (plan.channel == "noisy") for plan in plans)
    said = Counter((plan.sentence.id, plan.voice.speaker) for plan in plans)
    assert max(said.values()) == 1
    assert {plan.sentence.id for plan in plans} == {sentence.id for sentence in sentences(count)}
    assert len({plan.filename for plan in plans}) == len(plans)
    assert plans == plan_clips("train", sentences(count), voices, SPELLER, settings_)


def test_voices_speak_by_their_weights() -> None:
    heavy = config(
        voices=[voice(0, "train", weight=3), *(voice(i, s) for i, s in ((1, "train"), (2, "validation"), (3, "test")))]
    )
    voices = [voice for voice in heavy.voices if voice.split == "train"]
    plans = plan_clips("train", sentences(80), voices, SPELLER, heavy)
    assert Counter(plan.voice.id for plan in plans) == {"v0": 60, "v1": 20}


def test_a_filename_changes_with_the_sound_only() -> None:
    settings_ = config()
    plan = plan_clips("train", sentences(8), settings_.voices[:1], SPELLER, settings_)[0]
    licence = plan.voice.model_copy(update={"licence": "other"})
    assert type(plan)(**{**vars(plan), "voice": licence}).filename == plan.filename
    assert type(plan)(**{**vars(plan), "speed": 2.0}).filename != plan.filename
    assert type(plan)(**{**vars(plan), "bitrate_kbps": 64.0}).filename != plan.filename


def by_itself(number: int, **changes: object) -> Sentence:
    return Sentence.model_validate({"id": f"own{number}", "text": f"No {number}.", "split": "test", **changes})


def test_a_sentence_that_names_its_split_is_there_and_draws_nothing_for_others() -> None:
    drawn, more = sentences(60), [by_itself(1), by_itself(2, split="validation")]
    before, after = split_sentences(drawn, SPELLER, config()), split_sentences([*drawn, *more], SPELLER, config())
    assert after["validation"] == [*before["validation"], more[1]]
    assert [s for s in after["test"] if s.split is None] == before["test"]
    assert after["train"] == before["train"]


@given(st.integers(0, 20), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_one_more_sentence_with_a_split_changes_no_other_clip(count: int, takes: int, seed: int) -> None:
    voices = config().voices
    own = [by_itself(number, takes=takes) for number in range(3)]

    def planned(found: list[Sentence]) -> list[str]:
        return [plan.filename for plan in plan_clips("test", found, voices, SPELLER, config(seed=seed))]

    less, whole = planned([*sentences(count), *own[:2]]), planned([*sentences(count), *own])
    assert whole[: len(less)] == less
    speakers = [plan.voice.speaker for plan in plan_clips("test", own[:1], voices, SPELLER, config(seed=seed))]
    assert len(speakers) == len(set(speakers)) == takes


def test_what_is_said_may_differ_from_what_is_written() -> None:
    sentence = by_itself(1, text="CPF of $300.", spoken="CPF of three hundred dollars.")
    (plan,) = plan_clips("test", [sentence], config().voices, SPELLER, config())
    assert plan.spoken == "see pee eff of three hundred dollars."
    assert plan.terms == ("CPF",)
    assert manifest_row(plan, 1.0)["text"] == "CPF of $300."


def test_the_silence_of_a_clip_is_in_its_name_where_it_is_given() -> None:
    names = [
        plan_clips("test", [by_itself(1, margin_s=margin)], config().voices, SPELLER, config())[0].filename
        for margin in (None, 0.02, 0.3)
    ]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"spoken": "Number 1."}, "write them as words"),
        ({"split": None, "takes": 2}, "give split"),
        ({"split": "retention_test"}, "split"),
        ({"margin_s": 2}, "margin_s"),
    ],
)
def test_a_sentence_that_breaks_a_rule(change: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        by_itself(1, **change)


def test_a_manifest_row_has_the_text_as_written() -> None:
    settings_ = config()
    plan = plan_clips("test", sentences(4), settings_.voices[3:], SPELLER, settings_)[0]
    row = manifest_row(plan, 1.23456)
    assert row["audio_filepath"] == f"../audio/test/{plan.filename}"
    assert row["text"] == plan.sentence.text
    assert row["terms"] == list(SPELLER.terms(plan.sentence.text))
    assert (row["duration"], row["sentence"]) == (1.235, plan.sentence.id)
    assert (row["speaker"], row["voice"]) == (plan.voice.speaker, plan.voice.id)


@pytest.mark.parametrize(
    ("voices", "fault"),
    [
        ([voice(0, "train", "ann"), voice(1, "test", "ann"), voice(2, "validation")], "speaker ann is in train and"),
        ([voice(0, "train"), voice(0, "train"), voice(2, "validation"), voice(3, "test")], "voices listed twice: v0"),
        ([voice(0, "train"), voice(1, "train"), voice(2, "test")], "no voice for validation"),
    ],
)  # fmt: skip
def test_voices_that_break_a_rule(voices: list[dict[str, object]], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        config(voices=voices)


def test_all_bad_sentences_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sentences.jsonl"
    path.write_text('{"id": "a", "text": "What\'s CPF?"}\nnot json\n{"id": "b", "text": "what is cpf"}\n')
    with pytest.raises(SynthesisError) as error:
        load_sentences(path)
    assert "sentences.jsonl:2" in str(error.value)
    assert "sentences.jsonl:3: 'what is cpf' stands in line 1 already" in str(error.value)
    path.write_text('{"id": "a", "text": "..."}\n\n{"id": "a", "text": "A."}\n{"id": "A.", "text": "Fine."}\n')
    with pytest.raises(SynthesisError) as error:
        load_sentences(path)
    lines = [line.split(".jsonl:")[1] for line in str(error.value).splitlines()]
    assert lines == ["1: '...' has no word; remove the line", "3: 'a' stands in line 1 already; remove one of the two"]


@pytest.mark.parametrize("name", ["../../../escaped-1", "a/b", ".hidden", "a\nb", ""])
def test_an_id_is_no_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sentences.jsonl"
    path.write_text(json.dumps({"id": name, "text": "Hello."}))
    with pytest.raises(SynthesisError, match=r"sentences\.jsonl:1: id is '.*', but must be letters, digits"):
        load_sentences(path)
    recordings = {"folder": "f", "package": "p", "transcripts": "t", "licence": "free"}
    with pytest.raises(ConfigError, match=r"recordings\.0\.speaker is '\.\./ann'"):
        config(recordings=[{**recordings, "speaker": "../ann"}])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "holds no sentence; write one a line"),
        (b"\n", "holds no sentence; write one a line"),
        ('{"id": "a", "text": "Café."}'.encode("latin-1"), "is not UTF-8 .*; save it as UTF-8"),
    ],
)
def test_a_file_of_sentences_that_holds_none_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "sentences.jsonl").write_bytes(content)
    (tmp_path / "sentences.txt").write_bytes(content)
    for read in (load_sentences, lambda path: read_plain_sentences(path, "s", LEXICON, normaliser("en"))):
        for path in tmp_path.iterdir():
            with pytest.raises(SynthesisError, match=fault):
                read(path)


@settings(max_examples=60)
@given(
    keys=st.lists(st.sampled_from([*(f"sentence number {i}" for i in range(30)), "two words", "known to all"])),
    seed=st.integers(0, 1000),
)
def test_retention_parts_share_no_sentence(keys: list[str], seed: int) -> None:
    sizes = RetentionSizes(validation=10, test=20, replay=30)
    splits = assign(keys, [None] * len(keys), {"known to all"}, sizes, seed)
    by_key: dict[str, set[str | None]] = {}
    for key, split in zip(keys, splits, strict=True):
        by_key.setdefault(key, set()).add(split)
    assert all(len(found) == 1 for found in by_key.values())
    assert by_key.get("two words", {None}) <= {"replay", None}
    assert by_key.get("known to all", {None}) <= {"replay", None}
    counts = Counter(splits)
    assert counts["retention_validation"] <= 10
    assert counts["retention_test"] <= 20
    assert counts["replay"] <= 30


def test_recordings_that_belong_to_one_part_find_room_there() -> None:
    keys = [f"sentence number {i}" for i in range(50)]
    fixed = [None] * 45 + ["retention_test"] * 5
    splits = assign(keys, fixed, set(), RetentionSizes(validation=5, test=8, replay=99), 0)
    assert splits[45:] == ["retention_test"] * 5


def speech(seconds: float = 1.0, silence: float = 0.5) -> np.ndarray:
    sound = 0.2 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return np.pad(sound, round(silence * SAMPLE_RATE_HZ)).astype(np.float32)


def test_the_rest_of_retention_joins_its_test_and_changes_no_earlier_part() -> None:
    keys = [f"sentence number {i}" for i in range(40)] + ["two words", "known to all"]
    sizes = {"validation": 5, "test": 8}
    before = assign(keys, [None] * 42, {"known to all"}, RetentionSizes(**sizes), 0)
    after = assign(keys, [None] * 42, {"known to all"}, RetentionSizes(**sizes, rest="retention_test"), 0)
    kept = [split if split in ("retention_validation", "retention_test") else None for split in before]
    assert [split if split != "rest" else None for split in after] == kept
    assert [after[40], after[41]] == ["rest", None]
    assert Counter(after)["rest"] == 41 - 13
    only = assign(keys[:1], ["retention_validation"], set(), RetentionSizes(**sizes, rest="retention_test"), 0)
    assert only == ["retention_validation"]


@pytest.mark.parametrize("silence", [0.0, 0.05, 0.5])
def test_trim_leaves_the_margin_at_both_ends(silence: float) -> None:
    assert len(trim(speech(1.0, silence), 0.15)) / SAMPLE_RATE_HZ == pytest.approx(1.3, abs=0.021)


def test_level_is_the_same_for_loud_and_quiet_speech() -> None:
    loud, quiet = level(speech()), level(speech() * 0.01)
    assert np.allclose(loud, quiet, atol=1e-4)
    voiced = loud[np.abs(loud) > 0]
    assert 20 * np.log10(np.sqrt(np.mean(voiced**2))) == pytest.approx(-23, abs=0.3)
    assert np.abs(level(np.r_[speech(), np.float32(50)])).max() <= 0.96


@pytest.mark.parametrize("empty", [np.zeros(0, np.float32), np.zeros(8000, np.float32)])
def test_silence_is_refused(empty: np.ndarray) -> None:
    assert np.array_equal(level(trim(empty, 0.1)), empty)
    with pytest.raises(SynthesisError, match="gave silence"):
        check(empty, "v0: 'text'")


@pytest.mark.parametrize("seconds", [0.1, 29.5])
def test_a_clip_outside_the_limits_is_refused(seconds: float) -> None:
    with pytest.raises(SynthesisError, match=r"must be 0\.2 to 29 s"):
        check(speech(seconds, 0), "v0: 'text'")


def test_opus_keeps_length_and_sound(tmp_path: Path) -> None:
    seconds = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = (0.3 * np.sin(2 * np.pi * 300 * seconds) * np.sin(2 * np.pi * 3 * seconds)).astype(np.float32)
    write_clip(tmp_path / "a" / "clip.opus", tone, 16)
    decoded, rate = sf.read(tmp_path / "a" / "clip.opus", dtype="float32")
    assert rate == SAMPLE_RATE_HZ
    assert abs(len(decoded) - len(tone)) <= 0.05 * SAMPLE_RATE_HZ
    assert np.corrcoef(decoded[: len(tone)], tone[: len(decoded)])[0, 1] > 0.95
    write_clip(tmp_path / "a" / "again.opus", tone, 16)
    assert (tmp_path / "a" / "again.opus").read_bytes() == (tmp_path / "a" / "clip.opus").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["again.opus", "clip.opus"]


def test_a_manifest_is_sorted_and_only_clips_of_the_one_before_go(tmp_path: Path) -> None:
    for name in ("b", "a", "stale", "recorded"):
        write_clip(tmp_path / "audio" / "test" / f"{name}.opus", speech(), 16)
    rows = [{"audio_filepath": f"../audio/test/{name}.opus", "text": "x"} for name in ("b", "a", "stale")]
    write_manifest(tmp_path, "test", rows)
    manifest = write_manifest(tmp_path, "test", rows[:2])
    assert [line[:40] for line in manifest.read_text().splitlines()] == [
        '{"audio_filepath": "../audio/test/a.opus'[:40],
        '{"audio_filepath": "../audio/test/b.opus'[:40],
    ]
    assert {path.stem for path in (tmp_path / "audio" / "test").iterdir()} == {"a", "b", "recorded"}


def test_recordings_that_join_whole_change_no_other_and_share_no_sentence(tmp_path: Path) -> None:
    own = [f"sentence number {i} of the first" for i in range(12)]
    games = ["a word of another kind", "another game of words", own[0], "what replay says"]
    for folder, texts in (("own", own), ("games", games)):
        (tmp_path / folder).mkdir()
        for i in range(len(texts)):
            sf.write(tmp_path / folder / f"{i}.wav", speech(), SAMPLE_RATE_HZ)
    (tmp_path / "own.tsv").write_text("".join(f"{i}.wav\t{text}\n" for i, text in enumerate(own)))
    (tmp_path / "games.tsv").write_text("".join(f"{i}.wav\t{text}\tperson-{i}\n" for i, text in enumerate(games)))
    source = {"package": "p", "licence": "free", "unpack": "python unpack.py"}
    first = {**source, "speaker": "ann", "folder": "own", "transcripts": "own.tsv"}
    second = {**source, "speaker": "many", "folder": "games", "transcripts": "games.tsv", "whole": True}
    sizes = {"validation": 4, "test": 3, "rest": "retention_test"}

    def rows(*sources: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        made = config(recordings=list(sources), retention=sizes)
        return build_retention(tmp_path, tmp_path / "out", made, ["What replay says."], normaliser("en"))

    before, after = rows(first), rows(first, {**second, "only": "retention_test"})
    assert {row["sentence"] for row in before["retention_validation"]} == {
        row["sentence"] for row in after["retention_validation"]
    }
    added = after["retention_test"][len(before["retention_test"]) :]
    assert after["retention_test"][: len(before["retention_test"])] == before["retention_test"]
    where = {row["text"] for row in before["retention_test"]}
    expected = {"person-0", "person-1"} | ({"person-2"} if own[0] in where else set())
    assert {row["speaker"] for row in added} == expected
    assert all(row["rest"] for row in added)
    replayed = rows(first, {**second, "only": "replay"})["replay"]
    assert {row["speaker"] for row in replayed} == {"person-0", "person-1", "person-3"}
    thrice = rows(
        first,
        {**second, "only": "replay"},
        {**second, "only": "retention_test"},
        first | {"whole": True, "only": "replay"},
    )
    texts = [{row["text"] for row in thrice[split]} for split in ("replay", "retention_test", "retention_validation")]
    assert sum(map(len, texts)) == len(set().union(*texts))
    assert "what replay says" in texts[0]
    for line in ("0.wav", "0.wav\ta b c\t../ann", "0.wav\ta b c\tann\tbob"):
        (tmp_path / "bad.tsv").write_text(f"1.wav\ta good line\n{line}\n")
        with pytest.raises(SynthesisError, match=r"bad\.tsv:2: .* must be FILE<TAB>TEXT"):
            rows({**first, "transcripts": "bad.tsv"})
    with pytest.raises(ConfigError, match="no split is named; give `only`"):
        config(recordings=[second])
    (tmp_path / "games").rename(tmp_path / "gone")
    with pytest.raises(SynthesisError, match=r"apt-get install p, then python unpack\.py"):
        rows({**second, "only": "replay"})
