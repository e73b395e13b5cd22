"""Where trials may run in a fleet of nodes with and without GPUs.

A trial without a GPU never goes to a node that has some, however many of its CPUs are free: a trial on a GPU needs its
`cpus_per_trial` beside it, and Ray, which counts CPUs only, would let it wait until the slow one ends. What such a node
has left over also feeds its GPUs with features. Ray alone merely prefers other nodes, hence the selector by node id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wertune.base.errors import ConfigError
from wertune.search.search_space import SearchConfig

NODE_ID_LABEL = "ray.io/node-id"  # every node of Ray 2.49 or later carries it


@dataclass(frozen=True)
class Place:
    """A kind of place for a trial: what it takes of a node, which labels that one must have, and how many there are."""

    kind: str
    resources: Mapping[str, float]
    slots: int
    labels: Mapping[str, str]


def trial_resources(nodes: Iterable[Mapping[str, Any]], config: SearchConfig) -> tuple[Place, ...]:
    """The kinds of places in `ray.nodes()` that have slots, those with a GPU first.

    Raises ConfigError where no node that is alive has what a trial is to get.
    """
    alive = [node for node in nodes if node["Alive"]]
    with_gpus = [node for node in alive if _has(node, "GPU") > 0]
    without = [node for node in alive if node not in with_gpus]
    share = config.gpus_per_trial
    if share == "auto":
        places = [_gpu_place(with_gpus, 1.0, config), _cpu_place(without, with_gpus, config)]
    else:
        places = [_gpu_place(alive, share, config) if share else _cpu_place(alive, [], config)]
    found = tuple(place for place in places if place.slots)
    if not found:
        raise ConfigError(_nothing_fits(alive, config))
    return found


def next_kind(slots: Mapping[str, int], running: Mapping[str, int]) -> str:
    """The first kind with a free slot, in the order of `slots`; the first of all, the fastest, where all are taken."""
    free = (kind for kind, count in slots.items() if running.get(kind, 0) < count)
    return next(free, next(iter(slots)))


def _gpu_place(nodes: Sequence[Mapping[str, Any]], share: float, config: SearchConfig) -> Place:
    resources = {"GPU": share, "CPU": float(config.cpus_per_trial)}
    slots = sum(min(_gpu_slots(_has(node, "GPU"), share), _cpu_slots(node, config)) for node in nodes)
    return Place("gpu", resources, slots, {})


def _cpu_place(
    nodes: Sequence[Mapping[str, Any]], with_gpus: Sequence[Mapping[str, Any]], config: SearchConfig
) -> Place:
    slots = sum(_cpu_slots(node, config) for node in nodes)
    labels = {NODE_ID_LABEL: f"!in({','.join(sorted(node['NodeID'] for node in with_gpus))})"} if with_gpus else {}
    return Place("cpu", {"CPU": float(config.cpus_per_trial)}, slots, labels)


def _gpu_slots(gpus: float, share: float) -> int:
    """How many trials a node's GPUs take: a share of one never spans two, and Ray counts in ten-thousandths."""
    if share < 1:
        return int(gpus) * (10_000 // max(1, round(share * 10_000)))
    return int(gpus // share)


def _cpu_slots(node: Mapping[str, Any], config: SearchConfig) -> int:
    return int(_has(node, "CPU") // config.cpus_per_trial)


def _has(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0.0))


def _nothing_fits(alive: Sequence[Mapping[str, Any]], config: SearchConfig) -> str:
    wanted = f"cpus_per_trial is {config.cpus_per_trial} and gpus_per_trial is {config.gpus_per_trial}"
    most = ", ".join(f"{_has(node, 'CPU'):g} CPUs and {_has(node, 'GPU'):g} GPUs" for node in alive) or "no node"
    return f"{wanted}, but a trial runs on one node, and Ray's nodes have {most}; lower what a trial gets"
