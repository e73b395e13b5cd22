"""What a part of the benchmark hands to the page: rows of the table, raw figures, words."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One quantity of theirs and ours, a figure a round."""

    name: str
    unit: str
    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    less_is_better: bool = True

    @classmethod
    def of_pairs(cls, name: str, unit: str, pairs: Sequence[tuple[float, float]], less_is_better: bool = True) -> "Row":
        """From (theirs, ours) of each round."""
        theirs, ours = zip(*pairs, strict=True)
        return cls(name, unit, theirs, ours, less_is_better)

    @property
    def ratios(self) -> list[float]:
        """How many times ours is better, round by round."""
        pairs = zip(self.theirs, self.ours, strict=True)
        return [theirs / ours if self.less_is_better else ours / theirs for theirs, ours in pairs]

    def cells(self) -> list[str]:
        """Name, both medians, and the ratio with its spread."""
        medians = [f"{rounded(statistics.median(values))} {self.unit}" for values in (self.theirs, self.ours)]
        ratios = self.ratios
        return [self.name, *medians, f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"]


@dataclass(frozen=True)
class Section:
    """A part of the page: its raw figures under `name` in the JSON, its words, and its rows of the table of ratios."""

    name: str
    found: Any
    markdown: str
    rows: tuple[Row, ...] = ()


def rounded(value: float) -> str:
    """To three digits, a thousand and more without an exponent."""
    return f"{float(f'{value:.3g}'):g}"


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
