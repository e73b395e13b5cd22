"""One promoter at a time for a model: a database lock where the database is reached, and a ticket for everybody.

The ticket is Lamport's bakery (1974, doi:10.1145/361082.361093) on tags of the registered model. Each promoter writes
only its own tag, so that no write is ever lost to another; who has the lowest number goes first, in order of arrival.
It needs nothing but a registry whose reads see every finished write (not a read replica), and so it also holds
between those who reach the database and those who come over HTTP. A ticket that nobody has renewed for `lease_s`,
by the watch of who waits, belongs to the dead and is thrown away; its owner, should it live, finds that out by its
own watch before it moves anything. No two clocks are compared. What is left over HTTP: a single request that hangs
on its way for longer than `lease_s`; the check after each move mends that.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from wergate.errors import LockError, LockLost
from wergate.trail.records import new_token
from wergate.trail.registered_model import ModelTags
from wertune.base.config import Frozen
from wertune.base.contract import TICKET_PREFIX
from wertune.base.files import sqlite_file, take_lock

LEASE_S = 60.0
WAIT_S = 600.0
MAX_LEASE_S = WAIT_S / 2  # whoever waits must live to see the lease of the dead run out
POLL_S = 0.1
FILE_POLL_S = 0.02

DatabaseLock = Callable[[float], AbstractContextManager[Callable[[], bool]]]


class Ticket(Frozen, strict=True):
    """`number` 0 is being drawn; `beat` changes with every renewal; `direct` owners hold the database's lock too."""

    token: str
    lease_s: float = Field(gt=0, le=MAX_LEASE_S)
    direct: bool
    number: int = Field(0, ge=0, lt=2**53)
    beat: int = 0
    owner: str = ""

    @property
    def key(self) -> str:
        return TICKET_PREFIX + self.token

    def before(self, other: "Ticket") -> bool:
        """Whether `other` must wait for this one."""
        return self.number == 0 or (self.number, self.token) < (other.number, other.token)


class Lease:
    """This process's ticket."""

    def __init__(self, model: ModelTags, ticket: Ticket, still_locked: Callable[[], bool]) -> None:
        self._model = model
        self._ticket = ticket
        self._still_locked = still_locked
        self._renewed = time.monotonic()

    def check(self) -> None:
        """LockLost unless both the database's lock and the ticket are still this process's."""
        if not self._still_locked():
            raise LockLost(f"the database lock on {self._model.name} is gone; was the connection cut? start again")
        if time.monotonic() - self._renewed > self._ticket.lease_s / 4:
            self._write(self._ticket.model_copy(update={"beat": self._ticket.beat + 1}))

    def take(self, deadline: float) -> None:
        """Draws a number and waits for all lower ones."""
        self._write(self._ticket)
        number = 1 + max((ticket.number for ticket in self._others()), default=0)
        self._write(self._ticket.model_copy(update={"number": number}))
        watch = _Watch(self._ticket.direct)
        while ahead := [ticket for ticket in self._others() if ticket.before(self._ticket)]:
            for dead in watch.dead(ahead):
                self._model.delete_tag(dead.key)
            if time.monotonic() > deadline:
                raise LockError(f"{self._model.name} is still held by {ahead[0].owner}; wait for it and start again")
            self.check()
            # Who is next looks often, the others seldom: each look costs the server an answer.
            time.sleep(POLL_S * len(ahead) ** 2 * random.uniform(0.5, 1.5))

    def drop(self) -> None:
        self._model.delete_tag(self._ticket.key)

    def _others(self) -> list[Ticket]:
        tags = self._model.tags().items()
        tickets = [_ticket(key, value) for key, value in tags if key.startswith(TICKET_PREFIX)]
        if self._ticket.key not in {ticket.key for ticket in tickets}:
            raise LockLost(f"the lock on {self._model.name} was taken over: this process was silent for too long")
        return [ticket for ticket in tickets if ticket.key != self._ticket.key]

    def _write(self, ticket: Ticket) -> None:
        """A write that comes back too late may have brought a dead ticket back to life: it is void."""
        started = time.monotonic()
        self._model.set_tag(ticket.key, json.dumps(ticket.model_dump()))
        if time.monotonic() - self._renewed >= ticket.lease_s:
            raise LockLost(f"the lock on {self._model.name} ran out: the registry did not answer within its lease")
        self._ticket, self._renewed = ticket, started


