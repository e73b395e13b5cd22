"""The program that plays searches on what recorded trials say: a landscape whose least point is known."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from tests.trials.recorded import Curve
from tests.trials.searches import KINDS, Landscape, Surrogate, encoded, searched

SPACE = {
    "rate": FloatDistribution(1e-4, 1e-2, log=True),
    "r": CategoricalDistribution([4, 8, 16]),
    "modules": CategoricalDistribution(["q", "q,v"]),
}
FIRST = {"rate": 1e-3, "r": 16, "modules": "q,v"}


def _surrogate() -> tuple[Surrogate, Landscape]:
    """Of twenty trials without chance, which are the better the nearer their rate is to 0.001 and their rank to 16."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = np.array([encoded(study.ask(SPACE).params, SPACE) for _ in range(20)])
    first = encoded(FIRST, SPACE)
    ends = 0.1 + 0.2 * np.sum((points[:, :2] - first[:2]) ** 2, axis=1)
    curves = [
        Curve(tuple(end * part for part in (3, 2, 1.5, 1)), (tuple([end] * 5),) * 4, (60.0,) * 4)
        for end in ends.tolist()
    ]
    surrogate = Surrogate(points, curves, 0.01, first, 0.1, 10)
    places = np.array([first, *(encoded(study.ask(SPACE).params, SPACE) for _ in range(200))])
    return surrogate, Landscape(SPACE, places, surrogate.worths(places, 0))


def test_values_lie_between_0_and_1() -> None:
    assert encoded({"rate": 1e-3, "r": 8, "modules": "q"}, SPACE) == pytest.approx([0.5, 0.5, 1.0, 0.0])


def test_a_landscape_agrees_with_its_trials() -> None:
    surrogate, landscape = _surrogate()
    assert landscape.worth(FIRST) == float(landscape.worths[0])
    assert abs(landscape.worth(FIRST) / 0.1 - 1) < 0.05
    assert surrogate.left_out() > 0.8


def test_more_trials_find_better_points_and_stopping_saves_hours() -> None:
    surrogate, landscape = _surrogate()

    def found(name: str, trials: int) -> tuple[float, float]:
        each = [searched(KINDS[name], trials, landscape, [FIRST], surrogate, seed) for seed in range(4)]
        return float(np.mean([one.worth for one in each])), float(np.mean([one.core_hours for one in each]))

    few, many, stopped = (found("TPE, none stopped", 3), found("TPE, none stopped", 20), found("TPE, ASHA", 20))
    assert many[0] < few[0]
    assert stopped[1] < many[1] == 20 * 4 / 60
    told = found("the first point, then TPE, ASHA", 3)[0]
    assert 0.9 < told < 1.05
