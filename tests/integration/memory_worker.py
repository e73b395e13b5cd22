"""A process that trains with half a batch, and then with a whole one in hardly more memory than the half one took."""

import json
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wertune.config import with_overrides
from wertune.prepare import load_project, prepare
from wertune.train import Objective
from wertune.trial import run_trial

WHOLE = {
    "quantization": "none",
    "train.epochs": 1,
    "train.batch_size": 16,
    "train.replay_ratio": 0.0,
    "train.nonspeech_ratio": 0.0,
    "decode.max_new_tokens": 4,
}
HALF = WHOLE | {"train.batch_size": 8, "train.accumulation_steps": 2}
SLACK = 0.5  # of what the half batch took: memory that was given back has holes


class Printed:
    """Prints what a run would keep."""

    def params(self, values: Mapping[str, Any]) -> None:
        print(json.dumps(values))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        print(json.dumps(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        print(json.dumps(values))

    def artifacts(self, folder: Path, name: str) -> None:
        print(json.dumps({name: sorted(file.name for file in folder.iterdir())}))


def _address_space_bytes(field: str) -> int:
    """What this process has of it now (VmSize) or has had at most (VmPeak)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


if __name__ == "__main__":
    project = load_project(Path(sys.argv[1]))
    prepared = prepare(Path(sys.argv[1]), project)
    with prepared.resident_whisper("none"):
        before = _address_space_bytes("VmSize")
    for overrides in (HALF, WHOLE):
        config = with_overrides(project.trial, overrides, "test")
        run_trial(config, prepared, Objective(0.0, 0.0, 0.0), Printed())
        peak = _address_space_bytes("VmPeak")
        limit = round(peak + SLACK * (peak - before))
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        print()
