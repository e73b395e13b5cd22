"""The shell blocks of the how-to on words alone, run in their order in an empty folder as a reader would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wertune.synthesis_config import SynthesisConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shown_commands import FENCE, shell_blocks

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "words-first.md"
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("platform", "registry"))


@pytest.mark.skipif(
    not all(map(shutil.which, ("espeak-ng", "flite"))), reason="espeak-ng and flite, which the page names, are needed"
)
def test_a_reader_who_types_the_page_has_a_search_before_him(tmp_path: Path) -> None:
    script = "\n".join(shell_blocks(PAGE))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    made, first, second = done.stdout.split("# What was spoken")
    assert "wertune synthesize" in made
    for spoken in (first, second):
        assert "Sentences are missing" not in spoken
        assert "next:" not in spoken
    assert "N O ay *" in first
    assert "my_voices:Klatt" not in first
    assert "my_voices:Klatt" in second
    assert "trials of at most 1 epochs" in second


def test_the_shown_synthesis_yaml_is_one() -> None:
    (shown,) = [
        match["body"] for match in FENCE.finditer(PAGE.read_text(encoding="utf-8")) if match["language"] == "yaml"
    ]
    assert SynthesisConfig.model_validate(yaml.safe_load(shown)).seed == 1


def _environment(folder: Path) -> dict[str, str]:
    """`wertune` on the path, from this checkout; as when installed, only PYTHONPATH leads to the reader's modules."""
    tools = folder.with_name(f"{folder.name}-bin")
    tools.mkdir()
    tool = tools / "wertune"
    tool.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{SOURCES}:$PYTHONPATH"\nexec "{sys.executable}" -P -m wertune "$@"\n',
        encoding="utf-8",
    )
    tool.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"PATH": os.pathsep.join([str(tools), os.environ["PATH"]]), "HF_HUB_OFFLINE": "1"}
