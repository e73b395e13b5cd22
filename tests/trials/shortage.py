"""`python -m tests.trials.shortage`: a search on real tiny.en, in the midst of which the machine runs short of memory.

Ray's limit is set a few GB over what the machine uses now, and this process fills them after the first epoch. For a
machine that has those GB and is otherwise quiet, so not one of the suite's tests.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from tests.support.searched import Searched
from tests.support.workspace import workspace_in

HEADROOM_BYTES = 5 * 10**9
PRESSED_S = 30
PIECE_BYTES = 2 * 10**8


def _used() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def _press(search: Searched, limit_bytes: int) -> None:
    """Keeps the machine over the limit until the trial's process is gone, then gives all of it back."""
    held, until = [], time.monotonic() + PRESSED_S
    while "lost its process" not in search.printed and time.monotonic() < until:
        if _used() < limit_bytes + PIECE_BYTES:
            held.append(b"\1" * PIECE_BYTES)
        else:
            time.sleep(0.05)


def main() -> int:
    """Exit status 1 where the search, or the trial, did not go on with half a batch."""
    total = psutil.virtual_memory().total
    limit_bytes = _used() + HEADROOM_BYTES
    if limit_bytes > 0.9 * total:
        raise SystemExit(f"{_used() / 1e9:.0f} of {total / 1e9:.0f} GB are in use; this takes 5 GB more, free some")
    with tempfile.TemporaryDirectory(prefix="shortage-") as scratch:
        folder = Path(scratch)
        project = workspace_in(folder, "shortage").project
        limit = {"RAY_memory_usage_threshold": f"{limit_bytes / total:.3f}"}
        search = Searched(folder, project, folder / "cache", ("--trials", "2"), limit)
        strike = threading.Thread(target=_press, args=(search, limit_bytes))
        status = search.drive({"trial 01 epoch 1/": lambda process: strike.start()})
        strike.join()
        print(search.printed)
        runs = list(search.children().values())
    for run in runs:
        print(run.info.run_name, run.info.status, run.data.tags.get("wertune.batch_halved", "not halved"))
    halved = [run for run in runs if run.data.params.get("ran_batch_size") == "4"]
    return int(status != 0 or len(halved) != 1 or any(run.info.status != "FINISHED" for run in runs))


if __name__ == "__main__":
    sys.exit(main())
