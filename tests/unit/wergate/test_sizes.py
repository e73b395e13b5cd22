"""What sets of a size can show, before a model has heard them: against what was measured, and against drawn sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.trials.draws import SETS, Speech, draw

from wergate.gates.kinds.accuracy import ForgettingGate, WerGate
from wergate.gates.kinds.battery import BatteryGate
from wergate.gates.kinds.terms import TermGate
from wergate.gates.policy import Policy
from wergate.gates.power import WANTED, error_at, power_at, size_for
from wergate.gates.sizes import ALONE, TOGETHER, SetSize, _power, _Sample, can_show, missing
from wertune.scores.bootstrap import BootstrapSettings, paired_difference

POSITIVE = st.floats(1e-4, 10)


def _size(name: str, clips: int, words: int, speakers: int, terms: int = 0) -> SetSize:
    return SetSize(name, [words] * clips, [f"s{i % speakers}" if speakers else "" for i in range(clips)], terms)


def _policy(*gates: dict[str, Any]) -> Policy:
    return Policy.model_validate({"staging": gates, "production": [{"kind": "leakage"}]})


@given(POSITIVE, POSITIVE, st.floats(1e-3, 0.1))
def test_the_size_that_is_asked_for_brings_the_error_down_to_what_is_wanted(
    variance: float, one: float, error: float
) -> None:
    size = size_for(variance, one, error)
    assume(size >= 1)
    assert error_at(variance, size, one) == pytest.approx(error, rel=1e-6)


@given(st.floats(0.005, 0.3), st.floats(0.01, 0.5), st.integers(0, 20_000))
def test_what_is_brought_lets_an_equal_version_pass(limit: float, variance: float, words: int) -> None:
    gate = ForgettingGate(limit=limit)
    needed = power_at(gate, variance, words, "words", 1.7).needed
    assert needed is not None
    assert power_at(gate, variance, needed, "words", 1.7).equal == pytest.approx(WANTED, abs=0.01)
    assert power_at(gate, variance, needed, "words", 1.7).equal >= WANTED


@given(st.integers(1, 20), st.integers(1, 12), st.integers(5, 20), st.booleans())
def test_more_words_tell_smaller_changes(clips: int, words: int, speakers: int, named: bool) -> None:
    few, more = (can_show(_size("test", n * clips * speakers, words, speakers * named), None) for n in (1, 2))
    assert few.told is not None
    assert more.told is not None
    assert more.told < few.told or few.told == 1


def test_it_says_of_the_demos_old_sets_what_was_measured_on_them() -> None:
    """Version 1: +0.6 points with an upper end of +2.5 on 665 words of two speakers, in eighty clips."""
    shown = can_show(_size("retention_test", 80, 8, 2), None)
    assert shown.told == pytest.approx(0.019, rel=0.15)
    assert shown.text == "640 words, 2 speakers; a rise of WER under 2.1 points cannot be told from chance"


@pytest.mark.parametrize(
    ("gate", "measured"),
    [
        (WerGate(limit=0.14), 0.031),  # 7.0 %, upper end 10.1 %
        (TermGate(measure="recall", limit=0.842), 0.040),  # 92.1 %, lower end 88.1 %
    ],
)
def test_ends_of_rates_lie_as_far_off_as_on_the_demos_old_test_set(gate: WerGate | TermGate, measured: float) -> None:
    """1,413 words and 151 terms by six speakers, half of the errors that the limit allows."""
    size = _size("test", 203, 7, 6, terms=151)
    power = _power(gate, size, _Sample.of(size, BootstrapSettings()))
    assert power is not None
    assert 0.9 < power.told / measured < 1.5


@pytest.mark.parametrize("speakers", [6, 24])
def test_it_says_what_the_bootstrap_says_of_sets_drawn_by_what_is_assumed(speakers: int) -> None:
    """Errors of both by the negative binomial, whose variance is TOGETHER times its mean."""
    generator = np.random.default_rng(0)
    clips, words = 240, 8
    names = [f"s{i % speakers}" for i in range(clips)]
    expected = can_show(SetSize("test", [words] * clips, names), None).told

    def errors() -> np.ndarray[Any, Any]:
        mean = words * ALONE
        return generator.poisson(generator.gamma(mean / (TOGETHER - 1), TOGETHER - 1, clips)).astype(float)

    whole = np.full(clips, float(words))
    told = []
    for _ in range(40):
        found = paired_difference(errors(), errors(), whole, names, BootstrapSettings(resamples=400))
        told.append(found.quantile * found.error)
    assert np.mean(told) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("name", ["retention_test", "everyday"])
def test_the_draws_behind_the_demos_limits_are_of_the_same_make(name: str) -> None:
    """Half to twice the change that is told of drawn reports, whose errors the demo's versions gave."""
    speech: Speech = SETS[name]
    generator = np.random.default_rng(0)
    candidate, _ = draw({name: speech}, generator)
    after, before = (next(iter(sets.values())).utterances for sets in (candidate.sets, candidate.baseline))
    words = np.array([clip.words for clip in after], float)
    speakers: Sequence[str] = [clip.speaker for clip in after]
    wrong = [np.array([clip.errors for clip in clips], float) for clips in (after, before)]
    found = paired_difference(wrong[0], wrong[1], words, speakers, BootstrapSettings(resamples=400))
    expected = can_show(SetSize("test", words.astype(int).tolist(), speakers), None).told
    assert expected is not None
    assert 0.5 < found.quantile * found.error / expected < 2


