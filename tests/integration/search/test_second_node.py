"""What a search needs reaches a node through Ray alone: it shares no file with the driver but Python's environment.

The base is a folder of the driver's, a tiny random Whisper: a packaged one could be found again on the second node.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.nodes import SECOND, TwoNodes, two_nodes
from tests.support.processes import shifted_clock
from tests.support.searched import Searched
from tests.support.workspace import Workspace

# Run as the driver is: the folder of the project and the cluster's address in, what both nodes wrote out.
DRIVER = f"""
import hashlib, json, sys
from pathlib import Path
import ray
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from wertune.training.baseline import Way, transcribe_with_base
from wertune.base.config import ContextConfig
from wertune.search.shipping import DriverFiles, start_file_server, prepared_here
from wertune.search.places import trial_resources
from wertune.search.shipped_files import Span
from wertune.base.config import load_project
from wertune.training.prepare import features_folder, prepare
from wertune.search.search_space import SearchConfig
from wertune.search.driver import _start_ray

folder = Path(sys.argv[1])
prepared = prepare(folder, load_project(folder))
_start_ray(sys.argv[2])

def look(prepared, files, driver_paths):
    asked, ask = {{}}, DriverFiles.ask

    def counted(self, spans):
        parts = ask(self, spans)
        for span, part in zip(spans, parts):
            kind = span.key.partition("/")[0]
            asked[kind] = asked.get(kind, 0) + len(part)
        return parts

    DriverFiles.ask = counted
    here = prepared_here(prepared, files)
    again = prepared_here(prepared, files)
    texts = transcribe_with_base(here, {{"validation": [Way.PLAIN]}})["validation"]
    here.evaluation_set("test", ContextConfig(), 80)  # the driver has no such features: computed of fetched audio
    audio = [r.path for r in here.dataset["validation"]]
    return {{
        "texts": texts[Way.PLAIN],
        "visible": [path for path in driver_paths if Path(path).exists()],
        "paths": [str(here.base.path), *map(str, audio)],
        "same_again": again == here,
        "base": {{f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in here.base.path.iterdir()}},
        "features": {{f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in features_folder().glob("*.npy")}},
        "node": ray.get_runtime_context().get_node_id(),
        "handed_out": asked,
    }}

audio = [str(r.path) for r in prepared.dataset["validation"]]
driver_paths = [str(folder), str(prepared.base.path), *audio, sys.argv[0]]
files = start_file_server(prepared)
prepared.evaluation_set("validation", ContextConfig(short=False), 80)
task = ray.remote(num_cpus=1, resources={{"{SECOND}": 1}})(look).remote(prepared, files, driver_paths)
expected = transcribe_with_base(prepared, {{"validation": [Way.PLAIN]}})["validation"]
found = ray.get(task)
found["expected"] = expected[Way.PLAIN]
found["driver_features"] = {{
    f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in features_folder().glob("*.npy")
}}
found["driver_node"] = files.node_id
found["audio_bytes"] = sum(r.path.stat().st_size for split in prepared.dataset.splits.values() for r in split)
found["base_bytes"] = sum(f.stat().st_size for f in prepared.base.path.iterdir())
refused = []
for key in ("../project.yaml", "features/../../project.yaml", "base/../project.yaml", "/etc/passwd", audio[0]):
    try:
        ray.get(files.server.read.remote([Span(key, 0, 10)]))
    except Exception as error:
        refused.append(str(error))
found["refused"] = refused

config = SearchConfig(space={{"train.learning_rate": {{"choices": [1e-3]}}}})
found["kinds"] = {{}}
for place in trial_resources(ray.nodes(), config):
    held = tune.PlacementGroupFactory([dict(place.resources)], bundle_label_selector=[dict(place.labels)])()
    where = ray.remote(num_cpus=0)(lambda: ray.get_runtime_context().get_node_id())
    strategy = PlacementGroupSchedulingStrategy(held, placement_group_bundle_index=0)
    found["kinds"][place.kind] = ray.get(where.options(scheduling_strategy=strategy).remote())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def nodes() -> Any:
    with two_nodes(head_gpus=1) as started:
        yield started


@pytest.fixture(scope="module")
def found(nodes: TwoNodes, make_tiny_workspace: Callable[[str], Workspace]) -> dict[str, Any]:
    """What a task on the second node saw and wrote."""
    assert nodes.second.poll() is None, "the test that kills the second node must be the last"
    workspace = make_tiny_workspace("second")
    script = workspace.folder / "driver.py"
    script.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, str(script), str(workspace.project), nodes.address],
        env=os.environ | nodes.environment | {"WERTUNE_CACHE": str(workspace.folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_second_node_shares_no_file_of_the_driver(found: dict[str, Any]) -> None:
    assert found["node"] != found["driver_node"]
    assert found["visible"] == []


def test_it_transcribes_as_the_driver_does(found: dict[str, Any]) -> None:
    assert any(found["expected"])
    assert found["texts"] == found["expected"]


def test_base_audio_and_features_went_through_the_file_server_once(found: dict[str, Any]) -> None:
    given = found["handed_out"]
    assert given["base"] == found["base_bytes"]
    assert given["audio"] == found["audio_bytes"]
    assert found["same_again"]


def test_features_are_the_drivers_where_it_has_them_and_computed_where_not(found: dict[str, Any]) -> None:
    (name,) = found["driver_features"]
    assert found["features"][name] == found["driver_features"][name]
    assert found["handed_out"]["features"] > 0
    assert len(found["features"]) == 2


def test_nothing_but_the_projects_files_is_handed_out(found: dict[str, Any]) -> None:
    assert len(found["refused"]) == 5
    assert all("a key is one of the catalogue's" in message for message in found["refused"])


def test_a_trial_without_a_gpu_goes_to_the_node_without_one(found: dict[str, Any]) -> None:
    assert found["kinds"] == {"gpu": found["driver_node"], "cpu": found["node"]}


def test_a_lost_node_costs_no_epoch(
    nodes: TwoNodes, make_tiny_workspace: Callable[[str], Workspace], tmp_path: Path, lay_store: Callable[[Path], str]
) -> None:
    """The last of this file: the trial of the second node goes on at the other one, the only kind of place left.

    The driver's clock is five hours ahead of the nodes'.
    """
    workspace = make_tiny_workspace("lost")
    lay_store(tmp_path)
    options = ("--address", nodes.address, "--trials", "2", "--at-once", "2")
    environment = {**nodes.environment, **shifted_clock(tmp_path / "ahead", 5 * 3600)}
    searched = Searched(tmp_path, workspace.project, workspace.folder / "cache", options, environment)
    assert searched.drive({"trial 02 epoch 1/": lambda process: nodes.kill_second()}) == 0, searched.printed
    assert "trial 02 lost its process, goes on from its last epoch" in searched.printed
    assert searched.printed.count("trial 02 epoch 1/") == 1
    first, second = searched.runs().values()
    assert {first[0], second[0]} == {"FINISHED"}
    assert [step for step, _ in second[3]["val_wer"]] == [1, 2, 3][: len(second[3]["val_wer"])]
    assert len(second[3]["val_wer"]) >= 2
