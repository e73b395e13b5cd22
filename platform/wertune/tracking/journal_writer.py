"""What a search says of its trials' runs, in a journal on the driver's disk until MLflow has it.

`folder/` holds `journal.jsonl`, one operation a line; `files/`, what is to be uploaded; `state.json`, whose search it
is; and `refused.jsonl`, what the server will never take. Two threads write what waits, each with pauses of its own:
records (runs, parameters, metrics, tags, ends) wait for no file, so that a run may be FINISHED before its last file is
there; `flush` waits for both.

The journal is emptied when nothing waits. After a crash all that it holds is written again, which does no harm: a run
is looked for before it is made, a metric keeps the time at which it was said, a step that the server has is dropped,
and a file that was uploaded is gone from `files/`.
"""

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from wertune.base.errors import TrackingError
from wertune.base.files import storing, sync, take_lock, write_atomically, write_files
from wertune.tracking.child_runs import END, FILES, METRICS, OPEN, PARAMS, TAGS, ChildRuns, Operation
from wertune.tracking.outage import TOLD_FAILURES, Backoff, is_temporary, quick_requests, reason, tell
from wertune.tracking.runs import RunRef, now_ms, param_text

MAX_VALUES = 1000  # what MLflow takes in one request
CLOSING_S = 5.0  # of each thread
REMEDY = "make room, then resume the search"


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


@dataclass
class Queue:
    """Operations by run, each run's in the order in which they were said; between runs there is no order to keep."""

    waiting: dict[str, list[Operation]] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    retry_at: float = 0.0

    def add(self, operation: Operation) -> None:
        self.waiting.setdefault(operation["run"], []).append(operation)

    def remove(self, operations: Sequence[Operation]) -> None:
        """The first operations of a run are done with."""
        run = operations[0]["run"]
        del self.waiting[run][: len(operations)]
        if not self.waiting[run]:
            del self.waiting[run]

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))


