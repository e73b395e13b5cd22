"""A journal's writer against a server that fails, loses answers and outlives its writers."""

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
from mlflow.entities import Metric

import wertune.tracking.journal_writer
import wertune.tracking.outage
from wertune.base.errors import StorageError, TrackingError
from wertune.tracking.child_runs import ChildRun, ChildRuns
from wertune.tracking.journal_writer import JournalWriter, held
from wertune.tracking.runs import RunRef

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
    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[Metric, None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class FakeServer(ChildRuns):
    """Runs in memory; each call takes the next of `faults`, and goes well when there are none left."""

    def __init__(self, faults: Sequence[str] = ()) -> None:
        super().__init__(PARENT)
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

    def _find(self, key: str) -> ChildRun | None:
        def act() -> ChildRun | None:
            found = [number for number, run in enumerate(self.runs) if run.key == key]
            if not found:
                return None
            run = self.runs[found[-1]]
            steps = {m.key: max(o.step for o in run.metrics if o.key == m.key) for m in run.metrics}
            return ChildRun(str(found[-1]), run.status, steps)

        return self._call(act)

    def _create(self, key: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        def act() -> str:
            self.runs.append(FakeRun(key, dict(tags), start_ms, name=name))
            return str(len(self.runs) - 1)

        return self._call(act)

    def _log(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        def act() -> None:
            if any(metric.key == self.refused_metric for metric in metrics):
                raise Refusal("a bad value")
            self.batches.append(len(metrics))
            run = self.runs[int(run_id)]
            run.metrics.update(dict.fromkeys(metrics))
            run.params.update(params)
            run.tags.update(tags)

        self._call(act)

    def _upload(self, run_id: str, folder: str, name: str) -> None:
        def act() -> None:
            if not self.takes_files:
                raise PermissionError(13, "Permission denied")
            for file in Path(folder).rglob("*"):
                if file.is_file():
                    path = "/".join(filter(None, [name, str(file.relative_to(folder))]))
                    self.runs[int(run_id)].files[path] = file.read_text()

        self._call(act)

    def _set_status(self, run_id: str, status: str, at_ms: int) -> None:
        self._call(lambda: setattr(self.runs[int(run_id)], "status", status))

    def run(self, key: str) -> FakeRun:
        (run,) = [run for run in self.runs if run.key == key]
        return run


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Pauses of a millisecond."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wertune.tracking.outage, "FIRST_PAUSE_S", 0.001)
        patch.setattr(wertune.tracking.outage, "LONGEST_PAUSE_S", 0.002)
        yield


@pytest.fixture
def lines() -> list[str]:
    return []


def _die(journal: JournalWriter) -> None:
    """The process is killed, with what it remembers. Nothing is saved at the end of one that is not."""
    journal.close()
    journal._server._written.clear()
    assert not any(thread.is_alive() for thread in journal._threads)


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

    def say(self, journal: JournalWriter, run: str, kind: str, number: int, value: float) -> None:
        """Says it of the run, and remembers what should come of it."""
        if kind == "metrics":
            journal.log(run, metrics=[(number, {"loss": value})])
            if not self.metrics or number > self.metrics[-1][0]:
                self.metrics.append((number, value))
        elif kind == "params":
            journal.log(run, params={f"p{number}": number})
            self.params[f"p{number}"] = str(number)
        elif kind == "tags":
            journal.log(run, tags={f"t{number}": value})
            self.tags[f"t{number}"] = str(value)
        elif kind == "text":
            journal.artifacts(run, {f"{number}.txt": str(value).encode()}, "notes")
            self.files[f"notes/{number}.txt"] = str(value)
        else:
            journal.log(run, tags={"end": value}, status="FINISHED")
            self.tags["end"], self.status = str(value), "FINISHED"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    operations=OPERATIONS,
    faults=st.lists(st.sampled_from(FAULTS), max_size=40),
    deaths=st.sets(st.integers(0, 25), max_size=4),
    torn=st.binary(max_size=30).map(lambda rest: rest.replace(b"\n", b"")),
    most=st.sampled_from((3, wertune.tracking.journal_writer.MAX_VALUES)),
)
def test_nothing_is_lost_nor_doubled_whatever_fails_and_whenever_the_process_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, str, int]],
    faults: list[str],
    deaths: set[int],
    torn: bytes,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wertune.tracking.journal_writer.MAX_VALUES", most)
    folder = tmp_path_factory.mktemp("journal")
    server = FakeServer(faults)
    said: dict[str, Expected] = {}
    journal = JournalWriter(folder, PARENT, server, lambda _: None)
    for position, (key, kind, number) in enumerate(operations):
        if position in deaths:
            _die(journal)
            with (folder / "journal.jsonl").open("ab") as file:
                file.write(torn)
            journal = JournalWriter(folder, PARENT, server, lambda _: None)
        if key not in said or said[key].status == "FINISHED":
            journal.open(key, f"trial {key}", {"point": "{}"})
            said.setdefault(key, Expected()).status = "RUNNING"
        said[key].say(journal, key, kind, number, float(position))
    _die(journal)
    server.faults = iter(())
    last = JournalWriter(folder, PARENT, server, lambda _: None)
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


