"""The commands of the how-to on promotion as they stand there, in their order, on a small project's own version."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from urllib.request import urlopen

import pytest
import yaml
from tests.support.forked import Forks
from tests.support.places import ROOT
from tests.support.processes import free_port, running
from tests.support.shown_commands import blocks_as_shown, commands
from tests.support.workspace import Workspace, take

from wertune.serving.export import RECORD

AS_SHOWN = ("docs/howto/promotion.md", "")
# Of four clips a word is more than the three points that an export may be worse.
TEST_CLIPS = 8
# What the page's own export is, which reads a long recording, too; that the others do is serving/test_export.py's.
SHOWN_FORM = "ctranslate2"
REFUSED = {("wergate", "rollback"): "has no version that was in Production before"}


@pytest.fixture(scope="module")
def reader(make_workspace: Callable[[str], Workspace]) -> Workspace:
    """A folder in which `projects/sg_gov` is a small project, and its version 1 waits in Staging."""
    workspace = make_workspace("sg_gov")
    (workspace.folder / "projects").mkdir()
    (workspace.folder / "projects" / "sg_gov").symlink_to(workspace.project, target_is_directory=True)
    take("test", TEST_CLIPS, workspace.project / "manifests" / "test.jsonl")
    gate = [{"kind": "adapter_mb", "limit": 100}]  # a few clips are too few for gates of rates
    policy = workspace.folder / "registry" / "policies" / "sg_gov.yaml"
    policy.write_text(yaml.safe_dump({"staging": gate, "production": gate}), encoding="utf-8")
    space = {"train.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}}
    workspace.write_search({"trials": 2, "space": space})
    workspace.run("train", "--project", "projects/sg_gov", "--epochs", "1", "--set", "train.learning_rate=0.0005")
    return workspace


@pytest.fixture(scope="module")
def promoted(reader: Workspace, forks: Forks) -> Workspace:
    """After all the commands of the page, each of which did what it says there."""
    shown = [words for block in blocks_as_shown(*AS_SHOWN) for words in commands(block)]
    assert len(shown) >= 8
    for tool, *arguments in shown:
        done = forks.run([sys.executable, "-m", tool, *arguments], reader.folder, reader.environment())
        said = f"{shlex.join((tool, *arguments))}\n{done.stdout}{done.stderr}"
        expected = next((why for start, why in REFUSED.items() if (tool, *arguments)[: len(start)] == start), "")
        assert done.returncode == (1 if expected else 0), said
        assert expected in done.stderr, said
    return reader


def test_the_commands_of_promotion_do_what_the_page_says(promoted: Workspace) -> None:
    assert promoted.client.get_model_version_by_alias("sg_gov", "production").current_stage == "Production"


@pytest.mark.parametrize("form", ["ctranslate2", "peft", "merged"])
def test_an_export_writes_in_plain_libraries_what_the_version_writes(form: str, promoted: Workspace) -> None:
    out = promoted.folder / "exported"
    if form != SHOWN_FORM:
        out = promoted.folder / form
        options = ("--format", form, "--recordings", "0", "--out", str(out))
        promoted.run("export", "--project", "projects/sg_gov", "--model", "1", *options)
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    assert (record["format"], record["clips"], record["passed"]) == (form, TEST_CLIPS, True)
    assert bool(record["long"]["rows"]) == (form == SHOWN_FORM)
    assert record["difference"] <= record["limit"] == 0.03


def test_the_page_answers_and_the_schemas_are_written(reader: Workspace) -> None:
    port = free_port()
    command = reader.command("page", "--project", str(reader.project), "--model", "1", "--port", str(port))
    with running(command, port, **reader.environment()), urlopen(f"http://127.0.0.1:{port}") as answer:
        assert b"<html" in answer.read()
    reader.run("schema", "--out", "out")
    assert {"project.json", "search.json"} <= {path.name for path in (reader.folder / "out").iterdir()}


def test_damaged_copies_of_a_version_are_registered(reader: Workspace) -> None:
    command = [sys.executable, str(ROOT / "registry" / "examples" / "damaged_adapters.py"), "models:/sg_gov/1"]
    done = subprocess.run(command, cwd=reader.folder, env=reader.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[1] for line in done.stdout.splitlines()] == [f"/sg_gov/{number}" for number in (2, 3, 4)]


def test_a_dry_run_says_what_the_search_will_take(reader: Workspace) -> None:
    assert "2 trials of at most" in reader.run("tune", "--project", "projects/sg_gov", "--dry-run").stdout
    experiments = [each.experiment_id for each in reader.client.search_experiments()]
    assert reader.client.search_runs(experiments)
    assert not reader.client.search_runs(experiments, "tags.mlflow.runName = 'tune sg_gov'")
