"""How many epochs ASHA lets a search run: its rule of halving, played with trials whose order nobody knows."""

import heapq
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wertune.search.search_space import AshaConfig

GAMES, SEED = 400, 0
# Of four games, those in which what search.yaml tries first is better than what is proposed after it: of the demo's
# searches with a first point one in six went otherwise, and their mean of 20 epochs of 64 lies beside what this gives.
FIRST_IS_BEST = 3
LOW, HIGH = 0.1, 0.9


@dataclass(frozen=True)
class Range:
    """A mean, and the ends between which eight of ten fall."""

    low: float
    mean: float
    high: float

    def times(self, factor: float) -> "Range":
        """All three by a factor."""
        return Range(self.low * factor, self.mean * factor, self.high * factor)


def expected_epochs(
    asha: AshaConfig, trials: int, epochs: int, at_once: int, known_good: int = 0
) -> tuple[Range, Range]:
    """Epochs in all, and epochs one after another until the last trial ends with `at_once` trials side by side.

    In each game the trials' true order is drawn anew and holds at every rung. In three of four games the `known_good`
    ones, which come first, are the best: then the search ends early. One that gets better and better takes longer.
    """
    generator, stops = np.random.default_rng(SEED), asha.rungs(epochs)
    games = []
    for game in range(GAMES):
        losses = generator.random(trials)
        losses[:known_good] -= game % 4 < FIRST_IS_BEST
        games.append(_play(losses.tolist(), epochs, stops, asha.reduction_factor, at_once))
    totals, spans = zip(*games, strict=True)
    return _range(totals), _range(spans)


def _range(values: Sequence[int]) -> Range:
    low, high = np.quantile(values, [LOW, HIGH])
    return Range(float(low), float(np.mean(values)), float(high))


def _play(losses: Sequence[float], epochs: int, stops: Sequence[int], factor: float, at_once: int) -> tuple[int, int]:
    """Epochs in all and the time of the last, when each takes one unit of time."""
    seen: dict[int, list[float]] = {stop: [] for stop in stops}
    waiting = min(at_once, len(losses))
    running = [(1, trial, 1) for trial in range(waiting)]
    total = now = 0
    while running:
        now, trial, epoch = heapq.heappop(running)
        total += 1
        if epoch < epochs and (epoch not in seen or goes_on(losses[trial], seen[epoch], factor)):
            heapq.heappush(running, (now + 1, trial, epoch + 1))
        elif waiting < len(losses):
            heapq.heappush(running, (now + 1, waiting, 1))
            waiting += 1
    return total, now


def goes_on(loss: float, seen: list[float], factor: float) -> bool:
    """Whether a trial passes a rung, as Ray decides: not worse than the best 1 / factor of those before; it joins them.

    `seen` is sorted; the first one always passes.
    """
    passes = not seen or loss <= _quantile(seen, 1 / factor)
    insort(seen, loss)
    return passes


def _quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values, linear between two of them."""
    place = share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])
