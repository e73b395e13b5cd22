"""What an evaluation report says of a model: counts, made-up words, leaks, terms of training."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wertune.base.config import ContextConfig, DecodeConfig, LoraConfig, stored_decode
from wertune.base.text import Lexicon, Term, TermFinder, normaliser
from wertune.battery.counts import set_report
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.manifest import Dataset, Recording
from wertune.data.nonspeech import CLIPS_PER_SET, hallucination_sets
from wertune.jobs.measures import leakage, made_up_words, timed_clips, training_terms
from wertune.jobs.writers import Writers
from wertune.scores.eval_report import EvalReport, Provenance, SetReport, UtteranceCounts
from wertune.scores.metrics import Clip, score
from wertune.tracking.versions import TrainingRow
from wertune.whisper.adapter import adapter_digest, add_lora, at_strength
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import clips_of

ENGLISH = normaliser("en")
LEXICON = Lexicon(terms=(Term(term="CPF", spoken="see pee eff"), Term(term="Baby Bonus", spoken="baby bonus")))


@pytest.fixture
def prepared(make_recordings: Callable[..., list[Recording]]) -> Any:
    recordings = make_recordings(["Is my CPF safe?", "Good morning.", "Ask for the Baby Bonus."])
    return SimpleNamespace(
        dataset=Dataset({"test": tuple(recordings)}),
        lexicon=LEXICON,
        normalise=ENGLISH,
        finder=TermFinder(LEXICON.written, ENGLISH),
    )


@pytest.mark.parametrize("decode", [DecodeConfig(boost_floor=None), DecodeConfig(), stored_decode({"term_boost": 3.0})])
def test_a_report_says_how_a_version_decodes_whatever_is_not_set(decode: DecodeConfig) -> None:
    assert Provenance(decode=decode.model_dump()).decode == decode.model_dump()


def test_nobody_speaks_in_made_up_clips_and_they_are_the_same_every_time() -> None:
    silence = np.zeros(SAMPLE_RATE_HZ // 5, np.float32)
    speech = [np.append(silence, np.full(SAMPLE_RATE_HZ, v, np.float32)) for v in np.linspace(0.1, 0.9, 30)]
    first, again = hallucination_sets(speech), hallucination_sets(speech)
    assert {name: len(clips) for name, clips in first.items()} == dict.fromkeys(
        ("silence", "noise", "short"), CLIPS_PER_SET
    )
    for name, clips in first.items():
        assert all(np.array_equal(a, b) for a, b in zip(clips, again[name], strict=True))
        assert all(clip.dtype == np.float32 and np.abs(clip).max() <= 1 for clip in clips)
    assert max(np.abs(clip).max() for clip in first["silence"]) < 0.01
    assert max(clip.size for clip in first["short"]) < 0.5 * SAMPLE_RATE_HZ
    assert min(np.sqrt(np.mean(clip**2)) for clip in first["noise"]) > 0.001


def test_without_speech_there_are_no_short_clips() -> None:
    assert set(hallucination_sets([])) == {"silence", "noise"}


def test_counts_are_those_of_the_scores(prepared: Any) -> None:
    texts = ["Is my see PF safe?", "Good morning.", "Ask for the Baby Bonus, CPF."]
    scores = score(clips_of(prepared.dataset["test"]), texts, ENGLISH, prepared.finder)
    report = set_report(prepared, scores, "digest")
    assert report.wer == pytest.approx(scores.wer)
    assert [u.errors for u in report.utterances] == [2, 0, 1]
    assert [u.lexicon_errors for u in report.utterances] == [1, 0, 1]
    assert [u.lexicon_words for u in report.utterances] == [1, 0, 2]
    assert report.utterances[0].terms == {"CPF": (0, 1, 0)}
    assert report.utterances[2].terms == {"Baby Bonus": (1, 0, 0), "CPF": (0, 0, 1)}
    assert report.utterances[2].hypothesis_words == 6
    assert not any("/" in u.id for u in report.utterances)
    assert SetReport.model_validate_json(report.model_dump_json()) == report


def test_a_loop_has_a_high_compression_ratio(prepared: Any) -> None:
    texts = ["thank you " * 40, "A plain sentence about nothing in particular."]
    scores = score([Clip("a", ""), Clip("b", "")], texts, ENGLISH, prepared.finder)
    loop, plain = set_report(prepared, scores, "digest").utterances
    assert loop.compression_ratio > 2.4 > plain.compression_ratio


def test_parts_beyond_the_whole_are_refused(make_clip: Callable[..., UtteranceCounts]) -> None:
    with pytest.raises(ValueError, match="must be a part"):
        make_clip(0, 1, lexicon_errors=2)


def test_a_leak_is_the_same_audio_or_the_same_sentence(prepared: Any) -> None:
    first, second, _ = prepared.dataset["test"]
    assert leakage(prepared, []) == ()
    assert leakage(prepared, [TrainingRow("another", "Something else.")]) == ()
    found = leakage(prepared, [TrainingRow(first.digest, "x"), TrainingRow("another", "good MORNING")])
    assert [text.rpartition(": ")[2] for text in found] == [
        "the same audio as a clip of training",
        "the same sentence as a clip of training",
    ]
    assert found[1].startswith(Path(second.place).name)


def test_a_leak_is_the_same_recording_whatever_is_said_in_it(prepared: Any) -> None:
    first, *others = prepared.dataset["test"]
    prepared.dataset = Dataset({"test": (replace(first, file_digest="abc"), *others)})
    assert leakage(prepared, [TrainingRow("another", "Something else.")]) == ()
    (found,) = leakage(prepared, [TrainingRow("another", "Something else.", "abc")])
    assert found == f"{Path(first.place).name}: the same recording as a clip of training"


def test_terms_of_training_are_counted_and_unseen_ones_are_zero(prepared: Any) -> None:
    assert training_terms(prepared, ["My CPF, your CPF.", "Hello."]) == {"CPF": 2, "Baby Bonus": 0}


def test_timed_clips_come_from_all_over_the_set(make_recordings: Callable[..., list[Recording]]) -> None:
    recordings = make_recordings([f"Sentence {i}." for i in range(30)])
    clips = timed_clips(recordings)
    assert len(clips) == 12
    assert np.array_equal(clips[1], recordings[2].samples())


def test_made_up_words_are_counted_against_nothing(prepared: Any, load_tiny: Callable[..., Whisper]) -> None:
    reports = made_up_words(Writers(load_tiny("none")), prepared, ContextConfig(), DecodeConfig(max_new_tokens=4))
    assert set(reports) == {"silence", "noise"}  # these recordings speak at once
    for report in reports.values():
        assert all(u.words == 0 and u.errors == u.insertions == u.hypothesis_words for u in report.utterances)


def test_the_digest_of_an_adapter_follows_its_weights_and_its_strength(load_tiny: Callable[..., Whisper]) -> None:
    assert adapter_digest(load_tiny("none")) == ""
    one, same = (add_lora(load_tiny("none"), LoraConfig(r=4), seed=0) for _ in range(2))
    other = add_lora(load_tiny("none"), LoraConfig(r=4), seed=1)
    assert adapter_digest(one) == adapter_digest(same) != adapter_digest(other)
    with at_strength(one, 0.5):
        assert adapter_digest(one) != adapter_digest(same)


def test_a_report_from_before_engines_keeps_its_digest_and_another_engine_has_another(
    make_report: Callable[..., EvalReport],
) -> None:
    report = make_report()
    stored = json.loads(report.model_dump_json())
    del stored["provenance"]["engine"]
    # As it was worked out then: over the JSON without the field.
    assert report.digest == hashlib.sha256(json.dumps(stored, separators=(",", ":")).encode()).hexdigest()
    old = EvalReport.model_validate(stored)
    assert (old.provenance.engine, old.digest) == ("torch", report.digest)
    other = report.provenance.model_copy(update={"engine": "ctranslate2"})
    assert report.model_copy(update={"provenance": other}).digest != report.digest


def test_a_report_from_before_long_recordings_keeps_its_digest(make_report: Callable[..., EvalReport]) -> None:
    report = make_report().model_copy(update={"schema_version": 2})
    stored = json.loads(report.model_dump_json())
    del stored["exports"], stored["provenance"]["engine"]
    for found in (*stored["sets"].values(), *stored["baseline"].values()):
        for clip in found["utterances"]:
            del clip["skipped_words"], clip["border_errors_s"]
    assert report.digest == hashlib.sha256(json.dumps(stored, separators=(",", ":")).encode()).hexdigest()
    old = EvalReport.model_validate(stored)
    assert (old.exports, old.digest) == ({}, report.digest)
    assert report.model_copy(update={"schema_version": 3}).digest != report.digest
