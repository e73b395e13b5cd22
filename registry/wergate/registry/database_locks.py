"""Locks of the databases themselves, both given back by the system when their holder dies."""

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from wergate.errors import LockError
from wergate.registry.locks import DatabaseLock

POLL_S = 0.02


def database_lock(uri: str, name: str) -> DatabaseLock | None:
    """The lock that the registry's URI allows; None for HTTP and for databases that have no lock here."""
    if uri.startswith("sqlite:///"):
        return partial(_file_lock, Path(uri.removeprefix("sqlite:///").partition("?")[0]), name)
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
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise LockError(f"{name} is still held by another process on {path}; wait for it and start again")
            time.sleep(POLL_S)
        yield lambda: True


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
