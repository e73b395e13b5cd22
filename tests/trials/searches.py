"""What searches find after so many trials, by who proposes and who stops, where recorded trials say what one is worth.

`python -m tests.trials.searches FILE` takes what `python -m tests.trials.recorded record FILE` wrote, and what runs of
the project's first point from many seeds came to. A Gaussian process over these objectives draws landscapes that agree
with them (searches on surrogates: Eggensperger et al. 2015, AAAI); a trial there has the learning curve of a recorded
one, scaled to what its point is worth and to what chance makes of it from seed to seed.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from tests.trials.recorded import Curve, curve, play, read

from wertune.base.config import load_yaml
from wertune.search.optuna_private import TpeByNumber
from wertune.search.search_space import AshaConfig, SearchConfig

Floats = npt.NDArray[np.float64]
Space = Mapping[str, BaseDistribution]
POOL = 1500  # points whose worth is drawn; another one is worth what the nearest of them is
SIZES = (8, 16, 32)
NEAR = 0.03
SCALES = (0.5, 1.0, 1.5, 2.0, 3.0)  # over which points are alike; the likeliest of them


def encoded(point: Mapping[str, Any], space: Space) -> Floats:
    """Each value between 0 and 1, rates by their logarithm, choices without order as one of several."""
    return np.array([part for key, values in space.items() for part in _encoded(point[key], values)], dtype=np.float64)


def _encoded(value: Any, values: BaseDistribution) -> list[float]:
    if isinstance(values, CategoricalDistribution):
        if isinstance(values.choices[0], str):
            return [float(value == choice) for choice in values.choices]
        return [sorted(values.choices).index(value) / max(1, len(values.choices) - 1)]
    assert isinstance(values, FloatDistribution | IntDistribution)
    low, high, at = (np.log(x) if values.log else x for x in (values.low, values.high, value))
    return [float((at - low) / (high - low))]


class Surrogate:
    """Of recorded trials, and of many runs of one point: what a point is worth, and how a trial of it goes."""

    def __init__(
        self, points: Floats, curves: Sequence[Curve], deviation: float, first: Floats, mean: float, runs: int
    ):
        self.curves, self.deviation = curves, deviation
        self._points = np.vstack([points, first])
        self._logs = np.log([*(each.values[-1] for each in curves), mean])
        self._variances = deviation**2 * np.array([*np.ones(len(curves)), 1 / runs])
        # What chance does not explain of the trials' differences is the points'.
        signal = max(0.1 * deviation**2, float(np.var(self._logs[:-1])) - deviation**2)
        fits = [self._fit(Matern(scale, nu=2.5), signal, np.ones(len(self._logs), bool)) for scale in SCALES]
        self._process = max(fits, key=lambda fit: float(fit.log_marginal_likelihood_value_))
        self._signal = signal

    def _fit(self, kernel: Matern, signal: float, of: npt.NDArray[np.bool_]) -> GaussianProcessRegressor:
        process = GaussianProcessRegressor(ConstantKernel(signal) * kernel, alpha=self._variances[of], optimizer=None)
        return process.fit(self._points[of], self._logs[of] - self._logs.mean())

    def worths(self, pool: Floats, seed: int) -> Floats:
        """Objectives (N,) of points (N, D) in one landscape, without what chance adds."""
        mean, covariance = self._process.predict(pool, return_cov=True)
        drawn = np.random.default_rng(seed).standard_normal(len(pool))
        return np.exp(self._logs.mean() + mean + np.linalg.cholesky(covariance + 1e-6 * np.eye(len(pool))) @ drawn)

    def left_out(self) -> float:
        """Spearman's correlation of what trials reached with what the others say of them."""
        said = []
        for one in range(len(self._logs)):
            process = self._fit(self._process.kernel.k2, self._signal, np.arange(len(self._logs)) != one)
            said.append(process.predict(self._points[[one]])[0])
        return float(spearmanr(said, self._logs).statistic)

    def trial(self, worth: float, generator: np.random.Generator) -> Curve:
        """A trial of a point of this worth: a recorded one's curve, scaled."""
        like = self.curves[generator.integers(len(self.curves))]
        scale = worth * float(np.exp(self.deviation * generator.standard_normal())) / like.values[-1]
        redrawn = tuple(tuple(scale * value for value in epoch) for epoch in like.redrawn)
        return Curve(tuple(scale * value for value in like.values), redrawn, like.seconds)


@dataclass(frozen=True)
class Landscape:
    """What each point is worth; the first of the places is the project's first point's."""

    space: Space
    places: Floats
    worths: Floats

    def worth(self, point: Mapping[str, Any]) -> float:
        """Of the nearest place."""
        return float(self.worths[np.argmin(np.sum((self.places - encoded(point, self.space)) ** 2, axis=1))])


@dataclass(frozen=True)
class Kind:
    """How trials are proposed and stopped."""

    sampler: Callable[[int], BaseSampler]  # by seed
    asha: AshaConfig | None
    has_first: bool = False


