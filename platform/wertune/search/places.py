"""Where trials may run among nodes with and without GPUs, and which place each gets.

A trial of several workers gets all of their places or none, in one of Ray's placement groups: on one node where they
fit, else across nodes. So trials that wait for places never hold what another one waits for.

A trial without a GPU never goes to a node that has some, however many of its CPUs are free: a trial on a GPU needs its
`cpus_per_trial` beside it, and Ray, which counts CPUs only, would let it wait until the slow one ends. What such a node
has left over also feeds its GPUs with features. Ray alone merely prefers other nodes, hence the selector by node id.

To Ray Tune all trials ask for the same. So a worker of any kind takes the next trial, and a trial whose node was lost
is asked for anew, as if it had just been proposed: a place is decided on when Ray is asked for it, and again when its
nodes are gone.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.air.execution import PlacementGroupResourceManager, ResourceManager
from ray.tune import PlacementGroupFactory

from wertune.base.config import TrialPlaces
from wertune.base.errors import ConfigError

NODE_ID_LABEL = "ray.io/node-id"  # every node of Ray 2.49 or later carries it
LOOK_EVERY_S = 2.0


@dataclass(frozen=True)
class Slots:
    """Places for trials of one kind: what each worker takes of a node, which labels that has; how many trials fit."""

    kind: str
    resources: Mapping[str, float]
    count: int
    labels: Mapping[str, str]
    workers: int = 1

    def bundles(self) -> PlacementGroupFactory:
        """What Ray reserves for a trial: a place for each of its workers, near each other."""
        labels = [dict(self.labels)] * self.workers if self.labels else None
        return PlacementGroupFactory([dict(self.resources)] * self.workers, "PACK", bundle_label_selector=labels)


def trial_resources(nodes: Iterable[Mapping[str, Any]], config: TrialPlaces) -> tuple[Slots, ...]:
    """The slots on `ray.nodes()`, those with a GPU first.

    Raises ConfigError where no node that is alive has what a trial is to get.
    """
    alive = [node for node in nodes if node["Alive"]]
    with_gpus = [node for node in alive if _has(node, "GPU") > 0]
    without = [node for node in alive if node not in with_gpus]
    share = min(1.0, config.gpus_per_trial) if config.gpus_per_trial != "auto" else config.gpus_per_trial
    if share == "auto":
        kinds = [_on_gpus(with_gpus, 1.0, config), _on_cpus(without, with_gpus, config)]
    else:
        kinds = [_on_gpus(alive, share, config) if share else _on_cpus(alive, [], config)]
    found = tuple(slots for slots in kinds if slots.count)
    if not found:
        raise ConfigError(_nothing_fits(alive, config))
    return found


def _on_gpus(nodes: Sequence[Mapping[str, Any]], share: float, config: TrialPlaces) -> Slots:
    resources = {"GPU": share, "CPU": float(config.cpus_per_trial)}
    count = sum(min(_gpu_slots(_has(node, "GPU"), share), _cpu_slots(node, config)) for node in nodes)
    return Slots("gpu", resources, count // config.workers, {}, config.workers)


def _on_cpus(nodes: Sequence[Mapping[str, Any]], with_gpus: Sequence[Mapping[str, Any]], config: TrialPlaces) -> Slots:
    count = sum(_cpu_slots(node, config) for node in nodes)
    labels = {NODE_ID_LABEL: f"!in({','.join(sorted(node['NodeID'] for node in with_gpus))})"} if with_gpus else {}
    return Slots("cpu", {"CPU": float(config.cpus_per_trial)}, count // config.workers, labels, config.workers)


def _gpu_slots(gpus: float, share: float) -> int:
    """How many workers a node's GPUs take: a share of one never spans two, and Ray counts in ten-thousandths."""
    return int(gpus) * (10_000 // max(1, round(share * 10_000)))


def _cpu_slots(node: Mapping[str, Any], config: TrialPlaces) -> int:
    return int(_has(node, "CPU") // config.cpus_per_trial)


def _has(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0.0))


def _nothing_fits(alive: Sequence[Mapping[str, Any]], config: TrialPlaces) -> str:
    wanted = f"cpus_per_trial is {config.cpus_per_trial} and gpus_per_trial is {config.gpus_per_trial}"
    rule = "a trial runs on one node"
    if config.workers > 1:
        wanted = f"a trial has {config.workers} workers, {wanted}"
        rule = "all workers of a trial must find a place"
    most = ", ".join(f"{_has(node, 'CPU'):g} CPUs and {_has(node, 'GPU'):g} GPUs" for node in alive) or "no node"
    return f"{wanted}, but {rule}, and Ray's nodes have {most}; lower what a trial gets"


class Reservations(ResourceManager):  # type: ignore[misc]
    """Ray's manager of placement groups, which is asked for the best kind of slot whatever a trial asks for.

    Nodes that are lost leave, those that join enter: `slots` are those when the search begins.
    """

    def __init__(
        self,
        slots: tuple[Slots, ...],
        config: TrialPlaces,
        say: Callable[[str], None],
        groups: ResourceManager | None = None,
    ) -> None:
        self._slots, self._config, self._say = slots, config, say
        self._looked_at, self._told = time.monotonic(), False
        self._groups = groups or PlacementGroupResourceManager()
        self._waiting: list[tuple[str, PlacementGroupFactory]] = []  # kinds of slots, and what Ray is asked for
        self._held: list[tuple[str, Any]] = []

    def request_resources(self, resource_request: Any) -> None:
        """Asks for the first kind with a free slot; for the first of all, the fastest, where all are taken."""
        slots, taken = self._slots_now(), Counter(kind for kind, _ in self._waiting + self._held)
        best = next((each for each in slots if taken[each.kind] < each.count), slots[0])
        request = best.bundles()
        self._groups.request_resources(request)
        self._waiting.append((best.kind, request))

    def cancel_resource_request(self, resource_request: Any) -> None:
        """Cancels what was asked for last."""
        _, request = self._waiting.pop()
        self._groups.cancel_resource_request(request)

    def has_resources_ready(self, resource_request: Any) -> bool:
        """Whether a slot is there for whoever waits."""
        self._move()
        return any(self._ready())

    def acquire_resources(self, resource_request: Any) -> Any:
        """A slot, with what it really has; None where none is ready."""
        for kind, request in self._ready():
            acquired = self._groups.acquire_resources(request)
            self._waiting.remove((kind, request))
            self._held.append((kind, acquired))
            return acquired
        return None

    def free_resources(self, acquired_resource: Any) -> None:
        """Gives a slot back."""
        self._held = [(kind, acquired) for kind, acquired in self._held if acquired is not acquired_resource]
        self._groups.free_resources(acquired_resource)

    def get_resource_futures(self) -> Sequence[Any]:
        """What resolves when a slot is there."""
        futures: Sequence[Any] = self._groups.get_resource_futures()
        return futures

    def update_state(self) -> None:
        """Sees which slots are there."""
        self._groups.update_state()

    def clear(self) -> None:
        """Gives everything back."""
        self._waiting, self._held = [], []
        self._groups.clear()

    def _ready(self) -> Iterator[tuple[str, PlacementGroupFactory]]:
        for kind, request in dict.fromkeys(self._waiting):
            if self._groups.has_resources_ready(request):
                yield kind, request

    def _move(self) -> None:
        """Asks elsewhere for what is waited for at a kind of slot that is gone."""
        if not self._waiting:
            return
        kinds = {slots.kind for slots in self._slots_now()}
        for lost in [(kind, request) for kind, request in self._waiting if kind not in kinds]:
            self._waiting.remove(lost)
            self._groups.cancel_resource_request(lost[1])
            self.request_resources(lost[1])

    def _slots_now(self) -> tuple[Slots, ...]:
        """As of some seconds ago; the last ones while no node is left: one may be on its way."""
        if time.monotonic() > self._looked_at + LOOK_EVERY_S:
            try:
                self._slots, self._told = trial_resources(ray.nodes(), self._config), False
            except ConfigError as error:
                if not self._told:
                    self._say(f"trials wait for a node: {error}")
                self._told = True
            self._looked_at = time.monotonic()
        return self._slots
