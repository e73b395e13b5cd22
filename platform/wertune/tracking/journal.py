"""An append-only file of operations, a JSON line each, that survives the process that writes it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wertune.base.errors import TrackingError

# Its `kind`, the key of its `run`, the time `at_ms` at which it was said, and what it says.
Operation = Mapping[str, Any]
OPEN, METRICS, PARAMS, TAGS, END, FILES = "open", "metrics", "params", "tags", "end", "files"


class Journal:
    """Operations in the order in which they were said; they are on the disk before `append` returns.

    A line that a killed process, or a full disk, left without its end was never said, and goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._handle, self._size)

    def append(self, operations: Sequence[Operation]) -> None:
        """Raises OSError when the disk does not take all the lines, of which it then has none."""
        lines = "".join(json.dumps(operation) + "\n" for operation in operations).encode()
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(lines)

    def operations(self) -> Iterator[Operation]:
        """All of them; TrackingError for a line that is no JSON, which a failing disk alone can leave."""
        offset = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                yield json.loads(line)
            except ValueError as error:
                place = f"{self._path} behind byte {offset}"
                raise TrackingError(f"{place} is damaged ({error}); delete that line, then resume the search") from None
            offset += len(line)

    def clear(self) -> None:
        """Forgets every line."""
        os.ftruncate(self._handle, 0)
        self._size = 0

    def close(self) -> None:
        os.close(self._handle)
