"""Gates on long recordings: what passes, what is refused and why, and what says that it cannot be judged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wergate.gates.evidence import Evidence
from wergate.gates.gate import Gate, GateResult
from wergate.gates.kinds.long_form import LongFormGate, SkippedSpeechGate, TimestampsGate, _times_as_many
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport, ExportedLong, SetReport

QUICK = BootstrapSettings(resamples=400)
Report = Callable[..., EvalReport]
Set = Callable[..., SetReport]
TIMES = {"border_errors_s": (0.02, 0.04)}


def _judge(gate: Gate, report: EvalReport) -> GateResult:
    return gate.evaluate(Evidence(report, None, QUICK))


@pytest.fixture
def long_report(make_report: Report, make_set: Set) -> Report:
    """`long_report(errors, **values)`: 30 clips of 10 words in their places; alone and by the base half are wrong."""

    def make(
        errors: list[int] | None = None, alone: list[int] | None = None, alone_deletions: int = 0, **values: Any
    ) -> EvalReport:
        in_place = make_set(errors or [1, 0] * 15, "sha256:joined", **(TIMES | values))
        single = make_set(alone or [1, 0] * 15, "sha256:joined", deletions=alone_deletions)
        base = make_set([4, 3] * 15, "sha256:joined", border_errors_s=(0.3, 0.5), skipped_words=1)
        return make_report(sets={"joined": in_place, "joined_clips": single}, baseline={"joined": base})

    return make


PASSING = [
    LongFormGate(limit=0.1),
    LongFormGate(against="clips", limit=0.01),
    LongFormGate(against="base", limit=0.0),
    TimestampsGate(measure="median", limit=0.05),
    TimestampsGate(measure="percentile_95", limit=0.05),
    SkippedSpeechGate(limit=0.01),
    SkippedSpeechGate(against="base", limit=0.0),
    SkippedSpeechGate(measure="deletions", against="clips", limit=2),
]


@pytest.mark.parametrize("gate", PASSING, ids=lambda gate: gate.title)
def test_a_good_version_passes(gate: Gate, long_report: Report) -> None:
    result = _judge(gate, long_report())
    assert result.passed, result.detail
    assert (result.kind, result.limit, result.unit) == (gate.kind, gate.limit, gate.unit)


SPOILT: list[tuple[Gate, dict[str, Any], str]] = [
    (LongFormGate(limit=0.1), {"errors": [2] * 30}, "joined: 60 wrong, in 300 words; 6 speaker blocks"),
    (
        LongFormGate(against="clips", limit=0.01),
        {"errors": [1] * 30},
        "30 wrong, the same clips alone 15, of 300 words",
    ),
    (
        LongFormGate(against="base", limit=0.01),
        {"errors": [4] * 30},
        "120 wrong, the untouched base 105, of 300 words",
    ),
    (
        TimestampsGate(measure="median", limit=0.1),
        {"border_errors_s": (0.2, 0.3)},
        "joined: 60 starts and ends, 0% within the limit, the untouched base 0.4 s",
    ),
    (
        TimestampsGate(measure="percentile_95", limit=0.4),
        {"border_errors_s": (0.0, 0.5)},
        "50% within the limit, the untouched base 0.5 s",
    ),
    (
        SkippedSpeechGate(limit=0.05),
        {"skipped_words": 3},
        "90 words left out three and more in a row, in 300 words",
    ),
    (
        SkippedSpeechGate(against="base", limit=0.05),
        {"skipped_words": 4},
        "120 words left out three and more in a row, the untouched base 30, of 300 words",
    ),
    (
        SkippedSpeechGate(measure="deletions", against="clips", limit=2),
        {"deletions": 3, "alone_deletions": 1},
        "3 x clips, but must be <= 2 x clips: joined: 90 words left out, the same clips alone 30, of 300 words",
    ),
]


@pytest.mark.parametrize(("gate", "spoil", "reason"), SPOILT, ids=lambda value: getattr(value, "title", ""))
@pytest.mark.parametrize("judge", ["end", "point"])
def test_a_bad_version_is_refused_for_the_right_reason(
    gate: Gate, spoil: dict[str, Any], reason: str, judge: str, long_report: Report
) -> None:
    result = _judge(gate.model_copy(update={"judge": judge}), long_report(**spoil))
    assert not result.passed
    assert reason.partition("; ")[0] in result.detail
    assert result.remedy


def test_the_end_is_judged_and_not_only_the_point(long_report: Report, make_clip: Callable[..., Any]) -> None:
    report = long_report()
    # One speaker of six is late: another six might hold three of that kind.
    late = tuple(make_clip(i, 0, border_errors_s=((0.5, 0.5) if i % 6 == 0 else (0.02, 0.04))) for i in range(30))
    report.sets["joined"] = SetReport(digest="sha256:joined", utterances=late)
    by_end, by_point = (_judge(TimestampsGate(measure="median", limit=0.1, judge=j), report) for j in ("end", "point"))
    assert by_end.value == by_point.value == pytest.approx(0.04)
    assert (by_end.passed, by_point.passed) == (False, True)
    assert by_end.interval is not None
    assert by_end.interval[0] == pytest.approx(0.02)
    assert 0.1 < by_end.interval[1] <= 0.5
    assert by_end.power is not None
    assert (by_end.power.size, by_end.power.what) == (60, "starts and ends")


@pytest.mark.parametrize(
    "gate",
    [
        LongFormGate(set="long", limit=1),
        LongFormGate(set="long", against="clips", limit=1),
        TimestampsGate(set="long", measure="median", limit=9),
        SkippedSpeechGate(set="long", limit=1),
    ],
    ids=lambda gate: gate.title,
)
def test_a_missing_set_is_a_refusal_that_says_so(gate: Gate, long_report: Report) -> None:
    result = _judge(gate, long_report())
    assert (result.passed, result.value) == (False, None)
    assert "set long is missing" in result.detail
    assert result.remedy == "evaluate again, with whole recordings and their segments as data.long"
    assert "evaluate again" in result.remedy


def test_without_the_clips_alone_nothing_is_compared(long_report: Report) -> None:
    report = long_report()
    del report.sets["joined_clips"]
    for gate in (LongFormGate(against="clips", limit=1), SkippedSpeechGate(against="clips", limit=9)):
        result = _judge(gate, report)
        assert "set joined_clips is missing" in result.detail
        assert "two test clips or more" in result.remedy


def test_a_version_that_writes_no_times_is_told_so(long_report: Report) -> None:
    result = _judge(TimestampsGate(measure="median", limit=9), long_report(border_errors_s=()))
    assert (result.passed, result.value) == (False, None)
    assert "no times were written" in result.detail
    assert "train.timestamps_ratio" in result.remedy


def test_an_old_report_counts_no_runs(long_report: Report) -> None:
    old = long_report().model_copy(update={"schema_version": 2})
    result = _judge(SkippedSpeechGate(limit=1), old)
    assert (result.passed, result.value, result.remedy) == (False, None, "evaluate again")
    assert _judge(SkippedSpeechGate(measure="deletions", limit=1), old).passed


def _exported(report: EvalReport, **values: Any) -> EvalReport:
    about = {"library": "faster-whisper 1.2", "recordings": 3, "words": 300, "errors": 30}
    exported = ExportedLong(**(about | {"deletions": 9, "skipped_words": 3} | values))
    return report.model_copy(update={"exports": {"faster-whisper": exported}})


@pytest.mark.parametrize(("limit", "passed"), [(0.1, True), (0.09, False)])
def test_an_export_is_judged_by_what_it_was_measured_to_be(limit: float, passed: bool, long_report: Report) -> None:
    gate = LongFormGate(through="faster-whisper", limit=limit)
    result = _judge(gate, _exported(long_report()))
    assert result.passed is passed
    assert result.value == pytest.approx(0.1)
    assert "faster-whisper 1.2: 30 errors in 300 words, 3 recordings" in result.detail
    assert gate.title == "long_form_faster-whisper_joined"


def test_an_export_is_compared_with_its_own_clips(long_report: Report) -> None:
    gate = LongFormGate(through="faster-whisper", against="clips", limit=0.02)
    beside = _judge(gate, _exported(long_report(), clips_errors=21))
    assert not beside.passed
    assert beside.value == pytest.approx(0.03)
    assert _judge(gate, _exported(long_report(), clips_errors=25)).passed
    assert "clips alone were not measured" in _judge(gate, _exported(long_report())).detail


@pytest.mark.parametrize(("name", "form"), [("faster-whisper", "ctranslate2"), ("transformers-chunked", "merged")])
def test_what_no_export_has_measured_is_told_with_the_command(name: str, form: str, long_report: Report) -> None:
    result = _judge(LongFormGate(through=name, limit=1), long_report())
    assert (result.passed, result.value) == (False, None)
    assert f"no export was measured in {name}" in result.detail
    assert f"wertune export --format {form}" in result.remedy


@pytest.mark.parametrize(
    ("kind", "values", "fault"),
    [
        (LongFormGate, {"through": "faster-whisper", "against": "base"}, "whose export nobody has"),
        (LongFormGate, {"against": "clips", "unit": "errors/word"}, "unit is 'errors/word'"),
        (SkippedSpeechGate, {"against": "clips", "unit": "share"}, "it is 'x clips' then"),
        (SkippedSpeechGate, {"measure": "most"}, "measure"),
        (TimestampsGate, {}, "measure"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_a_fault(kind: type[Gate], values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        kind.model_validate({"limit": 0.5, **values})


def test_titles_say_what_is_looked_at() -> None:
    titles = [gate.title for gate in PASSING]
    assert titles == [
        "long_form_joined", "long_form_clips_joined", "long_form_base_joined",
        "timestamps_median_joined", "timestamps_percentile_95_joined",
        "skipped_speech_joined", "skipped_speech_base_joined", "skipped_speech_deletions_clips_joined",
    ]  # fmt: skip


@given(st.integers(0, 50), st.integers(0, 50))
def test_none_alone_counts_as_one(now: int, then: int) -> None:
    found = _times_as_many(np.array([[now, then]], np.float64))[0]
    assert found == (now / then if then else now)
