"""Writing what a spool holds to the server: in order, without doubles, in as few requests as there may be."""

import math
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from wertune.base.errors import TrackingError
from wertune.tracking.child_store import Child, Logged
from wertune.tracking.journal import Journal
from wertune.tracking.outage import Backoff

Operation = Mapping[str, Any]
OPEN, METRICS, PARAMS, TAGS, END, FILES = "open", "metrics", "params", "tags", "end", "files"
BATCHED = {METRICS: 1000, PARAMS: 100, TAGS: 100}  # what MLflow takes in one request
RECORDS = frozenset({OPEN, *BATCHED, END})


class Children(Protocol):
    """The server's side, `tracking.ChildStore`; whatever but `create` may be said twice without harm."""

    name: str

    def find(self, key: str) -> Child | None: ...

    def create(self, key: str, name: str, tags: Mapping[str, str], start_ms: int) -> str: ...

    def reopen(self, run_id: str) -> None: ...

    def log(
        self, run_id: str, metrics: Sequence[Logged], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None: ...

    def upload(self, run_id: str, folder: Path, name: str) -> None: ...

    def end(self, run_id: str, status: str, at_ms: int) -> None: ...


class Lane:
    """Operations of some kinds in the journal's order, a window of it in memory at a time.

    Within a window the operations of a run follow each other, so that they go in few requests; between runs there is no
    order to keep. `done` is the number of the last operation before which none is left.
    """

    def __init__(self, kinds: Iterable[str], done: int) -> None:
        self.kinds = frozenset(kinds)
        self.done = done
        self.todo: deque[list[Operation]] = deque()
        self.backoff = Backoff()
        self.retry_at = 0.0
        self._offset, self._read = 0, done

    def fill(self, journal: Journal, limit: float = math.inf) -> bool:
        """Reads on when nothing is left to do, at most to the operation with the number `limit`; whether to go on.

        That is so while something is to do, or a window was read in which nothing is this lane's: more may follow it.
        """
        if self.todo:
            return True
        before, window = self._offset, []
        for offset, operation in journal.read(self._offset):
            if operation["n"] > limit:
                break
            self._offset, self._read = offset, max(self._read, operation["n"])
            if self.holds(operation):
                window.append(operation)
        self.todo.extend(_requests(window))
        self._succeed()
        return self._offset > before

    def holds(self, operation: Operation) -> bool:
        """Whether the operation is this lane's, and not done."""
        return operation["n"] > self.done and operation["kind"] in self.kinds

    def pop(self) -> None:
        """The first request is written."""
        self.todo.popleft()
        self._succeed()

    def split(self) -> None:
        """The first request is refused as a whole: its operations are to be tried one by one."""
        self.todo.extendleft([operation] for operation in reversed(self.todo.popleft()))

    def put_off(self) -> None:
        self.retry_at = time.monotonic() + self.backoff.pause_s()

    def finish(self, last: int) -> None:
        """Nothing waits: all up to operation `last` is through."""
        self.done = self._read = last

    def rewind(self) -> None:
        """The journal was cleared."""
        self._offset = 0

    def _succeed(self) -> None:
        self.backoff, self.retry_at = Backoff(), 0.0
        if not self.todo:
            self.done = self._read


def _requests(window: Iterable[Operation]) -> Iterator[list[Operation]]:
    by_run: dict[str, list[list[Operation]]] = {}
    for operation in window:
        requests = by_run.setdefault(operation["run"], [])
        if requests and _fits(operation, requests[-1]):
            requests[-1].append(operation)
        else:
            requests.append([operation])
    return chain.from_iterable(by_run.values())


def _fits(operation: Operation, request: Sequence[Operation]) -> bool:
    """Whether the operation may go in one log_batch with the others, which takes each parameter once."""
    kind = operation["kind"]
    if kind not in BATCHED or request[0]["kind"] not in BATCHED:
        return False
    same = [other for other in request if other["kind"] == kind]
    if kind == PARAMS and any(name in other["values"] for other in same for name in operation["values"]):
        return False
    return sum(len(other["values"]) for other in same) + len(operation["values"]) <= BATCHED[kind]


@dataclass
class Run:
    """A run of which operations may still come."""

    run_id: str
    steps: dict[str, int] = field(default_factory=dict)
    ended: bool = False


class Writer:
    """Writes requests to the server, and knows the runs that are open: their ids, and the last step of each metric."""

    def __init__(self, server: Children, folder: Path, runs: Mapping[str, Run]) -> None:
        self.runs = dict(runs)
        self._server = server
        self._folder = folder

    def write(self, request: Sequence[Operation]) -> None:
        """One request, of operations of one run; it may be written again after any failure."""
        first = request[0]
        match first["kind"]:
            case "open":
                self._open(first)
            case "end":
                run = self._run(first["run"])
                self._server.end(run.run_id, first["status"], first["at_ms"])
                run.ended = True
            case "files":
                self._upload(first)
            case _:
                self._log(request)

    def forget_ended(self) -> None:
        """Of ended runs the server knows all; an open one's steps stay here."""
        self.runs = {key: run for key, run in self.runs.items() if not run.ended}

    def _open(self, operation: Operation) -> None:
        """The answer to an earlier creation may have been lost with the process: so it looks first, always."""
        key = operation["run"]
        found = self._server.find(key)
        if found is None:
            made = self._server.create(key, operation["name"], operation["values"], operation["at_ms"])
            self.runs[key] = Run(made)
            return
        self._server.reopen(found.run_id)
        self._server.log(found.run_id, [], {}, operation["values"])
        self.runs[key] = Run(found.run_id, dict(found.steps))

    def _run(self, key: str) -> Run:
        if key not in self.runs or self.runs[key].ended:
            found = self._server.find(key)
            if found is None:
                raise TrackingError(f"{key} has no run: it was never opened, or was deleted")
            self.runs[key] = Run(found.run_id, dict(found.steps))
        return self.runs[key]

    def _log(self, request: Sequence[Operation]) -> None:
        run = self._run(request[0]["run"])
        steps, metrics = dict(run.steps), []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for operation in request:
            if operation["kind"] == METRICS:
                metrics += _unsaid(operation, steps)
            else:
                (params if operation["kind"] == PARAMS else tags).update(operation["values"])
        self._server.log(run.run_id, metrics, params, tags)
        run.steps = steps

    def _upload(self, operation: Operation) -> None:
        folder = self._folder / operation["files"]
        if folder.exists():  # it goes once it is uploaded, which the journal may not know yet
            known = self.runs.get(operation["run"]) or self._run(operation["run"])
            self._server.upload(known.run_id, folder, operation["name"])
            shutil.rmtree(folder)


def _unsaid(operation: Operation, steps: dict[str, int]) -> list[Logged]:
    """The metrics that no step as high was written of; `steps` then holds theirs."""
    step = operation["step"]
    new = [name for name in operation["values"] if step > steps.get(name, -1)]
    steps.update(dict.fromkeys(new, step))
    return [Logged(name, operation["values"][name], operation["at_ms"], step) for name in new]
