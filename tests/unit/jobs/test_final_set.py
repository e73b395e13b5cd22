"""A final set is opened for a registered version once; how often it was opened stands in the registry."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from wergate.registry.store import open_model
from wergate.trail.history import history, history_table
from wertune.base.config import ContextConfig, DecodeConfig, load_project
from wertune.base.errors import ConfigError, ManifestError
from wertune.jobs import final_set
from wertune.jobs.evaluate import evaluate_manifest
from wertune.jobs.final_set import open_final_set
from wertune.jobs.opening import start_experiment
from wertune.scores.final_set import Opening
from wertune.training.prepare import prepare


@pytest.fixture
def project(small_project: Path, write_noise: Callable[..., Path], write_manifest: Callable[..., Path]) -> Path:
    """The small project with a final set of two clips by a person of their own."""
    rows = [
        {"audio_filepath": write_noise(small_project / f"final{n}.wav", 0.6, seed=90 + n).name} | {"speaker": "zoe"}
        for n in range(2)
    ]
    write_manifest(small_project / "final.jsonl", [row | {"text": f"the last {n}"} for n, row in enumerate(rows)])
    return _give(small_project, final="final.jsonl")


def _give(folder: Path, **data: Any) -> Path:
    values = yaml.safe_load((folder / "project.yaml").read_text())
    (folder / "project.yaml").write_text(yaml.safe_dump(values | {"data": values["data"] | data}))
    return folder


@pytest.fixture
def register(project: Path, mlflow_store: str, load_tiny: Callable[..., Any], monkeypatch: Any) -> Callable[[], str]:
    """Registers another version, which writes as a random model does."""
    client = MlflowClient(mlflow_store)
    client.create_registered_model("small")
    served = SimpleNamespace(
        whisper=load_tiny(), context=ContextConfig(), decode=DecodeConfig(max_new_tokens=4), longest_piece_s=30.0,
        engine="torch", settings={}, adapter=project,
    )  # fmt: skip
    monkeypatch.setattr(final_set, "load_registered", lambda uri: served)

    def register() -> str:
        with start_experiment(project, load_project(project), "train") as (run, _):
            version = client.create_model_version("small", "file:///nowhere", run.run_id)
        return f"models:/small/{version.version}"

    return register


def _history() -> str:
    return history_table(history(open_model("small").look()))


def test_a_version_is_opened_once_and_another_one_counts(
    project: Path, register: Callable[[], str], mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = register(), register()
    assert _history() == "nothing was moved or approved yet"
    opening, versions = open_final_set(project, first)
    assert (opening.version, opening.clips, opening.figures["final_words"], versions) == ("1", 2, 6, 1)
    client = MlflowClient(mlflow_store)
    run = client.get_run(opening.run_id)
    assert run.data.metrics["final_wer"] == opening.figures["final_wer"]
    assert any(opening.set_digest.startswith(each.dataset.digest) for each in run.inputs.dataset_inputs)  # MLflow cuts
    kept = Opening.model_validate_json(client.get_model_version("small", "1").tags[opening.key])
    assert kept == opening
    with monkeypatch.context() as patch:
        patch.setattr(final_set, "score_split", lambda *_: pytest.fail("scored again"))
        assert open_final_set(project, first) == (opening, 1)
    assert open_final_set(project, second)[1] == 2
    _, *rows, counted = _history().splitlines()
    assert len(rows) == 2
    assert "open" in rows[0]
    assert counted == f"final set {opening.set_digest[:8]}: opened for 2 versions: the more often, the less it says"


def test_of_two_that_open_it_at_once_the_first_stays(
    project: Path, register: Callable[[], str], mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, scored, first = register(), final_set._scored, list[Opening]()

    def slowly(*given: Any) -> Opening:
        own = scored(*given)
        first.append(own.model_copy(update={"who": "ann", "run_id": "1a2b"}))
        MlflowClient(mlflow_store).set_model_version_tag("small", "1", own.key, first[0].model_dump_json())
        return own

    monkeypatch.setattr(final_set, "_scored", slowly)
    assert open_final_set(project, uri) == (first[0], 1)
    kept = MlflowClient(mlflow_store).get_model_version("small", "1").tags[first[0].key]
    assert Opening.model_validate_json(kept) == first[0]


def test_another_set_is_opened_anew(project: Path, register: Callable[[], str]) -> None:
    uri = register()
    before, _ = open_final_set(project, uri)
    (project / "final.jsonl").write_text((project / "final.jsonl").read_text().splitlines()[0] + "\n")
    after, versions = open_final_set(project, uri)
    assert (after.clips, versions) == (1, 1)
    assert after.key != before.key


def test_nothing_but_an_opening_and_validate_reads_it(project: Path) -> None:
    assert "final" not in prepare(project, load_project(project)).dataset.splits
    assert len(prepare(project, load_project(project), final=True).dataset["final"]) == 2


def test_a_version_is_not_scored_on_it_unrecorded(project: Path) -> None:
    """Nor a part of it under another name."""
    one = (project / "final.jsonl").read_text(encoding="utf-8").splitlines()[:1]
    (project / "other.jsonl").write_text("\n".join(one) + "\n", encoding="utf-8")
    for name, count in (("final", 2), ("other", 1)):
        told = rf"{name}\.jsonl, but {count} of its recordings are of the final set .*; give --final in its place"
        with pytest.raises(ConfigError, match=told):
            evaluate_manifest(project, "models:/small/1", "", project / f"{name}.jsonl")


@pytest.mark.parametrize("uri", ["runs:/1a2b/model", "/tmp/adapter"])
def test_what_is_not_registered_is_refused(project: Path, uri: str) -> None:
    with pytest.raises(ConfigError, match=rf"--model-uri is {uri}, but the final set is opened for reg.*; give"):
        open_final_set(project, uri)


def test_a_project_without_one_is_told_how_to_get_one(small_project: Path) -> None:
    with pytest.raises(ConfigError, match=r"project\.yaml: data\.final is not given, but --final opens it; name a man"):
        open_final_set(small_project, "models:/small/1")


def test_who_is_heard_elsewhere_may_not_be_heard_in_it(project: Path, write_manifest: Callable[..., Path]) -> None:
    """People of retention, too, who may be in other splits otherwise."""
    write_manifest(project / "r.jsonl", [{"audio_filepath": "test0.wav", "text": "elsewhere", "speaker": "zoe"}])
    write_manifest(project / "test.jsonl", [{"audio_filepath": "train5.wav", "text": "a test", "speaker": "t"}])
    write_manifest(project / "train.jsonl", [{"audio_filepath": "train0.wav", "text": "the last 0", "speaker": "a"}])
    _give(project, retention_test="r.jsonl")
    with pytest.raises(ManifestError) as refused:
        prepare(project, load_project(project), final=True)
    told = str(refused.value)
    assert "r.jsonl:1: leaks: the same speaker as" in told
    assert "train.jsonl:1: leaks: the same sentence as" in told
    assert "2 faults" in told


def test_what_a_version_was_trained_on_is_refused_and_nothing_is_kept(
    project: Path, register: Callable[[], str], write_manifest: Callable[..., Path]
) -> None:
    """Also where the project's own splits have changed since."""
    uri = register()
    lines = (project / "train.jsonl").read_text().splitlines()
    (project / "train.jsonl").write_text("\n".join(lines[1:]) + "\n")
    row = {"audio_filepath": "final0.wav", "text": "Train number 0.", "speaker": "zoe"}
    write_manifest(project / "final.jsonl", [row])
    with pytest.raises(ManifestError, match=r"same sentence as a clip of training\nbut data\.final may hold nothing"):
        open_final_set(project, uri)
    assert _history() == "nothing was moved or approved yet"