def test_an_outage_is_told_once_at_its_beginning_and_its_end(tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    server.is_up.clear()
    journal = JournalWriter(tmp_path, PARENT, server, lines.append)
    journal.open("a", "trial a", {})
    for step in range(300):
        journal.log("a", metrics=[(step, {"loss": step, "wer": step})])
    with pytest.raises(TrackingError, match=r"301 operations of run parent .*Connection refused.*--resume parent"):
        journal.flush(0.2)
    server.is_up.set()
    journal.flush(20)
    journal.close()
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
    journal = JournalWriter(tmp_path / "journal", PARENT, server, lines.append)
    journal.open("a", "trial a", {})
    journal.artifacts("a", {"weights": b"first"}, "adapter")
    journal.log("a", status="FINISHED")
    journal.open("b", "trial b", {})
    journal.log("b", metrics=[(1, {"loss": 1.0})])
    journal.artifacts("a", {"weights": b"second"}, "adapter")
    with pytest.raises(TrackingError, match="has not taken 2 operations"):
        journal.flush(0.3)
    assert server.run("a").status == "FINISHED"
    assert server.run("b").metrics
    server.takes_files = True
    journal.flush(20)
    journal.close()
    assert server.run("a").files == {"adapter/weights": "second"}
    assert "Permission denied" in lines[0]


@pytest.mark.parametrize("resumes", [False, True])
def test_a_file_behind_much_that_is_written_goes_without_a_push(tmp_path: Path, resumes: bool) -> None:
    server = FakeServer()
    server.takes_files = False
    journal = JournalWriter(tmp_path, PARENT, server, lambda _: None)
    journal.open("a", "trial a", {})
    journal.artifacts("a", {"early.txt": b"early"})
    for step in range(100):
        journal.log("a", metrics=[(step, {"loss": 0.5})])
    journal.artifacts("a", {"late.txt": b"late"})
    with pytest.raises(TrackingError, match="has not taken 2 operations"):
        journal.flush(0.5)
    server.takes_files = True
    if resumes:
        _die(journal)
        journal = JournalWriter(tmp_path, PARENT, server, lambda _: None)
    journal.flush(10)
    journal.close()
    assert server.run("a").files == {"early.txt": "early", "late.txt": "late"}
    assert len(server.run("a").metrics) == 100


def test_files_and_the_folders_that_name_them_are_on_the_disk_before_they_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is missing is taken for one that was uploaded."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    server = FakeServer()
    server.is_up.clear()
    journal = JournalWriter(tmp_path / "journal", PARENT, server, lambda _: None)
    journal.artifacts("a", {"deep/weights": b"weights"}, "adapter")
    journal.close()
    (kept,) = (tmp_path / "journal" / "files").iterdir()
    *before, last = synced
    assert {kept / "deep" / "weights", kept / "deep", kept, kept.parent, tmp_path / "journal"} <= set(before)
    assert last == tmp_path / "journal" / "journal.jsonl"


def test_a_file_waits_for_its_run_to_be_made(tmp_path: Path) -> None:
    down = FakeServer()
    down.is_up.clear()
    before = JournalWriter(tmp_path, PARENT, down, lambda _: None)
    before.open("a", "trial a", {})
    before.artifacts("a", {"traceback.txt": b"no memory left"})
    before.close()
    journal = JournalWriter(tmp_path, PARENT, server := FakeServer(["down"]), lambda _: None)
    journal.flush(20)
    journal.close()
    assert server.run("a").files == {"traceback.txt": "no memory left"}


def test_what_the_server_will_never_take_is_kept_apart_and_the_rest_goes_on(tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    server.is_up.clear()
    journal = JournalWriter(tmp_path, PARENT, server, lines.append)
    journal.open("a", "trial a", {})
    for step in range(3):
        journal.log("a", metrics=[(step, {"loss": 0.5})])
        journal.log("a", metrics=[(step, {"refused": 0.5})])
    server.is_up.set()
    journal.flush(20)
    journal.close()
    assert [metric.step for metric in server.run("a").metrics] == [0, 1, 2]
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [(each["step"], each["reason"]) for each in refused] == [(step, "a bad value") for step in range(3)]
    assert sum("for good" in line for line in lines) == 1


def test_an_epoch_that_the_server_alone_remembers_is_not_written_again(tmp_path: Path) -> None:
    server = FakeServer()
    for folder in ("first", "second"):  # the driver's disk is lost between the two
        journal = JournalWriter(tmp_path / folder, PARENT, server)
        journal.open("a", "trial a", {})
        journal.log("a", metrics=[(1, {"loss": 0.5})])
        journal.log("a", metrics=[(2, {"loss": 0.4})])
        journal.flush(20)
        _die(journal)
    assert [metric.step for metric in server.run("a").metrics] == [1, 2]


def test_a_written_journal_is_emptied(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, PARENT, FakeServer())
    for key in "abcdefghij":
        journal.open(key, f"trial {key}", {})
        journal.log(key, metrics=[(1, {f"metric_{number}": number for number in range(50)})], status="FINISHED")
    journal.flush(20)
    journal.close()
    assert (tmp_path / "journal.jsonl").stat().st_size == 0
    again = JournalWriter(tmp_path, PARENT, server := FakeServer())
    again.open("k", "trial k", {})
    again.log("k", status="KILLED")
    again.flush(20)
    again.close()
    assert [(run.key, run.status) for run in server.runs] == [("k", "KILLED")]


def test_what_an_earlier_release_left_is_written_once(tmp_path: Path) -> None:
    """Its journal kept what was written, numbered, with how far that is in `state.json`."""
    operations: list[dict[str, Any]] = [
        {"kind": "open", "run": "0", "name": "trial 01", "values": {"wertune.point": "{}"}},
        {"kind": "params", "run": "0", "values": {"lora_r": "8"}},
        {"kind": "metrics", "run": "0", "values": {"val_wer": 0.5}, "step": 1},
        {"kind": "files", "run": "0", "files": "uploaded", "name": "adapter"},
        {"kind": "metrics", "run": "0", "values": {"val_wer": 0.4}, "step": 2},
        {"kind": "files", "run": "0", "files": "waits", "name": "adapter"},
        {"kind": "tags", "run": "0", "values": {"wertune.outcome": "pruned"}},
        {"kind": "end", "run": "0", "status": "FINISHED"},
    ]
    lines = [json.dumps({"n": 90 + number, "at_ms": number, **each}) for number, each in enumerate(operations)]
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + '\n{"n": 98, "ki')
    (tmp_path / "files" / "waits").mkdir(parents=True)
    (tmp_path / "files" / "waits" / "weights").write_text("weights")
    written = {"run_id": "0", "steps": {"val_wer": 1}, "ended": False}
    (tmp_path / "state.json").write_text(json.dumps({"parent": "parent", "records": 92, "runs": {"0": written}}))
    server = FakeServer()
    server.runs = [FakeRun("0", {"wertune.point": "{}"}, 90)]
    server._log("0", [Metric("val_wer", 0.5, 2, 1)], {"lora_r": "8"}, {})
    journal = JournalWriter(tmp_path, PARENT, server)
    journal.flush(20)
    journal.close()
    (run,) = server.runs
    assert [(metric.step, metric.value, metric.timestamp) for metric in run.metrics] == [(1, 0.5, 2), (2, 0.4, 4)]
    assert (run.status, run.params, run.files) == ("FINISHED", {"lora_r": "8"}, {"adapter/weights": "weights"})
    assert run.tags == {"wertune.point": "{}", "wertune.outcome": "pruned"}


def test_what_is_told_while_a_file_hangs_is_written(tmp_path: Path) -> None:
    server, hangs = FakeServer(), threading.Event()
    upload = server._upload
    server._upload = lambda *said: (hangs.wait(20), upload(*said))  # type: ignore[assignment]
    journal = JournalWriter(tmp_path, PARENT, server)
    journal.open("a", "trial a", {})
    journal.artifacts("a", {"weights": b"weights"})
    journal.log("a", metrics=[(1, {"loss": 0.5})], status="FINISHED")
    with pytest.raises(TrackingError, match="has not taken 1 operations"):
        journal.flush(1)
    assert (server.run("a").status, server.run("a").files) == ("FINISHED", {})
    hangs.set()
    journal.flush(20)
    journal.close()
    assert server.run("a").files == {"weights": "weights"}


def test_a_clock_that_jumps_back_loses_and_reorders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9_000, 8_000, 1_000, 1_000, 500])
    monkeypatch.setattr(wertune.tracking.journal_writer, "now_ms", lambda: next(times))
    journal = JournalWriter(tmp_path, PARENT, server := FakeServer())
    journal.open("a", "trial a", {})
    for epoch in (1, 2, 3):
        journal.log("a", metrics=[(epoch, {"val_wer": 1 / epoch})])
    journal.log("a", status="FINISHED")
    journal.flush(20)
    journal.close()
    (written,) = server.runs
    assert [(metric.step, metric.value) for metric in written.metrics] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert written.status == "FINISHED"


