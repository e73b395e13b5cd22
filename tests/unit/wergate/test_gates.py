"""Each gate: it passes what is good, and refuses what is not for the right reason."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wergate.gates.evidence import Evidence
from wergate.gates.gate import Gate, GateResult, Size
from wergate.gates.kinds.accuracy import (
    BaseGate,
    CerGate,
    ChampionGate,
    ForgettingGate,
    LexiconWerGate,
    OtherWerGate,
    WerGate,
)
from wergate.gates.kinds.delivery import (
    AdapterSizeGate,
    LeakageGate,
    PeakMemoryGate,
    ProvenanceGate,
    RealTimeFactorGate,
    TrainableGate,
)
from wergate.gates.kinds.robustness import HallucinationGate, LoopGate, SliceGate
from wergate.gates.kinds.terms import TermGate, WorstTermGate, term_rate
from wertune.scores.bootstrap import BootstrapSettings, Interval
from wertune.scores.eval_report import EvalReport, Provenance, SetReport
from wertune.scores.metrics import TermCounts

QUICK = BootstrapSettings(resamples=400)
Report = Callable[..., EvalReport]
Set = Callable[..., SetReport]


def _judge(gate: Gate, report: EvalReport, champion: EvalReport | None = None) -> GateResult:
    return gate.evaluate(Evidence(report, champion, QUICK))


ALL = [
    WerGate(limit=0.1),
    CerGate(limit=0.05),
    LexiconWerGate(limit=0.1),
    OtherWerGate(limit=0.12),
    BaseGate(limit=-0.2),
    ChampionGate(),
    ForgettingGate(limit=0.0),
    TermGate(measure="recall", limit=1.0),
    TermGate(measure="precision", limit=1.0),
    TermGate(measure="f1", limit=1.0),
    TermGate(measure="recall", of="seen", limit=1.0),
    TermGate(measure="recall", of="unseen", limit=1.0),
    TermGate(measure="recall", of="several_words", limit=1.0),
    WorstTermGate(terms=("CPF",), limit=1.0),
    HallucinationGate(set="silence", limit=0.0),
    LoopGate(sets=("test", "noise"), limit=0),
    SliceGate(by="speaker", limit=0.11, min_words=50),
    SliceGate(by="duration", limit=0.1),
    TrainableGate(limit=2),
    AdapterSizeGate(limit=3),
    PeakMemoryGate(limit=1000),
    RealTimeFactorGate(limit=1.0),
    ProvenanceGate(test_digest="sha256:test"),
    LeakageGate(),
]


@pytest.mark.parametrize("gate", ALL, ids=lambda gate: gate.title)
def test_a_good_version_passes(gate: Gate, make_report: Report) -> None:
    result = _judge(gate, make_report())
    assert result.passed, result.detail
    assert result.detail
    assert not result.remedy
    assert (result.name, result.kind, result.limit, result.unit) == (gate.title, gate.kind, gate.limit, gate.unit)


def _terms(make_set: Set, **counts: tuple[int, int, int]) -> dict[str, Any]:
    return {"sets": {"test": make_set([1, 0] * 15, terms={name.replace("_", " "): c for name, c in counts.items()})}}


SPOILT: list[tuple[Gate, Callable[[Set], dict[str, Any]], str]] = [
    (WerGate(limit=0.1), lambda s: {"sets": {"test": s([2] * 30)}}, "60 errors in 300 words; 6 speaker blocks"),
    (
        CerGate(limit=0.05),
        lambda s: {"sets": {"test": s([0] * 30, character_errors=9)}},
        "270 errors in 1500 characters",
    ),
    (
        LexiconWerGate(limit=0.5),
        lambda s: {"sets": {"test": s([2] * 30, lexicon_errors=1)}},
        "30 errors in 30 lexicon words",
    ),
    (
        OtherWerGate(limit=0.1),
        lambda s: {"sets": {"test": s([3] * 30, lexicon_errors=1)}},
        "60 errors in 270 words outside the lexicon",
    ),
    (BaseGate(), lambda s: {"sets": {"test": s([4, 3] * 15)}}, "105 errors, the untouched base 105"),
    (BaseGate(limit=-0.35), lambda s: {}, "must be < -35.0 points"),
    (
        ForgettingGate(limit=0.02),
        lambda s: {"sets": {"retention_test": s([1] * 30, "sha256:retention")}},
        "30 errors, the untouched base 15",
    ),
    (TermGate(measure="recall", limit=0.6), lambda s: _terms(s, CPF=(1, 1, 0)), "said 60 times, 30 missed"),
    (TermGate(measure="precision", limit=0.6), lambda s: _terms(s, CPF=(1, 0, 1)), "30 written falsely"),
    (TermGate(measure="f1", limit=0.6), lambda s: _terms(s, CPF=(1, 1, 1)), "30 missed, 30 written falsely"),
    (
        TermGate(measure="recall", of="seen", limit=0.9),
        lambda s: _terms(s, CPF=(0, 1, 0), SERS=(1, 0, 0)),
        "terms seen in training said 30 times, 30 missed",
    ),
    (
        TermGate(measure="recall", of="unseen", limit=0.9),
        lambda s: _terms(s, CPF=(1, 0, 0), SERS=(0, 1, 0)),
        "terms unseen in training said 30 times, 30 missed",
    ),
    (
        TermGate(measure="recall", of="several_words", limit=0.9),
        lambda s: _terms(s, CPF=(1, 0, 0), MediShield_Life=(0, 1, 0)),
        "terms of several words said 30 times, 30 missed",
    ),
    (TermGate(measure="recall", limit=0.9), lambda s: {"sets": {"test": s([0] * 30)}}, "must be said >= 1 times"),
    (TermGate(measure="recall", of="seen", limit=0.9), lambda s: {"training_terms": {}}, "which terms training had"),
    (
        WorstTermGate(terms=("CPF", "SERS"), limit=0.6),
        lambda s: _terms(s, CPF=(2, 1, 0), SERS=(1, 1, 0)),
        "SERS worst of 2 terms",
    ),
    (WorstTermGate(limit=0.6), lambda s: _terms(s, CPF=(1, 0, 0), SERS=(0, 1, 0)), "SERS worst of 2 terms"),
    (WorstTermGate(terms=("CFP",), limit=0.5), lambda s: {}, "CFP said less than 2 times"),
    (
        HallucinationGate(set="silence", limit=0.5),
        lambda s: {"sets": {"silence": s([0] * 8, words=0, hypothesis_words=3)}},
        "24 words too many in 8 clips of 24 s",
    ),
    (
        HallucinationGate(set="noise", unit="words/minute", limit=10),
        lambda s: {"sets": {"noise": s([0] * 8, words=0, hypothesis_words=1)}},
        "20 words/minute, but must be <= 10",
    ),
    (
        HallucinationGate(set="noise", unit="words/minute", limit=10),
        lambda s: {"sets": {"noise": s([0] * 8, words=0, duration_s=0.0)}},
        "does not say how long",
    ),
    (
        LoopGate(sets=("test", "silence"), limit=0),
        lambda s: {"sets": {"silence": s([0] * 8, words=0, compression_ratio=2.5)}},
        "8 of 38 transcripts repeat themselves, such as silence/clip-0000",
    ),
    (
        LoopGate(unit="share of clips", limit=0.5),
        lambda s: {"sets": {"test": s([0] * 30, compression_ratio=3)}},
        "100.0 %, but must be <= 50.0 %",
    ),
    (
        SliceGate(by="speaker", limit=0.1, min_words=50),
        lambda s: {"sets": {"test": s([2, 0, 0, 0, 0, 0] * 5)}},
        "speaker s0, 10 errors in 50 words, worst of 6",
    ),
    (
        SliceGate(by="channel", only="telephone", limit=0.1),
        lambda s: {"sets": {"test": s([2] * 30, channel="telephone")}},
        "channel telephone, 60 errors in 300 words",
    ),
    (SliceGate(by="channel", only="telephone", limit=0.1), lambda s: {}, "by channel telephone has the 50 words"),
    (SliceGate(by="speaker", limit=0.1, min_words=60), lambda s: {}, "no slice by speaker has the 60 words"),
    (
        SliceGate(by="duration", edges_s=(2, 5), limit=0.1),
        lambda s: {"sets": {"test": s([2] * 30, duration_s=5.0)}},
        "duration 5-inf s",
    ),
    (TrainableGate(limit=1), lambda s: {}, "1.4 %, but must be <= 1 %"),
    (AdapterSizeGate(limit=1), lambda s: {}, "2 MB, but must be <= 1 MB"),
    (PeakMemoryGate(limit=800), lambda s: {}, "900 MB, but must be <= 800 MB"),
    (RealTimeFactorGate(limit=0.9), lambda s: {}, "1 x base, but must be <= 0.9 x base"),
    (ProvenanceGate(), lambda s: {"provenance": Provenance()}, "git commit unknown; data digests unknown"),
    (ProvenanceGate(test_digest="sha256:frozen"), lambda s: {}, "test set is sha256:test, but the policy froze"),
    (
        LeakageGate(),
        lambda s: {"leakage": ("clip-0003",)},
        "1 clips of the test set were in training, such as clip-0003",
    ),
]


@pytest.mark.parametrize(("gate", "spoil", "reason"), SPOILT, ids=lambda value: getattr(value, "title", ""))
def test_a_bad_version_is_refused_for_the_right_reason(
    gate: Gate, spoil: Callable[[Set], dict[str, Any]], reason: str, make_report: Report, make_set: Set
) -> None:
    result = _judge(gate, make_report(**spoil(make_set)))
    assert not result.passed
    assert reason in result.detail
    assert result.remedy


def test_the_end_is_judged_and_not_only_the_point(make_report: Report, make_set: Set) -> None:
    report = make_report(sets={"test": make_set([0, 0, 1, 1, 1, 3] * 5)})
    by_end, by_point = (_judge(WerGate(limit=0.12, judge=judge), report) for judge in ("end", "point"))
    assert by_end.value == by_point.value == pytest.approx(0.1)
    assert by_point.passed
    assert not by_end.passed
    assert by_end.interval is not None
    assert by_end.interval[1] > 0.12
    assert by_end.rule == "upper end <="


@pytest.mark.parametrize(
    ("limit", "errors", "passed"), [(0.0, [1] * 30, False), (0.01, [1] * 30, True), (0.0, [0] * 30, True)]
)
def test_present_production_is_to_be_beaten_or_with_a_margin_only_matched(
    limit: float, errors: list[int], passed: bool, make_report: Report, make_set: Set
) -> None:
    champion = make_report(version="1", sets={"test": make_set([1] * 30)})
    result = _judge(ChampionGate(limit=limit), make_report(sets={"test": make_set(errors)}), champion)
    assert result.passed is passed
    assert "version 1 in Production" in result.detail
    assert ("keep version 1" in result.remedy) is not passed


def test_without_a_champion_there_is_nothing_to_beat(make_report: Report) -> None:
    assert _judge(ChampionGate(limit=-0.5), make_report()).detail == "nothing is in Production yet"


def test_a_champion_of_another_test_set_must_be_evaluated_again(make_report: Report, make_set: Set) -> None:
    for other in (make_set([4] * 30, "sha256:old"), make_set([4] * 29), make_set([4] * 30, words=11)):
        result = _judge(ChampionGate(limit=1), make_report(), make_report(version="1", sets={"test": other}))
        assert not result.passed
        assert result.value is None
        assert "evaluate version 1 again" in result.remedy


def test_pairs_are_matched_by_clip_and_not_by_place(make_report: Report, make_set: Set) -> None:
    test = make_set([9, 0] * 15)
    turned = SetReport(digest=test.digest, utterances=test.utterances[::-1])
    result = _judge(ChampionGate(limit=0.001), make_report(sets={"test": turned}), make_report(sets={"test": test}))
    assert result.interval == (0.0, 0.0)
    assert result.passed


def test_a_fall_on_the_retention_set_is_not_punished(make_report: Report, make_set: Set) -> None:
    report = make_report(sets={"retention_test": make_set([0] * 30, "sha256:retention")})
    assert _judge(ForgettingGate(limit=0.0), report).passed


@pytest.mark.parametrize(
    "gate",
    [
        WerGate(set="absent", limit=1),
        CerGate(set="absent", limit=1),
        BaseGate(set="absent", limit=1),
        ForgettingGate(set="absent", limit=1),
        TermGate(set="absent", measure="f1", limit=0),
        WorstTermGate(set="absent", limit=0),
        HallucinationGate(set="absent", limit=99),
        LoopGate(sets=("absent",), limit=99),
        SliceGate(set="absent", by="speaker", limit=1),
    ],
    ids=lambda gate: gate.kind,
)
def test_a_missing_set_is_a_refusal_that_says_so(gate: Gate, make_report: Report) -> None:
    result = _judge(gate, make_report())
    assert not result.passed
    assert result.value is None
    assert "set absent is missing" in result.detail
    assert "evaluate again" in result.remedy


def test_an_empty_set_is_as_good_as_none(make_report: Report, make_set: Set) -> None:
    result = _judge(HallucinationGate(set="noise", limit=1), make_report(sets={"noise": make_set([])}))
    assert "set noise has no clips" in result.detail


def test_too_few_clips_cannot_show_anything(make_report: Report, make_set: Set) -> None:
    few = {"test": make_set([0] * 3)}
    report = make_report(sets=few, baseline=few)
    for gate in (WerGate(limit=1), BaseGate(limit=1)):
        assert "at least 4 are needed" in _judge(gate, report).detail
    assert _judge(WerGate(limit=1, judge="point"), report).passed


def test_speech_without_words_of_a_sort_is_refused(make_report: Report, make_set: Set) -> None:
    silent = {"test": make_set([0] * 8, words=0)}
    report = make_report(sets=silent, baseline=silent)
    for gate in (WerGate(limit=1), LexiconWerGate(limit=1), BaseGate(limit=1)):
        assert _judge(gate, report).value is None


def test_no_unseen_term_may_be_allowed(make_report: Report) -> None:
    report = make_report(training_terms={"CPF": 1, "MediShield Life": 1, "SERS": 1})
    gate = TermGate(measure="recall", of="unseen", limit=0.9, min_occurrences=0)
    assert "nothing to judge" in _judge(gate, report).detail
    assert _judge(gate, report).passed
    assert not _judge(TermGate(measure="recall", of="unseen", limit=0.9), report).passed


def test_costs_that_were_not_measured_are_refused(make_report: Report) -> None:
    report = make_report()
    unmeasured = report.cost.model_copy(update={"peak_memory_mb": 0.0, "baseline_real_time_factor": 0.0})
    report = report.model_copy(update={"cost": unmeasured})
    for gate in (PeakMemoryGate(limit=9999), RealTimeFactorGate(limit=99)):
        assert "not measured" in _judge(gate, report).detail


@pytest.mark.parametrize("field", ["git_commit", "data_digests", "base_model_digest", "adapter_digest", "seed"])
def test_each_unknown_origin_is_refused(field: str, make_report: Report) -> None:
    report = make_report()
    empty = report.provenance.model_copy(update={field: getattr(Provenance(), field)})
    result = _judge(ProvenanceGate(), report.model_copy(update={"provenance": empty}))
    assert result.value == 1
    assert result.detail.endswith(f"{field.replace('_', ' ')} unknown")


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_term_measures_are_those_of_the_scores(hits: int, misses: int, false: int) -> None:
    counts, sums = TermCounts(hits, misses, false), np.array([[hits, misses, false]], dtype=np.float64)
    for name in ("recall", "precision", "f1"):
        assert term_rate(name, sums)[0] == pytest.approx(getattr(counts, name))


def test_a_floor_is_held_by_the_lower_end(make_report: Report, make_clip: Callable[..., Any]) -> None:
    clips = tuple(make_clip(i, 0, terms={"CPF": (0, 1, 0) if i % 6 == 0 else (1, 0, 0)}) for i in range(30))
    report = make_report(sets={"test": SetReport(digest="sha256:test", utterances=clips)})
    by_end, by_point = (_judge(TermGate(measure="recall", limit=0.75, judge=j), report) for j in ("end", "point"))
    assert by_point.passed
    assert by_point.value == pytest.approx(5 / 6)
    assert "lower end" in by_end.detail
    assert not by_end.passed


def test_words_left_out_of_one_clip_do_not_pay_for_words_made_up_in_another(
    make_report: Report, make_clip: Callable[..., Any]
) -> None:
    clips = tuple(make_clip(i, 0, words=2, hypothesis_words=4 * (i % 2)) for i in range(8))
    report = make_report(sets={"short": SetReport(digest="sha256:short", utterances=clips)})
    assert _judge(HallucinationGate(set="short", limit=0.5), report).value == 1.0


def test_a_transcript_at_the_compression_ratio_does_not_loop(make_report: Report, make_set: Set) -> None:
    assert _judge(LoopGate(limit=0), make_report(sets={"test": make_set([0] * 30, compression_ratio=2.4)})).passed


def test_what_a_small_set_cannot_show_is_not_blamed_on_the_version_alone() -> None:
    gate, beginning = (
        WerGate(limit=0.1),
        "the value itself would pass, the set is too small to show it: bring 8,000 words",
    )
    small = Interval(point=0.09, low=0.05, high=0.13, note="95 %", error=0.024, quantile=1.64)
    result = gate.judged_end(small, "9 errors", "do something", Size(100.0, "words"))
    assert (result.passed, result.remedy) == (False, f"{beginning}; do something")
    worse = replace(small, point=0.11)
    assert gate.judged_end(worse, "11 errors", "do something", Size(100.0, "words")).remedy == "do something"
