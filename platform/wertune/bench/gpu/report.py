"""What was found as one table and as JSON, with what must hold of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from wertune.bench.gpu.ways import Pair
from wertune.bench.rows import rounded
from wertune.scores.comparison import markdown_table

LEAST_TIMES_FASTER = 10.0
GB_IN_MB = 1024.0
MOST_GB = {"base": 1.0, "large-v2": 3.0}
NO_GPU = "CPU: there is no GPU here, and no figure below is one of a GPU. Small sizes show that all of it runs."


@dataclass(frozen=True)
class Condition:
    """What must hold on a GPU, and what was found; None where it could not be measured."""

    what: str
    limit: float
    found: float | None
    is_least: bool = False

    @property
    def holds(self) -> bool:
        if self.found is None:
            return False
        return self.found >= self.limit if self.is_least else self.found < self.limit

    def line(self) -> list[str]:
        """Cells: what, the limit, what was found, and whether it holds."""
        rule = f"at least {self.limit:g}" if self.is_least else f"below {self.limit:g}"
        return [self.what, rule, "–" if self.found is None else rounded(self.found), "yes" if self.holds else "NO"]


@dataclass
class Found:
    """What the parts have found; `seconds` of each part, `missing` why one has found nothing."""

    device: str
    is_gpu: bool
    products: str
    torch: str
    product_tflop_per_s: float | None = None
    tests: dict[str, int] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    side_by_side: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    writing: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def conditions(self, sizes: Sequence[str]) -> list[Condition]:
        """Of these sizes, whether measured or not."""
        times = {pair.name: pair.times_faster for pair in self.pairs}
        peak_gb = {pair.name: pair.ours.peak_mb / GB_IN_MB for pair in self.pairs}
        step, memory = "training step, times the recipe's", "peak memory at batch 8, GB"
        return [
            *(Condition(f"{name}: {step}", LEAST_TIMES_FASTER, times.get(name), is_least=True) for name in sizes),
            *(Condition(f"{name}: {memory}", MOST_GB[name], peak_gb.get(name)) for name in MOST_GB if name in sizes),
        ]

    def fails(self, sizes: Sequence[str]) -> bool:
        """Whether a test failed, a part found nothing, or, on a GPU, what must hold does not."""
        broken = self.tests.get("failed", 0) > 0 or bool(self.missing)
        return broken or (self.is_gpu and not all(each.holds for each in self.conditions(sizes)))

    def raw(self, sizes: Sequence[str]) -> dict[str, Any]:
        """For JSON."""
        must_hold = [asdict(each) | {"holds": each.holds} for each in self.conditions(sizes)] if self.is_gpu else []
        pairs = [
            asdict(each) | {"times_faster": each.times_faster, "step_tflop_per_s": each.step_tflop_per_s}
            for each in self.pairs
        ]
        return asdict(self) | {"pairs": pairs, "must_hold": must_hold}

    def page(self, sizes: Sequence[str]) -> str:
        """One table; below it what must hold, and how long each part took."""
        heading = f"{self.device}, {self.products} products, torch {self.torch}"
        rows = [["", "the field's recipe", "ours", "times better"], *self._rows()]
        parts = [heading if self.is_gpu else f"{NO_GPU}\n{heading}", markdown_table(rows)]
        if self.is_gpu:
            held = [["must hold", "rule", "found", "holds"], *(each.line() for each in self.conditions(sizes))]
            parts.append(markdown_table(held))
        parts += [f"{part}: found nothing: {why}" for part, why in self.missing.items()]
        took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
        return "\n\n".join([*parts, f"{took}; {sum(self.seconds.values()):.0f} s in all"])

    def _rows(self) -> list[list[str]]:
        rows = [row for pair in self.pairs for row in _pair_rows(pair, self.product_tflop_per_s)]
        for count, each in self.side_by_side.items():
            times = each["clips_per_s"] / self.side_by_side["1"]["clips_per_s"]
            rows.append(
                _ours(
                    f"trials side by side: {count}", f"{rounded(each['clips_per_s'])} clips/s, {times:.2f} times one's"
                )
            )
        for name, each in self.writing.items():
            waiting = f"{100 * each['waiting_share']:.0f} % of it waiting for launches"
            rows.append(_ours(f"writing: {name}", f"{rounded(each['token_ms'])} ms a token, {waiting}"))
        if self.tests:
            rows.append(_ours("tests/gpu", ", ".join(f"{count} {what}" for what, count in self.tests.items())))
        return rows


def _pair_rows(pair: Pair, product_tflop_per_s: float | None) -> list[list[str]]:
    """Step, epoch, evaluation and memory of both ways, and how near our step comes to plain products."""
    rows = []
    for name, unit, of in (
        ("step", "s", attrgetter("step_s")),
        ("epoch", "s", attrgetter("epoch_s")),
        ("evaluation", "s", attrgetter("evaluation_s")),
        ("peak memory", "MB", attrgetter("peak_mb")),
    ):
        theirs, ours = of(pair.theirs), of(pair.ours)
        cells = [f"{rounded(value)} {unit}" for value in (theirs, ours)]
        rows.append([f"{pair.name}: {name}", *cells, f"{theirs / ours:.1f}" if ours > 0 else "–"])
    if product_tflop_per_s:
        rates = f"{rounded(pair.step_tflop_per_s)} of {rounded(product_tflop_per_s)} TFLOP/s"
        share = f"{100 * pair.step_tflop_per_s / product_tflop_per_s:.1f} %"
        rows.append(_ours(f"{pair.name}: step, of plain products", f"{rates}, {share}"))
    return rows


def _ours(what: str, cell: str) -> list[str]:
    """A row of what the recipe has none of."""
    return [what, "", cell, ""]
