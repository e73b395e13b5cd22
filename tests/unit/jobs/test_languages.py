"""A project with rows in two languages: what is asked of the base, and how each is scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tests.trials.registry_worker import make_report

from wergate.gates.decision import decide
from wergate.gates.kinds.robustness import SliceGate
from wergate.gates.policy import Policy
from wertune.base.config import load_project
from wertune.base.errors import ManifestError
from wertune.base.text import TermFinder, normaliser
from wertune.battery.counts import set_report
from wertune.data.rows import Row
from wertune.jobs.logged import log_comparison
from wertune.scores.comparison import Comparison
from wertune.scores.metrics import Clip, score
from wertune.tracking.runs import create_run
from wertune.training.prepare import prepare

NOTHING = TermFinder((), str.lower)


@pytest.mark.parametrize(("said", "code"), [("te", "te"), ("te-IN", "te"), ("EN_sg", "en"), ("", "")])
@pytest.mark.parametrize("key", ["language", "lang"])
def test_a_row_names_its_language(key: str, said: str, code: str) -> None:
    assert Row.model_validate({"audio_filepath": "a.wav", "text": "x", key: said}).language == code


def test_a_language_that_nobody_knows_is_a_fault(small_project: Path) -> None:
    _name_language(small_project, "klingon")
    with pytest.raises(ManifestError, match=r"train\.jsonl:1: .*'klingon' is no language of Whisper's; give its code"):
        prepare(small_project, load_project(small_project))


def test_a_language_that_the_base_lacks_is_refused_before_anything_is_trained(small_project: Path) -> None:
    _name_language(small_project, "te")
    with pytest.raises(ManifestError, match=r"train\.jsonl:1: language is te, which .*tiny-whisper.* does not know"):
        prepare(small_project, load_project(small_project))


def test_where_one_row_names_its_language_the_others_are_in_the_projects(small_project: Path) -> None:
    alone = prepare(small_project, load_project(small_project)).dataset
    _name_language(small_project, "en")
    dataset = prepare(small_project, load_project(small_project)).dataset
    assert {recording.language for recording in alone["train"]} == {""}
    assert {recording.language for split in dataset.splits for recording in dataset[split]} == {"en"}
    assert alone.digest("test") == dataset.digest("test")  # what policies hold
    assert alone.digest("train") != dataset.digest("train")


def _name_language(project: Path, language: str) -> None:
    path = project / "train.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"language": language}), *others]) + "\n")


def test_each_clip_is_scored_as_its_language_has_it() -> None:
    """English spells numbers as digits; other languages keep what is written."""
    clips = [Clip("a", "twenty five dollars"), Clip("b", "twenty five dollars", language="ms")]
    english, malay = score(clips, ["$25", "$25"], normaliser("en"), NOTHING).utterances
    assert (english.words.errors, malay.words.errors) == (0, 3)


def test_a_gate_judges_the_worst_language_by_the_report(small_project: Path) -> None:
    prepared = prepare(small_project, load_project(small_project))
    clips = [Clip("a:1", "two words", language="en"), Clip("b:1", "two words", language="ms")]
    report = set_report(prepared, score(clips, ["two words", "two"], str.lower, NOTHING), "sha256:test")
    gate = SliceGate(by="language", set="test", limit=0.3, min_words=1)
    candidate = make_report("m", "1").model_copy(update={"sets": {"test": report}})
    policy = Policy(staging=(gate,), production=(gate,))
    (found,) = decide(candidate, None, policy, "staging").gates
    assert (found.passed, found.value) == (False, 0.5)
    assert "language ms, 1 errors in 2 words, worst of 2" in found.detail


def test_wer_is_logged_by_language_where_there_are_several(mlflow_store: str, tmp_path: Path) -> None:
    run = create_run(mlflow_store, "languages")
    clips = [Clip("a", "two words", language="en"), Clip("b", "two words", language="ms")]
    before = score(clips, ["two", "two"], str.lower, NOTHING)
    after = score(clips, ["two words", "two"], str.lower, NOTHING)
    log_comparison(run, "test", Comparison(before, after))
    client = MlflowClient(mlflow_store)
    metrics: dict[str, Any] = client.get_run(run.run_id).data.metrics
    assert (metrics["test_wer_en"], metrics["test_wer_ms"]) == (0.0, 0.5)
    assert (metrics["baseline_test_wer_en"], metrics["baseline_test_wer_ms"]) == (0.5, 0.5)
    table = json.loads(Path(client.download_artifacts(run.run_id, "test_by_language.json", str(tmp_path))).read_text())
    assert [row[0] for row in table["data"]] == ["en", "ms"]


def test_labels_begin_with_their_language(load_tiny: Callable[..., Any]) -> None:
    whisper = load_tiny()
    with pytest.raises(Exception, match="language is te, but base_model knows English only"):
        whisper.label_ids("x", "te")
    whisper.wording.is_multilingual = True
    whisper.wording._prompts.clear()
    names = whisper.tokenizer.convert_ids_to_tokens(whisper.label_ids("x", "te")[:3])
    assert names == ["<|te|>", "<|transcribe|>", "<|notimestamps|>"]
