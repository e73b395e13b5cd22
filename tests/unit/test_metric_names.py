"""docs/metrics.md names every metric that is logged, and none that is not."""

import re
from pathlib import Path

from wertune.eval_report import ARTEFACT_SET
from wertune.metrics import Clip, Scores, score
from wertune.report import Comparison, logged_metrics
from wertune.text import TermFinder
from wertune.train import EpochResult
from wertune.trial import BEST_METRICS, SIZE_METRICS, best_metrics

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
# Logged one by one where they arise.
SINGLE = {"skipped_rows", "adapter_mb", "peak_memory_mb", f"{ARTEFACT_SET}_wer", "trials_completed", "trials_pruned", "trials_failed"}  # fmt: skip  # noqa: E501


def _scores(text: str) -> Scores:
    clips = [Clip(str(number), "top up cpf", f"speaker {number}") for number in range(8)]
    return score(clips, [text] * 8, str.lower, TermFinder(["cpf"], str.lower))


def _logged() -> set[str]:
    scores = _scores("top up")
    epoch = EpochResult(1, 0.1, 1.0, 1.0, 0.1, 0.1, 0.9, 0.1, 0.1, 1.0, 1.0, 1.0)
    names = set(Comparison(scores, _scores("top up cpf")).metrics("test"))
    names = {name for name in names if not name.startswith("baseline_")}
    return names | set(epoch.metrics()) | set(best_metrics(epoch)) | set(SIZE_METRICS) | set(BEST_METRICS) | SINGLE


def _documented() -> set[str]:
    rows = [line.split("|")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    with_rates = {name.replace("RATE", rate) for name in names for rate in ("wer", "term_recall")}
    return {name.replace("SPLIT", "test") for name in with_rates}


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    assert _logged() == _documented()


def test_validation_is_val_in_every_column_and_terms_stand_only_where_some_are_said() -> None:
    scores = _scores("top up")
    assert "baseline_retention_val_wer" in logged_metrics(scores, "baseline_retention_validation")
    silent = score([Clip("1", "a b")], ["a cpf"], str.lower, TermFinder(["cpf"], str.lower))
    assert not any("term" in name for name in logged_metrics(silent, "test"))
