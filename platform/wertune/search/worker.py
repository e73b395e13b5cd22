"""What runs in Ray's workers, each of which waits for what it imports: neither MLflow nor Optuna."""

import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from wertune.base.config import TrialConfig, with_overrides
from wertune.base.contract import RESOURCES_TAG
from wertune.base.errors import OutOfMemory, SearchStorageError, WertuneError, WorkersLost
from wertune.base.steps import heard_by
from wertune.search.shipping import DriverFiles, prepared_here
from wertune.search.trial_log import (
    EPOCH,
    FAILURE,
    LOG,
    METRIC,
    NO_ROOM,
    NUMBER,
    POINT,
    RAY_OUT_OF_MEMORY,
    GatheredLog,
    TrialLog,
)
from wertune.training.baseline import Texts, Wanted, transcribe_with_base
from wertune.training.memory import keep_freed_memory
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult, Objective
from wertune.training.trial import run_trial
from wertune.training.workers import ALONE, Workers, joined, meeting_point

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


# What a trial's first worker takes, once it misses one, to hear from Ray what became of it; and what the others give a
# first worker that still runs, to end them, before they take it for the silent one.
HEARSAY_S, GRACE_S = 5.0, 30.0
# To start, import and fetch a base's gigabytes: no silence yet, whatever workers may take to answer each other.
READY_S = 900.0


class Mate:
    """A worker of a trial but its first, an actor in one of the trial's places; it goes with it from trial to trial."""

    def __init__(self, rank: int, size: int, wait_s: float) -> None:
        self._rank, self._size, self._wait_s = rank, size, wait_s

    def prepare(self, prepared: Prepared, files: DriverFiles) -> None:
        """Brings the project's files to this node."""
        self._prepared = prepared_here(prepared, files)

    def train(self, config: TrialConfig, objective: Objective, ip: str, port: int, first: tuple[str, int]) -> None:
        """Its part of the trial, until that ends or its first worker leaves; `first` is that one's node and process."""
        try:
            store = meeting_point(self._size, self._wait_s, ip, port)
            with joined(self._rank, self._size, store, self._wait_s, _own_ip()) as workers:
                run_trial(config, self._prepared, objective, GatheredLog(), workers=workers)
        except WorkersLost as error:
            if error.is_silent:
                time.sleep(GRACE_S)
                node, process = first
                here = NodeAffinitySchedulingStrategy(node, soft=False)
                ray.get(ray.remote(_end).options(num_cpus=0, scheduling_strategy=here).remote(process))


def _end(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)  # it may be stopped, and hear nothing else
    except ProcessLookupError:
        return


def _own_ip() -> str:
    return str(ray.util.get_node_ip_address())


_mates: dict[Any, list[Any]] = {}  # of this process, by its placement group; they end with it


@contextmanager
def team(
    prepared: Prepared, files: DriverFiles, config: TrialConfig, objective: Objective, wait_s: float
) -> Iterator[Workers]:
    """This process as a trial's first worker, the others started in the rest of its placement group's places.

    They stay for its next trial: what they have imported and loaded need not be loaded again. Raises WorkersLost, and
    ends them, where one is gone or silent.
    """
    group = ray.util.get_current_placement_group()
    if group is None or group.bundle_count == 1:
        yield ALONE
        return
    size, ip = group.bundle_count, _own_ip()
    mates = _ready(group, prepared, files, wait_s)
    here = ray.get_runtime_context().get_node_id(), os.getpid()
    store = meeting_point(size, wait_s, ip)
    going = [mate.train.remote(config, objective, ip, store.port, here) for mate in mates]
    try:
        with joined(0, size, store, wait_s, ip) as workers:
            yield workers
    except WorkersLost as lost:
        cause = _cause(going, size)
        _dismiss(group)
        if isinstance(cause, OutOfMemory):  # told as a death of this process for the same cause
            raise RayActorError(error_msg=f"{RAY_OUT_OF_MEMORY}: {cause}") from None
        raise WorkersLost(f"{cause or lost}", lost.is_silent) from None


