"""What runs in Ray's workers, each of which waits for what it imports: neither MLflow nor Optuna."""

import math
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from wertune.base.config import TrialConfig, with_overrides
from wertune.base.contract import RESOURCES_TAG
from wertune.base.errors import OutOfMemory, SearchStorageError, WertuneError, WorkersLost, first_line
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
    REDRAWN,
    WORKERS,
    GatheredLog,
    TrialLog,
)
from wertune.training.baseline import Texts, Wanted, transcribe_with_base
from wertune.training.memory import keep_freed_memory
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult
from wertune.training.trial import run_trial
from wertune.training.workers import ALONE, Workers, joined, meeting_point

# Resources of a worker, and the labels of the nodes that it may be on.
Kind = tuple[Mapping[str, float], Mapping[str, str]]
WORST = 1e9  # Optuna and Ray want a finite number of a trial without one


def transcribe_part(prepared: Prepared, files: DriverFiles, wanted: Wanted, heard: Any) -> Texts:
    """Some splits' texts by the untouched base, in a task of `transcribe_across`; `heard` counts the clips."""
    keep_freed_memory()
    with heard_by(heard.add.remote):
        return transcribe_with_base(prepared_here(prepared, files), wanted)


# What a trial's first worker takes, once it misses one, to hear from Ray what became of it; and what the others give a
# first worker that still runs, to end them, before they take it for the silent one.
HEARSAY_S, GRACE_S = 5.0, 30.0
# To start, import and fetch a base's gigabytes: no silence yet, whatever workers may take to answer each other.
READY_S = 900.0
# For places that are free to be a trial's, before it trains on without them.
ROOM_S = 5.0


class Mate:
    """A worker of a trial but its first, an actor in one of the trial's places; it goes with it from trial to trial."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def prepare(self, prepared: Prepared, files: DriverFiles) -> None:
        """Brings the project's files to this node."""
        self._prepared = prepared_here(prepared, files)

    def train(
        self,
        config: TrialConfig,
        objective: Objective,
        rank: int,
        size: int,
        meeting: tuple[str, int],
        first: tuple[str, int],
    ) -> None:
        """Its part of the trial, until that ends or its first worker leaves.

        Worker `rank` of `size`, which meet at an address and port; `first` is the first one's node and process.
        """
        try:
            store = meeting_point(size, self._wait_s, *meeting)
            with joined(rank, size, store, self._wait_s, _own_ip()) as workers:
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


_mates: dict[Any, list[Any]] = {}  # of this process, by their placement group; they end with it


@contextmanager
def team(
    prepared: Prepared,
    files: DriverFiles,
    config: TrialConfig,
    objective: Objective,
    wait_s: float,
    taken_over: Sequence[Any] = (),
) -> Iterator[Workers]:
    """This process as a trial's first worker, the others started in the rest of its placement group's places.

    And in all places of the groups that it has `taken_over`. They stay for its next trial: what they have imported and
    loaded need not be loaded again. Raises WorkersLost, and ends them, where one is gone or silent.
    """
    own = ray.util.get_current_placement_group()
    groups = [*([own] if own and own.bundle_count > 1 else []), *taken_over]
    if not groups:
        yield ALONE
        return
    mates = [mate for group in groups for mate in _ready(group, prepared, files, wait_s)]
    size, ip = 1 + len(mates), _own_ip()
    here = ray.get_runtime_context().get_node_id(), os.getpid()
    store = meeting_point(size, wait_s, ip)
    meeting = ip, store.port
    going = [mate.train.remote(config, objective, rank, size, meeting, here) for rank, mate in enumerate(mates, 1)]
    try:
        with joined(0, size, store, wait_s, ip) as workers:
            yield workers
    except WorkersLost as lost:
        cause = _cause(going, size)
        for group in groups:
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
        except RayError as error:  # it died, perhaps for want of memory, or takes too long
            _dismiss(group)
            if attempt == 2:
                raise WorkersLost(f"a worker beside the first does not start: {error}") from None
    raise AssertionError


def _started(group: Any, wait_s: float) -> list[Any]:
    """A mate in each of the group's places but the one that this process has, if it has one of them."""
    own = ray.util.get_current_placement_group()
    free = range(1 if own and own.id == group.id else 0, group.bundle_count)
    return [ray.remote(Mate).options(**place(group, rank)).remote(wait_s) for rank in free]


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
    """What Ray says of the mate that was lost, if one was: more than its missing connection does.

    Others end in order meanwhile, since they miss that one, too.
    """
    waiting, until = list(going), time.monotonic() + HEARSAY_S
    while waiting:
        ended, waiting = ray.wait(waiting, timeout=max(0.0, until - time.monotonic()))
        if not ended:
            return None
        for reference in ended:
            try:
                ray.get(reference)
            except RayError as error:
                if isinstance(error, OutOfMemoryError):
                    return OutOfMemory(str(error))
                told = first_line(getattr(error, "cause", None) or error)
                return WorkersLost(f"worker {going.index(reference) + 2} of {size} is gone: {told}")
    return None


class MoreWorkers(Exception):
    """The trial goes on from its last epoch with workers that have started meanwhile."""


