"""The order of the integration tests, and their small real projects."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.forked import Forks
from tests.support.workspace import TINY_EN, Workspace, workspace_in

# What takes long begins first: a few processes share the files, and none should wait long for the other's last one.
LONGEST_FIRST = (
    "test_faults",
    "test_search_real",
    "test_tutorial",
    "test_how_to_real",
    "test_long_how_to_real",
    "test_second_node",
    "test_workers",
    "test_registry",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of LONGEST_FIRST, then the others as they were found."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    """Runs plain commands; one server for all workers of the run, whose folders lie side by side."""
    own = tmp_path_factory.getbasetemp()
    return Forks((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "forks")


@pytest.fixture(scope="session")
def make_workspace(
    tmp_path_factory: pytest.TempPathFactory, forks: Forks, lay_store: Callable[[Path], str]
) -> Callable[..., Workspace]:
    """`make_workspace(name, base_model)`: a fresh folder with a small project called `name`, and an empty store."""

    def make(name: str, base_model: str = TINY_EN) -> Workspace:
        folder = tmp_path_factory.mktemp(name)
        lay_store(folder)
        return workspace_in(folder, name, forks, base_model)

    return make


@pytest.fixture(scope="session")
def make_tiny_workspace(
    make_workspace: Callable[..., Workspace], tiny_whisper_folder: Path
) -> Callable[[str], Workspace]:
    """As `make_workspace`, on the tiny random Whisper: for what is not about what a model writes."""
    return lambda name: make_workspace(name, str(tiny_whisper_folder))
