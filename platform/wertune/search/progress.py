"""What a search says while it runs: plain lines in logs, one live table in a terminal."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

COLOURS = {"running": "cyan", "completed": "green", "pruned": "yellow", "failed": "red", "interrupted": "red"}
SIGNS = {"running": "▶", "completed": "✓", "pruned": "✂", "failed": "✗", "interrupted": "■"}
COLUMNS = {"trial": 5, "": 13, "epoch": 5, "val WER": 8, "retention": 9, "clips/s": 7}
ABBREVIATIONS = {"learning_rate": "lr", "learning_rate_ratio": "ratio", "target_modules": "on", "dropout": "drop"}
NARROW = 100  # columns below which a trial's values are left out


class Epoch(NamedTuple):
    """An epoch that a trial has ended; numbers of trials count from 0, WERs are shares."""

    number: int
    epoch: int
    epochs: int
    val_wer: float
    retention: float | None
    clips_per_s: float
    best: float  # the trial's least objective so far


@dataclass
class _Row:
    """A trial as it stands."""

    point: Mapping[str, Any]
    since: float  # on the clock: when the epoch that is under way began
    state: str = "running"
    last: Epoch | None = None
    reason: str = ""

    @property
    def epoch(self) -> int:
        return self.last.epoch if self.last else 0


class Progress:
    """Hears of every trial, tells of it in lines or on a console, and reckons what is left of the search.

    It is a context: left, nothing more is drawn.
    """

    def __init__(
        self,
        trials: int,
        epochs: int,
        expected_epochs: float,
        say: Callable[[str], None] = print,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`expected_epochs`: of all trials; corrected as they end. `say` takes the lines where there is no console."""
        self._trials, self._epochs, self._expected = trials, epochs, expected_epochs
        self._clock, self._start = clock, clock()
        self._rows: dict[int, _Row] = {}
        self._ended: list[int] = []  # in which order
        self._epochs_s: list[float] = []  # of this process: a resumed trial has more behind it
        self._at_once = 1
        self._best: Epoch | None = None
        self._over = False
        self._say, self.console = say, console
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console:
            self._live = Live(console=self.console, get_renderable=self.draw, refresh_per_second=2)
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """The last table stays; trials that still ran were interrupted."""
        for number, row in self._running().items():
            row.state = "interrupted"
            self._ended.append(number)
        self._over = True
        if self._live:
            self._live.stop()

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """A trial runs, or runs again; in logs its first epoch is soon enough for a line."""
        row = self._row(number, point)
        row.state, row.since = "running", self._clock()
        self._at_once = max(self._at_once, len(self._running()))

    def epoch(self, ended: Epoch) -> None:
        """A trial goes on, or ends next; an epoch that is told again is known already."""
        row, now = self._row(ended.number), self._clock()
        if ended.epoch <= row.epoch:
            return
        self._epochs_s.append(now - row.since)
        row.last, row.since = ended, now
        if self._best is None or ended.best < self._best.best:
            self._best = ended
        if not self.console:
            kept = "" if ended.retention is None else f", retention {percent(ended.retention)}"
            self._say(
                f"{self._gone()} {trial_name(ended.number)} epoch {ended.epoch}/{ended.epochs}: "
                f"WER {percent(ended.val_wer)}{kept}, {ended.clips_per_s:.1f} clips/s; "
                f"best objective so far {self._best.best:.4f}"
            )

    def ended(self, number: int, outcome: str, reason: str = "") -> None:
        """A trial is over: completed, pruned or failed, the last with its reason."""
        row = self._row(number)
        row.state, row.reason = outcome, reason
        self._ended.append(number)
        if reason:  # the table cuts it off, and has no room for it on a narrow terminal
            self.say(f"{trial_name(number)} {outcome}: {reason}")
        elif not self.console:
            epochs = f"{row.epoch} epoch{'' if row.epoch == 1 else 's'}"
            end = f"completed, {epochs}" if outcome == "completed" else f"{outcome} at epoch {row.epoch}"
            self._say("; ".join(filter(None, [f"{trial_name(number)} {end}", self._left()])))

    def say(self, text: str) -> None:
        """Anything else; above the table."""
        if self.console:
            self.console.print(text, markup=False, highlight=False)
        else:
            self._say(text)

    def left_s(self) -> float | None:
        """Until the search ends, at the mean time of an epoch so far; None before the first one has ended.

        Either the trials that run take longest, or all that is left, shared by as many as have run at once.
        """
        if not self._epochs_s:
            return None
        epoch_s, now = sum(self._epochs_s) / len(self._epochs_s), self._clock()
        expected = self._epochs_a_trial()
        running = [self._left_of(row, expected, epoch_s, now) for row in self._running().values()]
        waiting = max(0, self._trials - len(self._rows))
        return epoch_s * max([0.0, *running, (sum(running) + expected * waiting) / self._at_once])

    def _epochs_a_trial(self) -> float:
        """Trials are expected to run as long as those that ended, of which the plan counts as one."""
        over = [row.epoch for row in self._rows.values() if row.state not in ("running", "interrupted")]
        return (self._expected / self._trials + sum(over)) / (1 + len(over))

    def _left_of(self, row: _Row, expected: float, epoch_s: float, now: float) -> float:
        """Epochs of a trial that runs, the part of the present one that is over taken off."""
        left = min(self._epochs - row.epoch, max(1.0, expected - row.epoch))
        return max(0.0, left - min(1.0, (now - row.since) / epoch_s)) if epoch_s else left

    def _row(self, number: int, point: Mapping[str, Any] | None = None) -> _Row:
        return self._rows.setdefault(number, _Row(point or {}, self._start))

    def _running(self) -> dict[int, _Row]:
        return {number: row for number, row in self._rows.items() if row.state == "running"}

    def _left(self) -> str:
        """In words; empty before the first epoch has ended."""
        left = None if self._over else self.left_s()
        return "" if left is None else f"about {clock(left)} left of the search"

    def _gone(self) -> str:
        """Since the search began, or began again."""
        return clock(self._clock() - self._start)

    def draw(self) -> Group:
        """A row a trial; above them the best so far and the time that is left."""
        assert self.console
        wide, shown = self.console.width >= NARROW, self._shown(self.console.height - 6)
        table = Table(box=None, padding=(0, 1), expand=wide)
        for name, width in COLUMNS.items():
            table.add_column(name, justify="right" if name else "left", no_wrap=True, min_width=width)
        if wide:
            table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1)
        for number in shown:
            table.add_row(*self._cells(number)[: None if wide else -1])
        hidden = len(self._rows) - len(shown)
        more = [Text(f"{hidden} more that ended", style="dim")] if hidden else []
        return Group(Text(self._summary()), table, *more)

    def _shown(self, room: int) -> list[int]:
        """All rows where there is room; else those that run, the best, and those that ended last."""
        best = [self._best.number] if self._best else []
        return sorted([*dict.fromkeys([*self._running(), *best, *reversed(self._ended)])][: max(1, room)])

    def _summary(self) -> str:
        states = [row.state for row in self._rows.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in SIGNS if state in states)
        head = f"{len(self._rows)} of {self._trials} trials: {counts or 'starting'}"
        best = f"best objective {self._best.best:.4f} ({trial_name(self._best.number)}); " if self._best else ""
        return f"{head}\n{best}" + ", ".join(filter(None, [f"{self._gone()} gone", self._left()]))

    def _cells(self, number: int) -> list[Text | str]:
        row = self._rows[number]
        is_best = self._best is not None and number == self._best.number
        return [
            Text(f"{number + 1:02d}", style="bold" if is_best else ""),
            Text(f"{SIGNS[row.state]} {row.state}", style=COLOURS[row.state]),
            f"{row.epoch}/{self._epochs}",
            percent(row.last and row.last.val_wer),
            percent(row.last and row.last.retention),
            f"{row.last.clips_per_s:.1f}" if row.last else "",
            Text(row.reason or short_point(row.point)),
        ]


def terminal(stdout: IO[str]) -> Console | None:
    """Where a table can be drawn: none in logs and in CI."""
    return Console() if stdout.isatty() and "CI" not in os.environ and os.environ.get("TERM") != "dumb" else None


def trial_name(number: int) -> str:
    """As it stands in MLflow and the terminal, counted from 1."""
    return f"trial {number + 1:02d}"


def percent(share: float | None) -> str:
    """Empty where it is not known."""
    return "" if share is None else f"{100 * share:.2f} %"


def short_point(point: Mapping[str, Any]) -> str:
    """The values of a configuration behind the last parts of their names, abbreviated; two digits tell trials apart."""
    names = ((key.rpartition(".")[2], value) for key, value in point.items())
    return " ".join(
        f"{ABBREVIATIONS.get(name, name)}={f'{value:.2g}' if isinstance(value, float) else value}"
        for name, value in names
    )


def clock(seconds: float) -> str:
    """`5:07`, or `1:05:07` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
