"""What a search says while it runs: plain lines in logs, one live table in a terminal."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

Outcome = str  # completed, pruned or failed
COLOURS = {"running": "cyan", "completed": "green", "pruned": "yellow", "failed": "red", "interrupted": "red"}
SIGNS = {"running": "▶", "completed": "✓", "pruned": "✂", "failed": "✗", "interrupted": "■"}
COLUMNS = {"trial": 5, "": 13, "epoch": 5, "val WER": 8, "retention": 9, "clips/s": 7}
NARROW = 100  # columns below which a trial's values are left out


class Progress(Protocol):
    """Hears of every trial; numbers count from 0, WERs are shares. It is a context: left, nothing more is drawn."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """A trial runs, or runs again."""

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        val_wer: float,
        retention: float | None,
        clips_per_s: float,
        best: float,
    ) -> None:
        """A trial has ended an epoch; `best` is the least objective of all so far."""

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """A trial is over: completed, pruned or failed, the last with its reason."""

    def say(self, text: str) -> None:
        """Anything else."""


class PlainProgress:
    """A line an epoch, as logs want it."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock, self._start = say, clock, clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was held."""

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """Its first epoch is soon enough."""

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        val_wer: float,
        retention: float | None,
        clips_per_s: float,
        best: float,
    ) -> None:
        """See Progress."""
        kept = "" if retention is None else f", retention {100 * retention:.2f} %"
        self._say(
            f"{clock(self._clock() - self._start)} {trial_name(number)} epoch {epoch}/{epochs}: "
            f"WER {100 * val_wer:.2f} %{kept}, {clips_per_s:.1f} clips/s; best objective so far {best:.4f}"
        )

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """A failure is told; other ends show in what the trial says no more."""
        if outcome == "failed":
            self._say(f"{trial_name(number)} failed: {reason}")

    def say(self, text: str) -> None:
        """See Progress."""
        self._say(text)


@dataclass
class _Row:
    """A trial as the table shows it."""

    point: Mapping[str, Any]
    state: str = "running"
    epoch: int = 0
    heard: int = 0  # epochs that ended since this process began: a resumed trial has more behind it
    val_wer: float | None = None
    retention: float | None = None
    clips_per_s: float | None = None
    reason: str = ""


