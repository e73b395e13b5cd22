"""conda.yaml, pyproject.toml and uv.lock say the same."""

import re
import tomllib
from typing import Any

import click
import yaml
from packaging.markers import Marker
from tests.support.places import ROOT


def _locked() -> dict[str, str]:
    """The lock's versions for the Python of conda.yaml; a package may be locked once for each range of Pythons."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = [package for package in lock["package"] if "version" in package and _is_for_conda(package)]
    return {package["name"]: package["version"] for package in packages}


def _is_for_conda(package: dict[str, Any]) -> bool:
    python = {"python_full_version": f"{_conda_python()}.9", "python_version": _conda_python()}
    markers = package.get("resolution-markers", [])
    return not markers or any(Marker(marker).evaluate(python) for marker in markers)


def _conda_python() -> str:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    return next(entry.partition("=")[2] for entry in environment["dependencies"] if str(entry).startswith("python="))


def _conda_pins() -> dict[str, str]:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    return {re.sub(r"\[.*\]", "", name): version for name, _, version in (pin.partition("==") for pin in pins)}


def test_conda_pins_every_dependency_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["demo"]
    assert {re.match(r"[\w.-]+", name)[0] for name in wanted} == set(_conda_pins())  # type: ignore[index]


def test_conda_pins_are_those_of_the_lock() -> None:
    locked = _locked()
    assert {name: locked[name] for name in _conda_pins()} == _conda_pins()


def _package(command: str) -> str:
    """`wertune` or `wergate`."""
    return re.search(r"python -m (\w+) ", command)[1]  # type: ignore[index]


def _commands(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command}


def test_every_entry_point_is_a_command() -> None:
    from wergate.__main__ import cli as wergate
    from wertune.__main__ import cli as wertune

    tools: dict[str, click.Group] = {"wertune": wertune, "wergate": wergate}
    commands = {(tool, name): command for tool, group in tools.items() for name, command in _commands(group).items()}
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    entry_points = {(_package(entry["command"]), name): entry for name, entry in project["entry_points"].items()}
    assert set(entry_points) == set(commands)
    for name, entry in entry_points.items():
        options = {option.lstrip("-") for parameter in commands[name].params for option in parameter.opts}
        assert {key.replace("_", "-") for key in entry.get("parameters", {})} <= options
    assert project["entry_points"]["transcribe"]["parameters"]["piece_s"]["default"] == ""  # as the version serves


def test_the_pages_tell_whose_commands_they_are() -> None:
    from wergate.__main__ import cli as wergate

    text = " ".join((ROOT / "docs" / "environments.md").read_text(encoding="utf-8").split())
    told = text.partition("but for ")[2].partition(", which are commands of `python -m wergate`")[0]
    assert sorted(told.replace(" and ", ", ").split(", ")) == sorted(f"`{name}`" for name in wergate.commands)
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("\n## ")[0]
    (first,) = re.findall(r"from `(\w+)` on, `python -m wergate`", " ".join(text.split()))
    shown = re.findall(r"^\| `mlflow run \. -e (\w+)", text, flags=re.MULTILINE)
    assert [name for name in shown if name in wergate.commands] == shown[shown.index(first) :] != []


def test_no_package_hides_the_standard_platform_module() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
