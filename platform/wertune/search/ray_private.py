"""All that is taken from Ray Tune's private names, where nobody can be asked to do it otherwise.

`tests/unit/search/test_private_names.py` names them: an upgrade that moves one fails there.
"""

import logging
from collections.abc import Callable
from typing import Any

from ray.air.execution import ResourceManager
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller

from wertune.search.trial_log import RAY_OUT_OF_MEMORY


class Actors(RayActorManager):  # type: ignore[misc]
    """Ray Tune's, to which a process that Ray ends for want of memory is one that died: its own ends the search."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"{RAY_OUT_OF_MEMORY}: {exception}")
        super()._actor_task_failed(tracked_actor_task, exception)


def use(reservations: Callable[[], ResourceManager]) -> None:
    """Tune takes our actors and these reservations: it asks nobody which to use."""
    tune_controller.RayActorManager = Actors
    tune_controller.PlacementGroupResourceManager = reservations


def hush() -> None:
    """No page of traceback for each process that is lost (trial_runs says it in a line, the run keeps the page).

    Nor a warning of each trial that it finds no result file, which are not written.
    """
    logging.getLogger(tune_controller.__name__).setLevel(logging.CRITICAL)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
