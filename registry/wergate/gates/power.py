"""What a set can show: the least change told from chance, and how often an equal version and a worse one would pass."""

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from pydantic import Field

from wergate.gates.units import show_size
from wertune.base.config import Frozen

if TYPE_CHECKING:
    from wergate.gates.gate import Gate

# A version that is equal should get through all gates: at 98 of 100 each, five leave nine of ten.
WANTED = 0.98
ENOUGH = 0.9
NORMAL = NormalDist()


class Power(Frozen):
    """What one gate can tell with the set at hand, in the gate's unit; chances are shares of equally made sets."""

    size: int = Field(ge=0, description="how much the set has of `what`")
    what: str = Field(description="words, clips or terms said")
    told: float = Field(ge=0, description="a smaller change cannot be told from chance")
    equal: float = Field(ge=0, le=1, description="chance that an equal version passes")
    worse: float = Field(ge=0, le=1, description="chance that one passes that truly stands at the limit")
    needed: int | None = Field(description="so many of `what` let an equal version pass in 98 of 100; none: no number")
    like: str = Field("an equal version", description="what `equal` is the chance of")

    @property
    def enough(self) -> bool:
        """Whether an equal version passes in nine of ten."""
        return self.equal >= ENOUGH

    def text(self, unit: str) -> str:
        """`with 665 words a rise under 2.0 points cannot be told from chance; an equal version passes in …`."""
        told = f"with {self.size:,} {self.what} a change under {show_size(self.told, unit)} cannot be told from chance"
        chances = f"{self.like} passes in {percent(self.equal)} of 100 draws, one at the limit in {percent(self.worse)}"
        return f"{told}; {chances}" + (f"; {self.bring}" if self.bring else "")

    @property
    def bring(self) -> str:
        """`bring 3,500 words` where the set is too small; empty where it is not, and where no size would do."""
        return "" if self.enough or self.needed is None else f"bring {rounded(self.needed):,} {self.what}"


def error_at(variance: float, size: float, one: float) -> float:
    """Standard error of a rate over `size`, with `variance` of one, and with `one` error more as seen."""
    size = max(size, 1.0)  # of nothing as much is known as of one
    return math.hypot(math.sqrt(variance / size), one / size)


def size_for(variance: float, one: float, error: float) -> float:
    """The size at which `error_at` comes down to `error` > 0."""
    return (variance + math.sqrt(variance**2 + (2 * error * one) ** 2)) / (2 * error**2)


def power_at(
    gate: "Gate",
    variance: float,
    size: float,
    what: str,
    quantile: float,
    point: float = 0.0,
    scale: float = 1.0,
) -> Power:
    """With `variance` of one of `what`, measured or assumed; `point` is where a version truly stands.

    `scale / size` is what one error more is worth in the gate's unit. Where two hardly differ, draws show no spread,
    though a new set might: as many errors as Agresti and Coull (1998) add, the quantile squared, are taken to have
    been seen on top. `size` may be 0: `needed` says how much would be enough.
    """
    equal_to_other = gate.compares and gate.limit >= 0
    truth = 0.0 if equal_to_other else point
    room = (truth - gate.limit) if gate.rule == ">=" else (gate.limit - truth)
    one = quantile * scale
    error = error_at(variance, size, one)
    equal = NORMAL.cdf(room / error - quantile)
    needed = size_for(variance, one, room / (quantile + NORMAL.inv_cdf(WANTED))) if room > 0 else None
    return Power(
        size=round(size),
        what=what,
        told=quantile * error,
        equal=equal,
        worse=NORMAL.cdf(-quantile),
        needed=None if needed is None else math.ceil(needed),
        like="an equal version" if equal_to_other else "one as good as this",
    )


def counted(gate: "Gate", rate: float, size: float, what: str, scale: float) -> Power:
    """Of rare events that are counted and held to the limit as they are: Poisson's chances, no interval."""
    from scipy.special import pdtr, pdtri  # its import takes as long as all other gates

    most = math.floor(gate.limit * size / scale + 1e-9)
    return Power(
        size=round(size),
        what=what,
        told=float(pdtri(most, 0.05)) * scale / size,  # the least that is refused with 95 % (Garwood 1936)
        equal=float(pdtr(most, rate * size / scale)),
        worse=float(pdtr(most, gate.limit * size / scale)),
        needed=None,
        like="one as good as this",
    )


def percent(chance: float) -> int:
    """Draws of 100, never all or none of them by rounding alone."""
    return min(max(round(100 * chance), 1), 99) if 0 < chance < 1 else round(100 * chance)


def rounded(size: int) -> int:
    """To two figures, upwards: 4,731 is 4,800."""
    step = int(10.0 ** max(len(str(size)) - 2, 0))
    return -(-size // step) * step
