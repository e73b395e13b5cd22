"""A search that is killed, interrupted, robbed of worker and server and told the time wrong ends as one left alone.

With trials of one worker bit for bit, with trials of two but for rounding. All are on a tiny random Whisper in float32
and on one cache; the one left alone, beside the others, writes to a database.
"""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.support.processes import Service, free_port, shifted_clock, tracking_server
from tests.support.searched import FIRST, OTHER, Searched, interrupt, strike
from tests.support.workspace import Workspace

SET_BACK_S = 5 * 3600
TIMEOUT_S = 30.0  # a busy machine may take some of it for what takes a second
TWO = ("--workers", "2", "--worker-timeout-s", str(TIMEOUT_S))
EXACT = {"WERTUNE_PRODUCTS": "float32"}


def _kill(process: "subprocess.Popen[str]") -> None:
    process.kill()


def _interrupt_twice(process: "subprocess.Popen[str]") -> None:
    interrupt(process)
    threading.Timer(1.0, process.send_signal, [signal.SIGINT]).start()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, lay_store: Callable[[Path], str]) -> Iterator[tuple[Service, str]]:
    """MLflow's server, and its address."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    lay_store(folder)
    service = tracking_server(folder, port)
    service.start()
    yield service, f"http://127.0.0.1:{port}"
    service.stop()


@pytest.fixture(scope="module")
def make_search(
    make_tiny_workspace: Callable[[str], Workspace],
    tmp_path_factory: pytest.TempPathFactory,
    lay_store: Callable[[Path], str],
) -> Callable[..., Searched]:
    """`make_search(name, options, server)`: the same search in a folder of its own."""
    project, cache = make_tiny_workspace("faults").project, tmp_path_factory.mktemp("one-cache")

    def make(name: str, options: tuple[str, ...] = (), server: str = "") -> Searched:
        folder = tmp_path_factory.mktemp(name)
        lay_store(folder)
        return Searched(folder, project, cache, options, EXACT, server)

    return make


@pytest.fixture(scope="module")
def searches(make_search: Callable[..., Searched], server: tuple[Service, str]) -> list[Searched]:
    """The unbroken search, the one that everything happened to, and the one that lost workers of trials of two.

    Two at a time: starts and waits take most of their time.
    """
    service, address = server
    found = [make_search("unbroken"), make_search("struck", server=address), make_search("of-two", TWO)]
    unbroken, struck, of_two = found
    with ThreadPoolExecutor(1) as beside:
        whole, lost = beside.submit(unbroken.drive), beside.submit(_lose_workers, of_two)
        _strike(struck, service)
        assert whole.result() == 0, unbroken.printed
        lost.result()
    return found


def _strike(struck: Searched, service: Service) -> None:
    """The server comes back as the search ends, which waits for it; ten minutes: `python -m tests.trials.outage`."""
    assert struck.drive({"trial 01 epoch 1/": _kill}) == -signal.SIGKILL
    struck.environment = EXACT | shifted_clock(struck.folder / "set-back", -SET_BACK_S)
    assert struck.drive({"trial 02 epoch 1/": _interrupt_twice}) != 0
    struck.environment = EXACT
    strikes = {
        "trial 02 epoch 2/": lambda _: service.kill(),
        "trial 03 epoch 1/": strike(FIRST, signal.SIGKILL),
        "trial 03 epoch 2/": lambda _: service.start(),
    }
    assert struck.drive(strikes) == 0, struck.printed


def _lose_workers(of_two: Searched) -> None:
    """Each worker of a trial is lost in its way; the search goes on with one worker a trial."""
    strikes = {
        "trial 01 epoch 1/": strike(OTHER, signal.SIGKILL),
        "trial 01 epoch 2/": strike(FIRST, signal.SIGKILL),
        "trial 02 epoch 1/": strike(OTHER, signal.SIGSTOP),
        "trial 02 epoch 2/": interrupt,
    }
    assert of_two.drive(strikes) != 0, of_two.printed
    of_two.options = ()
    assert of_two.drive({"trial 02 epoch 3/": lambda _: None}) == 0, of_two.printed


@pytest.fixture
def both(searches: list[Searched]) -> tuple[Searched, Searched]:
    """The unbroken search, and the one that everything happened to."""
    unbroken, struck, _ = searches
    return unbroken, struck


@pytest.fixture
def of_two(searches: list[Searched]) -> Searched:
    """The search whose trials lost workers."""
    return searches[-1]


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


def test_ctrl_c_is_heard_after_a_search_that_nobody_interrupted(both: tuple[Searched, Searched]) -> None:
    """Ray Tune would keep it: the main job, which goes on for minutes, could not be ended at once."""
    unbroken, _ = both
    assert "Ctrl-C is heard" in unbroken.printed


def test_the_loss_of_a_worker_is_told(both: tuple[Searched, Searched]) -> None:
    assert "trial 03 lost its process, goes on from its last epoch" in both[1].printed


def test_the_loss_of_the_server_is_told(both: tuple[Searched, Searched]) -> None:
    assert "takes nothing (Connection refused)" in both[1].printed
    assert "answers again" in both[1].printed


def test_the_clock_was_wrong_when_the_second_trial_began(both: tuple[Searched, Searched]) -> None:
    began = [run.info.start_time / 1000 for _, run in sorted(both[1].children().items())]
    assert began[0] - began[1] > SET_BACK_S / 2
    assert began[2] - began[1] > SET_BACK_S / 2


def test_trials_of_two_workers_end_with_the_same_epochs_and_losses(
    both: tuple[Searched, Searched], of_two: Searched
) -> None:
    alone, struck = both[0].runs(), of_two.runs()
    assert alone.keys() == struck.keys()
    for name, (status, outcome, params, steps, _) in alone.items():
        other_status, other_outcome, other_params, other_steps, _ = struck[name]
        assert (status, outcome, params) == (other_status, other_outcome, other_params)
        for metric in ("train_loss", "val_loss"):
            assert dict(other_steps[metric]) == pytest.approx(dict(steps[metric]), rel=1e-3)


def test_each_loss_of_one_of_two_workers_is_told_with_its_cause(of_two: Searched) -> None:
    lost = "lost one of its workers, goes on from its last epoch: WorkersLost"
    assert f"trial 01 {lost}: worker 2 of 2 is gone" in of_two.printed
    assert "trial 01 lost its process, goes on from its last epoch" in of_two.printed
    silent = f"a worker of 2 was silent for {TIMEOUT_S:g} s, which worker_timeout_s allows"
    assert f"trial 02 {lost}: {silent}" in of_two.printed


def test_a_run_names_all_of_its_trial_s_workers(both: tuple[Searched, Searched], of_two: Searched) -> None:
    alone, struck = ({name: run.data.tags for name, run in search.children().items()} for search in (both[0], of_two))
    (first,) = [tags for name, tags in struck.items() if name.startswith("trial 01")]
    (whole,) = [tags for name, tags in alone.items() if name.startswith("trial 01")]
    assert first["wertune.resources"] == "2 workers, each 1 CPU"
    assert first["wertune.device"] == f"2 x {whole['wertune.device']}"
    (resumed,) = [tags for name, tags in struck.items() if name.startswith("trial 03")]
    assert resumed["wertune.resources"] == "1 CPU"


def test_nothing_is_left_running(both: tuple[Searched, Searched], of_two: Searched) -> None:
    named = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    folders = [str(search.folder) for search in (*both, of_two)]
    assert not [line for line in named if any(folder in line for folder in folders)]
