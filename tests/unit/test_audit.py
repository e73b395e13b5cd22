"""deploy/audit.py: what is wrong with a lock, and the difference between no vulnerability and no answer."""

import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy" / "audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _package(name: str, version: str, **values: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "source": {"registry": "an index"},
        "wheels": [{"url": "a wheel", "hash": "sha256:00"}],
    } | values


def test_every_file_of_a_package_from_an_index_needs_a_hash(audit: ModuleType) -> None:
    good = _package("good", "1.0", sdist={"url": "a source", "hash": "sha256:01"})
    ours = {"name": "ours", "version": "0.1.0", "source": {"virtual": "."}}
    assert audit.unhashed([good, ours]) == []
    bad = [
        _package("wheel", "1.0", wheels=[{"url": "a wheel"}]),
        _package("sdist", "1.0", sdist={"url": "a source", "hash": "md5:01"}),
        _package("empty", "1.0", wheels=[]),
    ]
    assert [line.split()[1] for line in audit.unhashed([good, *bad])] == ["wheel", "sdist", "empty"]


def test_pins_of_conda_are_versions_of_the_lock(audit: ModuleType) -> None:
    packages = [_package("numpy", "2.4.6"), _package("numpy", "2.5.0"), _package("ray", "2.60.0")]
    environment = {"dependencies": ["python=3.11", {"pip": ["numpy==2.4.6", "ray[tune]==2.60.0"]}]}
    assert audit.other_pins(environment, packages) == []
    environment["dependencies"][1] = {"pip": ["numpy==2.4.7", "ray[tune]>=2.60.0"]}
    assert audit.other_pins(environment, packages) == [
        "conda.yaml: ray[tune]>=2.60.0 is no exact pin",
        "conda.yaml: numpy==2.4.7 is not in uv.lock",
    ]


def test_the_hashes_and_pins_of_this_project_hold(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "stale_lock", lambda root: [])  # uv may want the index for that
    assert audit.check_lock(ROOT) == []


def test_what_builds_the_environment_and_is_not_in_the_lock_is_pinned() -> None:
    assert re.search(r"pip install .*\buv==\d+\.\d+\.\d+$", (ROOT / "Makefile").read_text(), re.M)
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert re.fullmatch(r"hatchling==\d+\.\d+\.\d+", backend)


def test_a_lock_that_is_not_what_the_project_asks_for_is_a_fault(audit: ModuleType, tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "a"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = []\n')
    uv = audit._tool("uv")
    if not Path(uv).exists():
        pytest.skip("uv is not beside this Python")
    subprocess.run([uv, "lock", "--offline"], cwd=tmp_path, check=True, capture_output=True)
    assert audit.stale_lock(tmp_path) == []
    project.write_text(project.read_text().replace("[]", '["no-such-package-of-anyone==1.0"]'))
    assert "uv lock --check" in audit.stale_lock(tmp_path)[0]


def test_a_source_that_knows_no_package_is_no_answer(audit: ModuleType) -> None:
    skipped = {"name": "ray", "skip_reason": "Dependency not found"}
    assert audit.read_advisories(json.dumps({"dependencies": [skipped]})) is None
    assert audit.read_advisories("") is None
    sound = {"name": "mlflow", "version": "3.17.2", "vulns": []}
    assert audit.read_advisories(json.dumps({"dependencies": [skipped, sound]})) == (1, [])


def test_a_source_that_does_not_know_the_first_package_is_asked_for_no_other(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = "# by uv\na==1.0 \\\n    --hash=sha256:00\n    # via b\nb==2.0 \\\n    --hash=sha256:01\n"
    asked: list[tuple[str, str]] = []

    def run(command: list[str], **_: Any) -> Any:
        if command[1] == "export":
            Path(command[-1]).write_text(exported, encoding="utf-8")
            return None
        source = next(word.partition("=")[2] for word in command if word.startswith("--vulnerability-service"))
        asked.append((source, Path(command[-1]).read_text(encoding="utf-8")))
        told = {"vulns": []} if source == "osv" else {"skip_reason": "Dependency not found"}
        return subprocess.CompletedProcess(command, 0, json.dumps({"dependencies": [{"name": "a"} | told]}))

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.ask_advisories(ROOT) == (1, [])
    first = "a==1.0 \\\n    --hash=sha256:00\n"
    assert asked == [("pypi", first), ("osv", first), ("osv", exported)]


def test_a_vulnerability_is_told_with_the_version_that_mends_it(audit: ModuleType) -> None:
    vulns = [{"id": "CVE-1", "fix_versions": ["1.1"]}, {"id": "CVE-2", "fix_versions": []}]
    answer = audit.read_advisories(json.dumps({"dependencies": [{"name": "a", "version": "1.0", "vulns": vulns}]}))
    assert answer == (1, ["a 1.0: CVE-1, mended in 1.1", "a 1.0: CVE-2, mended in no version"])
