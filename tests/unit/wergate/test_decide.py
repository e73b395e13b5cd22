"""The verdict as a whole: what blocks, what warns, and what may never turn a refusal into a pass."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wergate.gates.decision import Decision, decide, summary
from wergate.gates.gate import GateResult
from wergate.gates.kinds import AnyGate
from wergate.gates.kinds.accuracy import (
    BaseGate,
    CerGate,
    ChampionGate,
    ForgettingGate,
    LexiconWerGate,
    OtherWerGate,
    WerGate,
)
from wergate.gates.kinds.robustness import HallucinationGate, LoopGate, SliceGate
from wergate.gates.kinds.terms import TermGate, WorstTermGate
from wergate.gates.policy import Policy
from wertune.base.errors import ConfigError
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport, SetReport, UtteranceCounts

QUICK = BootstrapSettings(resamples=200)
Report = Callable[..., EvalReport]
Set = Callable[..., SetReport]
Clip = Callable[..., UtteranceCounts]


def _policy(*gates: AnyGate) -> Policy:
    return Policy(bootstrap=QUICK, staging=gates, production=gates)


def test_a_decision_is_bound_to_what_it_was_made_of(make_report: Report) -> None:
    report, champion, policy = make_report(), make_report(version="1"), _policy(WerGate(limit=0.1))
    decision = decide(report, champion, policy, "production")
    assert (decision.model, decision.version, decision.transition) == ("demo", "2", "production")
    assert (decision.policy_digest, decision.report_digest) == (policy.digest, report.digest)
    assert (decision.test_digest, decision.champion_version) == ("sha256:test", "1")
    assert decide(report, None, policy, "staging").champion_version is None


def test_each_transition_has_its_own_gates(make_report: Report) -> None:
    policy = Policy(bootstrap=QUICK, staging=(WerGate(limit=0.5),), production=(WerGate(limit=0.01),))
    assert decide(make_report(), None, policy, "staging").passed
    assert not decide(make_report(), None, policy, "production").passed
    with pytest.raises(ConfigError):
        decide(make_report(), None, policy, "archived")


def test_one_blocking_refusal_refuses_and_a_warning_does_not(make_report: Report) -> None:
    good, bad = WerGate(limit=0.5), CerGate(limit=0.0)
    refused = decide(make_report(), None, _policy(good, bad), "staging")
    warned = decide(make_report(), None, _policy(good, bad.model_copy(update={"blocks": False})), "staging")
    assert not refused.passed
    assert [gate.name for gate in refused.refusals] == ["cer_test"]
    assert warned.passed
    assert [gate.name for gate in warned.warnings] == ["cer_test"]


def test_the_short_form_names_what_refused_and_what_warned(make_report: Report) -> None:
    wish = WerGate(limit=0.0, blocks=False, name="wish")
    assert summary(decide(make_report(), None, _policy(WerGate(limit=0.5)), "staging")) == "passed 1 gates"
    warned = decide(make_report(), None, _policy(WerGate(limit=0.5), wish), "staging")
    assert summary(warned) == "passed 1 of 2 gates, warned by wish"
    refused = decide(make_report(), None, _policy(CerGate(limit=0.0), wish), "staging")
    assert summary(refused) == "refused by cer_test (1 of 2 gates), warned by wish"


def test_an_empty_report_is_refused_and_not_an_error(make_report: Report) -> None:
    report = make_report().model_copy(update={"sets": {}, "baseline": {}})
    decision = decide(report, None, _policy(WerGate(limit=1), BaseGate(), SliceGate(by="speaker", limit=1)), "staging")
    assert decision.test_digest == ""
    assert len(decision.refusals) == 3


def test_a_refusal_must_say_what_would_help() -> None:
    with pytest.raises(ValueError, match="without a remedy"):
        GateResult(name="wer", kind="wer", value=1, limit=0, unit="share", passed=False, detail="bad")


# Each limit is where reports of `candidates` fall on either side.
GATES: tuple[AnyGate, ...] = (
    WerGate(limit=0.3),
    CerGate(limit=0.1),
    LexiconWerGate(limit=0.8),
    OtherWerGate(limit=0.25),
    BaseGate(limit=0.05),
    ChampionGate(limit=0.05),
    ForgettingGate(limit=0.05),
    TermGate(measure="recall", limit=0.3),
    TermGate(measure="precision", limit=0.4),
    TermGate(measure="f1", limit=0.4),
    TermGate(measure="recall", of="unseen", judge="point", limit=0.5),
    WorstTermGate(limit=0.2),
    HallucinationGate(set="noise", limit=1.5),
    LoopGate(sets=("test",), limit=3),
    SliceGate(by="speaker", limit=0.4, min_words=20),
)

# errors, those on lexicon words, terms missed, terms written falsely, words out of noise, whether it loops
Faults = tuple[int, int, int, int, int, bool]
faults = st.tuples(*(st.integers(0, most) for most in (6, 2, 2, 2, 4)), st.booleans())
candidates = st.lists(faults, min_size=12, max_size=12)


def _clip_of(clip: Clip, position: int, found: Faults) -> UtteranceCounts:
    errors, on_terms, missed, false, surplus, loops = found
    return clip(
        position,
        errors + on_terms,
        character_errors=errors,
        lexicon_words=2,
        lexicon_errors=on_terms,
        terms={("CPF", "SERS")[position % 2]: (2 - missed, missed, false)},
        hypothesis_words=10 + surplus,
        compression_ratio=3.0 if loops else 1.0,
    )


def _candidate(report: Report, clip: Clip, found: list[Faults], version: str = "2") -> EvalReport:
    clips = tuple(_clip_of(clip, position, each) for position, each in enumerate(found))
    flat = SetReport(digest="sha256:test", utterances=tuple(clip(position, 3) for position in range(len(found))))
    sets = {name: SetReport(digest="sha256:test", utterances=clips) for name in ("test", "retention_test", "noise")}
    return report(version=version, sets=sets, baseline={"test": flat, "retention_test": flat})


@settings(max_examples=60)
@given(candidates, candidates, st.data())
def test_a_tighter_limit_never_turns_a_refusal_into_a_pass(
    make_report: Report, make_clip: Clip, found: list[Faults], now: list[Faults], data: st.DataObject
) -> None:
    report, champion = _candidate(make_report, make_clip, found), _candidate(make_report, make_clip, now, "1")
    shift = [data.draw(st.floats(0, 0.3)) for _ in GATES]
    tighter = tuple(
        gate.model_copy(update={"limit": gate.limit + (by if gate.rule == ">=" else -by)})
        for gate, by in zip(GATES, shift, strict=True)
    )
    before, after = (decide(report, champion, _policy(*gates), "staging") for gates in (GATES, tighter))
    for loose, tight in zip(before.gates, after.gates, strict=True):
        assert loose.passed or not tight.passed
    assert before.passed or not after.passed


@settings(max_examples=60)
@given(candidates, candidates, st.data())
def test_a_better_candidate_never_loses_where_a_worse_one_passes(
    make_report: Report, make_clip: Clip, worse: list[Faults], now: list[Faults], data: st.DataObject
) -> None:
    better = [
        (*(data.draw(st.integers(0, count)) for count in each[:5]), each[5] and data.draw(st.booleans()))
        for each in worse
    ]
    champion = _candidate(make_report, make_clip, now, "1")
    lost, won = (
        decide(_candidate(make_report, make_clip, each), champion, _policy(*GATES), "staging")
        for each in (worse, better)
    )
    for of_worse, of_better in zip(lost.gates, won.gates, strict=True):
        assert of_better.passed or not of_worse.passed, of_better.detail
    assert won.passed or not lost.passed


@settings(max_examples=30)
@given(candidates, st.randoms(use_true_random=False))
def test_the_order_of_gates_is_irrelevant(
    make_report: Report, make_clip: Clip, found: list[Faults], random: Random
) -> None:
    report = _candidate(make_report, make_clip, found)
    mixed = random.sample(GATES, len(GATES))
    first, second = (decide(report, None, _policy(*gates), "staging") for gates in (GATES, mixed))
    assert first.passed is second.passed
    assert {gate.name: gate for gate in first.gates} == {gate.name: gate for gate in second.gates}


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=40), st.data())
def test_getting_better_on_the_retention_set_is_never_punished(
    make_report: Report, make_set: Set, before: list[int], data: st.DataObject
) -> None:
    after = [data.draw(st.integers(0, count)) for count in before]
    report = make_report(sets={"retention_test": make_set(after)}, baseline={"retention_test": make_set(before)})
    assert decide(report, None, _policy(ForgettingGate(limit=0.0)), "production").passed


@settings(max_examples=30)
@given(candidates)
def test_a_decision_survives_json(make_report: Report, make_clip: Clip, found: list[Faults]) -> None:
    decision = decide(_candidate(make_report, make_clip, found), None, _policy(*GATES), "staging")
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def test_equal_versions_seldom_replace_each_other_and_better_ones_do(make_report: Report, make_set: Set) -> None:
    generator = np.random.default_rng(4)
    policy = _policy(ChampionGate(limit=0.0))

    def replaced(rate: float) -> float:
        wins = 0
        for _ in range(300):
            hardness = generator.gamma(2.0, 0.5, 60)
            after, before = (np.minimum(generator.poisson(10 * r * hardness), 10) for r in (rate, 0.2))
            reports = [make_report(sets={"test": make_set(errors.tolist())}) for errors in (after, before)]
            wins += decide(reports[0], reports[1], policy, "production").passed
        return wins / 300

    assert replaced(0.2) <= 0.09
    assert replaced(0.1) >= 0.9
