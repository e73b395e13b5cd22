"""`python -m tests.trials.full_disk`: a search by `wertune tune` whose own disk is too small until it is resumed.

Real tiny.en; the disk is a tmpfs of 9 MB, room for one trial's state beside the journal. Root alone can mount one.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.workspace import workspace_in

SMALL, LARGE = "9m", "500m"
TRIALS = 3
SPACE = {"train.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}


def main() -> int:
    """Exit status 1 where the search did not end with the place and the remedy, or a trial was lost by it."""
    with tempfile.TemporaryDirectory(prefix="full-disk-") as scratch:
        workspace = workspace_in(Path(scratch), "full-disk")
        workspace.write_search({"trials": TRIALS, "space": SPACE})
        disk = workspace.folder / ".wertune"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(disk)], check=True)
        try:
            tune = ("tune", "--project", "project", "--epochs", "2")
            refused = workspace.run(*tune, check=False)
            told = refused.stderr.splitlines()[-1]
            print(f"on {SMALL}: exit status {refused.returncode}, {told}")
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True)
            resumed = workspace.run(*tune, "--resume", re.findall(r"--resume (\w+)", refused.stdout)[0], check=False)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        trials = workspace.client.search_runs(
            [workspace.client.get_experiment_by_name("full-disk").experiment_id], "tags.mlflow.runName LIKE 'trial%'"
        )
    ended = [run.data.tags.get("wertune.outcome") for run in trials]
    print(f"on {LARGE}: exit status {resumed.returncode}, {len(trials)} runs of trials, {ended}")
    is_told = "cannot be stored" in told and told.endswith("free the disk that the search runs from and resume it")
    is_whole = resumed.returncode == 0 and len(ended) == TRIALS and set(ended) <= {"completed", "pruned"}
    return int(refused.returncode != 1 or not is_told or not is_whole)


if __name__ == "__main__":
    sys.exit(main())
