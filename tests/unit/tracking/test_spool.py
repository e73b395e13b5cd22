"""A spool against a server that fails, loses answers and outlives its writers."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wertune.tracking.journal
import wertune.tracking.outage
import wertune.tracking.spool
from wertune.base.errors import StorageError, TrackingError
from wertune.tracking.child_store import Child, Logged
from wertune.tracking.journal import Journal
from wertune.tracking.runs import RunRef
from wertune.tracking.spool import Spool, SpooledRun

PARENT = RunRef("http://127.0.0.1:1", "parent")
FAULTS = ("ok", "down", "answer lost", "killed before", "killed after")


class Killed(BaseException):
    """The process ends here."""


class Refusal(Exception):
    """As MLflow refuses a bad value."""

    error_code = "INVALID_PARAMETER_VALUE"


@dataclass
class FakeRun:
    key: str
    tags: dict[str, str]
    start_ms: int
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[Logged, None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class FakeServer:
    """Runs in memory; each call takes the next of `faults`, and goes well when there are none left."""

    name = "the fake store"

    def __init__(self, faults: Sequence[str] = ()) -> None:
        self.runs: list[FakeRun] = []
        self.faults = iter(faults)
        self.is_up = threading.Event()
        self.is_up.set()
        self.takes_files = True
        self.refused_metric = "refused"
        self.batches: list[int] = []

    def _call(self, act: Callable[[], Any]) -> Any:
        if not self.is_up.is_set():
            raise ConnectionRefusedError(111, "Connection refused")
        fault = next(self.faults, "ok")
        if fault == "down":
            raise ConnectionResetError(104, "Connection reset by peer")
        if fault == "killed before":
            raise Killed
        answer = act()
        if fault == "answer lost":
            raise TimeoutError("no answer")
        if fault == "killed after":
            raise Killed
        return answer

    def find(self, key: str) -> Child | None:
        def act() -> Child | None:
            found = [number for number, run in enumerate(self.runs) if run.key == key]
            if not found:
                return None
            run = self.runs[found[-1]]
            return Child(
                str(found[-1]), {m.name: max(o.step for o in run.metrics if o.name == m.name) for m in run.metrics}
            )

        return self._call(act)

    def create(self, key: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        def act() -> str:
            self.runs.append(FakeRun(key, dict(tags), start_ms))
            return str(len(self.runs) - 1)

        return self._call(act)

    def reopen(self, run_id: str) -> None:
        self._call(lambda: setattr(self.runs[int(run_id)], "status", "RUNNING"))

    def log(self, run_id: str, metrics: Sequence[Logged], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        def act() -> None:
            if any(metric.name == self.refused_metric for metric in metrics):
                raise Refusal("a bad value")
            self.batches.append(len(metrics))
            run = self.runs[int(run_id)]
            run.metrics.update(dict.fromkeys(metrics))
            run.params.update(params)
            run.tags.update(tags)

        self._call(act)

    def upload(self, run_id: str, folder: Path, name: str) -> None:
        def act() -> None:
            if not self.takes_files:
                raise PermissionError(13, "Permission denied")
            for file in folder.rglob("*"):
                if file.is_file():
                    path = "/".join(filter(None, [name, str(file.relative_to(folder))]))
                    self.runs[int(run_id)].files[path] = file.read_text()

        self._call(act)

    def end(self, run_id: str, status: str, at_ms: int) -> None:
        self._call(lambda: setattr(self.runs[int(run_id)], "status", status))

    def run(self, key: str) -> FakeRun:
        (run,) = [run for run in self.runs if run.key == key]
        return run


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Pauses of a millisecond, and a journal that is emptied early."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wertune.tracking.outage, "FIRST_PAUSE_S", 0.001)
        patch.setattr(wertune.tracking.outage, "LONGEST_PAUSE_S", 0.002)
        patch.setattr(wertune.tracking.spool, "SAVE_EVERY_S", 0.001)
        patch.setattr(wertune.tracking.spool, "EMPTIED_BYTES", 1000)
        yield


@pytest.fixture
def lines() -> list[str]:
    return []


def _die(spool: Spool) -> None:
    """The process is killed: nothing more is saved, the lock is free."""
    spool._save = lambda: None  # type: ignore[method-assign]
    spool.close()
    assert not spool._thread.is_alive()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(("metrics", "params", "tags", "text", "end")), st.integers(0, 4)),
    max_size=25,
)


@dataclass
class Expected:
    """What one run should hold after all that was said of it."""

    status: str = "RUNNING"
    metrics: list[tuple[int, float]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def say(self, run: SpooledRun, kind: str, number: int, value: float) -> None:
        """Says it to the run, and remembers what should come of it."""
        if kind == "metrics":
            run.metrics({"loss": value}, step=number)
            if not self.metrics or number > self.metrics[-1][0]:
                self.metrics.append((number, value))
        elif kind == "params":
            run.params({f"p{number}": number})
            self.params[f"p{number}"] = str(number)
        elif kind == "tags":
            run.tags({f"t{number}": value})
            self.tags[f"t{number}"] = str(value)
        elif kind == "text":
            run.text(str(value), f"notes/{number}.txt")
            self.files[f"notes/{number}.txt"] = str(value)
        else:
            run.end("FINISHED")
            self.status = "FINISHED"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    operations=OPERATIONS,
    faults=st.lists(st.sampled_from(FAULTS), max_size=40),
    deaths=st.sets(st.integers(0, 25), max_size=4),
    torn=st.binary(max_size=30).map(lambda rest: rest.replace(b"\n", b"")),
    chunk=st.sampled_from((200, wertune.tracking.journal.CHUNK_BYTES)),
)
def test_nothing_is_lost_nor_doubled_whatever_fails_and_whenever_the_process_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, str, int]],
    faults: list[str],
    deaths: set[int],
    torn: bytes,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wertune.tracking.journal.CHUNK_BYTES", chunk)
    folder = tmp_path_factory.mktemp("spool")
    server = FakeServer(faults)
    said: dict[str, Expected] = {}
    spool = Spool(folder, PARENT, server, lambda _: None)
    for position, (key, kind, number) in enumerate(operations):
        if position in deaths:
            _die(spool)
            with (folder / "journal.jsonl").open("ab") as journal:
                journal.write(torn)
            spool = Spool(folder, PARENT, server, lambda _: None)
        if key not in said or said[key].status == "FINISHED":
            spool.open(key, f"trial {key}", {"point": "{}"})
            said.setdefault(key, Expected()).status = "RUNNING"
        said[key].say(spool.run(key), kind, number, float(position))
    _die(spool)
    server.faults = iter(())
    last = Spool(folder, PARENT, server, lambda _: None)
    last.flush(20)
    last.close()

    assert sorted(run.key for run in server.runs) == sorted(said)
    for key, expected in said.items():
        run = server.run(key)
        assert [(metric.step, metric.value) for metric in run.metrics] == expected.metrics
        assert (run.params, run.files, run.status) == (expected.params, expected.files, expected.status)
        assert run.tags == {"point": "{}"} | expected.tags
    assert not list((folder / "files").iterdir())
    assert not (folder / "refused.jsonl").exists()


@given(
    values=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3)), cut=st.integers(0, 10**6)
)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_a_journal_cut_at_any_byte_holds_its_whole_lines_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, str]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    ends = []
    for value in values:
        journal.append(value)
        ends.append(journal.size)
    journal.close()
    at = cut % (journal.size + 1)
    path.write_bytes(path.read_bytes()[:at])

    again = Journal(path)
    again.append({"after": "the cut"})
    whole = values[: sum(end <= at for end in ends)]
    assert list(again.values()) == [*whole, {"after": "the cut"}]
    again.close()


def test_a_journal_reads_lines_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wertune.tracking.journal.CHUNK_BYTES", 16)
    journal = Journal(tmp_path / "journal.jsonl")
    values = [{"text": "x" * length} for length in (1, 100, 5, 40)]
    for value in values:
        journal.append(value)
    assert list(journal.values()) == values
    journal.close()
    again = Journal(tmp_path / "journal.jsonl")
    assert list(again.values()) == values
    again.close()


def test_an_outage_is_told_once_at_its_beginning_and_its_end(tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    server.is_up.clear()
    spool = Spool(tmp_path, PARENT, server, lines.append)
    run = spool.open("a", "trial a", {})
    for step in range(300):
        run.metrics({"loss": step, "wer": step}, step)
    with pytest.raises(TrackingError, match=r"301 operations of run parent .*Connection refused.*--resume parent"):
        spool.flush(0.2)
    server.is_up.set()
    spool.flush(20)
    spool.close()
    assert len(lines) == 2
    assert "takes nothing (Connection refused)" in lines[0]
    assert str(tmp_path) in lines[0]
    assert "answers again: " in lines[1]
    assert len(server.run("a").metrics) == 600
    assert max(server.batches) <= 1000
    assert len(server.batches) < 30


def test_metrics_and_ends_wait_for_no_file(tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    server.takes_files = False
    spool = Spool(tmp_path / "spool", PARENT, server, lines.append)
    first = spool.open("a", "trial a", {})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_text("first")
    first.artifacts(tmp_path / "adapter", "adapter")
    first.end("FINISHED")
    spool.open("b", "trial b", {}).metrics({"loss": 1.0}, 1)
    (tmp_path / "adapter" / "weights").write_text("second")
    first.artifacts(tmp_path / "adapter", "adapter")
    with pytest.raises(TrackingError, match="has not taken 2 operations"):
        spool.flush(0.3)
    assert server.run("a").status == "FINISHED"
    assert server.run("b").metrics
    server.takes_files = True
    spool.flush(20)
    spool.close()
    assert server.run("a").files == {"adapter/weights": "second"}
    assert "Permission denied" in lines[0]


@pytest.mark.parametrize("resumes", [False, True])
def test_a_file_behind_many_chunks_of_what_is_written_goes_without_a_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    monkeypatch.setattr("wertune.tracking.journal.CHUNK_BYTES", 200)
    server = FakeServer()
    server.takes_files = False
    spool = Spool(tmp_path, PARENT, server, lambda _: None)
    run = spool.open("a", "trial a", {})
    run.text("early", "early.txt")
    for step in range(100):
        run.metrics({"loss": 0.5}, step)
    run.text("late", "late.txt")
    with pytest.raises(TrackingError, match="has not taken 2 operations"):
        spool.flush(0.5)
    server.takes_files = True
    if resumes:
        _die(spool)
        spool = Spool(tmp_path, PARENT, server, lambda _: None)
    spool.flush(10)
    spool.close()
    assert server.run("a").files == {"early.txt": "early", "late.txt": "late"}
    assert len(server.run("a").metrics) == 100


def test_a_journal_that_cannot_be_read_for_a_while_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    read, faults = Journal.read, iter([OSError(5, "Input/output error")] * 6)

    def fails_at_first(journal: Journal, offset: int) -> Iterator[tuple[int, Any]]:
        for fault in faults:
            raise fault
        return read(journal, offset)

    monkeypatch.setattr(Journal, "read", fails_at_first)
    spool = Spool(tmp_path, PARENT, server := FakeServer(), lines.append)
    spool.open("a", "trial a", {}).end("FINISHED")
    spool.flush(20)
    spool.close()
    assert server.run("a").status == "FINISHED"
    assert "Input/output error" in lines[0]


def test_files_and_the_folders_that_name_them_are_on_the_disk_before_they_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is missing is taken for one that was uploaded."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    server = FakeServer()
    server.is_up.clear()
    spool = Spool(tmp_path / "spool", PARENT, server, lambda _: None)
    (tmp_path / "adapter" / "deep").mkdir(parents=True)
    (tmp_path / "adapter" / "deep" / "weights").write_text("weights")
    spool.run("a").artifacts(tmp_path / "adapter", "adapter")
    spool.close()
    (kept,) = (tmp_path / "spool" / "files").iterdir()
    *before, last = synced
    assert {kept / "deep" / "weights", kept / "deep", kept, kept.parent, tmp_path / "spool"} <= set(before)
    assert last == tmp_path / "spool" / "journal.jsonl"


def test_a_file_waits_for_its_run_to_be_made(tmp_path: Path) -> None:
    down = FakeServer()
    down.is_up.clear()
    before = Spool(tmp_path, PARENT, down, lambda _: None)
    before.open("a", "trial a", {}).text("no memory left", "traceback.txt")
    before.close()
    spool = Spool(tmp_path, PARENT, server := FakeServer(["down"]), lambda _: None)
    spool.flush(20)
    spool.close()
    assert server.run("a").files == {"traceback.txt": "no memory left"}


def test_what_the_server_will_never_take_is_kept_apart_and_the_rest_goes_on(tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    server.is_up.clear()
    spool = Spool(tmp_path, PARENT, server, lines.append)
    run = spool.open("a", "trial a", {})
    for step in range(3):
        run.metrics({"loss": 0.5}, step)
        run.metrics({"refused": 0.5}, step)
    server.is_up.set()
    spool.flush(20)
    spool.close()
    assert [metric.step for metric in server.run("a").metrics] == [0, 1, 2]
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [(each["step"], each["reason"]) for each in refused] == [(step, "a bad value") for step in range(3)]
    assert sum("for good" in line for line in lines) == 1


def test_an_epoch_that_the_server_alone_remembers_is_not_written_again(tmp_path: Path) -> None:
    server = FakeServer()
    for folder in ("first", "second"):  # the driver's disk is lost between the two
        spool = Spool(tmp_path / folder, PARENT, server)
        run = spool.open("a", "trial a", {})
        run.metrics({"loss": 0.5}, 1)
        run.metrics({"loss": 0.4}, 2)
        spool.flush(20)
        spool.close()
    assert [metric.step for metric in server.run("a").metrics] == [1, 2]


def test_a_written_journal_is_emptied_and_ended_runs_are_forgotten(tmp_path: Path) -> None:
    spool = Spool(tmp_path, PARENT, FakeServer())
    for key in "abcdefghij":
        run = spool.open(key, f"trial {key}", {})
        run.metrics({f"metric_{number}": number for number in range(50)}, 1)
        run.end("FINISHED")
    spool.flush(20)
    spool.close()
    # What was said after it had been emptied may lie in it still.
    assert (tmp_path / "journal.jsonl").stat().st_size <= wertune.tracking.spool.EMPTIED_BYTES
    assert json.loads((tmp_path / "state.json").read_text())["runs"] == {}
    again = Spool(tmp_path, PARENT, server := FakeServer())
    again.open("k", "trial k", {}).end("KILLED")
    again.flush(20)
    again.close()
    assert [(run.key, run.status) for run in server.runs] == [("k", "KILLED")]


def test_a_clock_that_jumps_back_loses_and_reorders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9_000, 8_000, 1_000, 1_000, 500])
    monkeypatch.setattr(wertune.tracking.spool, "now_ms", lambda: next(times))
    spool = Spool(tmp_path, PARENT, server := FakeServer())
    run = spool.open("a", "trial a", {})
    for epoch in (1, 2, 3):
        run.metrics({"val_wer": 1 / epoch}, epoch)
    run.end("FINISHED")
    spool.flush(20)
    spool.close()
    (written,) = server.runs
    assert [(metric.step, metric.value) for metric in written.metrics] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert written.status == "FINISHED"


def test_a_folder_belongs_to_one_search_and_one_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path, PARENT, FakeServer())
    with pytest.raises(TrackingError, match="another process"):
        Spool(tmp_path, PARENT, FakeServer())
    spool.close()
    with pytest.raises(TrackingError, match="what run parent said, but this is run other"):
        Spool(tmp_path, RunRef(PARENT.tracking_uri, "other"), FakeServer())


def test_a_damaged_line_inside_the_journal_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"n": 1, "kind": "end", "run": "a"}\n\0\0\0\n')
    with pytest.raises(TrackingError, match=r"journal\.jsonl behind byte 36 is damaged .* delete that line"):
        Spool(tmp_path, PARENT, FakeServer())


def test_an_operation_that_a_full_disk_refuses_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    spool = Spool(tmp_path, PARENT, server)
    run = spool.open("a", "trial a", {})
    run.metrics({"loss": 0.5}, 1)
    spool.flush(20)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wertune.tracking.journal.os.fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device.*make room"):
            run.metrics({"loss": 0.4}, 2)
    run.end("KILLED")  # a shorter line than the one that failed
    spool.flush(20)
    spool.close()
    assert [metric.step for metric in server.run("a").metrics] == [1]
    assert len(list(Journal(tmp_path / "journal.jsonl").values())) == 3
