"""A search that is killed, interrupted, robbed of worker and server and told the time wrong ends as one left alone.

One worker each, on real tiny.en; both searches run at once, on one cache; the one left alone writes to a database.
"""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest
from tests.support.processes import Service, free_port, shifted_clock, tracking_server
from tests.support.searched import Searched
from tests.support.workspace import Workspace

SET_BACK_S = 5 * 3600
AWAY_S = 20  # ten minutes: python -m tests.trials.outage


def _kill(process: "subprocess.Popen[str]") -> None:
    process.kill()


def _interrupt_twice(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    threading.Timer(1.0, process.send_signal, [signal.SIGINT]).start()


def _kill_worker(process: "subprocess.Popen[str]") -> None:
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "ray::" in _title(child)]
    trials = [worker for worker in workers if "ImplicitFunc" in _title(worker)]
    assert trials, [_title(worker) for worker in workers]
    for trial in trials:
        trial.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """MLflow's server, and its address."""
    port = free_port()
    service = tracking_server(tmp_path_factory.mktemp("server"), port)
    service.start()
    yield service, f"http://127.0.0.1:{port}"
    service.stop()


@pytest.fixture(scope="module")
def both(
    make_workspace: Callable[[str], Workspace],
    tmp_path_factory: pytest.TempPathFactory,
    server: tuple[Service, str],
) -> tuple[Searched, Searched]:
    """The unbroken search, and the one that everything happened to."""
    project, cache = make_workspace("faults").project, tmp_path_factory.mktemp("one-cache")
    unbroken = Searched(tmp_path_factory.mktemp("unbroken"), project, cache)
    service, address = server
    struck = Searched(tmp_path_factory.mktemp("struck"), project, cache, server=address)
    back = threading.Timer(AWAY_S, service.start)

    def take_server_away(process: "subprocess.Popen[str]") -> None:
        service.kill()
        back.start()

    status: list[int] = []
    beside = threading.Thread(target=lambda: status.append(unbroken.drive()))
    beside.start()
    try:
        assert struck.drive({"trial 01 epoch 1/": _kill}) == -signal.SIGKILL
        struck.environment = shifted_clock(tmp_path_factory.mktemp("clock") / "set-back", -SET_BACK_S)
        assert struck.drive({"trial 02 epoch 1/": _interrupt_twice}) != 0
        struck.environment = {}
        strikes = {"trial 02 epoch 2/": take_server_away, "trial 03 epoch 1/": _kill_worker}
        assert struck.drive(strikes) == 0, struck.printed
    finally:
        beside.join()
    assert status == [0], unbroken.printed
    return unbroken, struck


def test_the_same_configurations_finish_with_the_same_epochs(both: tuple[Searched, Searched]) -> None:
    unbroken, struck = both
    assert struck.trials() == unbroken.trials()
    assert all(state.is_finished() for _, state, _, _ in struck.trials())


def test_no_run_is_doubled_no_metric_lost_or_repeated_and_the_adapters_are_the_same(
    both: tuple[Searched, Searched],
) -> None:
    unbroken, struck = both
    assert struck.runs() == unbroken.runs()
    assert {status for status, *_ in struck.runs().values()} == {"FINISHED"}


def test_the_loss_of_a_worker_is_told(both: tuple[Searched, Searched]) -> None:
    assert "trial 03 lost its process, goes on from its last epoch" in both[1].printed


def test_the_loss_of_the_server_is_told(both: tuple[Searched, Searched]) -> None:
    assert "takes nothing (Connection refused)" in both[1].printed
    assert "answers again" in both[1].printed


def test_the_clock_was_wrong_when_the_second_trial_began(both: tuple[Searched, Searched]) -> None:
    began = [run.info.start_time / 1000 for _, run in sorted(both[1].children().items())]
    assert began[0] - began[1] > SET_BACK_S / 2
    assert began[2] - began[1] > SET_BACK_S / 2