class JournalWriter:
    """The child runs of a search; what is said returns when it is on the disk, and is written to MLflow in its order.

    What an earlier, killed driver left in the folder is written first. Temporary faults are waited for, without end.
    Whoever makes one has the search's folder `held`.

    Raises TrackingError for a folder of another search.
    """

    def __init__(
        self, folder: Path, parent: RunRef, server: ChildRuns | None = None, say: Callable[[str], None] = tell
    ) -> None:
        self._folder, self._parent, self._say = folder, parent, say
        self._server = server or ChildRuns(parent)
        self._changed = threading.Condition()
        self._closing = self._told = False
        self._told_refusals: set[str] = set()
        self._fault = ""
        self._queues = self._records, self._files = Queue(), Queue()
        with storing("the search's journal", folder, REMEDY):
            (folder / "files").mkdir(parents=True, exist_ok=True)
            _claim(folder / "state.json", parent)
            self._journal = Journal(folder / "journal.jsonl")
            sync(folder)
            self._take_up()
        self._threads = [threading.Thread(target=self._serve, args=(queue,), daemon=True) for queue in self._queues]
        for thread in self._threads:
            thread.start()

    def open(self, run: str, name: str, tags: Mapping[str, Any]) -> None:
        """The RUNNING child run of that key: the one that there is, or a new one that begins now."""
        self._append(run, {"kind": OPEN, "name": name, "values": _texts(tags)})

    def log(
        self,
        run: str,
        params: Mapping[str, Any] | None = None,
        metrics: Iterable[tuple[int, Mapping[str, float]]] = (),
        tags: Mapping[str, Any] | None = None,
        status: str = "",
    ) -> None:
        """Says it all or, where the disk does not take it, nothing, and raises StorageError.

        A metric of which its step, or a later one, is written is dropped: an epoch that is trained again. A status
        (FINISHED, FAILED or KILLED) ends the run.
        """
        said: list[Operation] = []
        if params:
            said.append({"kind": PARAMS, "values": {name: param_text(value) for name, value in params.items()}})
        for step, values in metrics:
            said.append({"kind": METRICS, "values": {n: float(v) for n, v in values.items()}, "step": step})
        if tags:
            said.append({"kind": TAGS, "values": _texts(tags)})
        if status:
            said.append({"kind": END, "status": status})
        self._append(run, *said)

    def artifacts(self, run: str, files: Mapping[str, bytes], name: str = "") -> None:
        """Files by their paths, as the artifact folder `name` of the run."""
        token = secrets.token_hex(8)
        folder = self._folder / "files" / token
        with storing("files to upload", self._folder, REMEDY):
            write_files(files, folder)
            sync(*folder.rglob("*"), folder, folder.parent)
        self._append(run, {"kind": FILES, "files": token, "name": name})

    def flush(self, timeout_s: float) -> None:
        """Waits until MLflow has everything; TrackingError when it does not within the time."""
        with self._changed:
            for queue in self._queues:
                queue.retry_at = 0.0
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._waiting, timeout_s):
                raise TrackingError(
                    f"{self._server.name} has not taken {self._waiting} operations of run {self._parent.run_id} in "
                    f"{timeout_s:g} s ({self._fault or 'slow'}); nothing is lost: they are in {self._folder}; mend it "
                    f"and resume the search with --resume {self._parent.run_id}, which writes them first"
                )

    def close(self) -> None:
        """Stops writing to MLflow; what waits is written by the next writer in the folder."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(CLOSING_S)
        if not any(thread.is_alive() for thread in self._threads):
            self._journal.close()

    @property
    def _waiting(self) -> int:
        return sum(map(len, self._queues))

    def _take_up(self) -> None:
        """All operations of the journal wait, but for uploads that are done; files that none of them names go."""
        folders = {folder.name: folder for folder in (self._folder / "files").iterdir()}
        for operation in self._journal.operations():
            if operation["kind"] != FILES or folders.pop(operation["files"], None):
                self._enqueue(operation)
        for leftover in folders.values():
            shutil.rmtree(leftover)

    def _append(self, run: str, *said: Operation) -> None:
        operations = [{"run": run, "at_ms": now_ms(), **operation} for operation in said]
        with self._changed, storing("the search's journal", self._folder, REMEDY):
            if self._closing:
                raise TrackingError(f"{self._folder}: something of {run} is said after the journal was closed")
            self._journal.append(operations)
            for operation in operations:
                self._enqueue(operation)
            self._changed.notify_all()

    def _enqueue(self, operation: Operation) -> None:
        (self._files if operation["kind"] == FILES else self._records).add(operation)

    def _serve(self, queue: Queue) -> None:
        """A thread's work."""
        with quick_requests():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or self._request(queue))
                    if self._closing:
                        return
                    request = self._request(queue)
                try:
                    self._try(queue, request)
                except Exception as error:  # whatever it is, the thread must live on
                    self._put_off(queue, error)
                else:
                    self._answered(queue)

    def _request(self, queue: Queue) -> Sequence[Operation]:
        """What may go in one request: of files one, whose run is there."""
        if queue is self._records:
            return next((_fitting(operations) for operations in queue.waiting.values()), ())
        to_open = {run for run, said in self._records.waiting.items() if any(each["kind"] == OPEN for each in said)}
        return next((files[:1] for run, files in queue.waiting.items() if run not in to_open), ())

    def _try(self, queue: Queue, request: Sequence[Operation]) -> None:
        """Writes the request; what is refused as a whole goes one by one. Raises what may pass."""
        try:
            if queue is self._records:
                self._server.write(request)
            else:
                self._upload(request[0])
        except Exception as error:
            if is_temporary(error):
                raise
            if len(request) > 1:
                for operation in request:
                    self._try(queue, [operation])
                return
            self._refuse(request[0], error)
        with self._changed:
            queue.remove(request)
            if not self._waiting:
                with suppress(OSError):  # what is written again does no harm
                    self._journal.clear()
            self._changed.notify_all()

    def _upload(self, operation: Operation) -> None:
        folder = self._folder / "files" / operation["files"]
        if folder.exists():
            self._server.upload(operation["run"], folder, operation["name"])
            shutil.rmtree(folder)

    def _refuse(self, operation: Operation, error: Exception) -> None:
        path = self._folder / "refused.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**operation, "reason": reason(error)}, ensure_ascii=False) + "\n")
        if operation["run"] not in self._told_refusals:
            self._told_refusals.add(operation["run"])
            self._say(
                f"{self._server.name} refuses {operation['kind']} of {operation['run']} for good: "
                f"{reason(error)}; kept in {path}, the rest goes on"
            )

    def _put_off(self, queue: Queue, error: Exception) -> None:
        """Pauses, until `flush` has no patience."""
        pause_s = queue.backoff.pause_s()
        with self._changed:
            self._fault = reason(error)
            if queue.backoff.failures >= TOLD_FAILURES and not self._told:
                self._told = True
                self._say(
                    f"{self._server.name} takes nothing ({self._fault}): {self._waiting} operations wait in "
                    f"{self._folder}, the search goes on"
                )
            queue.retry_at = time.monotonic() + pause_s
            self._changed.wait_for(lambda: self._closing or time.monotonic() >= queue.retry_at, pause_s)

    def _answered(self, queue: Queue) -> None:
        with self._changed:
            queue.backoff = Backoff()
            if self._told and not any(each.backoff.failures for each in self._queues):
                self._told, self._fault = False, ""
                self._say(f"{self._server.name} answers again: {self._waiting} operations that waited are written now")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A search's folder, this process's alone until the block ends; raises TrackingError when another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if not take_lock(file, wait=False):
            raise TrackingError(f"{folder} is written by another process; wait for its end, or end it")
        yield


def _claim(path: Path, parent: RunRef) -> None:
    """Notes in the file whose search the folder is of; TrackingError where it is another's."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))["parent"]
    except (OSError, ValueError):
        owner = parent.run_id
    if owner != parent.run_id:
        raise TrackingError(
            f"{path.parent} holds what run {owner} said, but this is run {parent.run_id}; "
            "give each search a folder of its own"
        )
    write_atomically(path, lambda file: file.write(json.dumps({"parent": owner}).encode()))


def _fitting(operations: Sequence[Operation]) -> Sequence[Operation]:
    """The first of a run's operations, as many as one request takes."""
    totals = accumulate(len(operation.get("values", ())) for operation in operations)
    return operations[: max(1, sum(total <= MAX_VALUES for total in totals))]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
