"""How far a work of many clips is, for whoever waits: a line every quarter of a minute, in terminals and logs alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

EVERY_S = 15.0
_listener: ContextVar[Callable[[int], object] | None] = ContextVar("listener", default=None)


class Steps:
    """Hears of clips that are done, and says how many of them are and how long the others will take."""

    def __init__(
        self,
        what: str,
        total: int,
        say: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        unit: str = "clips",
    ) -> None:
        """Nothing is said of a work that takes less than a quarter of a minute."""
        self._what, self._total, self._say, self._clock, self._unit = what, total, say, clock, unit
        self._done, self._start = 0, clock()
        self._said = self._start

    def __call__(self, clips: int) -> None:
        """So many more are done."""
        if self._done >= self._total:  # what is cut at pauses is counted by the piece: there are a few more
            return
        self._done += clips
        now = self._clock()
        if self._done and now - self._said >= EVERY_S:
            self._said = now
            done = min(self._done, self._total)
            left_s = (now - self._start) * (self._total - done) / done
            self._say(f"  {self._what}: {done} of {self._total} {self._unit}, about {minutes(left_s)} left")


def minutes(seconds: float) -> str:
    """2:05; hours are minutes, too."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


@contextmanager
def heard_by(listener: Callable[[int], object]) -> Iterator[None]:
    """Within the block, `listener` is told of each batch of clips that is transcribed: how many it has."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def clips_are_done(clips: int) -> None:
    """Tells whoever listens."""
    if listener := _listener.get():
        listener(clips)
