"""A search outlives the only node with a GPU: what waits for it, goes on or is yet to be proposed runs without one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# The trials only sleep and report. The GPU is one that Ray counts; its node is killed when both nodes train.
DRIVER = """
import os, re, sys, threading
from contextlib import closing
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import wertune.search.driver
from wertune.bench.scale import EPOCHS, _stub
from wertune.search.trial_runs import TrialRuns
from wertune.search.checkpoints import CheckpointStore
from wertune.search.study import finished, open_study
from wertune.search.search_space import AshaConfig, Range, SearchConfig
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.runs import create_run

folder = Path(sys.argv[1])
nodes = Cluster()
nodes.add_node(num_cpus=1, num_gpus=0, include_dashboard=False)
with_gpu = nodes.add_node(num_cpus=1, num_gpus=1)
wertune.search.driver._start_ray(nodes.address)
config = SearchConfig(
    trials=4,
    asha=AshaConfig(grace_epochs=EPOCHS, reduction_factor=2),
    space={"train.learning_rate": Range(low=1e-4, high=1e-2, log=True)},
)
parent = create_run(f"sqlite:///{folder / 'mlflow.db'}", "lost", folder / "artifacts")
study = open_study(parent.run_id, f"sqlite:///{folder / 'optuna.db'}", config, resume=False)
sleep_and_report = _stub([[0.5, 0.4, 0.3]], 0.3)
epochs = {}

def say(line):
    print(line, flush=True)
    if told := re.search(r"trial (\\d+) epoch (\\d+)/", line):
        epochs[told[1]] = int(told[2])
    if sum(epoch < EPOCHS for epoch in epochs.values()) == 2 and killing.ident is None:
        killing.start()

def trial(proposal):  # the first two wait for one another, however slowly their workers start
    import time
    (folder / f"began-{proposal['number']}").touch()
    while not ((folder / "began-0").exists() and (folder / "began-1").exists()):
        time.sleep(0.1)
    sleep_and_report(proposal)

def give_up():
    print("hangs", flush=True)
    nodes.shutdown()
    os._exit(1)

killing = threading.Thread(target=nodes.remove_node, args=(with_gpu, False))
hanging = threading.Timer(600, give_up)
hanging.daemon = True
hanging.start()
wertune.search.driver.tell = say
with closing(JournalWriter(folder / "journal", parent)) as journal:
    runs = TrialRuns(journal, CheckpointStore(folder / "trials"), EPOCHS)
    wertune.search.driver.fit(trial, config, study, runs, folder)
print("finished", sum(trial.state.name == "COMPLETE" for trial in finished(study)))
ray.shutdown()
nodes.shutdown()
"""


def test_the_search_ends_with_all_its_trials(tmp_path: Path, lay_store: Callable[[Path], str]) -> None:
    lay_store(tmp_path)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "lost its process, goes on from its last epoch" in done.stdout, done.stdout
    assert "finished 4" in done.stdout, done.stdout
