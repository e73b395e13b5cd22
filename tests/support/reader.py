"""Someone who types a page's shell blocks in a folder of their own, with this checkout's commands on the path."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.forked import Forks
from tests.support.places import ROOT

FORKED = ROOT / "tests" / "support" / "forked.py"
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("platform", "registry"))


def typed(script: str, folder: Path, forks: Forks) -> str:
    """What bash says of the script, which must end well; its tools stand beside the folder."""
    forks.start()
    tools = folder.with_name(f"{folder.name}-bin")
    tools.mkdir()
    for name in ("wertune", "wergate"):
        # As when installed: only PYTHONPATH, and not the folder itself, leads to the reader's own modules.
        run = f'"{sys.executable}" -S "{FORKED}" "{forks.folder}" -P -m {name} "$@"'
        command = f'export PYTHONPATH="{SOURCES}:$PYTHONPATH"\nexec {run}'
        (tools / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    paths = [str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=kept | {"PATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
