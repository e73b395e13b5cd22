"""What runs in Ray's workers, each of which waits for what it imports: neither MLflow nor Optuna."""

import traceback
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

from wertune.base.config import TrialConfig, with_overrides
from wertune.base.contract import RESOURCES_TAG
from wertune.base.errors import SearchStorageError, WertuneError
from wertune.base.steps import heard_by
from wertune.search.shipping import DriverFiles, prepared_here
from wertune.search.trial_log import EPOCH, FAILURE, LOG, METRIC, NO_ROOM, NUMBER, POINT, GatheredLog, TrialLog
from wertune.training.baseline import Texts, Wanted, transcribe_with_base
from wertune.training.memory import keep_freed_memory
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult, Objective
from wertune.training.trial import run_trial

WORST = 1e9  # Optuna and Ray want a finite number of a trial without one


class Count:
    """How many clips the tasks of `transcribe_across` have done between them, in an actor."""

    def __init__(self) -> None:
        self._clips = 0

    def add(self, clips: int) -> None:
        """A task has done so many more."""
        self._clips += clips

    def taken(self) -> int:
        """Those since it was asked last."""
        found, self._clips = self._clips, 0
        return found


def transcribe_part(prepared: Prepared, files: DriverFiles, wanted: Wanted, count: Any) -> Texts:
    """Some splits' texts by the untouched base, in a task of `transcribe_across`; `count` is an actor of Count."""
    keep_freed_memory()
    with heard_by(count.add.remote):
        return transcribe_with_base(prepared_here(prepared, files), wanted)


def run_again(prepared: Prepared, files: DriverFiles, config: TrialConfig, objective: Objective) -> GatheredLog:
    """One more run of the best configuration, in a task of `train_again`."""
    log = GatheredLog()
    run_trial(config, prepared_here(prepared, files), objective, log)
    return log


def run_one(proposal: dict[str, Any], prepared: Prepared, files: DriverFiles, objective: Objective, store: Any) -> None:
    """One trial in a Ray worker, or what is left of it: each epoch is reported to the driver.

    What it raises is reported first, so that the driver knows it from the death of the process, which is forgiven.
    """
    best, epoch = WORST, 0
    log = TrialLog(store, proposal[NUMBER])
    assigned = ray.get_runtime_context().get_assigned_resources()
    log.tags({RESOURCES_TAG: ", ".join(f"{assigned[name]:g} {name}" for name in ("CPU", "GPU") if assigned.get(name))})

    def report(result: EpochResult) -> None:
        nonlocal best, epoch
        best, epoch = min(best, result.objective), result.epoch
        tune.report(result.metrics() | {METRIC: best, EPOCH: epoch, LOG: log.take()})

    try:
        config = with_overrides(prepared.project.trial, proposal[POINT], "search.yaml: space")
        run_trial(config, prepared_here(prepared, files), objective, log, after_epoch=report, store=log)
    except RayActorError:
        raise
    except SearchStorageError as error:
        tune.report({METRIC: best, EPOCH: epoch, LOG: log.take(), NO_ROOM: str(error)})
    except Exception as error:
        cause = "".join(traceback.format_exception(error))
        tune.report({METRIC: best, EPOCH: epoch, LOG: log.take(), FAILURE: cause})
        if not isinstance(error, WertuneError):  # after a CUDA error, say, no other trial should get this process
            raise
