"""Which place of the fleet each trial gets, decided when Ray is asked for it and again when its nodes are gone.

To Ray Tune all trials ask for the same. So a worker of any kind takes the next trial, and a trial whose node was lost
is asked for anew, as if it had just been proposed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.air.execution import PlacementGroupResourceManager, ResourceManager
from ray.tune import PlacementGroupFactory

from wertune.base.errors import ConfigError
from wertune.search.places import Place, next_kind, trial_resources
from wertune.search.search_space import SearchConfig

LOOK_EVERY_S = 2.0


def bundle(place: Place) -> PlacementGroupFactory:
    """What Ray reserves for a trial at the place."""
    labels = [dict(place.labels)] if place.labels else None
    return PlacementGroupFactory([dict(place.resources)], bundle_label_selector=labels)


class Fleet:
    """The places for trials among Ray's nodes: nodes that are lost leave it, those that join enter it."""

    def __init__(self, places: tuple[Place, ...], config: SearchConfig, say: Callable[[str], None]) -> None:
        self._places, self._config, self._say = places, config, say
        self._looked_at = time.monotonic()
        self._told = False

    def places(self) -> tuple[Place, ...]:
        """As of some seconds ago; the last ones while no node is left: one may be on its way."""
        if time.monotonic() > self._looked_at + LOOK_EVERY_S:
            self._look()
        return self._places

    def _look(self) -> None:
        try:
            self._places = trial_resources(ray.nodes(), self._config)
            self._told = False
        except ConfigError as error:
            if not self._told:
                self._say(f"trials wait for a node: {error}")
            self._told = True
        self._looked_at = time.monotonic()


class Reservations(ResourceManager):  # type: ignore[misc]
    """Ray's manager of placement groups, which is asked for a place of the fleet whatever a trial asks for."""

    def __init__(self, fleet: Fleet, groups: ResourceManager | None = None) -> None:
        self._fleet = fleet
        self._groups = groups or PlacementGroupResourceManager()
        self._waiting: list[tuple[str, PlacementGroupFactory]] = []  # kinds of places, and what Ray is asked for
        self._held: list[tuple[str, Any]] = []

    def request_resources(self, resource_request: Any) -> None:
        """Asks for the best kind of place that is free."""
        places = {place.kind: place for place in self._fleet.places()}
        taken = Counter(kind for kind, _ in self._waiting + self._held)
        kind = next_kind({kind: place.slots for kind, place in places.items()}, taken)
        request = bundle(places[kind])
        self._groups.request_resources(request)
        self._waiting.append((kind, request))

    def cancel_resource_request(self, resource_request: Any) -> None:
        """Cancels what was asked for last."""
        _, request = self._waiting.pop()
        self._groups.cancel_resource_request(request)

    def has_resources_ready(self, resource_request: Any) -> bool:
        """Whether a place is there for whoever waits."""
        self._move()
        return any(self._ready())

    def acquire_resources(self, resource_request: Any) -> Any:
        """A place, with what it really has; None where none is ready."""
        for kind, request in self._ready():
            acquired = self._groups.acquire_resources(request)
            self._waiting.remove((kind, request))
            self._held.append((kind, acquired))
            return acquired
        return None

    def free_resources(self, acquired_resource: Any) -> None:
        """Gives a place back."""
        self._held = [(kind, acquired) for kind, acquired in self._held if acquired is not acquired_resource]
        self._groups.free_resources(acquired_resource)

    def get_resource_futures(self) -> Sequence[Any]:
        """What resolves when a place is there."""
        futures: Sequence[Any] = self._groups.get_resource_futures()
        return futures

    def update_state(self) -> None:
        """Sees which places are there."""
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
        """Asks elsewhere for what is waited for at a kind of place that is gone."""
        if not self._waiting:
            return
        kinds = {place.kind for place in self._fleet.places()}
        for lost in [(kind, request) for kind, request in self._waiting if kind not in kinds]:
            self._waiting.remove(lost)
            self._groups.cancel_resource_request(lost[1])
            self.request_resources(lost[1])
