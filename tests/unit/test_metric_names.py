"""docs/metrics.md names every metric that is logged, and none that is not."""

import re
from dataclasses import replace

import pytest
from tests.support.places import ROOT

from wertune.base.config import TrialConfig, flatten
from wertune.base.contract import ARTEFACT_SET
from wertune.base.text import TermFinder
from wertune.jobs.ablation import ablation
from wertune.jobs.long_form import Long, LongSet
from wertune.jobs.opening import COMPARED_METRICS, COMPARED_PARAMS
from wertune.scores.comparison import Comparison, logged_metrics
from wertune.scores.metrics import Clip, Scores, score
from wertune.training.baseline import Way
from wertune.training.train import EpochResult
from wertune.training.trial import BEST_METRICS, SIZE_METRICS, best_metrics, short_names

DOCS = ROOT / "docs" / "metrics.md"
# Logged one by one where they arise; by language in test_languages.py.
SINGLE = {"skipped_rows", "test_wer_LANGUAGE", "adapter_mb", "peak_memory_mb", f"{ARTEFACT_SET}_wer", "trials_completed", "trials_pruned", "trials_failed"}  # fmt: skip  # noqa: E501


def _scores(*texts: str) -> Scores:
    """Eight clips with each text: rates that are all the same have no interval."""
    written = list(texts) * 8
    clips = [Clip(str(number), "top up cpf", f"speaker {number}") for number in range(len(written))]
    return score(clips, written, str.lower, TermFinder(["cpf"], str.lower))


def _logged() -> set[str]:
    scores = _scores("top up")
    epoch = EpochResult(1, 0.1, 1.0, 1.0, 0.1, 0.1, 0.9, 0.1, 0.1, 1.0, 1.0, 1.0, skipped_steps=0)
    names = set(Comparison(scores, _scores("top up", "top up cpf", "top up cpf cpf")).metrics("test"))
    names = {name for name in names if not name.startswith("baseline_")}
    every = dict.fromkeys(Way, scores)
    table = ablation(every, scores, scores, Comparison(scores, scores), lambda same: same, "")
    parts = {name for row in table.rows for name in _by_row(row.key, table.metrics())}
    names |= parts
    names |= {name.replace("joined", "LONG") for name in _long(scores).metrics() if not name.startswith("baseline_")}
    return names | set(epoch.metrics()) | set(best_metrics(epoch)) | set(SIZE_METRICS) | set(BEST_METRICS) | SINGLE


def _long(scores: Scores) -> Long:
    timed = Scores(tuple(replace(each, border_errors_s=(0.1, 0.2)) for each in scores.utterances))
    return Long(LongSet("joined", "test", ()), Comparison(timed, timed), Comparison(scores, scores))


def _by_row(key: str, logged: dict[str, float]) -> set[str]:
    """`WAY_val_wer`, … of the row that begins so and no longer one."""
    figures = {"val_wer", "val_term_recall", "val_term_precision", "test_wer", "term_recall", "term_precision"}
    found = {name.removeprefix(f"{key}_") for name in logged if name.startswith(f"{key}_")} & figures
    return {f"WAY_{name}" for name in found}


def _documented() -> set[str]:
    rows = [line.split("|")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    return {name.replace("SPLIT", "test") for name in names}


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    assert _logged() == _documented()


def test_the_columns_of_the_shared_view_are_there() -> None:
    assert set(COMPARED_METRICS) <= _logged() | {"retention_wer"}
    assert set(COMPARED_PARAMS) <= set(short_names(flatten(TrialConfig().model_dump(mode="json"))))


@pytest.mark.parametrize(
    ("split", "wer", "recall"),
    [
        ("test", "test_wer", "term_recall"),
        ("validation", "val_wer", "val_term_recall"),
        ("retention_test", "retention_wer", "retention_term_recall"),
        ("retention_validation", "retention_val_wer", "retention_val_term_recall"),
    ],
)
def test_columns_are_short_and_the_bases_differ_by_a_prefix_alone(split: str, wer: str, recall: str) -> None:
    scores = _scores("top up")
    logged = logged_metrics(scores, split)
    assert (logged[wer], logged[recall]) == (scores.wer, scores.terms.recall)
    base = logged_metrics(scores, split, "baseline_")
    assert base == {f"baseline_{name}": value for name, value in logged.items()}


def test_metrics_of_terms_stand_only_where_some_are_said() -> None:
    silent = score([Clip("1", "a b")], ["a cpf"], str.lower, TermFinder(["cpf"], str.lower))
    assert not any("term" in name for name in logged_metrics(silent, "test"))
