"""The order of the integration tests, and their small real projects."""

import os
from collections.abc import Callable

import pytest
from tests.support.forked import Forks
from tests.support.workspace import Workspace, workspace_in

# What takes long begins first: two processes share the files, and neither should wait long for the other's last one.
LONGEST_FIRST = ("test_faults", "test_how_to_real", "test_tutorial", "test_search_real", "test_registry")


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
def make_workspace(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Callable[[str], Workspace]:
    """`make_workspace(name)`: a fresh folder with a small project called `name`."""
    return lambda name: workspace_in(tmp_path_factory.mktemp(name), name, forks)
