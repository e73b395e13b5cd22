"""What a search says to MLflow, kept on the driver's disk until the server has it.

`folder/` holds `journal.jsonl`, one operation a line; `files/`, what is to be uploaded; `state.json`, how far the
journal is written; and `refused.jsonl`, what the server will never take. One thread replays the journal in two lanes.
Records (runs, parameters, metrics, tags, ends) wait for no file: when the artifact store alone is down, files wait in
their own order, and a run may be FINISHED before its last file is there; `flush` waits for both. A request that hangs
holds the other lane for as long as its timeout. What is written again after a crash is on the server once: a run is
looked for before it is made, metrics keep the time at which they were said, and a step that was written is dropped.
"""

import fcntl
import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, Any

from wertune.base.contract import OUTCOME_TAG
from wertune.base.errors import TrackingError
from wertune.base.files import storing, sync, write_atomically
from wertune.tracking.child_store import ChildStore
from wertune.tracking.journal import Journal
from wertune.tracking.journal_writer import (
    END,
    FILES,
    METRICS,
    OPEN,
    PARAMS,
    RECORDS,
    TAGS,
    Children,
    Lane,
    Operation,
    Run,
    Writer,
)
from wertune.tracking.outage import TOLD_FAILURES, is_temporary, quick_requests, reason, tell
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, checked_status, now_ms, param_text

SAVE_EVERY_S = 1.0
# A journal of which everything is written is emptied beyond this size.
EMPTIED_BYTES = 2**18
CLOSING_S = 10.0


class Spool:
    """The child runs of a search; what is said returns when it is on the disk, and is written to MLflow in its order.

    What an earlier, killed driver left in the folder is written first. Temporary faults are waited for, without end.

    Raises TrackingError for a folder of another search, or one that another process writes.
    """

    def __init__(
        self, folder: Path, parent: RunRef, server: Children | None = None, say: Callable[[str], None] = tell
    ) -> None:
        self._folder, self._parent, self._say = folder, parent, say
        (folder / "files").mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / "lock")
        self._server = server or ChildStore(parent)
        self._changed = threading.Condition()
        self._closing = False
        self._told = False
        self._told_refusals: set[str] = set()
        self._fault = ""
        self._saved_at, self._unsaved = 0.0, True
        state = self._state()
        self._records, self._files = Lane(RECORDS, state.get("records", 0)), Lane([FILES], state.get("files", 0))
        runs = {key: Run(**run) for key, run in state.get("runs", {}).items()}
        self._writer = Writer(self._server, folder / "files", runs)
        self._journal = Journal(folder / "journal.jsonl")
        sync(folder)
        self._last, self._waiting = self._look_through()
        self._thread = threading.Thread(target=self._replay, name="spool", daemon=True)
        self._thread.start()

    def open(self, key: str, name: str, tags: Mapping[str, Any]) -> "SpooledRun":
        """The RUNNING child run of `key`: the one that there is, or a new one that begins now."""
        self.append(OPEN, key, name=name, values=_texts(tags))
        return self.run(key)

    def run(self, key: str) -> "SpooledRun":
        """The child run that was opened for `key`, by whichever process."""
        return SpooledRun(self, key)

    def append(self, kind: str, key: str, **values: Any) -> None:
        """Raises StorageError when the disk does not take the operation, which then is not said."""
        with self._changed, storing("the search's journal", self._folder, "make room, then resume the search"):
            if self._closing:
                raise TrackingError(f"{self._folder}: {kind} of {key} is said after the spool was closed")
            self._journal.append({"n": self._last + 1, "kind": kind, "run": key, "at_ms": now_ms(), **values})
            self._last += 1
            self._waiting += 1
            self._changed.notify_all()

    def keep(self, write: Callable[[Path], object]) -> str:
        """The name of a folder of files to upload, filled by `write` and safe on the disk."""
        token = secrets.token_hex(8)
        folder = self._folder / "files" / token
        with storing("files to upload", self._folder, "make room, then resume the search"):
            write(folder)
            sync(*folder.rglob("*"), folder, folder.parent)
        return token

    def flush(self, timeout_s: float) -> None:
        """Waits until MLflow has everything; TrackingError when it does not within the time."""
        with self._changed:
            self._records.retry_at = self._files.retry_at = 0.0
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._waiting == 0, timeout_s):
                raise TrackingError(
                    f"{self._server.name} has not taken {self._waiting} operations of run {self._parent.run_id} in "
                    f"{timeout_s:g} s ({self._fault or 'slow'}); nothing is lost: they are in {self._folder}; mend it "
                    f"and resume the search with --resume {self._parent.run_id}, which writes them first"
                )

    def close(self) -> None:
        """Stops writing to MLflow; what waits is written by the next Spool in the folder."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSING_S)

    def _state(self) -> dict[str, Any]:
        """How far an earlier process came; without it the journal is written again, which does no harm."""
        try:
            state: dict[str, Any] = json.loads((self._folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if state["parent"] != self._parent.run_id:
            raise TrackingError(
                f"{self._folder} holds what run {state['parent']} said, but this is run {self._parent.run_id}; "
                "give each search a folder of its own"
            )
        return state

    def _look_through(self) -> tuple[int, int]:
        """The last operation's number and how many wait; files that no waiting operation names go."""
        last, waiting, needed = max(self._records.done, self._files.done), 0, set()
        for operation in self._journal.values():
            last = max(last, operation["n"])
            waiting += self._records.holds(operation) or self._files.holds(operation)
            if self._files.holds(operation):
                needed.add(operation["files"])
        for leftover in (self._folder / "files").iterdir():
            if leftover.name not in needed:
                shutil.rmtree(leftover)
        return last, waiting

    def _replay(self) -> None:
        with quick_requests(), self._lock:
            while not self._closing:
                seen = self._last
                busy = [self._write_next(self._records), self._write_next(self._files, self._records.done)]
                if self._unsaved and time.monotonic() > self._saved_at + SAVE_EVERY_S:
                    self._save()
                if not any(busy):
                    self._rest(seen)
            self._save()
            self._journal.close()

    def _write_next(self, lane: Lane, limit: float = float("inf")) -> bool:
        """Tries the lane's next request; whether it is worth to go on at once."""
        if time.monotonic() < lane.retry_at:
            return False
        try:
            if not lane.fill(self._journal, limit):
                return False
            if lane.todo:
                self._write(lane)
        except Exception as error:  # whatever it is, the thread must live on
            self._put_off(lane, error)
            return False
        return True

    def _write(self, lane: Lane) -> None:
        request = lane.todo[0]
        try:
            self._writer.write(request)
        except Exception as error:
            if is_temporary(error):
                raise
            if len(request) > 1:
                lane.split()
                return
            self._refuse(request[0], error)
        lane.pop()
        with self._changed:
            self._waiting -= len(request)
            self._unsaved = True
            self._changed.notify_all()
        self._answered()

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

    def _put_off(self, lane: Lane, error: Exception) -> None:
        lane.put_off()
        self._fault = reason(error)
        if lane.backoff.failures >= TOLD_FAILURES and not self._told:
            self._told = True
            self._say(
                f"{self._server.name} takes nothing ({self._fault}): {self._waiting} operations wait in "
                f"{self._folder}, the search goes on"
            )

    def _answered(self) -> None:
        if self._told and not (self._records.backoff.failures or self._files.backoff.failures):
            self._told, self._fault = False, ""
            self._say(f"{self._server.name} answers again: {self._waiting} operations that waited are written now")

    def _rest(self, seen: int) -> None:
        """Until something is said after operation `seen`, a lane is to be tried again, or the state is to be saved."""
        with self._changed:
            if self._closing or self._last > seen:
                return
            times = [lane.retry_at for lane in (self._records, self._files) if lane.backoff.failures]
            times += [self._saved_at + SAVE_EVERY_S] if self._unsaved else []
            self._changed.wait(max(0.0, min(times) - time.monotonic()) if times else None)

    def _save(self) -> None:
        """How far the journal is written; when that is all of it, what is known of ended runs goes, and the journal.

        The state may lag behind, or be lost with the disk: what is written again does no harm.
        """
        with self._changed, suppress(OSError):  # `append` tells of a full disk
            if self._waiting == 0:
                self._records.finish(self._last)
                self._files.finish(self._last)
                self._writer.forget_ended()
            state = {
                "parent": self._parent.run_id,
                "records": self._records.done,
                "files": self._files.done,
                "runs": {key: asdict(run) for key, run in self._writer.runs.items()},
            }
            write_atomically(self._folder / "state.json", lambda file: file.write(json.dumps(state).encode()))
            self._unsaved = False
            if self._waiting == 0 and self._journal.size > EMPTIED_BYTES:
                self._journal.clear()
                self._records.rewind()
                self._files.rewind()
        self._saved_at = time.monotonic()