def test_a_set_that_is_too_small_for_the_policy_is_told_how_many_words_to_bring() -> None:
    policy = _policy({"kind": "forgetting", "limit": 0.02}, {"kind": "forgetting", "limit": 0.03, "name": "wide"})
    few = can_show(_size("retention_test", 80, 8, 0), policy)
    assert [asked.gate for asked in few.asked] == ["forgetting_retention_test", "wide"]
    assert few.asked[0].needed > few.asked[1].needed > 640
    (advice,) = few.advice  # of the one that asks for most
    assert advice == (
        f"forgetting_retention_test of staging (2.0 points) asks for more: bring {few.asked[0].needed:,} words"
    )
    assert can_show(_size("retention_test", few.asked[0].needed // 8, 8, 0), policy).asked == ()
    assert can_show(_size("test", 80, 8, 0), policy).asked == ()


@pytest.mark.parametrize("clips", [0, 1, 3])
def test_clips_too_few_for_an_interval_show_nothing_and_are_told_what_would(clips: int) -> None:
    shown = can_show(_size("test", clips, 4, 0), _policy({"kind": "wer", "limit": 0.3}))
    assert shown.told is None
    assert "too few clips to tell any rise of WER from chance" in shown.text
    (advice,) = shown.advice
    assert advice.startswith("wer_test of staging (30.0 %) asks for more: bring ")
    shown.model_dump_json()


def test_terms_and_speakers_are_asked_for_beside_words() -> None:
    policy = _policy({"kind": "term", "measure": "recall", "limit": 0.6}, {"kind": "wer", "limit": 0.1})
    shown = can_show(_size("test", 40, 8, 5, terms=0), policy)
    terms, words = (next(line for line in shown.advice if what in line) for what in ("terms said", "words"))
    assert terms.startswith("term_recall_test of staging (60.0 %) asks for more: bring ")
    assert words.endswith(" speakers")
    asked = next(asked for asked in shown.asked if asked.what == "words")
    assert asked.speakers >= 5 * asked.needed / 320
    compared = can_show(_size("test", 40, 8, 5), _policy({"kind": "champion", "limit": 0.01}))
    assert [(asked.gate, asked.speakers) for asked in compared.asked] == [("champion_test", 0)]
    many = can_show(_size("test", 2000, 8, 50, terms=400), policy)
    assert many.asked == ()


@pytest.mark.parametrize(
    "gate",
    [
        {"kind": "base", "limit": 0},  # a matter of how much better it is
        {"kind": "champion", "limit": 0.001, "blocks": False},
        {"kind": "wer", "limit": 0.01, "judge": "point"},
        {"kind": "wer", "limit": 0},
        {"kind": "adapter_mb", "limit": 5},
        {"kind": "slice", "by": "speaker", "limit": 0.1},
    ],
)
def test_gates_that_no_words_would_help_ask_for_none(gate: dict[str, Any]) -> None:
    policy = _policy({"kind": "leakage"}, gate)
    assert can_show(_size("test", 10, 8, 0), policy).asked == ()


def test_a_battery_is_a_set_too() -> None:
    policy = _policy({"kind": "battery", "measure": "wer", "limit": 0.02}, {"kind": "wer", "limit": 0.01})
    small, large = (can_show(_size("battery", clips, 6, 30), policy) for clips in (60, 900))
    assert [asked.gate for asked in small.asked] == ["battery_wer"]
    assert large.asked == ()


def test_what_gates_read_and_the_project_lacks_is_told_with_the_remedy() -> None:
    deleted = BatteryGate(measure="deleted", parts=("short_answers",), limit=0.04).model_dump()
    policy = _policy(deleted, {"kind": "battery", "measure": "wer", "limit": 0.02}, {"kind": "forgetting", "limit": 0})
    test = _size("test", 10, 8, 0)
    battery, retention = missing([test], policy)
    assert battery.startswith("battery_deleted_short_answers of staging asks for a battery, but the project has none; ")
    assert "data.battery" in battery
    assert retention.startswith(
        "forgetting_retention_test of staging asks for retention_test, but the project has none"
    )
    kept = _size("retention_test", 10, 8, 0)
    (part,) = missing([test, kept, SetSize("battery", [3], ["a"], parts=frozenset({"digits"}))], policy)
    assert part.startswith("battery_deleted_short_answers of staging asks for short_answers, a part that the battery")
    whole = SetSize("battery", [3], ["a"], parts=frozenset({"digits", "short_answers"}))
    assert missing([test, kept, whole], policy) == []
    warns = _policy({"kind": "leakage"}, deleted | {"blocks": False})
    assert missing([test], warns) == []
