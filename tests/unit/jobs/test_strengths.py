"""The adapter that a search ends with at other strengths: which is kept, how it is stored, and that it is taken up."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.trials.strengths import table
from tests.unit.jobs.conftest import NO_PENALTY

from wertune.base.config import with_overrides
from wertune.base.contract import BEST_OBJECTIVE
from wertune.jobs import strengths
from wertune.jobs.strengths import at_the_best_strength
from wertune.jobs.trials import BestTrial
from wertune.search.search_space import SearchConfig
from wertune.tracking.runs import RunRef, children
from wertune.training.prepare import Prepared
from wertune.training.train import validation_scores
from wertune.whisper.adapter import at_strength, load_adapter, read_adapter_config

SPACE = {"lora.r": {"choices": [2, 4]}}


def _tried(
    search: RunRef, prepared: Prepared, best: BestTrial, tried: Sequence[float], before: float
) -> tuple[BestTrial, list[str]]:
    """The best trial as it is has an objective of `before`."""
    best.run.metrics({BEST_OBJECTIVE: before}, 9)
    said: list[str] = []
    config = SearchConfig.model_validate({"strengths": tried, "space": SPACE})
    return at_the_best_strength(search, prepared, config, best, NO_PENALTY, said.append), said


def test_the_best_strength_is_stored_as_it_was_scored(
    search: RunRef, prepared: Prepared, best: BestTrial, tmp_path: Path
) -> None:
    found, said = _tried(search, prepared, best, (0.25, 1.0, 0.5), before=9.0)
    assert [line.partition(":")[0] for line in said] == ["trial 02", "trial 02"]  # its own is known
    chosen = found.config.lora.strength
    assert chosen in {0.25, 0.5}
    assert found.name == f"{best.name} at strength {chosen:g}"
    assert [run.info.run_name for run in children(search)] == [best.name]  # the search's trials stay what they are
    own, weighed = (run.download("adapter", tmp_path / run.run_id) for run in (best.run, found.run))
    assert read_adapter_config(weighed)["lora_alpha"] == chosen * read_adapter_config(own)["lora_alpha"]
    whisper = load_adapter(prepared.whisper(found.config.quantization), weighed)
    data = prepared.training_data(found.config.context, whisper.mel_bins)
    logged = found.run.latest((BEST_OBJECTIVE,))[BEST_OBJECTIVE]
    assert validation_scores(found.config, whisper, data)[0].wer == pytest.approx(logged)


def test_each_is_scored_at_its_own(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    heard: list[float] = []
    monkeypatch.setattr(
        strengths, "at_strength", lambda whisper, share: heard.append(share) or at_strength(whisper, share)
    )
    weak = BestTrial(best.run, best.name, with_overrides(best.config, {"lora.strength": 0.5}, "test"))
    _tried(search, prepared, weak, (0.25, 0.5, 1.0), before=9.0)
    assert heard == [0.5, 2.0]


def test_its_own_stays_where_none_is_better(search: RunRef, prepared: Prepared, best: BestTrial) -> None:
    assert _tried(search, prepared, best, (0.5,), before=0.0)[0] is best
    assert _tried(search, prepared, best, (1.0,), before=9.0) == (best, [])


def test_a_job_that_is_resumed_takes_up_what_was_settled(
    monkeypatch: pytest.MonkeyPatch, search: RunRef, prepared: Prepared, best: BestTrial
) -> None:
    found, said = _tried(search, prepared, best, (0.5,), before=9.0)
    with monkeypatch.context() as patch:
        patch.setattr(strengths, "load_adapter", None)  # nothing is scored again
        assert _tried(search, prepared, best, (0.5,), before=9.0) == (found, said)
    _, told = _tried(search, prepared, best, (0.5, 0.25), before=9.0)
    assert len(told) == 2  # others than those are tried


def test_the_trial_program_has_a_row_for_each_strength_and_boost(
    small_project: Path, best: BestTrial, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table(small_project, [best.run.download("adapter", tmp_path / "own")], (0.5, 1.0), (0.0, 2.0))
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| adapter |")]
    assert [row[1:3] for row in rows[1:]] == [["0.5", "0.0"], ["1.0", "0.0"], ["0.5", "2.0"], ["1.0", "2.0"]]
    own = best.run.latest((BEST_OBJECTIVE,))[BEST_OBJECTIVE]
    assert rows[2][3] == f"{own:.2%}"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"strengths": (0.5,), "space": {"lora.strength": {"low": 0.5, "high": 1.0}}}, "take it out of space"),
        ({"strengths": (1.5,), "space": SPACE}, "less than or equal to 1"),
        ({"strengths": (0.0,), "space": SPACE}, "greater than 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SearchConfig.model_validate(values)