@dataclass(frozen=True)
class Found:
    """What the trial that won reached and is worth, as shares of the first point's worth, and what the search took."""

    objective: float  # as measured, chance and all
    worth: float
    core_hours: float


def searched(
    kind: Kind, trials: int, landscape: Landscape, first: Sequence[Mapping[str, Any]], surrogate: Surrogate, seed: int
) -> Found:
    """A search's trial with the least objective."""
    study = optuna.create_study(sampler=kind.sampler(seed))
    for point in first if kind.has_first else ():
        study.enqueue_trial(dict(point))
    generator, asked, curves = np.random.default_rng(seed), list[optuna.Trial](), list[Curve]()
    reached = dict[int, float]()

    def proposed() -> Iterator[Curve]:
        for _ in range(trials):
            asked.append(study.ask(dict(landscape.space)))
            curves.append(surrogate.trial(landscape.worth(asked[-1].params), generator))
            yield curves[-1]

    def told(number: int, epoch: int, ends: bool) -> None:
        reached[number] = curves[number].values[epoch - 1]
        asked[number].report(reached[number], epoch)
        if ends and epoch == len(curves[number].values):
            study.tell(asked[number], reached[number])
        elif ends:
            study.tell(asked[number], state=TrialState.PRUNED)

    played = play(proposed(), kind.asha, len(surrogate.curves[0].values), told=told)
    best = min(reached, key=lambda number: reached[number])
    of_first = float(landscape.worths[0])
    return Found(reached[best] / of_first, landscape.worth(asked[best].params) / of_first, played.core_s / 3600)


def _former_tpe(seed: int) -> TPESampler:
    """As it was until running trials told TPE what they had reached."""
    return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=5, seed=seed)


FORMER = AshaConfig(grace_epochs=1, reduction_factor=2, confidence=0)
PRESENT = AshaConfig(grace_epochs=2, reduction_factor=2)
KINDS: Mapping[str, Kind] = {
    "at random, none stopped": Kind(RandomSampler, None),
    "at random, ASHA of before": Kind(RandomSampler, FORMER),
    "at random, ASHA": Kind(RandomSampler, PRESENT),
    "TPE of before, ASHA of before": Kind(_former_tpe, FORMER),
    "TPE, none stopped": Kind(TpeByNumber, None),
    "TPE, ASHA": Kind(TpeByNumber, PRESENT),
    "the first point, then TPE, ASHA": Kind(TpeByNumber, PRESENT, has_first=True),
}


def main() -> None:
    """Searches in all landscapes, and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--project", type=Path, default=Path("projects/sg_gov"))
    parser.add_argument("--first-point", type=float, required=True, help="geometric mean of what runs of it came to")
    parser.add_argument("--runs", type=int, required=True, help="how many these were")
    parser.add_argument("--deviation", type=float, required=True, help="of the logarithm of that")
    parser.add_argument("--landscapes", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5, help="searches in each landscape")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = load_yaml(given.project / "search.yaml", SearchConfig)
    space = config.distributions()
    sets, trials = read(given.file)
    curves, first = [curve(sets, trial) for trial in trials], encoded(config.first_points[0], space)
    points = np.array([encoded(trial.point, space) for trial in trials])
    surrogate = Surrogate(points, curves, given.deviation, first, given.first_point, given.runs)
    print(f"{len(trials)} trials; one left out, what the others say of it: Spearman {surrogate.left_out():.2f}\n")
    draws = optuna.create_study(sampler=RandomSampler(seed=1_000_003))
    places = np.array([first, *(encoded(draws.ask(space).params, space) for _ in range(POOL))])
    landscapes = [Landscape(space, places, surrogate.worths(places, seed)) for seed in range(given.landscapes)]
    print("Shares of what the first point is worth, within which eight of ten searches are; and how many of them are")
    print("at most 3 % above it, and at least 3 % below:\n")
    print("| proposed, stopped | trials | best objective | worth of that point | hours of a core |")
    print("|---|---|---|---|---|")
    for (name, kind), size in product(KINDS.items(), SIZES):
        found = [
            searched(kind, size, landscape, config.first_points, surrogate, 1000 * number + seed)
            for (number, landscape), seed in product(enumerate(landscapes), range(given.seeds))
        ]
        print(_row(name, size, found), flush=True)


def _row(name: str, trials: int, found: Sequence[Found]) -> str:
    objectives, worths = (_told([getattr(each, of) for each in found]) for of in ("objective", "worth"))
    hours = np.mean([each.core_hours for each in found])
    return f"| {name} | {trials} | {objectives} | {worths} | {hours:.1f} |"


def _told(shares: Sequence[float]) -> str:
    at, (low, high) = np.array(shares), np.quantile(shares, (0.1, 0.9))
    near, better = np.mean(at <= 1 + NEAR), np.mean(at <= 1 - NEAR)
    return f"{at.mean():.2f} ({low:.2f} to {high:.2f}); {100 * near:.0f}, {100 * better:.0f} %"


if __name__ == "__main__":
    main()
