"""What every gate has: its limit, the one place where that is applied, and the result that comes of it."""

import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wergate.gates.evidence import Evidence, NoEvidence
from wergate.gates.power import Power, power_at
from wergate.gates.units import show
from wertune.base.config import Frozen
from wertune.scores.bootstrap import Interval

SetName = Annotated[str, Field(min_length=1)]
UNIT = "of the value and of the limit"
HOLDS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}


class GateResult(Frozen):
    """One gate: what was measured, what it had to be, and what would help where it refused."""

    name: str
    kind: str
    value: float | None = Field(description="none: it could not be measured")
    interval: tuple[float, float] | None = Field(None, description="one-sided confidence ends")
    rule: str = Field("<=", description="how value, or the named end, must stand to the limit")
    limit: float | None
    unit: str
    blocks: bool = True
    passed: bool
    detail: str
    remedy: str = ""
    power: Power | None = Field(None, description="what the set can show; none: nothing is drawn by chance, or unknown")

    @model_validator(mode="after")
    def _help_where_refused(self) -> Self:
        if not self.passed and not self.remedy:
            raise ValueError(f"gate {self.name} refused without a remedy; say what would help")
        return self

    @property
    def verdict(self) -> str:
        """passed, refused, or warned where it does not block."""
        return "passed" if self.passed else "refused" if self.blocks else "warned"


@dataclass(frozen=True)
class Size:
    """How much a set has of what its rate is over: 665 words; `scale` is the rate of one error to one of them."""

    count: float
    what: str
    scale: float = 1.0


class Gate(Frozen):
    """What every gate has; a gate that does not block warns."""

    rule: ClassVar[str] = "<="
    kind: str
    limit: float
    unit: str
    blocks: bool = Field(True, description="false: a warning")
    name: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$", description="empty: made from the kind and what it looks at")

    @property
    def title(self) -> str:
        """The gate's name in decisions and tags."""
        return self.name or "_".join(part for part in (self.kind, *self._looks_at) if part)

    @property
    def compares(self) -> bool:
        """Whether the value is a difference: 0 where nothing has changed."""
        return self.unit.startswith("difference")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return ()

    def evaluate(self, evidence: Evidence) -> GateResult:
        """The gate's result; where it cannot be judged it has not passed, and the result says what is missing."""
        try:
            return self._evaluate(evidence)
        except NoEvidence as missing:
            return self._result(False, missing.detail, missing.remedy)

    @abstractmethod
    def _evaluate(self, evidence: Evidence) -> GateResult:
        """The result of what is measured, by one of the next three; NoEvidence where nothing was."""

    def judged(self, value: float, detail: str, remedy: str, power: Power | None = None) -> GateResult:
        """The plain value against the limit."""
        return self._held(value, "", detail, remedy, value=value, power=power)

    def judged_end(self, interval: Interval, detail: str, remedy: str, size: Size | None = None) -> GateResult:
        """The less favourable confidence end against the limit; with `size` it is also said what the set can show."""
        end, name = (interval.low, "lower end") if self.rule == ">=" else (interval.high, "upper end")
        power = None
        if size:
            variance = interval.error**2 * size.count
            power = power_at(self, variance, size.count, size.what, interval.quantile, interval.point, size.scale)
            if power.bring and HOLDS[self.rule](interval.point, self.limit):
                remedy = f"the value itself would pass, the set is too small to show it: {power.bring}; {remedy}"
        found = {"value": interval.point, "interval": (interval.low, interval.high), "power": power}
        return self._held(end, name, f"{detail}; {interval.note}", remedy, **found)

    def waived(self, detail: str) -> GateResult:
        """Passed, for there is nothing to compare with."""
        return self._result(True, detail, "")

    def _held(self, held: float, name: str, detail: str, remedy: str, **found: Any) -> GateResult:
        passed = HOLDS[self.rule](held, self.limit)
        if not passed:
            what = f"{name} {show(held, self.unit)}".strip()
            detail = f"{what}, but must be {self.rule} {show(self.limit, self.unit)}: {detail}"
        return self._result(passed, detail, remedy, rule=f"{name} {self.rule}".strip(), **found)

    def _result(self, passed: bool, detail: str, remedy: str, **found: Any) -> GateResult:
        """A result of this gate; without `found` there was nothing to measure."""
        gate = {"name": self.title, "kind": self.kind, "limit": self.limit, "unit": self.unit, "blocks": self.blocks}
        verdict = {"passed": passed, "detail": detail, "remedy": "" if passed else remedy}
        return GateResult(**{"value": None, "rule": self.rule} | gate | verdict | found)


class OnSet(Gate):
    """A gate that looks at one set of clips."""

    set: SetName = Field("test", description="the set of clips that is looked at, as the evaluation's report names it")

    @property
    def _looks_at(self) -> tuple[str, ...]:
        return (self.set,)


Judge = Annotated[
    Literal["end", "point"],
    Field(description="what is held to the limit: the less favourable end of the interval, or the value itself"),
]
