"""One at a time: over tags alone, beside an SQLite file, and with owners that die or fall asleep."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wergate.errors import LockError
from wergate.registry import locks
from wergate.registry.locks import MAX_LEASE_S, WAIT_S, DatabaseLock, Ticket, database_lock, hold
from wertune.base.contract import TICKET_PREFIX

DEAD = '{"token": "dead", "lease_s": 0.2, "direct": %s, "number": 1, "beat": 0, "owner": "dead@there:1"}'


class Board:
    """Tags in memory; every call is whole, as a registry's are."""

    name = "demo"

    def __init__(self) -> None:
        self._tags: dict[str, str] = {}

    def tags(self) -> Mapping[str, str]:
        return dict(self._tags)

    def set_tag(self, key: str, value: str) -> None:
        time.sleep(0)  # lets another thread in between
        self._tags[key] = value

    def delete_tag(self, key: str) -> None:
        self._tags.pop(key, None)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_S", 0.001)


def _file_lock(tmp_path: Path) -> DatabaseLock:
    lock = database_lock(f"sqlite:///{tmp_path / 'mlflow.db'}", "demo")
    assert lock is not None
    return lock


@pytest.mark.parametrize("kinds", ["http", "sqlite", "mixed"])
def test_of_many_threads_one_is_inside(tmp_path: Path, kinds: str) -> None:
    model, inside, seen = Board(), [0], []

    def work(position: int) -> None:
        direct = kinds == "sqlite" or (kinds == "mixed" and position % 2 == 0)
        for _ in range(10):
            with hold(model, _file_lock(tmp_path) if direct else None, f"thread {position}") as lease:
                inside[0] += 1
                time.sleep(0.0005)
                lease.check()
                seen.append(inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(position,)) for position in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 60
    assert model.tags() == {}


def test_the_ticket_of_the_dead_is_thrown_away_after_its_lease() -> None:
    model = Board()
    model.set_tag(TICKET_PREFIX + "dead", DEAD % "false")
    with hold(model, None, "me"):
        assert TICKET_PREFIX + "dead" not in model.tags()
    assert model.tags() == {}


def test_who_holds_the_database_lock_need_not_wait_for_a_dead_ticket_of_such(tmp_path: Path) -> None:
    model = Board()
    model.set_tag(TICKET_PREFIX + "dead", (DEAD % "true").replace("0.2", "300"))
    with hold(model, _file_lock(tmp_path), "me", wait_s=30):
        assert TICKET_PREFIX + "dead" not in model.tags()


def test_a_ticket_that_is_renewed_is_waited_for() -> None:
    model = Board()
    model.set_tag(TICKET_PREFIX + "dead", (DEAD % "false").replace("0.2", "300"))
    with pytest.raises(LockError, match="demo is still held by dead@there:1"), hold(model, None, "me", wait_s=0.05):
        pass
    assert list(model.tags()) == [TICKET_PREFIX + "dead"]


UNREADABLE = [
    {"number": "1"},
    {"number": 1.5},
    {"number": True},
    {"number": -1},
    {"number": 10**4000},
    {"beat": "0"},
    {"lease_s": "0.3"},
    {"lease_s": 0},
    {"lease_s": -1},
    {"lease_s": 301},
    {"lease_s": 1e18},
    {"lease_s": float("nan")},
    {"lease_s": float("inf")},
    {"lease_s": None},
    {"direct": "false"},
    {"direct": 0},
    {"owner": ["a"]},
    {"more": 1},
]


@pytest.mark.parametrize(
    "value",
    ["nonsense", "", "7", "[]", "{}", "[" * 100_000, *(json.dumps(json.loads(DEAD % "false") | v) for v in UNREADABLE)],
    ids=lambda value: value[:90],
)
def test_a_ticket_that_nobody_can_read_is_waited_for_and_thrown_away(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 0.05)
    model = Board()
    model.set_tag(TICKET_PREFIX + "odd", value)
    with pytest.raises(LockError, match="held by an unreadable ticket"), hold(model, None, "me", wait_s=0.01):
        pass
    with hold(model, None, "me", wait_s=30, lease_s=10):
        assert TICKET_PREFIX + "odd" not in model.tags()
    assert model.tags() == {}