class Spares:
    """Places that ended trials have left idle, once no other trial is to come: a trial takes over what is free.

    Workers start there while it trains on, and join it after the epoch in which they are ready.
    """

    def __init__(
        self, trial: int, prepared: Prepared, files: DriverFiles, store: Any, kinds: Sequence[Kind], wait_s: float
    ) -> None:
        """`kinds`: what a worker of a trial may get, with the labels of nodes for it; none where it takes nothing over.

        What a process of the trial that was killed has left taken, Ray would keep until the search ends.
        """
        own = ray.util.get_current_placement_group()
        self._each = next(
            ((resources, labels) for resources, labels in kinds if own and dict(resources) == own.bundle_specs[0]), None
        )
        self._prepared, self._files, self._store, self._wait_s = prepared, files, store, wait_s
        self.joined, self._coming, self._preparing = list[Any](), None, list[Any]()
        self._trial, self._asked, self._refused = trial, 0, math.inf
        if kinds:
            self._free_what_was_left()

    def are_ready(self, most: int) -> bool:
        """Whether more workers may join now, which then are among the `joined`; at most so many are asked to come."""
        if self._coming is None:
            self._ask(most)
            return False
        if len(ray.wait(self._preparing, num_returns=len(self._preparing), timeout=0)[0]) < len(self._preparing):
            return False
        group, self._coming = self._coming, None
        try:
            ray.get(self._preparing)
        except RayError:  # the trial goes on with those that it has
            self._give_back(group)
            return False
        self.joined.append(group)
        return True

    def give_back(self) -> None:
        """All of them, at the trial's end."""
        for group in [*self.joined, *([self._coming] if self._coming else [])]:
            self._give_back(group)

    def _ask(self, most: int) -> None:
        if self._each is None or not ray.get(self._store.may_take_over.remote()):
            return
        resources, labels = self._each
        free = ray.available_resources()
        fitting = (int(free.get(name, 0) // wanted) for name, wanted in resources.items() if wanted)
        places = int(min(most, self._refused // 2, *fitting))
        if places < 1:
            return
        selectors = {"bundle_label_selector": [dict(labels)] * places} if labels else {}
        group = placement_group([dict(resources)] * places, "PACK", name=self._name(self._asked), **selectors)
        if not group.wait(ROOM_S):  # another trial was quicker, or what is free is of nodes of another kind
            self._refused = places
            remove_placement_group(group)
            return
        self._asked += 1
        shared, self._coming = ray.put(self._prepared), group
        mates = _mates[group.id] = _started(group, self._wait_s)
        self._preparing = [mate.prepare.remote(shared, self._files) for mate in mates]

    def _name(self, number: int) -> str:
        return f"places taken over by trial {self._trial + 1}, {number}"

    def _free_what_was_left(self) -> None:
        with suppress(ValueError):  # Ray knows none of that name
            for number in count():
                remove_placement_group(get_placement_group(self._name(number)))

    def _give_back(self, group: Any) -> None:
        _dismiss(group)
        remove_placement_group(group)


def run_alone(
    number: int,
    config: TrialConfig,
    prepared: Prepared,
    files: DriverFiles,
    objective: Objective,
    wait_s: float,
    store: Any,
    heard: Any,
) -> str:
    """A trial of no search, or what is left of it, in a task of `train_across`; returns the end of its log.

    `heard` is told of each epoch: the trial's number, a line, and the log since the last one.
    """
    log = TrialLog(store, number)

    def tell(result: EpochResult) -> None:
        ray.get(heard.add.remote((number, result.line(), log.take())))  # before this ends, and is asked no more

    here = prepared_here(prepared, files)
    with team(prepared, files, config, objective, wait_s) as workers:
        log.tags({RESOURCES_TAG: _resources(workers.size)})
        run_trial(config, here, objective, log, tell, log, workers)
    return log.take()


def run_one(
    proposal: dict[str, Any],
    prepared: Prepared,
    files: DriverFiles,
    objective: Objective,
    store: Any,
    wait_s: float,
    takes_over: Sequence[Kind] = (),
) -> None:
    """One trial in Ray's workers, or what is left of it: each epoch is reported to the driver.

    What it raises is reported first, so that the driver knows it from the death of a process, which is forgiven.
    """
    best, redrawn, epoch = WORST, tuple[float, ...](), 0
    log = TrialLog(store, proposal[NUMBER])
    spares = Spares(proposal[NUMBER], prepared, files, store, takes_over, wait_s)

    try:
        config = with_overrides(prepared.project.trial, proposal[POINT], "search.yaml: space")
        here = prepared_here(prepared, files)

        def report(result: EpochResult) -> None:
            nonlocal best, redrawn, epoch
            if result.epoch <= epoch:  # told again, with more workers
                return
            epoch = result.epoch
            if result.objective < best:
                best, redrawn = result.objective, result.redrawn
            told = {METRIC: best, REDRAWN: list(redrawn), EPOCH: epoch, WORKERS: workers.size, LOG: log.take()}
            tune.report(result.metrics() | told)
            if epoch < config.train.epochs and spares.are_ready(config.train.batch_size - workers.size):
                raise MoreWorkers

        while True:
            with team(prepared, files, config, objective, wait_s, spares.joined) as workers:
                log.tags({RESOURCES_TAG: _resources(workers.size)})
                try:
                    run_trial(config, here, objective, log, after_epoch=report, store=log, workers=workers)
                    return
                except MoreWorkers:
                    continue
    except (RayActorError, WorkersLost):
        raise
    except SearchStorageError as error:
        tune.report({METRIC: best, EPOCH: epoch, LOG: log.take(), NO_ROOM: str(error)})
    except Exception as error:
        cause = "".join(traceback.format_exception(error))
        tune.report({METRIC: best, EPOCH: epoch, LOG: log.take(), FAILURE: cause})
        if not isinstance(error, WertuneError):  # after a CUDA error, say, no other trial should get this process
            raise
    finally:
        spares.give_back()


def _resources(workers: int) -> str:
    """What Ray has given the trial, such as `1 CPU, 1 GPU`, or `4 workers, each 1 CPU, 1 GPU`."""
    assigned = ray.get_runtime_context().get_assigned_resources()
    each = ", ".join(f"{assigned[name]:g} {name}" for name in ("CPU", "GPU") if assigned.get(name))
    return each if workers == 1 else f"{workers} workers, each {each}"
