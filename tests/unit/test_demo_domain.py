"""The committed demo domain keeps its promises: terms, sentences, voices, splits, audio."""

import hashlib
import json
import re
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
from tests.support.places import DEMO

from wertune.base.config import load_yaml
from wertune.base.text import Lexicon, load_lexicon, normaliser
from wertune.battery.shelf import load_battery, shipped
from wertune.synthesis.config import SynthesisConfig
from wertune.synthesis.project import load_synthesis_project
from wertune.synthesis.sentences import Sentence, Speller, load_sentences
from wertune.synthesis.synthesize import plan_project

PROJECT = DEMO
DOMAIN = ("train", "validation", "test")
RETENTION = ("retention_validation", "retention_test")
FINAL = "final"
SPLITS = (*DOMAIN, FINAL, "replay", *RETENTION)
HUMAN = {"allison", "librivox-austen"}


@cache
def lexicon() -> Lexicon:
    return load_lexicon(PROJECT / "lexicon.yaml")


@cache
def sentences() -> list[Sentence]:
    return load_sentences(PROJECT / "sentences.jsonl")


@cache
def rows(split: str) -> list[dict[str, Any]]:
    lines = (PROJECT / "manifests" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def texts(split: str) -> frozenset[str]:
    return frozenset(map(normaliser("en"), (row["text"] for row in rows(split))))


def test_eighty_terms_and_more() -> None:
    assert len(lexicon().terms) >= 80


def test_six_hundred_distinct_sentences_and_few_templates() -> None:
    assert len({sentence.text for sentence in sentences()}) >= 600
    assert sum(sentence.kind == "template" for sentence in sentences()) <= len(sentences()) / 3


def test_every_term_stands_in_five_sentences() -> None:
    speller = Speller(lexicon())
    counts = Counter(term for sentence in sentences() for term in speller.terms(sentence.text))
    assert not {term: counts[term] for term in lexicon().written if counts[term] < 5}


def test_nine_voices_of_three_engines() -> None:
    config = load_yaml(PROJECT / "synthesis.yaml", SynthesisConfig)
    assert len(config.voices) >= 9
    assert len({voice.engine for voice in config.voices}) >= 3
    assert all(voice.licence for voice in config.voices)
    heard = {row["voice"] for split in (*DOMAIN, FINAL, "replay") for row in rows(split)} - {"human"}
    assert heard == {voice.id for voice in config.voices}


def test_training_and_test_voices_come_from_many_engines() -> None:
    config = load_yaml(PROJECT / "synthesis.yaml", SynthesisConfig)
    engines = {split: {v.engine for v in config.voices if v.split == split} for split in DOMAIN}
    speakers = {split: {v.speaker for v in config.voices if v.split == split} for split in DOMAIN}
    assert len(engines["test"]) >= 3
    assert len(engines["validation"]) >= 2
    assert len(speakers["test"]) >= 4
    assert len(speakers["validation"]) >= 3


@pytest.mark.parametrize(("left", "right"), combinations((*DOMAIN, FINAL), 2))
def test_domain_splits_share_no_speaker_and_no_sentence(left: str, right: str) -> None:
    for key in ("speaker", "sentence", "audio_filepath"):
        assert not {row[key] for row in rows(left)} & {row[key] for row in rows(right)}
    assert not texts(left) & texts(right)


def test_templates_stay_in_training() -> None:
    templates = {sentence.id for sentence in sentences() if sentence.kind == "template"}
    assert not templates & {row["sentence"] for split in ("validation", "test") for row in rows(split)}


@pytest.mark.parametrize(("left", "right"), combinations(("train", "replay", *RETENTION), 2))
def test_retention_parts_share_no_sentence_with_what_is_trained_on(left: str, right: str) -> None:
    assert not texts(left) & texts(right)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_replay_holds_no_held_out_speaker(split: str) -> None:
    assert not {row["speaker"] for row in rows(split)} & {row["speaker"] for row in rows("replay")}


def test_the_test_split_has_every_term_and_train_has_each_three_times() -> None:
    train = {(term, row["sentence"]) for row in rows("train") for term in row["terms"]}
    counts = Counter(term for term, _ in train)
    assert {term for row in rows("test") for term in row["terms"]} == set(lexicon().written)
    assert not {term: counts[term] for term in lexicon().written if counts[term] < 3}


def _shipped_battery() -> Path:
    folder = shipped("en")
    assert folder is not None
    return folder


def test_the_final_set_is_of_engines_people_and_sentences_that_are_nowhere_else() -> None:
    config, battery = load_yaml(PROJECT / "synthesis.yaml", SynthesisConfig), load_battery(_shipped_battery())
    known = {voice.engine for voice in config.voices if voice.split != FINAL}
    engines = {voice.engine for voice in config.voices if voice.split == FINAL}
    assert len(engines) >= 2
    assert not engines & known
    speakers, elsewhere = {row["speaker"] for row in rows(FINAL)}, [r for s in SPLITS if s != FINAL for r in rows(s)]
    assert len(speakers) >= 4
    assert not speakers & ({row["speaker"] for row in elsewhere} | {row.speaker for row in battery.rows})
    said = {normaliser("en")(text) for text in [*(r["text"] for r in elsewhere), *(row.text for row in battery.rows)]}
    assert not texts(FINAL) & said
    assert not {row["speaker"] for row in rows(FINAL)} & {"awb", "slt"}


def test_the_final_set_says_each_term_and_is_large_enough() -> None:
    counts = Counter(term for row in rows(FINAL) for term in row["terms"])
    assert set(counts) == set(lexicon().written)
    assert min(counts.values()) >= 2
    assert sum(len(text.split()) for text in texts(FINAL)) >= 1500
    assert sum(not row["terms"] for row in rows(FINAL)) >= 15


def test_rows_hold_the_sentences_as_written() -> None:
    written, speller = {sentence.id: sentence.text for sentence in sentences()}, Speller(lexicon())
    for split in (*DOMAIN, FINAL):
        for row in rows(split):
            assert row["text"] == written[row["sentence"]]
            assert tuple(row["terms"]) == speller.terms(row["text"])


def test_numbers_from_ten_on_stand_in_figures_as_whisper_writes_them() -> None:
    tens, teens = "twen|thir|for|fif|six|seven|eigh|nine", "thir|four|fif|six|seven|eigh|nine"
    words = rf"\b(ten|eleven|twelve|({teens})teen|({tens})ty(-\w+)?|hundred|thousand|per ?cent|dollars?)\b"
    kept = {"s0665", "s0373"}  # "the last few hundred dollars", "nine or ten characters"
    texts = {(row["sentence"], row["text"]) for split in (*DOMAIN, FINAL, "replay") for row in rows(split)}
    assert {key for key, text in texts if re.search(words, text, re.IGNORECASE)} <= kept


@pytest.mark.parametrize("split", [*DOMAIN, "replay"])
def test_channels_have_their_shares(split: str) -> None:
    spoken = [row["channel"] for row in rows(split) if row["voice"] != "human"]
    shares = {channel: count / len(spoken) for channel, count in Counter(spoken).items()}
    # Sets that grew keep the clips that they had, and a set of a hundred cannot have a share to the percent.
    assert shares["telephone"] == pytest.approx(0.12, abs=0.02)
    assert shares["noisy"] == pytest.approx(0.13, abs=0.02)
    assert set(shares) == {"clean", "telephone", "noisy"}


@pytest.mark.parametrize("split", RETENTION)
def test_retention_is_human_speech_without_terms(split: str) -> None:
    speakers = {row["speaker"] for row in rows(split)}
    assert {speaker for speaker in speakers if not speaker.startswith("amazon-queen-")} <= HUMAN
    assert len(speakers) >= 20
    assert len(rows(split)) >= 150
    assert all(row["voice"] == "human" and not row["terms"] for row in rows(split))
    assert not {row["sentence"] for row in rows(split)} & {row["sentence"] for row in rows("replay")}


def test_librivox_is_heard_in_the_retention_test_only() -> None:
    where = {split for split in SPLITS for row in rows(split) if row["speaker"] == "librivox-austen"}
    assert where == {"retention_test"}


def test_nobody_of_retention_is_heard_in_training() -> None:
    """A model that has heard a speaker shows no forgetting there."""
    kept = {row["speaker"] for split in RETENTION for row in rows(split)}
    assert not kept & {row["speaker"] for split in ("train", "replay") for row in rows(split)}


def test_people_are_rehearsed_too() -> None:
    assert {row["speaker"] for row in rows("replay") if row["voice"] == "human"} == {"steel-sky"}
    assert sum(row["voice"] == "human" for row in rows("replay")) >= 250


def test_replay_holds_what_tuning_breaks_and_no_term() -> None:
    texts = [row["text"] for row in rows("replay")]
    assert sum(len(text.split()) <= 3 for text in texts) >= 100
    assert sum(bool(re.search(r"\d", text)) for text in texts) >= 100
    assert min(row["duration"] for row in rows("replay")) < 0.5
    assert not any(row["terms"] for row in rows("replay"))


def test_the_eighty_clips_of_retention_of_before_are_those_without_rest() -> None:
    assert len(rows("retention_test")) >= 200
    kept = (row["sentence"] for row in rows("retention_test") if not row.get("rest"))
    before = hashlib.sha256("".join(sorted(kept)).encode())
    assert before.hexdigest()[:8] == "b686b141"


@pytest.mark.parametrize("split", SPLITS)
def test_every_row_has_its_file_and_its_duration(split: str) -> None:
    folder = PROJECT / "manifests"
    shortest, longest = (0.5, 12.0) if split in DOMAIN else (0.25, 16.0)
    paths = [folder / row["audio_filepath"] for row in rows(split)]
    for path, row in zip(paths, rows(split), strict=True):
        info = sf.info(path)
        assert (info.samplerate, info.channels) == (16_000, 1)
        assert info.duration == pytest.approx(row["duration"], abs=0.05)
        assert shortest <= row["duration"] <= longest, row
    assert {path.name for path in paths} == {path.name for path in (PROJECT / "audio" / split).iterdir()}


def test_the_files_still_give_these_clips() -> None:
    """A clip's name holds a digest of all that decides how it sounds: none would be spoken anew."""
    planned = {f"{plan.split}/{plan.filename}" for plan in plan_project(load_synthesis_project(PROJECT))}
    listed = {
        f"{split}/{Path(row['audio_filepath']).name}"
        for split in (*DOMAIN, FINAL, "replay")
        for row in rows(split)
        if row["voice"] != "human"
    }
    assert planned == listed


def test_the_audio_is_small() -> None:
    clips = [clip for clip in (PROJECT / "audio").rglob("*") if clip.is_file()]
    assert sum(clip.stat().st_size for clip in clips) <= 28e6
    assert {clip.suffix for clip in clips} == {".opus"}


def test_the_card_counts_what_is_there() -> None:
    card = (PROJECT / "README.md").read_text(encoding="utf-8")
    for split in SPLITS:
        row = re.search(rf"^\| {split} \| (\d+) \|", card, re.MULTILINE)
        assert row is not None, split
        assert int(row[1]) == len(rows(split))


def test_the_readme_counts_what_is_there() -> None:
    readme = (PROJECT.parents[1] / "README.md").read_text(encoding="utf-8")
    said = re.search(r"(\d+) terms, (\d+) sentences, (\d+) voices of (\d+)\s+speakers", readme)
    assert said is not None
    domain = [row for split in DOMAIN for row in rows(split)]
    heard = [{row[key] for row in domain} for key in ("sentence", "voice", "speaker")]
    assert [int(count) for count in said.groups()] == [len(lexicon().terms), *map(len, heard)]