def test_a_folder_belongs_to_one_search_and_one_process(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(TrackingError, match="another process"), held(tmp_path):
        pass
    JournalWriter(tmp_path, PARENT, FakeServer()).close()
    with pytest.raises(TrackingError, match="what run parent said, but this is run other"):
        JournalWriter(tmp_path, RunRef(PARENT.tracking_uri, "other"), FakeServer())


def test_a_damaged_line_inside_the_journal_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"n": 1, "kind": "end", "run": "a"}\n\0\0\0\n')
    with pytest.raises(TrackingError, match=r"journal\.jsonl behind byte 36 is damaged .* delete that line"):
        JournalWriter(tmp_path, PARENT, FakeServer())


def test_an_operation_that_a_full_disk_refuses_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    journal = JournalWriter(tmp_path, PARENT, server)
    journal.open("a", "trial a", {})
    journal.log("a", metrics=[(1, {"loss": 0.5})])
    journal.flush(20)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wertune.tracking.journal_writer.os.fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device.*make room"):
            journal.log("a", metrics=[(2, {"loss": 0.4})])
    journal.log("a", status="KILLED")
    journal.flush(20)
    journal.close()
    (run,) = server.runs
    assert ([metric.step for metric in run.metrics], run.status) == ([1], "KILLED")
