"""What a search may vary is checked against the configuration before any search starts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from wertune.base.config import TrialConfig, parse, with_overrides
from wertune.base.errors import ConfigError
from wertune.search.search_space import Choices, Range, SearchConfig, checked_space

PLACE = "search.yaml"
GOOD = {"lora.r": {"choices": [4, 8, 16]}}


def _search(space: dict[str, Any], **values: Any) -> SearchConfig:
    return parse(SearchConfig, {"space": space, **values}, PLACE)


def _check(space: dict[str, Any], **values: Any) -> None:
    checked_space(_search(space, **values), TrialConfig(), PLACE)


def test_a_good_space_passes() -> None:
    space = {
        "lora.r": {"low": 4, "high": 64, "integer": True, "log": True},
        "lora.dropout": {"low": 0, "high": 0.2, "step": 0.05},
        "lora.target_modules": {"choices": ["q_proj,v_proj", "q_proj,v_proj,fc1"]},
        "lora.dora": {"choices": [True, False]},
        "train.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "train.batch_size": {"low": 4, "high": 16, "step": 4},
    }
    _check(space, first_points=[{"lora.r": 8, "train.learning_rate": 1e-4}])


@pytest.mark.parametrize(
    ("trial", "values"),
    [({"train.evaluate_every_epochs": 3}, {}), ({}, {"train.evaluate_every_epochs": {"choices": [1, 3]}})],
)
def test_trials_are_scored_by_the_first_rung(trial: dict[str, Any], values: dict[str, Any]) -> None:
    config = with_overrides(TrialConfig(), trial, "test")
    with pytest.raises(ConfigError, match=r"search\.yaml: train\.evaluate_every_epochs is 3, but .*grace_epochs, 2"):
        checked_space(_search(GOOD | values, asha={"grace_epochs": 2}), config, PLACE)
    checked_space(_search(GOOD | values, asha={"grace_epochs": 3}), config, PLACE)
    shorter = with_overrides(config, {"train.epochs": 2}, "test")
    checked_space(_search(GOOD | values, asha={"grace_epochs": 2}), shorter, PLACE)


@pytest.mark.parametrize("key", ["lora.rank", "learning_rate", "lora.r.x", "data.train"])
def test_an_unknown_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _check(GOOD | {key: {"choices": [1]}})
    assert str(caught.value).startswith(f"{PLACE}: space: {key} is not a key of the configuration; known keys: ")
    assert "lora.r, " in str(caught.value)


@pytest.mark.parametrize(
    ("key", "values", "fault"),
    [
        ("lora.r", {"low": 0, "high": 8, "integer": True}, "lora.r is 0, but must be at least 1"),
        ("lora.r", {"low": 4, "high": 300, "integer": True}, "lora.r is 300, but must be at most"),
        ("lora.dropout", {"low": 0, "high": 1}, "lora.dropout is 1.0, but must be below 1"),
        ("train.learning_rate", {"low": 0, "high": 0.1}, "train.learning_rate is 0.0, but must be above 0"),
        ("train.learning_rate", {"low": 1e-4, "high": 1, "log": True}, "is 1.0, but must be below 1"),
        ("lora", {"low": 1, "high": 2}, "lora is 1.0, but must be a mapping of keys to values"),
        ("quantization", {"low": 4, "high": 8}, "quantization is 4.0, but must be 'int8', 'nf4' or 'none'"),
    ],
)
def test_an_end_that_the_configuration_refuses_is_named(key: str, values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _check({key: values})
    assert str(caught.value).startswith(f"{PLACE}: space: ")
    assert fault in str(caught.value)


@pytest.mark.parametrize("values", [{"low": 4, "high": 64}, {"low": 4, "high": 8, "step": 0.5}])
def test_a_field_for_whole_numbers_refuses_a_range_of_fractions(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"search\.yaml: space: lora\.r is .*, but must be a whole number"):
        _check({"lora.r": values})


@pytest.mark.parametrize(
    ("key", "choices", "fault"),
    [
        ("lora.scope", ["both", "middle"], "lora.scope is 'middle', but must be 'encoder', 'decoder' or 'both'"),
        ("lora.r", [8, 8.5], "lora.r is 8.5, but must be a whole number"),
        ("lora.r", ["eight"], "lora.r is 'eight', but must be a whole number"),
        ("lora.dora", ["perhaps"], "lora.dora is 'perhaps', but must be true or false"),
        ("quantization", ["int8", "int4"], "quantization is 'int4', but must be 'int8', 'nf4' or 'none'"),
    ],
)
def test_a_choice_that_the_configuration_refuses_is_named(key: str, choices: list[Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _check({key: {"choices": choices}})
    assert str(caught.value).startswith(f"{PLACE}: space: {fault}")


@pytest.mark.parametrize(
    ("point", "fault"),
    [({"lora.rank": 8}, "lora.rank is not a key of the configuration"), ({"lora.r": 0}, "lora.r is 0, but must")],
)
def test_a_first_point_is_checked_as_well(point: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _check(GOOD, first_points=[{"lora.r": 8}, point])
    assert str(caught.value).startswith(f"{PLACE}: first_points: {fault}")


def test_a_first_point_lies_in_the_space() -> None:
    """Of a key that is not varied Optuna would train something else, and on another choice the search would break."""
    space = GOOD | {
        "train.batch_size": {"low": 4, "high": 12, "step": 4},
        "train.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True},
        "train.epochs": {"low": 2, "high": 6, "integer": True},
    }
    good = {"lora.r": 8, "train.batch_size": 12, "train.learning_rate": 1e-3, "train.epochs": 3}
    bad = {"lora.r": 2, "train.batch_size": 6, "train.learning_rate": 0.01, "train.epochs": 7, "lora.alpha": 8.0}
    with pytest.raises(ConfigError) as caught:
        _check(space, first_points=[good, bad])
    whole = "7, but space has whole numbers from 2 to 6"
    for told, line in zip(
        (
            "2, but space has 4, 8, 16",
            "6, but space has 4 to 12 in steps of 4",
            "0.01, but",
            whole,
            "8.0, but space do",
        ),
        str(caught.value).splitlines(),
        strict=True,
    ):
        assert line.startswith(f"{PLACE}: first_points[1]: ")
        assert f" is {told}" in line


@given(st.integers(-20, 40), st.integers(0, 10), st.integers(0, 20), st.integers(1, 5))
def test_a_range_holds_what_it_may_draw(value: int, low: int, more: int, step: int) -> None:
    stepped = Range(low=low, high=low + more, step=step)
    assert stepped.holds(value) == (value in range(low, low + more + 1, step))
    whole = Range(low=low, high=low + more, integer=True)
    assert (whole.holds(value), whole.holds(value + 0.5)) == (low <= value <= low + more, False)


def test_of_first_points_that_a_value_makes_alike_one_is_left() -> None:
    space = GOOD | {"train.batch_size": {"choices": [2, 4]}}
    points = [{"lora.r": 4, "train.batch_size": 2}, {"lora.r": 8, "train.batch_size": 2}, {"lora.r": 4}]
    assert _search(space, first_points=points).without({"lora.r"}).first_points == ({"train.batch_size": 2},)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"low": 9, "high": 1}, "low is 9, but must be <= high (1); swap them"),
        ({"low": 0, "high": 1, "log": True}, "a log range needs low > 0 and no step"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, "a log range needs low > 0 and no step"),
        ({"low": 1.5, "high": 4, "integer": True}, "an integer range needs whole numbers for low, high and step"),
        ({"low": 1, "high": 4, "integer": True, "step": 0.5}, "an integer range needs whole numbers for low, high and"),
        ({"low": 1, "high": 4, "step": 0}, "step is 0, but must be above 0"),
        ({"low": 0, "high": float("inf")}, "high is inf, but must be a finite number"),
        ({"low": float("nan"), "high": 1}, "low is nan, but must be a finite number"),
        ({"low": 1}, "high is missing; add it"),
        ({"low": 1, "high": 2, "lgo": True}, "lgo is not a known key; remove it or mend its spelling"),
        ({"choices": [1], "low": 1}, "low is not a known key; remove it or mend its spelling"),
        ({"choices": []}, "choices is [], but must hold at least 1"),
    ],
)
def test_a_range_or_a_list_that_cannot_be_drawn_from_is_refused(values: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _search({"lora.alpha": values})
    (line,) = str(caught.value).splitlines()
    assert rule in line
    assert line.startswith(f"{PLACE}: space.lora.alpha.{'choices' if 'choices' in values else 'range'}")


def test_a_plain_value_is_no_range() -> None:
    with pytest.raises(ConfigError) as caught:
        _search({"lora.r": 8})
    assert str(caught.value).startswith(f"{PLACE}: space.lora.r.range is 8, but must be a mapping of keys to values")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"trials": 0}, "trials is 0, but must be at least 1"),
        ({"asha": {"reduction_factor": 1}}, "asha.reduction_factor is 1, but must be above 1"),
        ({"asha": {"grace": 1}}, "asha.grace is not a known key"),
        ({"max_concurent": 2}, "max_concurent is not a known key"),
        ({"space": {}}, "space is {}, but must hold at least 1"),
        ({"gpus_per_trial": "two"}, "gpus_per_trial is 'two', but must be a number"),
        ({"gpus_per_trial": "two"}, "gpus_per_trial is 'two', but must be 'auto'"),
        ({"gpus_per_trial": 1e12}, "gpus_per_trial is 1000000000000.0, but must be at most 64"),
        ({"max_concurrent": 0.5}, "max_concurrent is 0.5, but must be a whole number"),
        ({"worker_timeout_s": 1e300}, "worker_timeout_s is 1e+300, but must be at most 86400"),
        ({"take_over": True, "gpus_per_trial": 0.5}, "take_over is true and gpus_per_trial is 0.5, but each worker"),
    ],
)
def test_the_rest_of_the_file_is_checked_as_any_config(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SearchConfig, {"space": GOOD, **values}, PLACE)
    assert f"{PLACE}: {fault}" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "distribution"),
    [
        ({"low": 0.1, "high": 0.5}, FloatDistribution(0.1, 0.5)),
        ({"low": 1e-5, "high": 1e-3, "log": True}, FloatDistribution(1e-5, 1e-3, log=True)),
        ({"low": 0, "high": 0.5, "step": 0.1}, FloatDistribution(0, 0.5, step=0.1)),
        ({"low": 4, "high": 64, "integer": True}, IntDistribution(4, 64)),
        ({"low": 4, "high": 64, "integer": True, "log": True}, IntDistribution(4, 64, log=True)),
        ({"low": 4, "high": 64, "integer": True, "step": 4}, IntDistribution(4, 64, step=4)),
        ({"choices": ["q_proj", "q_proj,v_proj"]}, CategoricalDistribution(("q_proj", "q_proj,v_proj"))),
        ({"choices": [True, 1.5, 2, "a"]}, CategoricalDistribution((True, 1.5, 2, "a"))),
    ],
)
def test_optuna_draws_from_what_the_file_says(values: dict[str, Any], distribution: Any) -> None:
    (drawn,) = _search({"lora.r": values}).distributions().values()
    assert drawn == distribution
    if isinstance(distribution, CategoricalDistribution):
        assert [type(choice) for choice in drawn.choices] == [type(choice) for choice in distribution.choices]


@given(st.integers(1, 100), st.integers(1, 100), st.booleans())
def test_both_ends_of_a_range_are_among_what_is_checked(left: int, right: int, integer: bool) -> None:
    low, high = sorted((left, right))
    values = Range(low=low, high=high, integer=integer)
    assert {low, high} <= set(values.samples())
    assert all(values.distribution()._contains(sample) for sample in values.samples())


def test_every_choice_is_among_what_is_checked() -> None:
    assert Choices(choices=("a", "b", 3)).samples() == ["a", "b", 3]
