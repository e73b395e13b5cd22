"""From a figure to a result: the one place where a limit is applied."""

from dataclasses import dataclass

from wergate.gates.decision import GateResult
from wergate.gates.evidence import NoEvidence
from wergate.gates.kinds import GateSpec
from wergate.gates.power import Power, power_of
from wergate.gates.units import show
from wertune.scores.bootstrap import Interval


@dataclass(frozen=True)
class Size:
    """How much a set has of what its rate is over: 665 words; `scale` is the rate of one error to one of them."""

    count: float
    what: str
    scale: float = 1.0


def judged(gate: GateSpec, value: float, detail: str, remedy: str, power: Power | None = None) -> GateResult:
    """The plain value against the limit."""
    return _result(gate, value, value, "", None, detail, remedy).model_copy(update={"power": power})


def judged_end(gate: GateSpec, interval: Interval, detail: str, remedy: str, size: Size | None = None) -> GateResult:
    """The less favourable confidence end against the limit; with `size` the result also says what the set can show."""
    end, name = (interval.low, "lower end") if gate.at_least else (interval.high, "upper end")
    detail = f"{detail}; {interval.note}"
    result = _result(gate, interval.point, end, name, (interval.low, interval.high), detail, remedy)
    power = power_of(gate, interval, size.count, size.what, size.scale) if size else None
    return result.model_copy(update={"power": power})


def unjudged(gate: GateSpec, missing: NoEvidence) -> GateResult:
    """Not passed for want of evidence."""
    return _without_value(gate, False, missing.detail, missing.remedy)


def waived(gate: GateSpec, detail: str) -> GateResult:
    """Passed, for there is nothing to compare with."""
    return _without_value(gate, True, detail, "")


def _without_value(gate: GateSpec, passed: bool, detail: str, remedy: str) -> GateResult:
    return GateResult(
        name=gate.title,
        kind=gate.kind,
        value=None,
        rule=_rule(gate),
        limit=gate.limit,
        unit=gate.unit,
        blocks=gate.blocks,
        passed=passed,
        detail=detail,
        remedy=remedy,
    )


def _result(
    gate: GateSpec,
    value: float,
    held: float,
    name: str,
    ends: tuple[float, float] | None,
    detail: str,
    remedy: str,
) -> GateResult:
    passed = _within(gate, held)
    rule = f"{name} {_rule(gate)}".strip()
    if not passed:
        what = f"{name} {show(held, gate.unit)}" if name else show(held, gate.unit)
        detail = f"{what}, but must be {_rule(gate)} {show(gate.limit, gate.unit)}: {detail}"
    return GateResult(
        name=gate.title,
        kind=gate.kind,
        value=value,
        interval=ends,
        rule=rule,
        limit=gate.limit,
        unit=gate.unit,
        blocks=gate.blocks,
        passed=passed,
        detail=detail,
        remedy="" if passed else remedy,
    )


def _rule(gate: GateSpec) -> str:
    return ">=" if gate.at_least else "<" if gate.strict else "<="


def _within(gate: GateSpec, held: float) -> bool:
    if gate.at_least:
        return held >= gate.limit
    return held < gate.limit if gate.strict else held <= gate.limit