class SpooledRun:
    """A child run as a trial sees it (its `RunLog`): what is said returns when it is on the disk."""

    def __init__(self, spool: Spool, key: str) -> None:
        self._spool = spool
        self._key = key

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters, which MLflow keeps as text of bounded length."""
        self._spool.append(PARAMS, self._key, values={name: param_text(value) for name, value in values.items()})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """A metric of which this step, or a later one, is written is dropped: an epoch that is trained again."""
        self._spool.append(METRICS, self._key, values={n: float(v) for n, v in values.items()}, step=step)

    def tags(self, values: Mapping[str, Any]) -> None:
        self._spool.append(TAGS, self._key, values=_texts(values))

    def artifacts(self, folder: Path, name: str) -> None:
        """A copy of the folder, which may go when this returns."""
        kept = self._spool.keep(lambda target: shutil.copytree(folder, target))
        self._spool.append(FILES, self._key, files=kept, name=name)

    def text(self, text: str, name: str) -> None:
        """`text` as the artifact `name`, which may hold folders."""
        place = PurePosixPath(name)

        def write(target: Path) -> None:
            target.mkdir()
            (target / place.name).write_text(text, encoding="utf-8")

        parent = "" if place.parent == PurePosixPath(".") else str(place.parent)
        self._spool.append(FILES, self._key, files=self._spool.keep(write), name=parent)

    def end(self, status: str) -> None:
        """`status` is FINISHED, FAILED or KILLED."""
        self._spool.append(END, self._key, status=checked_status(status))

    def fail(self, reason: str) -> None:
        """Ends the run as FAILED with the reason as its description."""
        self.tags({DESCRIPTION_TAG: reason, OUTCOME_TAG: "failed"})
        self.end("FAILED")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A search's folder, this process's alone until the block ends; raises TrackingError when another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        yield


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _locked(path: Path) -> IO[str]:
    """The open file whose lock the system frees when the process dies, however it dies."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise TrackingError(f"{path.parent} is written by another process; wait for its end, or end it") from None
    return file
