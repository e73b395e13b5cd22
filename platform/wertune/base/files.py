"""Writing files so that a reader sees all of one or none of it."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from wertune.base.errors import StorageError

STAMP = "source.json"
SQLITE = "sqlite:///"
NUL_RULE = "holds a NUL, which no file's name can hold; mend the name"
FREE_SPACE = "free some space there, or "
CACHE_REMEDY = FREE_SPACE + "point WERTUNE_CACHE to a writable local disk with more"
# What more space does not help against: a place that cannot be, or that is another's.
_MISPLACED = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

# The parts of the file by that name, from wherever else it may be; none where nobody has it.
Fetch = Callable[[str], Iterable[bytes]]


def content_digest(depends_on: Sequence[Any]) -> str:
    """SHA-256 of the JSON of all that something depends on: a name under which nothing else is ever found."""
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal: the same whatever the file is called; OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_root() -> Path:
    """Where this machine keeps what can be made again: `$WERTUNE_CACHE`, or else the user's cache."""
    own = os.environ.get("WERTUNE_CACHE")
    named = own or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/wertune"
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError as error:  # no such user, or one without a home
        remedy = "set WERTUNE_CACHE to a folder on a local disk"
        raise StorageError(f"the cache is to be {named}, but {error}; {remedy}") from None


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


def write_files(files: Mapping[str, bytes], into: Path) -> None:
    """Writes files by their paths, none of which leads out of the folder."""
    for path, content in files.items():
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts:
            raise StorageError(f"{path} leads out of {into}; paths must stay inside; remove the search's folder")
        (into / relative).parent.mkdir(parents=True, exist_ok=True)
        (into / relative).write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """UTF-8, as `write_atomically` writes."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, as `write_atomically` writes."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def take_lock(file: IO[Any], wait: bool) -> bool:
    """Whether this process has the file's advisory lock now; the system frees it when the process dies, however."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def sync(*paths: Path) -> None:
    """Has the disk hold them: a file's content, or the entries of a folder, without which its files are lost."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def storing(what: str, folder: Path, remedy: str, kind: type[StorageError] = StorageError) -> Iterator[None]:
    """Makes an error of `kind` of what a full or forbidden disk raises inside the block.

    `remedy` may begin with FREE_SPACE, which is left out where the place is at fault and not its size.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        if getattr(error, "errno", None) in _MISPLACED:
            remedy = remedy.removeprefix(FREE_SPACE)
        raise kind(f"{folder}: {what} cannot be stored ({error}); {remedy}") from error


def check_writable(path: Path, what: str, remedy: str) -> None:
    """Raises StorageError where no file can be written at `path`: before hours are spent on what it is to hold."""
    with storing(what, path, remedy):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            """Nothing is left of it."""


def share_mode(folder: Path, of: str) -> None:
    """Gives every file of `folder` the mode of its file `of`: safetensors writes 0600, which no colleague can read."""
    mode = (folder / of).stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)


def is_whole(folder: Path) -> bool:
    """Whether every file is there in full; the stamp is written last, and the folder renamed after that."""
    try:
        sizes = json.loads((folder / STAMP).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def store_folder(final: Path, write: Callable[[Path], object], stamp: Mapping[str, Any]) -> None:
    """Lets `write` fill a folder that takes the name `final` when it is whole; once, however many processes ask."""
    if is_whole(final):
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    with locked(final.parent / f".{final.name}.lock"):
        if is_whole(final):  # another process was faster while this one waited
            return
        for leftover in final.parent.glob(f".{final.name}.*.partial"):  # under the lock nobody's any more
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            with replacing_folder(final) as partial:
                write(partial)
                sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
                (partial / STAMP).write_text(json.dumps({**stamp, "sizes": sizes}, indent=1) + "\n", encoding="utf-8")
                share_mode(partial, of=STAMP)
                sync(*partial.iterdir())  # a rename may outlive a power cut that the data does not
        except OSError:
            if not is_whole(final):  # on a disk without working locks another process may have won
                raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which takes the place of `folder` when the block ends well, and goes otherwise."""
    # Not mkdtemp, whose 0700 keeps others out.
    writing, old = (folder.with_name(f".{folder.name}{end}") for end in (f".{secrets.token_hex(4)}.partial", "-old"))
    try:
        writing.mkdir(parents=True)
        yield writing
        if folder.exists():  # what stood there goes only when the new one has its name
            shutil.rmtree(old, ignore_errors=True)  # of a process that was killed here: no folder could take its name
            folder.replace(old)
        try:
            writing.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for a file's advisory lock and holds it."""
    with path.open("w") as file:
        take_lock(file, wait=True)
        yield


def sqlite_file(url: str) -> Path | None:
    """The file that SQLAlchemy's URL of a SQLite database names; None of another database's."""
    return Path(url.removeprefix(SQLITE).partition("?")[0]) if url.startswith(SQLITE) else None


@contextmanager
def first_at(database: str) -> Iterator[None]:
    """One of our processes at a time inside the block, where `database` is the URL of a SQLite file.

    MLflow and Optuna make the tables of a file that has none: two that do so at once fail over each other's.
    """
    path = sqlite_file(database)
    if path is None or not os.access(path.parent, os.W_OK):
        yield
        return
    with locked(path.with_name(f"{path.name}-opened.lock")):
        yield
