"""Writing files so that a reader sees all of one or none of it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wertune.errors import StorageError


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


@contextmanager
def storing(what: str, folder: Path, remedy: str) -> Iterator[None]:
    """Makes a StorageError of what a full or forbidden disk raises inside the block."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise StorageError(f"{folder}: {what} cannot be stored ({error}); {remedy}") from error


def share_mode(folder: Path, of: str) -> None:
    """Gives every file of `folder` the mode of its file `of`: safetensors writes 0600, which no colleague can read."""
    mode = (folder / of).stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)
