"""Trials of two workers come to what trials of one come to, whatever befalls either worker.

Both searches train a tiny random Whisper in float32, the one left alone with one worker a trial, the other with two.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient
from tests.support.nodes import two_nodes
from tests.support.searched import Searched, driven
from tests.support.workspace import Workspace

FIRST, OTHER = "ImplicitFunc", "Mate"  # how Ray names a trial's first worker, and the others
TIMEOUT_S = 40.0  # a busy machine may take some of it for what takes a second
TWO = ("--workers", "2", "--worker-timeout-s", str(TIMEOUT_S))


def _strike(kind: str, with_: signal.Signals) -> Callable[["subprocess.Popen[str]"], None]:
    def strike(process: "subprocess.Popen[str]") -> None:
        children = psutil.Process(process.pid).children(recursive=True)
        titles = {child: " ".join(child.cmdline()) for child in children if child.is_running()}
        found = [child for child, title in titles.items() if "ray::" in title and kind in title]
        assert found, titles.values()
        for each in found:
            os.kill(each.pid, with_)

    return strike


def _interrupt(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


def _project(workspace: Workspace, base: Path) -> Path:
    settings = yaml.safe_load((workspace.project / "project.yaml").read_text())
    (workspace.project / "project.yaml").write_text(yaml.safe_dump(settings | {"base_model": str(base)}))
    return workspace.project


@pytest.fixture(scope="module")
def both(
    make_workspace: Callable[[str], Workspace], tiny_whisper_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Searched, Searched]:
    """The search with one worker a trial, and the one that everything happened to."""
    project, cache = _project(make_workspace("workers"), tiny_whisper_folder), tmp_path_factory.mktemp("one-cache")
    exact = {"WERTUNE_PRODUCTS": "float32"}
    alone = Searched(tmp_path_factory.mktemp("alone"), project, cache, environment=exact)
    struck = Searched(tmp_path_factory.mktemp("struck"), project, cache, TWO, exact)
    status: list[int] = []
    beside = threading.Thread(target=lambda: status.append(alone.drive()))
    beside.start()
    try:
        strikes = {
            "trial 01 epoch 1/": _strike(OTHER, signal.SIGKILL),
            "trial 01 epoch 2/": _strike(FIRST, signal.SIGKILL),
            "trial 02 epoch 1/": _strike(OTHER, signal.SIGSTOP),
            "trial 02 epoch 2/": _interrupt,
        }
        assert struck.drive(strikes) != 0, struck.printed
        struck.options = ()  # it goes on with one worker a trial
        assert struck.drive({"trial 02 epoch 3/": lambda _: None}) == 0, struck.printed
    finally:
        beside.join()
    assert status == [0], alone.printed
    return alone, struck


def test_every_trial_ends_with_the_same_epochs_and_losses(both: tuple[Searched, Searched]) -> None:
    alone, struck = (search.runs() for search in both)
    assert alone.keys() == struck.keys()
    for name, (status, outcome, params, steps, _) in alone.items():
        other_status, other_outcome, other_params, other_steps, _ = struck[name]
        assert (status, outcome, params) == (other_status, other_outcome, other_params)
        for metric in ("train_loss", "val_loss"):
            assert dict(other_steps[metric]) == pytest.approx(dict(steps[metric]), rel=1e-3)


def test_each_loss_is_told_with_its_cause(both: tuple[Searched, Searched]) -> None:
    printed = both[1].printed
    assert (
        "trial 01 lost one of its workers, goes on from its last epoch: WorkersLost: worker 2 of 2 is gone" in printed
    )
    assert "trial 01 lost its process, goes on from its last epoch" in printed
    silent = f"a worker of 2 was silent for {TIMEOUT_S:g} s, which worker_timeout_s allows"
    assert f"trial 02 lost one of its workers, goes on from its last epoch: WorkersLost: {silent}" in printed


def test_a_run_names_all_of_its_trial_s_workers(both: tuple[Searched, Searched]) -> None:
    alone, struck = ({name: run.data.tags for name, run in search.children().items()} for search in both)
    (first,) = [tags for name, tags in struck.items() if name.startswith("trial 01")]
    (whole,) = [tags for name, tags in alone.items() if name.startswith("trial 01")]
    assert first["wertune.resources"] == "2 workers, each 1 CPU"
    assert first["wertune.device"] == f"2 x {whole['wertune.device']}"
    (resumed,) = [tags for name, tags in struck.items() if name.startswith("trial 03")]
    assert resumed["wertune.resources"] == "1 CPU"


def test_nothing_is_left_running(both: tuple[Searched, Searched]) -> None:
    named = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    folders = [str(search.folder) for search in both]
    assert not [line for line in named if any(folder in line for folder in folders)]


def test_workers_of_a_trial_on_two_nodes(
    make_workspace: Callable[[str], Workspace], tiny_whisper_folder: Path, tmp_path: Path
) -> None:
    """Each node has one core: all four trials span both, and the second one's files come through Ray.

    With the second node the last trial loses a worker, and finds no place for another one; it goes on with one worker.
    """
    workspace = make_workspace("spanning")
    project = _project(workspace, tiny_whisper_folder)
    with two_nodes() as nodes:
        options = ("--address", nodes.address, "--trials", "4")
        searched = Searched(tmp_path, project, workspace.folder / "cache", options, nodes.environment)
        searched.options += ("--workers", "2")
        strikes = {"trial 04 epoch 1/": lambda _: nodes.kill_second(), "trials wait for a node: ": _interrupt}
        assert searched.drive(strikes) != 0, searched.printed
        searched.options = options
        assert searched.drive() == 0, searched.printed
    assert len(searched.trials()) == len(searched.runs()) == 4
    runs = searched.children()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    resources = {name.partition(":")[0]: run.data.tags["wertune.resources"] for name, run in runs.items()}
    two = "2 workers, each 1 CPU"
    assert resources == {"trial 01": two, "trial 02": two, "trial 03": two, "trial 04": "1 CPU"}


def test_a_trial_takes_over_places_that_nobody_needs_and_may_lose_them(
    make_workspace: Callable[[str], Workspace], tiny_whisper_folder: Path, tmp_path: Path
) -> None:
    """One trial, and so the last from its beginning, on one of two cores."""
    workspace = make_workspace("taking-over")
    project = _project(workspace, tiny_whisper_folder)
    options = ("--trials", "1", "--epochs", "1000", "--take-over")
    searched = Searched(tmp_path, project, workspace.folder / "cache", options)
    has_taken, has_lost = "trial 01 has taken over free places: 2 workers", "trial 01 lost one of its workers"
    assert searched.drive({has_taken: _strike(OTHER, signal.SIGKILL), has_lost: _interrupt}) != 0, searched.printed
    (run,) = searched.children().values()
    assert run.info.status == "KILLED"
    assert run.data.tags["wertune.resources"] == "2 workers, each 1 CPU"
    steps = [m.step for m in MlflowClient(searched.tracking).get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == [*range(1, len(steps) + 1)]


def test_train_has_several_workers_and_goes_on_without_the_one_that_it_loses(
    make_workspace: Callable[[str], Workspace], tiny_whisper_folder: Path
) -> None:
    workspace = make_workspace("train-workers")
    _project(workspace, tiny_whisper_folder)
    command = workspace.command("train", "--project", "project", "--workers", "2", "--epochs", "3")
    strikes = {"epoch 2": _strike(OTHER, signal.SIGKILL)}
    status, printed = driven(command, workspace.environment(), strikes, workspace.folder)
    assert status == 0, printed
    assert "training with 2 workers …" in printed
    assert "lost a worker, goes on from its last epoch: worker 2 of 2 is gone" in printed
    (version,) = workspace.client.search_model_versions()
    run = workspace.client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["wertune.resources"] == "2 workers, each 1 CPU"
    steps = [metric.step for metric in workspace.client.get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == [1, 2, 3]
