"""How many epochs ASHA is expected to let a search run, reckoned from its rule for trials in random order."""

import math
from dataclasses import dataclass
from itertools import pairwise

from wertune.search.search_space import AshaConfig

# Of four searches, those in which what search.yaml tries first is better than what is proposed after it: of the demo's
# searches with a first point one in six went otherwise, and their mean of 20 epochs of 64 lies beside what this gives.
FIRST_IS_BEST = 3 / 4
EIGHT_OF_TEN = 1.28  # standard deviations to each side, of what is spread normally
# How many epochs more a confidence of 0.95 lets run; one of 0.5 lets none, and between them it grows evenly
# (`python -m tests.trials.recorded play docs/learning_curves.json`).
MORE_AT_95 = 0.27


@dataclass(frozen=True)
class Estimate:
    """A mean, and the ends between which about eight of ten fall."""

    low: float
    mean: float
    high: float


def expected_epochs(asha: AshaConfig, trials: int, epochs: int, known_good: int = 0) -> Estimate:
    """Epochs of all trials, of which the first `known_good` ones are taken to be the best in three of four searches.

    One whose trials get better and better takes longer. The first trial is never stopped.
    """
    stops = [*asha.rungs(epochs), epochs]
    blind, known = (_granted(asha.reduction_factor, stops, trials, good) for good in (0, known_good))
    least, most = epochs + stops[0] * (trials - 1), trials * epochs
    more = 1 + MORE_AT_95 * max(0.0, asha.confidence - 0.5) / 0.45 if len(stops) > 1 else 1.0
    mean = min(most, more * (FIRST_IS_BEST * known + (1 - FIRST_IS_BEST) * blind))
    # The root's share is what searches played by Ray's rule spread by: factors of 1.5 to 4, up to 200 trials.
    spread = EIGHT_OF_TEN * (epochs - stops[0]) * math.sqrt(2 / 3 * trials / asha.reduction_factor)
    return Estimate(max(least, mean - spread), mean, min(most, mean + spread))


def _granted(factor: float, stops: list[int], trials: int, best: int) -> float:
    """Mean epochs of all trials that are stopped at `stops` when the first `best` of them are the best."""
    granted = float(trials * stops[0])
    for number, (rung, until) in enumerate(pairwise(stops), 1):
        granted += (until - rung) * sum(_passes(seen, factor**-number, best) for seen in range(trials))
    return granted


def _passes(seen: int, share: float, best: int) -> float:
    """The chance of a trial to be in the best `share` of `seen` ones before it, `best` of which are better than it.

    So it passes a rung, and all rungs below it, where Ray asks for no worse than the quantile of those before.
    """
    if seen == 0:
        return 1.0
    ahead, place = best if seen >= best else 0, (seen - 1) * share
    return (place - ahead + 1) / (seen - ahead + 1) if place >= ahead else 0.0


def one_after_another(epochs_of_all: float, trials: int, epochs: int, at_once: int) -> float:
    """Epochs until the last trial ends, `at_once` side by side; it runs half of its own beside idle places."""
    if trials <= at_once:
        return epochs
    return max(epochs, (epochs_of_all + (at_once - 1) * epochs / 2) / at_once)