def _ready(group: Any, prepared: Prepared, files: DriverFiles, wait_s: float) -> list[Any]:
    """The mates in the group's places, with the project's files on their nodes; new ones where any has died."""
    shared = ray.put(prepared)
    for attempt in (1, 2):
        mates = _mates[group.id] = _mates.get(group.id) or _started(group, wait_s)
        try:
            ray.get([mate.prepare.remote(shared, files) for mate in mates], timeout=max(wait_s, READY_S))
            return mates
        except RayTaskError as error:
            raise error.cause from None
        except (RayActorError, GetTimeoutError) as error:
            _dismiss(group)
            if attempt == 2:
                raise WorkersLost(f"a worker of {group.bundle_count} does not start: {error}") from None
    raise AssertionError


def _started(group: Any, wait_s: float) -> list[Any]:
    found = []
    for rank in range(1, group.bundle_count):
        mate = ray.remote(Mate).options(**place(group, rank))
        found.append(mate.remote(rank, group.bundle_count, wait_s))
    return found


def needs(resources: Mapping[str, float]) -> dict[str, float]:
    """What Ray is to give a process, as its options are called."""
    return {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}


def place(group: Any, rank: int) -> dict[str, Any]:
    """Options of the process that is a trial's worker `rank` in the group's places; the first one starts the others."""
    strategy = PlacementGroupSchedulingStrategy(group, rank, placement_group_capture_child_tasks=rank == 0)
    return {"scheduling_strategy": strategy, **needs(group.bundle_specs[rank])}


def _dismiss(group: Any) -> None:
    for mate in _mates.pop(group.id, []):
        ray.kill(mate)


def _cause(going: Sequence[Any], size: int) -> WertuneError | None:
    """What Ray says of the mate that ended first, if any did: more than its missing connection does."""
    ended, _ = ray.wait(list(going), timeout=HEARSAY_S)
    for reference in ended:
        try:
            ray.get(reference)
        except RayError as error:
            if isinstance(error, OutOfMemoryError):
                return OutOfMemory(str(error))
            told = str(getattr(error, "cause", None) or error).strip().splitlines()[0]
            return WorkersLost(f"worker {going.index(reference) + 2} of {size} is gone: {told}")
    return None


def run_again(
    prepared: Prepared, files: DriverFiles, config: TrialConfig, objective: Objective, wait_s: float
) -> GatheredLog:
    """One more run of the best configuration, in a task of `train_again`."""
    log, here = GatheredLog(), prepared_here(prepared, files)
    with team(prepared, files, config, objective, wait_s) as workers:
        run_trial(config, here, objective, log, workers=workers)
    return log


def run_one(
    proposal: dict[str, Any], prepared: Prepared, files: DriverFiles, objective: Objective, store: Any, wait_s: float
) -> None:
    """One trial in Ray's workers, or what is left of it: each epoch is reported to the driver.

    What it raises is reported first, so that the driver knows it from the death of a process, which is forgiven.
    """
    best, epoch = WORST, 0
    log = TrialLog(store, proposal[NUMBER])
    log.tags({RESOURCES_TAG: _resources()})

    def report(result: EpochResult) -> None:
        nonlocal best, epoch
        best, epoch = min(best, result.objective), result.epoch
        tune.report(result.metrics() | {METRIC: best, EPOCH: epoch, LOG: log.take()})

    try:
        config = with_overrides(prepared.project.trial, proposal[POINT], "search.yaml: space")
        here = prepared_here(prepared, files)
        with team(prepared, files, config, objective, wait_s) as workers:
            run_trial(config, here, objective, log, after_epoch=report, store=log, workers=workers)
    except (RayActorError, WorkersLost):
        raise
    except SearchStorageError as error:
        tune.report({METRIC: best, EPOCH: epoch, LOG: log.take(), NO_ROOM: str(error)})
    except Exception as error:
        cause = "".join(traceback.format_exception(error))
        tune.report({METRIC: best, EPOCH: epoch, LOG: log.take(), FAILURE: cause})
        if not isinstance(error, WertuneError):  # after a CUDA error, say, no other trial should get this process
            raise


def _resources() -> str:
    """What Ray has given the trial, such as `1 CPU, 1 GPU`, or `4 workers, each 1 CPU, 1 GPU`."""
    assigned, group = ray.get_runtime_context().get_assigned_resources(), ray.util.get_current_placement_group()
    each = ", ".join(f"{assigned[name]:g} {name}" for name in ("CPU", "GPU") if assigned.get(name))
    workers = group.bundle_count if group else 1
    return each if workers == 1 else f"{workers} workers, each {each}"
