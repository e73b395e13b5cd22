"""`make audit`: known vulnerabilities of what uv.lock pins, where an advisory source answers; else the lock alone.

The lock is checked in any case: it is what pyproject.toml asks for, each package has hashes, and conda.yaml's pins are
its versions. The last line says which of the two was done. Exit status 1: something is wrong.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pypi", "osv")
PIN = re.compile(r"([\w.-]+)(?:\[.*\])?==([\w.+!-]+)")


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def stale_lock(root: Path) -> list[str]:
    """That `uv lock --check` fails, with what it says; empty where the lock is what pyproject.toml asks for."""
    done = subprocess.run([_tool("uv"), "lock", "--check"], cwd=root, capture_output=True, text=True, check=False)
    return [f"uv.lock: `uv lock --check` fails: {' '.join(done.stderr.split())}"] if done.returncode else []


def unhashed(packages: list[dict[str, Any]]) -> list[str]:
    """Packages from a registry of which a file has no sha256."""
    found = []
    for package in packages:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        if "registry" in package["source"] and not (files and all(_has_hash(file) for file in files)):
            found.append(f"uv.lock: {package['name']} {package['version']} has no sha256 hash; run `uv lock` again")
    return found


def _has_hash(file: dict[str, Any]) -> bool:
    return str(file.get("hash", "")).startswith("sha256:")


def other_pins(environment: dict[str, Any], packages: list[dict[str, Any]]) -> list[str]:
    """Pins of conda.yaml that are not versions of the lock."""
    locked = {(package["name"], package["version"]) for package in packages if "version" in package}
    lines = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pins = [PIN.fullmatch(line) for line in lines]
    found = [f"conda.yaml: {line} is no exact pin" for line, pin in zip(lines, pins, strict=True) if pin is None]
    return found + [f"conda.yaml: {pin[0]} is not in uv.lock" for pin in pins if pin and pin.groups() not in locked]


def check_lock(root: Path) -> list[str]:
    """All that is wrong with the lock, a line each."""
    packages = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))["package"]
    environment = yaml.safe_load((root / "conda.yaml").read_text(encoding="utf-8"))
    return stale_lock(root) + unhashed(packages) + other_pins(environment, packages)


def read_advisories(output: str) -> tuple[int, list[str]] | None:
    """From pip-audit's JSON how many packages it asked about and what it found; None where it could ask of none.

    pip-audit ends well and finds nothing where its source knows no package at all, as an index without advisories.
    """
    try:
        asked = [package for package in json.loads(output)["dependencies"] if "skip_reason" not in package]
    except ValueError:
        return None
    vulnerable = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"mended in {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for package in asked
        for vulnerability in package["vulns"]
    ]
    return (len(asked), vulnerable) if asked else None


def ask_advisories(root: Path) -> tuple[int, list[str]] | None:
    """What the first source that answers says of the lock's packages; None where none answers."""
    export = ["export", "--frozen", "--all-extras", "--all-groups", "--no-emit-project", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        subprocess.run([_tool("uv"), *export, "--output-file", requirements], cwd=root, check=True)
        first = Path(folder, "first.txt")
        first.write_text(first_requirement(requirements.read_text(encoding="utf-8")), encoding="utf-8")
        for source in SOURCES:
            # An index without advisories says so for each package, one after the other, and all would take a minute.
            if _asked(source, first) and (answer := _asked(source, requirements)):
                return answer
    return None


def first_requirement(exported: str) -> str:
    """The first package of what `uv export` writes, with its hashes, which stand on lines that are indented."""
    lines = [line for line in exported.splitlines(keepends=True) if not line.lstrip().startswith("#")]
    return lines[0] + "".join(takewhile(lambda line: line[0].isspace(), lines[1:]))


def _asked(source: str, requirements: Path) -> tuple[int, list[str]] | None:
    """What the source says of these packages; None where it does not answer."""
    command = [_tool("pip-audit"), "--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json"]
    asking = [*command, f"--vulnerability-service={source}", "--requirement", str(requirements)]
    return read_advisories(subprocess.run(asking, capture_output=True, text=True, check=False).stdout)


def main() -> None:
    faults = check_lock(ROOT)
    answer = ask_advisories(ROOT)
    asked = "no advisory source answers"
    if answer:
        asked = f"{answer[0]} packages asked about in an advisory source"
        faults += answer[1]
    for fault in faults:
        print(fault)
    print(f"audit: {asked}, the lock checked; {len(faults) or 'no'} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
