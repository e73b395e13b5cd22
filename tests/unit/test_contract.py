"""The names that wertune and wergate share stand in one file: no other code types them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from wertune.base import contract

ROOT = Path(__file__).resolve().parents[2]
ROOTS = (ROOT / "platform", ROOT / "registry")
MODULES = sorted(path for root in ROOTS for path in root.rglob("*.py") if path != Path(contract.__file__))
PACKAGES = tuple(f"{package}." for package in ("wertune", "wergate"))
# Words of a policy and of its decisions, which are named as the metrics that they hold to a limit.
NAMES_OF_GATES = ("registry/wergate/gates/kinds/", "platform/wertune/commands/next_steps.py")


def _named() -> set[str]:
    """All values of the contract that are a name of their own, and not an ordinary word."""
    values = {value for key, value in vars(contract).items() if key.isupper() and isinstance(value, str)}
    return {text for text in values if any(sign in text for sign in "._")}


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of the code, parts of f-strings included; no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def _is_module(text: str) -> bool:
    """Whether `wertune.search.worker:name` names code."""
    parts = text.partition(":")[0].split(".")[:2]
    return any((root.joinpath(*parts)).is_dir() or root.joinpath(*parts).with_suffix(".py").is_file() for root in ROOTS)


def test_no_name_of_the_contract_is_typed_elsewhere() -> None:
    named = _named()
    assert {"wertune.engine", "wergate.report_for", "eval_report.json", "adapter_mb"} <= named
    stray = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in MODULES
        for line, text in _texts(path)
        if (text in named and not str(path.relative_to(ROOT)).startswith(NAMES_OF_GATES))
        or (text.startswith(PACKAGES) and not _is_module(text))
    ]
    assert not stray, "import them from wertune.base.contract"


@pytest.mark.parametrize("kind", ["_TAG", "_PREFIX"])
def test_no_two_names_are_one(kind: str) -> None:
    values = [value for key, value in vars(contract).items() if key.endswith(kind)]
    assert len(set(values)) == len(values)


def test_the_contract_imports_nothing() -> None:
    tree = ast.parse(Path(contract.__file__).read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
