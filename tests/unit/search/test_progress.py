"""Progress in lines and as a table: what it shows, what is left, and which of the two it is."""

from collections.abc import Callable
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from wertune.search.progress import Epoch, Progress, clock, terminal

POINT = {"train.learning_rate": 8.1234e-4, "lora.r": 16}


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def table(time: Clock) -> Callable[..., Progress]:
    """`table(trials, epochs, expected, width, height)`: on a terminal of a recording console."""

    def make(trials: int = 3, epochs: int = 4, expected: float = 6.0, width: int = 120, height: int = 40) -> Progress:
        console = Console(
            record=True, force_terminal=True, width=width, height=height, file=StringIO(), _environ={"TERM": "xterm"}
        )
        return Progress(trials, epochs, expected, console=console, clock=time)

    return make


def _text(table: Progress) -> str:
    table.console.print(table.draw())
    return table.console.export_text()


def _row(text: str, number: int) -> str:
    return " ".join(next(line for line in text.splitlines() if line.split()[:1] == [f"{number:02d}"]).split())


def test_lines_are_those_of_logs(time: Clock) -> None:
    said: list[str] = []
    with Progress(3, 4, 6.0, said.append, clock=time) as progress:
        progress.started(0, POINT)
        time.now += 67
        progress.epoch(Epoch(0, 1, 4, 0.12345, 0.031, 14.26, 0.1567))
        progress.epoch(Epoch(0, 2, 4, 0.1, None, 14.0, 0.1))
        progress.ended(0, "pruned")
        progress.ended(1, "failed", "ConfigError: no such layer")
        progress.say("registered")
    assert said == [
        "1:07 trial 01 epoch 1/4: WER 12.35 %, retention 3.10 %, 14.3 clips/s; best objective so far 0.1567",
        "1:07 trial 01 epoch 2/4: WER 10.00 %, 14.0 clips/s; best objective so far 0.1000",
        "trial 01 pruned at epoch 2; about 2:14 left of the search",  # two trials of two epochs, of 33.5 s each
        "trial 02 failed: ConfigError: no such layer",
        "registered",
    ]


def test_lines_tell_what_is_left_as_the_table_does(table: Callable[..., Progress], time: Clock) -> None:
    said: list[str] = []
    live, lines = table(trials=3, epochs=4, expected=6.0), Progress(3, 4, 6.0, said.append, clock=time)
    for progress in (live, lines):
        progress.started(0, POINT)
    for epoch in (1, 2, 3, 4):
        time.now += 20
        for progress in (live, lines):
            progress.epoch(Epoch(0, epoch, 4, 0.1, None, 14.0, 0.1))
    for progress in (live, lines):
        progress.ended(0, "completed")
    assert said[-1] == f"trial 01 completed, 4 epochs; about {clock(live.left_s() or 0)} left of the search"
    assert live.left_s() == pytest.approx(2 * 3 * 20)


def test_a_row_tells_a_trial(table: Callable[..., Progress], time: Clock) -> None:
    live = table()
    live.started(0, POINT)
    live.started(1, {"lora.r": 4})
    time.now += 20
    live.epoch(Epoch(0, 1, 4, 0.2, 0.03, 14.2, 0.25))
    live.epoch(Epoch(1, 1, 4, 0.1, None, 15.0, 0.1))
    live.ended(0, "pruned")
    live.started(2, {})
    live.ended(2, "failed", "ValueError: of [bold]layers[/bold]")
    text = _text(live)
    assert _row(text, 1) == "01 ✂ pruned 1/4 20.00 % 3.00 % 14.2 lr=0.00081 r=16"
    assert _row(text, 2) == "02 ▶ running 1/4 10.00 % 15.0 r=4"
    assert _row(text, 3) == "03 ✗ failed 0/4 ValueError: of [bold]layers[/bold]"
    assert "3 of 3 trials: 1 running, 1 pruned, 1 failed\nbest objective 0.1000 (trial 02); 0:20 gone, about " in text


def test_long_values_are_cut_and_figures_are_not(table: Callable[..., Progress]) -> None:
    live = table(width=110)
    live.started(0, {f"augment.frequency_mask_bins_{number}": number for number in range(9)})
    live.epoch(Epoch(0, 1, 4, 0.2, 0.03, 14.2, 0.25))
    assert _row(_text(live), 1).startswith("01 ▶ running 1/4 20.00 % 3.00 % 14.2 frequency_mask_bins_0=0 ")
    assert _row(_text(live), 1).endswith("…")


def test_a_narrow_terminal_leaves_out_the_values(table: Callable[..., Progress]) -> None:
    live = table(width=80)
    live.started(0, POINT)
    live.epoch(Epoch(0, 1, 4, 0.2, 0.03, 14.2, 0.25))
    text = _text(live)
    assert "r=16" not in text
    assert _row(text, 1) == "01 ▶ running 1/4 20.00 % 3.00 % 14.2"
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_low_terminal_keeps_what_matters(table: Callable[..., Progress]) -> None:
    live = table(trials=40, width=80, height=11)
    for number in range(30):
        live.started(number, {})
        live.epoch(Epoch(number, 1, 4, 0.2, None, 14.0, 0.05 if number == 3 else 0.1))
        if number < 28:
            live.ended(number, "pruned")
    text = _text(live)
    shown = [line.split()[0] for line in text.splitlines() if "14.0" in line]
    assert shown == ["04", "27", "28", "29", "30"]
    assert "25 more that ended" in text
    assert "30 of 40 trials" in text


