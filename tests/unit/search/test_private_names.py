"""What is taken from Ray's and Optuna's private names is still there, and stands in one file each."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import optuna
import pytest
from optuna.storages import RDBStorage, _cached_storage
from ray.air.execution import PlacementGroupResourceManager, _internal
from ray.tune.execution import tune_controller

import wertune
from wertune.search import optuna_private, ray_private

SOURCES = Path(wertune.__file__).parent
MOVED = "{library} moved {name}: mend {file}, which relies on it"


def _require(found: bool, library: str, name: str, file: ModuleType) -> None:
    assert found, MOVED.format(library=library, name=name, file=file.__name__)


def test_what_is_taken_from_ray_is_there() -> None:
    for name in ("RayActorManager", "PlacementGroupResourceManager"):
        used = f"{name}(" in inspect.getsource(tune_controller)
        _require(used and hasattr(tune_controller, name), "Ray", f"tune_controller.{name}", ray_private)
    parameters = list(inspect.signature(_internal.RayActorManager._actor_task_failed).parameters)
    expected = ["self", "tracked_actor_task", "exception"]
    _require(parameters == expected, "Ray", "RayActorManager._actor_task_failed", ray_private)
    _require(
        tune_controller.PlacementGroupResourceManager is PlacementGroupResourceManager,
        "Ray",
        "the manager of placement groups",
        ray_private,
    )


def test_what_is_taken_from_optuna_is_there(tmp_path: Path) -> None:
    storage = optuna_private.OneWriter(RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}"))
    sampler = optuna_private.TpeByNumber(seed=0)
    study = optuna.create_study(storage=storage, sampler=sampler)
    trial = study.ask()
    taken = [
        (storage, "_lock _backend _studies _add_trials_to_cache _trial_id_to_study_id_and_number"),
        (storage._backend, "_get_trials"),
        (sampler, "_random_sampler _rng"),
        (sampler._random_sampler, "_rng"),
        (sampler._rng, "rng"),
        (trial, "_suggest"),
        (study.trials[0], "_trial_id"),
    ]
    for owner, names in taken:
        for name in names.split():
            _require(hasattr(owner, name), "Optuna", f"{type(owner).__name__}.{name}", optuna_private)
    asks = inspect.getsource(optuna.samplers.TPESampler)
    for name in ("sample_relative", "sample_independent", "_sample"):
        source = inspect.getsource(getattr(optuna.samplers.TPESampler, name))
        _require("_get_trials(" in source + asks, "Optuna", f"what TPESampler.{name} asks a study for", optuna_private)
    reads = inspect.getsource(_cached_storage._CachedStorage.get_all_trials)
    _require("_read_trials_from_remote_storage(" in reads, "Optuna", "the read of its cache", optuna_private)


@pytest.mark.parametrize(
    ("taken", "file"),
    [
        (r"ray\._|ray\.\w+\.execution\._|ray\.tune\.execution|ray\.tune\.analysis|\._actor_", "ray_private.py"),
        (
            r"optuna\._|optuna\.\w+\._|\._trial_id|\._suggest\b|\._storage\b|\._rng\b|\._random_sampler",
            "optuna_private.py",
        ),
    ],
)
def test_it_stands_in_one_file(taken: str, file: str) -> None:
    found = {path.name for path in SOURCES.rglob("*.py") if re.search(taken, path.read_text(encoding="utf-8"))}
    assert found == {file}