class LiveTable:
    """A row a trial, drawn in place; below them the best so far and the time that is left."""

    def __init__(
        self,
        trials: int,
        epochs: int,
        expected_epochs: float,
        console: "Console | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expected_epochs`: of all trials, as `halving.expected_epochs` has them; corrected as trials end."""
        from rich.console import Console
        from rich.live import Live

        self._trials, self._epochs, self._expected = trials, epochs, expected_epochs
        self._clock, self._start = clock, clock()
        self._rows: dict[int, _Row] = {}
        self._best: float | None = None
        self._best_trial: int | None = None
        self._order: list[int] = []  # in which trials ended
        self.console = console or Console()
        self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """The last table stays; trials that still ran were interrupted."""
        for number, row in self._rows.items():
            if row.state == "running":
                self.ended(number, "interrupted")
        self._live.stop()

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """See Progress."""
        self._rows.setdefault(number, _Row(point)).state = "running"

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        val_wer: float,
        retention: float | None,
        clips_per_s: float,
        best: float,
    ) -> None:
        """See Progress."""
        row = self._rows.setdefault(number, _Row({}))
        row.epoch, row.heard = epoch, row.heard + 1
        row.val_wer, row.retention, row.clips_per_s = val_wer, retention, clips_per_s
        if self._best is None or best < self._best:
            self._best, self._best_trial = best, number

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """See Progress."""
        row = self._rows.setdefault(number, _Row({}))
        row.state, row.reason = outcome, reason
        self._order.append(number)

    def say(self, text: str) -> None:
        """Above the table."""
        self.console.print(text, markup=False, highlight=False)

    def left_s(self) -> float | None:
        """Until the search ends: epochs that are expected yet, at the pace so far; None before the first epoch."""
        done = sum(row.heard for row in self._rows.values())
        if not done:
            return None
        return self._epochs_left() * (self._clock() - self._start) / done

    def _epochs_left(self) -> float:
        """Other trials are expected to run as long as those that ended, of which the plan counts as one."""
        over = [row.epoch for row in self._rows.values() if row.state not in ("running", "interrupted")]
        mean = (self._expected / self._trials + sum(over)) / (1 + len(over))
        running = [row.epoch for row in self._rows.values() if row.state == "running"]
        started = sum(min(self._epochs - epoch, max(1.0, mean - epoch)) for epoch in running if epoch < self._epochs)
        return started + mean * max(0, self._trials - len(over) - len(running))

    def _draw(self) -> "Group":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        wide = self.console.width >= NARROW
        shown = self._shown(self.console.height - 6)
        table = Table(box=None, padding=(0, 1))
        for name, width in COLUMNS.items():
            table.add_column(name, justify="right" if name else "left", no_wrap=True, min_width=width)
        if wide:
            table.add_column("values", no_wrap=True)
        for number in shown:
            table.add_row(*self._cells(number)[: None if wide else -1])
        hidden = len(self._rows) - len(shown)
        more = [Text(f"{hidden} more that ended", style="dim")] if hidden else []
        return Group(Text(self._summary()), table, *more)

    def _shown(self, room: int) -> list[int]:
        """All rows where there is room; else those that run, the best, and those that ended last."""
        running = [number for number, row in self._rows.items() if row.state == "running"]
        ended = [number for number in reversed(self._order) if number != self._best_trial and number not in running]
        best = [self._best_trial] if self._best_trial is not None and self._best_trial not in running else []
        return sorted(dict.fromkeys([*running, *best, *ended][: max(1, room)]))

    def _summary(self) -> str:
        states = [row.state for row in self._rows.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in SIGNS if state in states)
        best = "" if self._best is None else f"; best objective {self._best:.4f} ({trial_name(self._best_trial or 0)})"
        left = self.left_s()
        rest = "" if left is None else f", about {clock(left)} left"
        text = f"{len(self._rows)} of {self._trials} trials: {counts or 'starting'}{best}"
        return f"{text}\n{clock(self._clock() - self._start)} gone{rest}"

    def _cells(self, number: int) -> "list[Text | str]":
        from rich.text import Text

        row = self._rows[number]
        sign = Text(f"{SIGNS[row.state]} {row.state}", style=COLOURS[row.state])
        name = Text(f"{number + 1:02d}", style="bold" if number == self._best_trial else "")
        values = Text(row.reason or " ".join(f"{key}={short(value)}" for key, value in row.point.items()))
        # Rich would take the room for it from all columns alike.
        values.truncate(self.console.width - sum(COLUMNS.values()) - 2 * len(COLUMNS) - 2, overflow="ellipsis")
        return [
            name,
            sign,
            f"{row.epoch}/{self._epochs}",
            percent(row.val_wer),
            percent(row.retention),
            "" if row.clips_per_s is None else f"{row.clips_per_s:.1f}",
            values,
        ]


def progress_for(
    say: Callable[[str], None], trials: int, epochs: int, expected_epochs: float, stdout: IO[str] | None = None
) -> Progress:
    """The table where standard output is a terminal; lines in logs and in CI."""
    if (stdout or sys.stdout).isatty() and "CI" not in os.environ and os.environ.get("TERM") != "dumb":
        return LiveTable(trials, epochs, expected_epochs)
    return PlainProgress(say)


def trial_name(number: int) -> str:
    """As it stands in MLflow and the terminal, counted from 1."""
    return f"trial {number + 1:02d}"


def percent(share: float | None) -> str:
    """Empty where it is not known."""
    return "" if share is None else f"{100 * share:.2f} %"


def short(value: Any) -> str:
    """Two digits of a number are enough to tell trials apart."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """`5:07`, or `1:05:07` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
