"""The benchmark of a driver at scale, as its command is given, with few trials."""

import json
import os
import subprocess
import sys

from tests.support.places import ROOT

from wertune.bench.scale import EPOCHS


def test_it_reports_what_a_search_took() -> None:
    options = ("--trials", "4", "--gpus", "2", "--epoch-s", "0.2")
    done = subprocess.run(
        [sys.executable, "-m", "wertune.bench.scale", *options],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scaled = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert (scaled["trials"], scaled["gpus"], scaled["epoch_s"], scaled["runs"]) == (4, 2, 0.2, 4)
    assert 4 <= scaled["epochs"] <= 4 * EPOCHS
    assert 0 < scaled["start_up_s"] < scaled["wall_s"]
    assert 0 < scaled["busy_share"] <= 1
    assert scaled["epochs_per_s"] > 0
    assert scaled["flush_s"] >= 0