def test_what_is_left_is_told_from_the_first_epoch_on(table: Callable[..., Progress], time: Clock) -> None:
    live = table(trials=2, epochs=4, expected=6.0)
    assert live.left_s() is None
    live.started(0, {})
    time.now += 10
    live.epoch(Epoch(0, 1, 4, 0.2, None, 14.0, 0.2))
    assert live.left_s() == pytest.approx((2 + 3) * 10)  # two more of this one, three of the other
    live.ended(0, "pruned")
    live.started(1, {})
    assert live.left_s() == pytest.approx(2 * 10)  # what ended counts as much as the plan: (3 + 1) / 2
    for epoch in (1, 2, 3, 4):
        time.now += 10
        live.epoch(Epoch(1, epoch, 4, 0.2, None, 14.0, 0.2))
    assert live.left_s() == 0
    live.ended(1, "completed")
    assert live.left_s() == 0


def test_trials_side_by_side_share_what_is_left(table: Callable[..., Progress], time: Clock) -> None:
    """The first of four to end an epoch says nothing of the others but that they are as far."""
    live = table(trials=8, epochs=4, expected=16.0)
    for number in range(4):
        live.started(number, {})
    time.now += 10
    live.epoch(Epoch(0, 1, 4, 0.2, None, 14.0, 0.2))
    # One more epoch of the first, one each of the other three, that are at its end, and two of each of four trials.
    assert live.left_s() == pytest.approx((1 + 3 * 1 + 4 * 2) * 10 / 4)
    time.now += 4
    assert live.left_s() == pytest.approx((0.6 + 3 * 1 + 4 * 2) * 10 / 4)
    for number in range(1, 4):
        live.ended(number, "pruned")
    for number in range(4, 8):
        live.started(number, {})
        live.ended(number, "pruned")
    live.epoch(Epoch(0, 2, 4, 0.2, None, 14.0, 0.2))
    assert live.left_s() == pytest.approx((10 + 4) / 2)  # one trial alone cannot share its last epoch


def test_what_is_left_is_no_longer_told_at_the_end(table: Callable[..., Progress], time: Clock) -> None:
    live = table()
    with live:
        live.started(0, {})
        time.now += 10
        live.epoch(Epoch(0, 1, 4, 0.2, None, 14.0, 0.2))
        assert " left of the search" in _text(live)
    assert " left" not in _text(live)


def test_a_failure_is_told_where_the_table_has_no_room_for_it(table: Callable[..., Progress]) -> None:
    live = table(width=80)
    live.started(0, POINT)
    live.ended(0, "failed", "OutOfMemory: halved once")
    assert live.console.export_text() == "trial 01 failed: OutOfMemory: halved once\n"


def test_a_resumed_trial_does_not_count_what_another_process_did(table: Callable[..., Progress], time: Clock) -> None:
    live = table(trials=1, epochs=4, expected=4.0)
    live.started(0, {})
    time.now += 10
    live.epoch(Epoch(0, 3, 4, 0.2, None, 14.0, 0.2))
    assert live.left_s() == pytest.approx(10)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["epoch", "pruned", "failed", "completed"]))))
def test_nothing_that_trials_do_breaks_it(events: list[tuple[int, str]]) -> None:
    live = Progress(
        5, 4, 9.0, console=Console(force_terminal=True, width=100, height=8, file=StringIO()), clock=Clock()
    )
    epochs = dict.fromkeys(range(5), 0)
    for number, event in events:
        live.started(number, POINT)
        if event == "epoch":
            epochs[number] = min(4, epochs[number] + 1)
            live.epoch(Epoch(number, epochs[number], 4, 0.1, None, 1.0, 0.1))
        else:
            live.ended(number, event)
        left = live.left_s()
        assert left is None or left >= 0
        live.console.print(live.draw())


def test_it_is_drawn_in_place_and_the_last_one_stays(table: Callable[..., Progress]) -> None:
    live = table()
    with live:
        live.started(0, POINT)
        live.say("checking [data]")
    text = live.console.export_text()
    assert "checking [data]" in text
    assert "■ interrupted" in text


class Stream(StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


def test_a_table_is_for_terminals_only(environment: pytest.MonkeyPatch) -> None:
    assert terminal(Stream(terminal=True))
    assert not terminal(Stream(terminal=False))
    environment.setenv("CI", "true")
    assert not terminal(Stream(terminal=True))
    environment.delenv("CI")
    environment.setenv("TERM", "dumb")
    assert not terminal(Stream(terminal=True))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (67.9, "1:07"), (3599, "59:59"), (3661, "1:01:01")])
def test_clocks(seconds: float, text: str) -> None:
    assert clock(seconds) == text
