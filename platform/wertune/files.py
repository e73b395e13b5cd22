"""Writing files so that a reader sees all of one or none of it."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a file beside `path` and renames it; a failure, such as a full disk, leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(name).chmod(0o644)  # mkstemp's 0600 would keep colleagues out of a shared cache
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
