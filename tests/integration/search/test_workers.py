"""Trials of several workers on several nodes; what befalls workers of one node is in test_faults.py."""

from collections.abc import Callable
from pathlib import Path

from tests.support.nodes import two_nodes
from tests.support.searched import Searched
from tests.support.workspace import Workspace


def test_workers_of_a_trial_on_two_nodes(
    make_tiny_workspace: Callable[[str], Workspace], tmp_path: Path, lay_store: Callable[[Path], str]
) -> None:
    """Each node has one core: all four trials span both, and the second one's files come through Ray."""
    workspace = make_tiny_workspace("spanning")
    lay_store(tmp_path)
    with two_nodes() as nodes:
        options = ("--address", nodes.address, "--trials", "4", "--workers", "2")
        searched = Searched(tmp_path, workspace.project, workspace.folder / "cache", options, nodes.environment)
        assert searched.drive() == 0, searched.printed
    assert len(searched.trials()) == len(searched.runs()) == 4
    for run in searched.children().values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["wertune.resources"] == "2 workers, each 1 CPU"
