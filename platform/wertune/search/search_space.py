"""`search.yaml`: what the search may vary, how many trials it gets, and when ASHA stops one."""

import math
from collections.abc import Container
from typing import Annotated, Any, Literal, Self

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Discriminator, Field, Tag, model_validator

from wertune.base.config import Frozen, TrialConfig, TrialPlaces, with_overrides
from wertune.base.errors import ConfigError

Value = bool | int | float | str


class Range(Frozen):
    """Numbers between two ends, both included; `integer: true` for whole ones."""

    low: float = Field(description="the least value")
    high: float = Field(description="the greatest value")
    log: bool = Field(False, description="drawn evenly between the ends' logarithms: for rates")
    step: float | None = Field(None, gt=0, description="only every so many, from low on")
    integer: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, but must be <= high ({self.high:g}); swap them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range needs low > 0 and no step")
        if self.integer and not all(end.is_integer() for end in (self.low, self.high, self.step or 1.0)):
            raise ValueError("an integer range needs whole numbers for low, high and step")
        return self

    def distribution(self) -> BaseDistribution:
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def holds(self, value: Value) -> bool:
        """Whether it may be drawn."""
        if isinstance(value, str) or not self.low <= value <= self.high:
            return False
        step = self.step or (1.0 if self.integer else None)
        return step is None or math.isclose((value - self.low) / step, round((value - self.low) / step), abs_tol=1e-8)

    @property
    def told(self) -> str:
        """The range, for people."""
        whole = "whole numbers from " if self.integer else ""
        return f"{whole}{self.low:g} to {self.high:g}" + (f" in steps of {self.step:g}" if self.step else "")

    def samples(self) -> list[Value]:
        """Both ends, and what lies between: a field for whole numbers refuses a range without `integer: true`."""
        if self.integer:
            return [int(self.low), int(self.high)]
        between = self.low + (self.step or (self.high - self.low) / math.pi)
        return [self.low, self.high, min(between, self.high)]


class Choices(Frozen):
    """One of a list; modules are written as `q_proj,v_proj`."""

    choices: tuple[Value, ...] = Field(min_length=1, description="the values to choose from")

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.choices)

    def holds(self, value: Value) -> bool:
        """Whether it is one of them."""
        return value in self.choices

    @property
    def told(self) -> str:
        """The choices, for people."""
        return ", ".join(map(repr, self.choices))

    def samples(self) -> list[Value]:
        return list(self.choices)


def _kind(values: Any) -> str:
    """Which of the two a key's values are meant to be, so that a fault is told of that one alone."""
    return "choices" if isinstance(values, Choices) or (isinstance(values, dict) and "choices" in values) else "range"


Values = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(_kind),
]


