"""What took a while to find out, kept in a file of the cache so that the next command need not find it out again."""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from wertune.base.files import CACHE_REMEDY

_logger = logging.getLogger(__name__)

FILE = "kept-1.sqlite"  # another name whenever the table is another
TABLE = "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL, seal TEXT NOT NULL) WITHOUT ROWID"


class Kept:
    """Values by name, for many threads and processes; where the folder is None or no good, nothing is known."""

    def __init__(self, folder: Path | None) -> None:
        self._lock = Lock()
        self._path = (folder or Path()) / FILE
        self._store: sqlite3.Connection | None = None
        if folder is not None:
            with self._using():
                folder.mkdir(parents=True, exist_ok=True)
                self._store = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
                self._store.execute("PRAGMA synchronous = OFF")  # what a power cut damages is found out again
                self._store.execute(TABLE)

    def get(self, name: str) -> str | None:
        """What was kept; None where that is nothing, or damaged."""
        row = None
        with self._using():
            if self._store:
                row = self._store.execute("SELECT value, seal FROM kept WHERE name = ?", (name,)).fetchone()
        # SQLite does not notice a damaged byte inside of a value.
        return str(row[0]) if row and row[1] == _seal(name, row[0]) else None

    def put(self, name: str, value: str) -> None:
        """Keeps it in the place of what was kept before."""
        with self._using():
            if self._store:
                row = name, value, _seal(name, value)
                self._store.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", row)

    def close(self) -> None:
        if self._store:
            self._store.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """One thread at a time; after an error the file is left alone, and a damaged one removed for the next."""
        with self._lock:
            try:
                yield
            except (OSError, sqlite3.Error) as error:
                store, self._store = self._store, None
                if store:
                    store.close()
                if type(error) is sqlite3.DatabaseError:  # its subclasses stand for all but damage
                    for name in (f"{FILE}-journal", FILE):
                        self._path.with_name(name).unlink(missing_ok=True)
                else:
                    told = "%s: what was found out cannot be kept (%s); %s; until then each command finds it out again"
                    _logger.warning(told, self._path, error, CACHE_REMEDY)


def code_digest(*files: str) -> str:
    """Of source files: what other code found out is not taken for what this code would."""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]


def _seal(name: str, value: object) -> str:
    return hashlib.sha256(repr((name, value)).encode()).hexdigest()[:16]
