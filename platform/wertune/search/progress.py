"""What a search says while it runs: plain lines in logs, one live table in a terminal."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

Outcome = str  # completed, pruned or failed
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
    best: float  # the least objective of all trials so far


class Progress(Protocol):
    """Hears of every trial. It is a context: left, nothing more is drawn."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """A trial runs, or runs again."""

    def epoch(self, ended: Epoch) -> None:
        """A trial goes on, or ends next."""

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """A trial is over: completed, pruned or failed, the last with its reason."""

    def say(self, text: str) -> None:
        """Anything else."""


@dataclass
class _Row:
    """A trial as it stands."""

    point: Mapping[str, Any]
    state: str = "running"
    epoch: int = 0
    since: float = 0.0  # on the clock: when the epoch that is under way began
    val_wer: float | None = None
    retention: float | None = None
    clips_per_s: float | None = None
    reason: str = ""


class Reckoning:
    """Where the trials of a search stand, and from that the time that is left of it."""

    def __init__(
        self, trials: int, epochs: int, expected_epochs: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`expected_epochs`: of all trials, as `halving.expected_epochs` has them; corrected as trials end."""
        self.trials, self.epochs, self._expected = trials, epochs, expected_epochs
        self._clock, self._start = clock, clock()
        self.rows: dict[int, _Row] = {}
        self._epochs_s: list[float] = []  # of this process: a resumed trial has more behind it
        self._at_once = 1

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """See Progress."""
        row = self.rows.setdefault(number, _Row(point))
        row.state, row.since = "running", self._clock()
        self._at_once = max(self._at_once, len(self._running()))

    def epoch(self, ended: Epoch) -> None:
        """See Progress."""
        row, now = self.rows.setdefault(ended.number, _Row({}, since=self._start)), self._clock()
        self._epochs_s.append(now - row.since)
        row.epoch, row.since = ended.epoch, now
        row.val_wer, row.retention, row.clips_per_s = ended.val_wer, ended.retention, ended.clips_per_s

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> _Row:
        """See Progress; the trial as it ended."""
        row = self.rows.setdefault(number, _Row({}))
        row.state, row.reason = outcome, reason
        return row

    def gone_s(self) -> float:
        """Since the search began, or began again."""
        return self._clock() - self._start

    def left(self) -> str:
        """What is left in words; empty before the first epoch has ended."""
        left = self.left_s()
        return "" if left is None else f"about {clock(left)} left of the search"

    def left_s(self) -> float | None:
        """Until the search ends, at the mean time of an epoch so far; None before the first one has ended.

        Either the trials that run take longest, or all that is left, shared by as many as have run at once.
        """
        if not self._epochs_s:
            return None
        epoch_s, now = sum(self._epochs_s) / len(self._epochs_s), self._clock()
        expected = self._epochs_a_trial()
        running = [self._left_of(row, expected, epoch_s, now) for row in self._running()]
        waiting = self.trials - len(self.rows)
        return epoch_s * max([0.0, *running, (sum(running) + expected * max(0, waiting)) / self._at_once])

    def _running(self) -> "list[_Row]":
        return [row for row in self.rows.values() if row.state == "running"]

    def _epochs_a_trial(self) -> float:
        """Trials are expected to run as long as those that ended, of which the plan counts as one."""
        over = [row.epoch for row in self.rows.values() if row.state not in ("running", "interrupted")]
        return (self._expected / self.trials + sum(over)) / (1 + len(over))

    def _left_of(self, row: _Row, expected: float, epoch_s: float, now: float) -> float:
        """Epochs of a trial that runs, the part of the present one that is over taken off."""
        left = min(self.epochs - row.epoch, max(1.0, expected - row.epoch))
        return max(0.0, left - min(1.0, (now - row.since) / epoch_s)) if epoch_s else left