class AshaConfig(Frozen):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934); rungs at grace x factor^k epochs."""

    grace_epochs: int = Field(1, ge=1, description="that every trial gets")
    reduction_factor: float = Field(3.0, gt=1, description="of those at a rung, one in so many goes on")
    confidence: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="a trial is stopped only if it would be on so many of sets drawn anew from validation's clips; "
        "0: for a value that is worse, by however little",
    )

    def rungs(self, epochs: int) -> list[int]:
        """The epochs after which a trial is compared with those that came so far; at the last there is no choice."""
        found, rung = [], float(min(self.grace_epochs, epochs))
        while math.ceil(rung) < epochs:  # Ray compares at the first epoch that is no less than the rung
            found.append(math.ceil(rung))
            rung *= self.reduction_factor
        return found


class SearchConfig(TrialPlaces):
    """The whole of `search.yaml`."""

    trials: int = Field(12, ge=1, description="configurations that are tried")
    seed: int = Field(0, ge=0, lt=2**32, description="of what is proposed")
    max_concurrent: int | Literal["auto"] = Field("auto", description="trials at once; auto: as many as fit")
    take_over: bool = Field(
        False,
        description="once no other trial is to come, those that go on take over the places of those that have ended: "
        "they get more workers after an epoch",
    )
    asha: AshaConfig = AshaConfig()
    restarts: int = Field(
        0,
        ge=0,
        le=7,
        description="so often the best configuration is trained again, each time from another seed, and the mean of "
        "the adapters is taken where validation says so (model soups, arXiv:2203.05482)",
    )
    strengths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (),
        description="of the adapter that the search ends with (lora.strength), tried without training; the one with "
        "the least objective is kept",
    )
    space: dict[str, Values] = Field(
        min_length=1, description="what is varied, and how far; a key is a path in project.yaml's `trial:`"
    )
    first_points: tuple[dict[str, Value], ...] = Field((), description="configurations to try before any proposal")

    @model_validator(mode="after")
    def _takers_have_whole_gpus(self) -> Self:
        if self.take_over and self.gpus_per_trial != "auto" and 0 < self.gpus_per_trial < 1:
            found = f"take_over is true and gpus_per_trial is {self.gpus_per_trial:g}"
            raise ValueError(f"{found}, but each worker of a trial has a GPU of its own; set gpus_per_trial: 1 or auto")
        return self

    @model_validator(mode="after")
    def _strength_is_tried_once(self) -> Self:
        if self.strengths and "lora.strength" in self.space:
            raise ValueError(
                "strengths and space both vary lora.strength, which costs trials in space alone; take it out of space"
            )
        return self

    def without(self, keys: Container[str]) -> Self:
        """The search in which these have the trial's values; ConfigError where nothing is left to vary."""
        space = {key: values for key, values in self.space.items() if key not in keys}
        if not space:
            raise ConfigError(f"all that is varied has a value: {', '.join(self.space)}; leave one out, or use train")
        points = list[dict[str, Value]]()
        for point in self.first_points:
            rest = {key: value for key, value in point.items() if key not in keys}
            if rest and rest not in points:  # two that differed in what has a value are one now
                points.append(rest)
        strengths = () if "lora.strength" in keys else self.strengths
        return self.model_copy(update={"space": space, "first_points": tuple(points), "strengths": strengths})

    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna draws from, by search key."""
        return {key: values.distribution() for key, values in self.space.items()}


def checked_space(search: SearchConfig, trial: TrialConfig, place: str) -> list[TrialConfig]:
    """The trial with each end or choice of each key, and with every first point.

    ConfigError unless every key is a field of the trial's configuration and all of its values fit it, every first
    point lies in the space, and every trial is scored by the first rung.
    """
    ends = [({key: value}, "space") for key, values in search.space.items() for value in values.samples()]
    points = [(point, "first_points") for point in search.first_points]
    drawn = [with_overrides(trial, dict(values), f"{place}: {part}") for values, part in ends + points]
    _check_first_points(search, place)
    trains = [each.train for each in (trial, *drawn)]
    rarely = max(min(train.evaluate_every_epochs, train.epochs) for train in trains)
    if rarely > (grace := search.asha.grace_epochs):
        rule = f"in a search it may be no more than asha.grace_epochs, {grace}, after which trials are compared"
        raise ConfigError(f"{place}: train.evaluate_every_epochs is {rarely}, but {rule}; lower it, or raise the grace")
    return drawn


def _check_first_points(search: SearchConfig, place: str) -> None:
    """ConfigError where one holds a key that is not varied, which Optuna drops in silence, or a value of none."""
    faults = []
    for number, (key, value) in ((n, each) for n, point in enumerate(search.first_points) for each in point.items()):
        where = f"{place}: first_points[{number}]: {key}"
        if key not in search.space:
            remedy = "add it to space, set it in project.yaml's `trial:`, or take it out"
            faults.append(f"{where} is {value!r}, but space does not vary it; {remedy}")
        elif not (values := search.space[key]).holds(value):
            faults.append(f"{where} is {value!r}, but space has {values.told}; mend one of the two")
    if faults:
        raise ConfigError("\n".join(faults))