@pytest.mark.parametrize("token", ["other", ""])
def test_a_ticket_is_thrown_away_by_its_tag_whatever_token_it_tells(token: str) -> None:
    model = Board()
    model.set_tag(TICKET_PREFIX + "odd", (DEAD % "false").replace('"token": "dead"', f'"token": "{token}"'))
    with hold(model, None, "me", wait_s=30):
        assert TICKET_PREFIX + "odd" not in model.tags()
    assert model.tags() == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted(Ticket.model_fields)), inner),
)


@given(
    st.text() | JSON.map(json.dumps) | st.fixed_dictionaries(dict.fromkeys(Ticket.model_fields, JSON)).map(json.dumps)
)
def test_whatever_a_tag_holds_is_a_ticket_that_dies(value: str) -> None:
    ticket = locks._ticket(TICKET_PREFIX + "odd", value)
    assert ticket.key == TICKET_PREFIX + "odd"
    assert 0 < ticket.lease_s <= MAX_LEASE_S < WAIT_S
    assert Ticket.model_validate(ticket.model_dump()) == ticket


@given(
    st.builds(
        Ticket,
        token=st.just("mine"),
        lease_s=st.floats(0, MAX_LEASE_S, exclude_min=True),
        number=st.integers(0, 2**53 - 1),
        owner=st.text(),
    )
)
def test_what_one_promoter_writes_another_reads(ticket: Ticket) -> None:
    assert locks._ticket(ticket.key, json.dumps(ticket.model_dump())) == ticket


def test_who_slept_longer_than_the_lease_may_not_move() -> None:
    with hold(Board(), None, "me", lease_s=0.05) as lease:
        time.sleep(0.1)
        with pytest.raises(LockError, match="ran out"):
            lease.check()


def test_who_is_thrown_out_of_the_line_goes_to_its_end() -> None:
    class Sweeping(Board):
        swept = 0

        def tags(self) -> Mapping[str, str]:
            if self.swept < 3:
                self.swept += 1
                self._tags.clear()
            return super().tags()

    model = Sweeping()
    with hold(model, None, "me") as lease:
        lease.check()
        assert len(model.tags()) == 1
    model.swept = 0
    with pytest.raises(LockError, match="was taken over"), hold(model, None, "me", wait_s=-1):
        pass


def test_a_cut_connection_is_noticed() -> None:
    @contextmanager
    def cut(wait_s: float) -> Iterator[object]:
        yield lambda: False

    model = Board()
    with hold(model, cut, "me") as lease, pytest.raises(LockError, match="the database lock on demo is gone"):  # type: ignore[arg-type]
        lease.check()


def test_the_file_lock_is_given_back_by_kill_9(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from wergate.registry.locks import database_lock\n"
        f"with database_lock('sqlite:///{tmp_path / 'mlflow.db'}', 'demo')(1.0):\n"
        "    print('held', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockError, match="demo is still held by another process"), _file_lock(tmp_path)(0.05):
            pass
        process.kill()
        process.wait()
        with _file_lock(tmp_path)(1.0) as still_locked:
            assert still_locked()


def test_each_model_has_a_file_lock_of_its_own(tmp_path: Path) -> None:
    other = database_lock(f"sqlite:///{tmp_path / 'mlflow.db'}", "other")
    assert other is not None
    with _file_lock(tmp_path)(0.0), other(0.0) as still_locked:
        assert still_locked()


@pytest.mark.parametrize("uri", ["http://localhost:5000", "https://mlflow.example", "mysql://host/db"])
def test_elsewhere_there_are_tickets_only(uri: str) -> None:
    assert database_lock(uri, "demo") is None
