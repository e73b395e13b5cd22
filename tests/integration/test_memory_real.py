"""Real tiny.en in a process whose memory ends."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import Workspace

from wertune.out_of_memory import is_out_of_memory

WORKER = Path(__file__).with_name("memory_worker.py")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to measure address space")
def test_a_batch_for_which_the_memory_is_too_small_is_halved_and_the_trial_ends_well(
    make_workspace: Callable[[str], Workspace],
) -> None:
    workspace = make_workspace("short_of_memory")
    done = subprocess.run(
        [sys.executable, str(WORKER), str(workspace.project)],
        env=workspace.environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = done.stdout.split("\n\n")[:2]
    half, whole = ([json.loads(line) for line in part.splitlines()] for part in parts)
    assert not [said for said in half if "wertune.batch_halved" in said]
    (why,) = [said["wertune.batch_halved"] for said in whole if "wertune.batch_halved" in said]
    assert is_out_of_memory(RuntimeError(why)) or why == "MemoryError"
    assert {"ran_batch_size": 8, "ran_accumulation_steps": 2} in whole
    assert {"adapter": ["adapter_config.json", "adapter_model.safetensors"]} in whole
