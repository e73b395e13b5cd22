"""What a project's sets can show before anything is measured: by their size, their speakers, and assumed errors."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from wergate.gates.kinds import AnyGate
from wergate.gates.kinds.accuracy import BaseGate, ChampionGate, ForgettingGate, WerGate
from wergate.gates.kinds.battery import BatteryGate
from wergate.gates.kinds.terms import TermGate
from wergate.gates.policy import Policy
from wergate.gates.power import Power, error_at, power_at, rounded
from wergate.gates.units import show, show_size
from wertune.base.config import Frozen
from wertune.scores.bootstrap import Blocks, BootstrapSettings, TooFewBlocks, choose_blocks, t_quantile

# Near what the demo's first version had: on 665 words of retention the upper end lay 1.9 points above
# the rise (2.1 by these), on 1,413 words by 6 speakers 3.1 points above a WER of 7.0 % (2.9), and of 151 terms the
# lower end 4.0 points below a recall of 92.1 % (5.7).
ALONE = 0.025  # of words, those that one of two has wrong and the other right
TOGETHER = 2.0  # wrong words stand so many together
SPREAD = 0.35  # a speaker's errors beside the mean speaker's, as the deviation of a logarithm
MARGIN = 0.5  # of the errors that a gate allows: a version that makes no more is to pass
FREEDOM = 30.0  # of Student's t where a set is too small for blocks of its own
ASSUMED = (
    f"assumed: base and version each err alone on {100 * ALONE:g} words of 100, and a version with half of the errors "
    "that a gate allows is to pass it"
)
BATTERY = "battery"
# The sets that a report has of a project.
IN_PROJECT = {"test": "data.test", "retention_test": "data.retention_test", "long": "data.long"}


@dataclass(frozen=True)
class SetSize:
    """A set as its manifest holds it: words and speaker of each clip, how often terms are said, parts of a battery."""

    name: str
    words: Sequence[int]
    speakers: Sequence[str]
    terms: int = 0
    parts: frozenset[str] = frozenset()


class Asked(Frozen):
    """A blocking gate for which the set is too small."""

    gate: str
    transition: str
    limit: float
    unit: str
    equal: float = Field(description="chance that an equal version passes, or one with half of the errors allowed")
    needed: int = Field(description="so many of `what` in all would be enough")
    what: str = Field(description="words, or terms said")
    speakers: int = Field(description="by so many speakers; 0: by those that are there")

    @property
    def text(self) -> str:
        """`forgetting_retention_test of production (2.0 points) asks for more: bring 3,500 words`."""
        limit = show_size(self.limit, self.unit) if self.unit.startswith("difference") else show(self.limit, self.unit)
        by = f" by {self.speakers} speakers" if self.speakers else ""
        return f"{self.gate} of {self.transition} ({limit}) asks for more: bring {self.needed:,} {self.what}{by}"


class Shown(Frozen):
    """What a set can show."""

    clips: int
    words: int
    speakers: int = Field(description="known ones")
    told: float | None = Field(description="errors/word: a smaller rise is chance; none: the set is too small for any")
    asked: tuple[Asked, ...] = Field(description="gates that ask for more, those of most words first")

    @property
    def text(self) -> str:
        """`1,512 words, 2 speakers; a rise of WER under 1.4 points cannot be told from chance`."""
        speakers = f", {self.speakers} speaker{'' if self.speakers == 1 else 's'}" if self.speakers else ""
        rise = "too few clips to tell any rise of WER from chance"
        if self.told is not None:
            rise = f"a rise of WER under {100 * self.told:.1f} points cannot be told from chance"
        return f"{self.words:,} words{speakers}; {rise}"

    @property
    def advice(self) -> list[str]:
        """A line for words and one for terms: of the gate that asks for most."""
        most = {asked.what: asked for asked in reversed(self.asked)}
        return [asked.text for asked in self.asked if most[asked.what] is asked]


def can_show(size: SetSize, policy: Policy | None) -> Shown:
    """The smallest rise of WER that the set tells from chance, and the gates of the policy that ask for more of it."""
    settings = policy.bootstrap if policy else BootstrapSettings()
    sample = _Sample.of(size, settings)
    told = None
    if sample.blocks:
        told = sample.quantile * error_at(2 * ALONE * TOGETHER, sample.total, sample.quantile)
    asked = sorted(_asked(size, sample, policy), key=lambda each: -each.needed) if policy else []
    return Shown(
        clips=len(size.words),
        words=sample.total,
        speakers=len({speaker for speaker in size.speakers if speaker}),
        told=None if told is None else min(told, 1.0),
        asked=tuple(asked),
    )


def missing(sizes: Iterable[SetSize], policy: Policy) -> list[str]:
    """What blocking gates read that the project does not have: each a line with the remedy."""
    there = {size.name: size for size in sizes}
    lines = dict[str, str]()
    for transition, gate in _blocking(policy):
        title = f"{gate.title} of {transition}"
        if isinstance(gate, BatteryGate):
            if BATTERY not in there:
                remedy = (
                    "set data.battery (shipped for English; docs/battery.md: how one is made), or take those gates out"
                )
                lines.setdefault(BATTERY, f"{title} asks for a battery, but the project has none; {remedy}")
            elif gone := sorted(set(gate.parts) - {"all"} - there[BATTERY].parts):
                remedy = "add it to the battery's form, or take it out of the gate's parts"
                lines.setdefault(
                    gone[0], f"{title} asks for {gone[0]}, a part that the battery does not have; {remedy}"
                )
        elif (name := getattr(gate, "set", "")) in IN_PROJECT and name not in there:
            remedy = f"name a manifest as {IN_PROJECT[name]}, or take such gates out"
            lines.setdefault(name, f"{title} asks for {name}, but the project has none; {remedy}")
    return list(lines.values())


def _blocking(policy: Policy) -> Iterator[tuple[str, AnyGate]]:
    for transition in ("staging", "production"):
        yield from ((transition, gate) for gate in policy.gates(transition) if gate.blocks)


@dataclass(frozen=True)
class _Sample:
    """Words of a set, its blocks where it has enough, and how many standard errors an end lies from the point."""

    total: int
    blocks: Blocks | None
    quantile: float
    by_speaker: bool

    @classmethod
    def of(cls, size: SetSize, settings: BootstrapSettings) -> "_Sample":
        weights = np.array(size.words, np.float64)
        try:
            blocks = choose_blocks(size.speakers, weights, settings) if weights.any() else None
        except TooFewBlocks:
            blocks = None
        freedom = blocks.effective - 1.0 if blocks else FREEDOM
        by_speaker = blocks is not None and blocks.kind == "speaker"
        return cls(int(weights.sum()), blocks, t_quantile(settings.confidence, freedom), by_speaker)


def _asked(size: SetSize, sample: _Sample, policy: Policy) -> Iterator[Asked]:
    for transition, gate in _blocking(policy):
        power = _power(gate, size, sample)
        if power is None or power.needed is None or (sample.blocks and power.enough):
            continue
        # Two on the same clips meet the same speakers: more words of these will do.
        blocks = sample.blocks if sample.by_speaker and not gate.compares else None
        yield Asked(
            gate=gate.title,
            transition=transition,
            limit=gate.limit,
            unit=gate.unit,
            equal=power.equal if sample.blocks else 0.0,
            needed=rounded(power.needed),
            what=power.what,
            speakers=math.ceil(blocks.count * power.needed / max(power.size, 1)) if blocks else 0,
        )


def _power(gate: AnyGate, size: SetSize, sample: _Sample) -> Power | None:
    """None where the gate reads another set, or what it asks for is no matter of size."""
    reads = BATTERY if isinstance(gate, BatteryGate) else getattr(gate, "set", "")
    if reads != size.name or getattr(gate, "judge", "end") == "point":
        return None
    if isinstance(gate, BatteryGate) and not (gate.measure == "wer" and gate.parts == ("all",) and gate.compares):
        return None
    if isinstance(gate, ForgettingGate | ChampionGate | BaseGate | BatteryGate):
        variance = 2 * ALONE * TOGETHER
        return power_at(gate, variance, sample.total, "words", sample.quantile) if gate.limit > 0 else None
    if isinstance(gate, WerGate):
        wrong = MARGIN * gate.limit
        variance = TOGETHER * wrong + _between(wrong, sample.total, sample)
        return power_at(gate, variance, sample.total, "words", sample.quantile, wrong)
    if isinstance(gate, TermGate) and gate.of == "all":
        wrong = MARGIN * (1 - gate.limit)
        variance = wrong * (1 - wrong) + _between(wrong, size.terms, sample)
        return power_at(gate, variance, size.terms, "terms said", sample.quantile, 1 - wrong)
    return None


def _between(wrong: float, size: float, sample: _Sample) -> float:
    """What speakers who differ add to the variance of one: more clips of the same ones do not take it away."""
    return (SPREAD * wrong) ** 2 * size / sample.blocks.effective if sample.by_speaker and sample.blocks else 0.0