class PlainProgress:
    """A line an epoch and one for each trial's end, as logs want it."""

    def __init__(self, say: Callable[[str], None], reckoning: Reckoning) -> None:
        self._say, self._reckoning = say, reckoning

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was held."""

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """Its first epoch is soon enough for a line."""
        self._reckoning.started(number, point)

    def epoch(self, ended: Epoch) -> None:
        """See Progress."""
        self._reckoning.epoch(ended)
        kept = "" if ended.retention is None else f", retention {100 * ended.retention:.2f} %"
        self._say(
            f"{clock(self._reckoning.gone_s())} {trial_name(ended.number)} epoch {ended.epoch}/{ended.epochs}: "
            f"WER {100 * ended.val_wer:.2f} %{kept}, {ended.clips_per_s:.1f} clips/s; "
            f"best objective so far {ended.best:.4f}"
        )

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """How far the trial came, or why it failed, and what is left of the search."""
        row = self._reckoning.ended(number, outcome, reason)
        left = self._reckoning.left()
        self._say(f"{trial_name(number)} {_end_of(row)}{f'; {left}' if left and not reason else ''}")

    def say(self, text: str) -> None:
        """See Progress."""
        self._say(text)


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
        """As Reckoning takes them."""
        from rich.console import Console
        from rich.live import Live

        self._reckoning = Reckoning(trials, epochs, expected_epochs, clock)
        self._rows = self._reckoning.rows
        self._best: float | None = None
        self._best_trial: int | None = None
        self._order: list[int] = []  # in which trials ended
        self._over = False
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
        self._over = True
        self._live.stop()

    def started(self, number: int, point: Mapping[str, Any]) -> None:
        """See Progress."""
        self._reckoning.started(number, point)

    def epoch(self, ended: Epoch) -> None:
        """See Progress."""
        self._reckoning.epoch(ended)
        if self._best is None or ended.best < self._best:
            self._best, self._best_trial = ended.best, ended.number

    def ended(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """See Progress."""
        self._reckoning.ended(number, outcome, reason)
        self._order.append(number)
        if reason:  # the table cuts it off, and has no room for it on a narrow terminal
            self.say(f"{trial_name(number)} {outcome}: {reason}")

    def say(self, text: str) -> None:
        """Above the table."""
        self.console.print(text, markup=False, highlight=False)

    def left_s(self) -> float | None:
        """See Reckoning."""
        return self._reckoning.left_s()

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
        head = f"{len(self._rows)} of {self._reckoning.trials} trials: {counts or 'starting'}"
        left = "" if self._over else self._reckoning.left()
        gone = f"{clock(self._reckoning.gone_s())} gone{f', {left}' if left else ''}"
        best = "" if self._best is None else f"best objective {self._best:.4f} ({trial_name(self._best_trial or 0)}); "
        return f"{head}\n{best}{gone}"

    def _cells(self, number: int) -> "list[Text | str]":
        from rich.text import Text

        row = self._rows[number]
        sign = Text(f"{SIGNS[row.state]} {row.state}", style=COLOURS[row.state])
        name = Text(f"{number + 1:02d}", style="bold" if number == self._best_trial else "")
        values = Text(row.reason or short_point(row.point))
        # Rich would take the room for it from all columns alike.
        values.truncate(self.console.width - sum(COLUMNS.values()) - 2 * len(COLUMNS) - 2, overflow="ellipsis")
        return [
            name,
            sign,
            f"{row.epoch}/{self._reckoning.epochs}",
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
    return PlainProgress(say, Reckoning(trials, epochs, expected_epochs))


def _end_of(row: _Row) -> str:
    """`pruned at epoch 2`, `completed, 4 epochs`, `failed: …`."""
    if row.reason:
        return f"{row.state}: {row.reason}"
    if row.state == "completed":
        return f"completed, {row.epoch} epoch{'' if row.epoch == 1 else 's'}"
    return f"{row.state} at epoch {row.epoch}"


def trial_name(number: int) -> str:
    """As it stands in MLflow and the terminal, counted from 1."""
    return f"trial {number + 1:02d}"


def percent(share: float | None) -> str:
    """Empty where it is not known."""
    return "" if share is None else f"{100 * share:.2f} %"


def short_point(point: Mapping[str, Any]) -> str:
    """The values of a configuration behind the last parts of their names, abbreviated."""
    names = ((key.rpartition(".")[2], value) for key, value in point.items())
    return " ".join(f"{ABBREVIATIONS.get(name, name)}={short(value)}" for name, value in names)


def short(value: Any) -> str:
    """Two digits of a number are enough to tell trials apart."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """`5:07`, or `1:05:07` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