class _Watch:
    """Tells the dead from the living by what it has seen itself."""

    def __init__(self, direct: bool) -> None:
        self._direct = direct
        self._seen: dict[str, tuple[Ticket, float]] = {}

    def dead(self, tickets: list[Ticket]) -> list[Ticket]:
        """Those unchanged for their lease; and, under the database's lock, all whose owner would have to hold it."""
        now = time.monotonic()
        for ticket in tickets:
            if self._seen.get(ticket.key, (None, 0.0))[0] != ticket:
                self._seen[ticket.key] = (ticket, now)
        return [t for t in tickets if (self._direct and t.direct) or now - self._seen[t.key][1] > t.lease_s]


def _ticket(key: str, value: str) -> Ticket:
    """A ticket that cannot be read counts as one being drawn: it is waited for, and then thrown away."""
    token = key.removeprefix(TICKET_PREFIX)  # not what the ticket says: by its tag it is thrown away
    try:
        return Ticket.model_validate_json(value).model_copy(update={"token": token})
    except ValidationError:
        return Ticket(token=token, lease_s=LEASE_S, direct=False, owner="an unreadable ticket")


@contextmanager
def hold(
    model: ModelTags,
    database_lock: DatabaseLock | None,
    owner: str,
    wait_s: float = WAIT_S,
    lease_s: float = LEASE_S,
) -> Iterator[Lease]:
    """The model's lock; `database_lock` is None where the registry is reached over HTTP only.

    Raises LockError when it is not got within `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    blank = Ticket(token="", lease_s=lease_s, direct=database_lock is not None, owner=owner)
    with database_lock(wait_s) if database_lock else nullcontext(lambda: True) as still_locked:
        lease = _first_in_line(model, blank, still_locked, deadline)
        try:
            yield lease
        finally:
            lease.drop()


def _first_in_line(model: ModelTags, blank: Ticket, still_locked: Callable[[], bool], deadline: float) -> Lease:
    """A lease that has come to its turn; who slept in the line goes to its end with a new ticket."""
    while True:
        lease = Lease(model, blank.model_copy(update={"token": new_token()}), still_locked)
        try:
            lease.take(deadline)
        except LockLost:
            lease.drop()
            if time.monotonic() > deadline or not still_locked():
                raise
        except BaseException:
            lease.drop()
            raise
        else:
            return lease


def database_lock(uri: str, name: str) -> DatabaseLock | None:
    """The lock that the registry's URI allows; None for HTTP and for databases that have no lock here."""
    if (file := sqlite_file(uri)) is not None:
        return partial(_file_lock, file, name)
    if uri.startswith(("postgresql:", "postgresql+", "postgres:")):
        return partial(_advisory_lock, uri, name)
    return None


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"wergate:{name}".encode()).digest()


@contextmanager
def _file_lock(database: Path, name: str, wait_s: float) -> Iterator[Callable[[], bool]]:
    """flock on a file beside the SQLite database: the kernel drops it with the process, kill -9 included.

    The file stays: to remove it would let a second holder lock a new file of the same name.
    """
    database = database.resolve()
    path = database.with_name(f"{database.name}-{_digest(name).hex()[:12]}.lock")
    deadline = time.monotonic() + wait_s
    with path.open("a", encoding="utf-8") as file:
        while not take_lock(file, wait=False):
            if time.monotonic() > deadline:
                raise LockError(f"{name} is still held by another process on {path}; wait for it and start again")
            time.sleep(FILE_POLL_S)
        yield lambda: True


@contextmanager
def _advisory_lock(uri: str, name: str, wait_s: float) -> Iterator[Callable[[], bool]]:
    """PostgreSQL's session lock on the model's name: the server drops it with the connection.

    A pooler that shares sessions between clients (pgbouncer in transaction mode) breaks it: connect without one.
    """
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    key = int.from_bytes(_digest(name)[:8], signed=True)
    engine = sa.create_engine(uri.replace("postgres:", "postgresql:", 1), poolclass=NullPool)
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except sa.exc.OperationalError as error:
        text = " ".join(str(error.orig).split())
        raise LockError(f"PostgreSQL does not answer: {text}; check MLFLOW_TRACKING_URI") from None
    with connection:
        connection.execute(sa.text(f"SET lock_timeout = {max(1, round(wait_s * 1000))}"))
        try:
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        except sa.exc.OperationalError:
            raise LockError(f"{name} is still locked in PostgreSQL after {wait_s:.0f} s; start again later") from None
        yield partial(_still_holds, connection)


def _still_holds(connection: Any) -> bool:
    """Whether this session has its one advisory lock; not so after the connection was cut."""
    import sqlalchemy as sa

    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
    try:
        return bool(connection.execute(sa.text(query)).scalar_one() == 1)
    except sa.exc.SQLAlchemyError:
        return False
