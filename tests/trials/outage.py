"""`python -m tests.trials.outage --minutes 10`: a real search whose MLflow server is killed, or frozen, and comes back.

Real tiny.en on a few of the demo's clips; afterwards every epoch that Optuna's study knows must stand in MLflow, once.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from optuna.trial import TrialState
from tests.support.processes import Service, free_port, tracking_server
from tests.support.searched import Searched
from tests.support.workspace import workspace_in

from wertune.search.progress import trial_name

STRIKES_AT = "trial 02 epoch 1/"


def _strike(server: Service, is_frozen: bool, away_s: float) -> None:
    """Takes the server away and brings it back."""
    if is_frozen:
        processes = server.processes
        for process in processes:
            process.suspend()
        time.sleep(away_s)
        for process in processes:
            process.resume()
    else:
        server.kill()
        time.sleep(away_s)
        server.start()


def faults(search: Searched) -> list[str]:
    """What MLflow holds otherwise than the study: a trial without its run, an epoch missing or doubled."""
    runs = search.runs()
    found = [] if len(runs) == len(search.trials()) else [f"{len(runs)} runs for {len(search.trials())} trials"]
    by_name = {name.partition(":")[0]: run for name, run in runs.items()}
    for number, state, _, values in search.trials():
        status, outcome, _, steps, _ = by_name[trial_name(number)]
        if state is TrialState.FAIL or (status, outcome == "failed") != ("FINISHED", False):
            found.append(f"{trial_name(number)}: {state.name} in the study, {status} and {outcome} in MLflow")
        if [step for step, _ in steps["val_wer"]] != sorted(values):
            found.append(f"{trial_name(number)}: epochs {sorted(values)} in the study, {steps['val_wer']} in MLflow")
    return found


def main() -> int:
    """Exit status 1 where an epoch is lost or a trial died of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--frozen", action="store_true", help="the server takes connections and answers nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outage-") as scratch:
        folder, port = Path(scratch), free_port()
        server = tracking_server(folder, port)
        server.start()
        try:
            options = ("--trials", str(given.trials), "--at-once", "2")
            project = workspace_in(folder, "outage").project
            search = Searched(folder, project, folder / "cache", options, server=f"http://127.0.0.1:{port}")
            away = threading.Thread(target=_strike, args=(server, given.frozen, 60 * given.minutes))
            status = search.drive({STRIKES_AT: lambda process: away.start()})
            away.join()
            print("".join(line for line in search.printed.splitlines(True) if "operations" in line), end="")
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
            problems = faults(search) if status == 0 else [f"exit status {status}", search.printed]
            epochs = sum(len(values) for _, _, _, values in search.trials())
        finally:
            server.stop()
    print(f"{given.minutes:g} minutes without a server: {given.trials} trials, {epochs} epochs, {len(problems)} faults")
    print("\n".join(problems), end="", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
