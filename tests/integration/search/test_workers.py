"""Trials whose workers are on two nodes, take over what is free, or are of `train`; the faults: test_faults.py."""

import signal
from collections.abc import Callable
from pathlib import Path

from mlflow.tracking import MlflowClient
from tests.support.nodes import two_nodes
from tests.support.searched import FIRST, OTHER, Searched, driven, interrupt, strike, terminate, then
from tests.support.workspace import Workspace


def test_workers_of_a_trial_on_two_nodes(
    make_tiny_workspace: Callable[[str], Workspace], tmp_path: Path, lay_store: Callable[[Path], str]
) -> None:
    """Each node has one core: all three trials span both, and the second one's files come through Ray.

    With the second node the last trial loses a worker, and finds no place for another one; it goes on with one worker.
    """
    workspace = make_tiny_workspace("spanning")
    lay_store(tmp_path)
    with two_nodes() as nodes:
        options = ("--address", nodes.address)
        searched = Searched(tmp_path, workspace.project, workspace.folder / "cache", options, nodes.environment)
        searched.options += ("--workers", "2")
        strikes = {"trial 03 epoch 1/": lambda _: nodes.kill_second(), "trials wait for a node: ": interrupt}
        assert searched.drive(strikes) != 0, searched.printed
        searched.options = options
        assert searched.drive() == 0, searched.printed
    assert len(searched.trials()) == len(searched.runs()) == 3
    runs = searched.children()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    resources = {name.partition(":")[0]: run.data.tags["wertune.resources"] for name, run in runs.items()}
    two = "2 workers, each 1 CPU"
    assert resources == {"trial 01": two, "trial 02": two, "trial 03": "1 CPU"}


def test_a_trial_takes_over_places_that_nobody_needs_and_may_lose_them(
    make_tiny_workspace: Callable[[str], Workspace], tmp_path: Path, lay_store: Callable[[Path], str]
) -> None:
    """One trial, and so the last from its beginning, on one of two cores.

    Its first worker is killed with what it has taken over, and the one after it takes that over again.
    """
    workspace = make_tiny_workspace("taking-over")
    lay_store(tmp_path)
    options = ("--trials", "1", "--epochs", "1000", "--take-over")
    searched = Searched(tmp_path, workspace.project, workspace.folder / "cache", options)
    has_taken, has_lost = "trial 01 has taken over free places: 2 workers", "trial 01 lost one of its workers"
    strikes = {has_taken: then(strike(FIRST, signal.SIGKILL), {has_taken: strike(OTHER, signal.SIGKILL)})}
    assert searched.drive(strikes | {has_lost: interrupt}) != 0, searched.printed
    assert searched.printed.count("trial 01 lost its process, goes on from its last epoch") == 1
    (run,) = searched.children().values()
    assert run.info.status == "KILLED"
    assert run.data.tags["wertune.resources"] == "2 workers, each 1 CPU"
    steps = [m.step for m in MlflowClient(searched.tracking).get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == [*range(1, len(steps) + 1)]


def test_train_has_several_workers_and_goes_on_without_the_one_that_it_loses(
    make_tiny_workspace: Callable[[str], Workspace],
) -> None:
    """And SIGTERM ends it in order once its cluster is gone: Ray takes the signal back as it ends.

    Of many epochs, each of which takes half a second, so that the blow does not come after the last one.
    """
    workspace = make_tiny_workspace("train-workers")
    command = workspace.command("train", "--project", "project", "--workers", "2", "--epochs", "12")
    strikes = {"epoch 2:": strike(OTHER, signal.SIGKILL), "best: this one": terminate}
    status, printed = driven(command, workspace.environment(), strikes, workspace.folder)
    assert status == 128 + signal.SIGTERM, printed
    assert "training with 2 workers …" in printed
    assert "lost a worker, goes on from its last epoch: worker 2 of 2 is gone" in printed
    assert "ended by SIGTERM" in printed
    (experiment,) = workspace.client.search_experiments(filter_string="name = 'train-workers'")
    (run,) = workspace.client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    assert run.data.tags["wertune.resources"] == "2 workers, each 1 CPU"
    steps = [metric.step for metric in workspace.client.get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == [*range(1, 13)]
