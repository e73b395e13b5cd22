"""A version that the code of commit 7082ff8 tuned, registered and put into Staging: it serves and stands as it did."""

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tests.support.forked import Forks
from tests.support.places import ROOT

# One trial of one epoch on 16 clips of the demo, lora.r 1 on the decoder's q_proj; pages and figures left out.
KEPT = ROOT / "tests" / "data" / "registered_at_7082ff8.tar.xz"
MADE_AT = "/made/at/7082ff8"
CLIP = min((ROOT / "projects" / "sg_gov" / "audio").glob("**/*.opus"))
LOAD = """
import sys, mlflow
if sys.argv[2] == "new":
    import wertune.serving.pyfunc
model = mlflow.pyfunc.load_model("models:/small/1")
print(model.predict([{"path": sys.argv[1]}])["text"][0])
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tracking store and project, where the paths that it was made with are this folder's."""
    folder = tmp_path_factory.mktemp("registered")
    with tarfile.open(KEPT) as archive:
        archive.extractall(folder, filter="data")
    for path in [*folder.rglob("MLmodel"), *folder.rglob("*.yaml")]:
        path.write_text(path.read_text(encoding="utf-8").replace(MADE_AT, str(folder)), encoding="utf-8")
    with sqlite3.connect(folder / "mlflow.db") as store:
        for table, column in [
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ]:
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (MADE_AT, str(folder)))
    store.close()
    return folder


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "HF_HUB_OFFLINE": "1"}


def run(forks: Forks, folder: Path, *arguments: str) -> str:
    done = forks.run([sys.executable, *arguments], folder, environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("code", ["its own", "new"])
def test_it_loads_and_transcribes_whichever_code_is_there_first(kept: Path, code: str) -> None:
    command = [sys.executable, "-c", LOAD, str(CLIP), code]
    done = subprocess.run(command, cwd=kept, env=environment(kept), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.strip().splitlines()[-1].split()) > 1


def test_it_is_in_staging_and_as_its_audit_trail_says(forks: Forks, kept: Path) -> None:
    assert run(forks, kept, "-m", "wergate", "check", "--project", "project", "--model", "small") == (
        "small is as its audit trail says\n"
    )
    [version] = MlflowClient(f"sqlite:///{kept / 'mlflow.db'}").search_model_versions("name = 'small'")
    assert version.current_stage == "Staging"


def test_its_history_is_read(forks: Forks, kept: Path) -> None:
    asked = ("-m", "wergate", "history", "--project", "project", "--model", "small", "--json")
    history = json.loads(run(forks, kept, *asked))
    assert [record["move"]["to_stage"] for record in history] == ["Staging"]
