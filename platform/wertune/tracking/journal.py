"""An append-only file of JSON lines that survives the process that writes it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wertune.base.errors import TrackingError

CHUNK_BYTES = 2**18


class Journal:
    """Lines in the order in which they were said; a line is on the disk before `append` returns.

    A line that a killed process, or a full disk, left without its end was never said, and goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.size = self._end_of_lines()
        os.ftruncate(self._handle, self.size)

    def _end_of_lines(self) -> int:
        end = os.fstat(self._handle).st_size
        while end > 0:
            start = max(0, end - CHUNK_BYTES)
            newline = os.pread(self._handle, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0

    def append(self, value: Mapping[str, Any]) -> None:
        """Raises OSError when the disk does not take the line; the next one is then written in its place."""
        rest = memoryview(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        end = self.size
        try:
            while rest:
                written = os.pwrite(self._handle, rest, end)
                rest, end = rest[written:], end + written
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self.size)
            raise
        self.size = end

    def read(self, offset: int) -> Iterator[tuple[int, Any]]:
        """The values from `offset` on, each with the offset behind it; at most a chunk of them, but one at least."""
        length = CHUNK_BYTES
        while b"\n" not in (text := os.pread(self._handle, min(length, self.size - offset), offset)):
            if offset + length >= self.size:
                return
            length *= 2
        for line in text[: text.rfind(b"\n")].split(b"\n"):
            offset += len(line) + 1
            yield offset, json.loads(line)

    def values(self) -> Iterator[Any]:
        """All of them; TrackingError for a line that is no JSON, which a failing disk alone can leave."""
        offset = 0
        while offset < self.size:
            try:
                for after, value in self.read(offset):
                    yield value
                    offset = after
            except ValueError as error:
                place = f"{self._path} behind byte {offset}"
                raise TrackingError(f"{place} is damaged ({error}); delete that line, then resume the search") from None

    def clear(self) -> None:
        os.ftruncate(self._handle, 0)
        self.size = 0

    def close(self) -> None:
        os.close(self._handle)
