"""`make gpu` as it is given, where only the libraries that train are found, and what holds its tests to the code."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support.places import ROOT

NEEDED = ("torch", "transformers", "peft", "bitsandbytes", "soundfile", "jiwer", "pydantic", "numpy", "pytest")
OURS = {"wertune", "wergate", "wertune-battery"}
HIDING = """
import functools
import importlib.machinery

hidden = {names!r}
found = importlib.machinery.PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else found(name, path, target)


importlib.machinery.PathFinder.find_spec = functools.partial(find_spec)  # pytest keeps it where a function is bound
"""


def _brought(names: tuple[str, ...]) -> set[str]:
    """These packages and all that they ask for."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _asked_for(name)
    return found


def _asked_for(name: str) -> Iterator[str]:
    for line in requires(name) or []:
        asked = Requirement(line)
        if asked.marker is None or asked.marker.evaluate({"extra": ""}):
            yield canonicalize_name(asked.name)


def _without_others(folder: Path) -> dict[str, str]:
    """An environment whose processes, and theirs, find no other package: a `sitecustomize` hides it."""
    brought = _brought(NEEDED)
    of = {name: {canonicalize_name(each) for each in owners} for name, owners in packages_distributions().items()}
    hidden = sorted(name for name, owners in of.items() if not owners & (brought | OURS))
    assert {"ray", "mlflow", "optuna", "pandas", "sqlalchemy", "torchaudio", "whisper_normalizer"} <= set(hidden)
    (folder / "sitecustomize.py").write_text(HIDING.format(names=set(hidden)))
    return os.environ | {"PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}


def test_it_runs_whole_with_the_libraries_that_train_alone(tmp_path: Path) -> None:
    """Without a GPU: in small sizes, and docs/gpu.json stays as it was."""
    environment, out = _without_others(tmp_path), tmp_path / "figures.json"
    hidden = subprocess.run([sys.executable, "-c", "import ray"], env=environment, capture_output=True, text=True)
    assert "No module named 'ray'" in hidden.stderr
    kept = ROOT / "docs" / "gpu.json"
    before = kept.read_bytes() if kept.is_file() else None
    done = subprocess.run(
        ["make", "gpu", f"OUT={out}", f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (kept.read_bytes() if kept.is_file() else None) == before
    assert "no figure below is one of a GPU" in done.stdout
    found = json.loads(out.read_text())
    assert (found["is_gpu"], found["missing"], found["must_hold"]) == (False, {}, [])
    assert (found["tests"]["failed"], found["tests"]["skipped"]) == (0, 0)
    assert found["tests"]["passed"] > 10
    assert {pair["name"] for pair in found["pairs"]} == {"2 layers of 64", "3 layers of 96"}
    assert all(
        way["step_s"] > 0 and way["epoch_s"] > 0 for pair in found["pairs"] for way in (pair["ours"], pair["theirs"])
    )
    assert set(found["side_by_side"]) == {"1", "2"}
    assert all(each["clips_per_s"] > 0 for each in found["side_by_side"].values())
    assert set(found["writing"]) == {
        f"{clips}, {beams}" for clips in ("1 clip", "8 clips") for beams in ("1 beam", "5 beams")
    }
    assert all(0 <= each["waiting_share"] < 1 for each in found["writing"].values())
    assert set(found["seconds"]) == {"tests/gpu", "rate", "2 layers of 64", "3 layers of 96", "side by side", "writing"}


def test_the_command_without_make_needs_neither_an_installation_nor_other_packages(tmp_path: Path) -> None:
    environment = _without_others(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join(["platform", "registry", environment["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "wertune.bench.gpu", "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "by default docs/gpu.json on a GPU" in " ".join(done.stdout.split())


def test_a_method_that_is_gone_fails_the_types_of_the_gpu_tests(tmp_path: Path) -> None:
    """As `whisper.backward` once was, which no machine without a GPU called; `make check` looks at them all."""
    source = (ROOT / "tests" / "gpu" / "test_gpu.py").read_text(encoding="utf-8")
    assert "whisper.loss(" in source
    mutant = tmp_path / "mutant_gpu.py"
    mutant.write_text(source.replace("whisper.loss(", "whisper.backward("))
    known = ["platform/wertune", "registry/wergate", "tests/gpu/conftest.py"]  # whose types an installed package lacks
    done = subprocess.run([sys.executable, "-m", "mypy", *known, str(mutant)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert '"Whisper" has no attribute "backward"' in done.stdout
    assert "tests/gpu" in (ROOT / "pyproject.toml").read_text().split("[tool.mypy]")[1].split("[[")[0]
