"""The main job on real tiny.en, SQLite MLflow and local Ray: two small trials, one of which is made to raise."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from tests.support.places import DEMO, ROOT
from tests.support.processes import answers, free_port, running, wait_for
from tests.support.shown_commands import blocks_as_shown
from tests.support.workspace import Workspace

from wergate.gates.evidence import Evidence
from wergate.gates.kinds.long_form import LongFormGate, SkippedSpeechGate, TimestampsGate
from wertune.base.contract import RESTART_TAG
from wertune.data.audio import load_audio
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport

AS_SHOWN = ("docs/howto/serving.md", "curl")
DOCS = ROOT / "docs"
SEARCH = {
    "trials": 2,
    "max_concurrent": 1,
    "restarts": 1,
    "space": {
        "train.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True},
        "lora.dora": {"choices": [False, True]},  # which PEFT cannot train on 8 bits on a CPU
    },
    "first_points": [
        {"train.learning_rate": 5e-4, "lora.dora": False},
        {"train.learning_rate": 5e-4, "lora.dora": True},
    ],
}


@pytest.fixture(scope="module")
def searched(make_workspace: Callable[[str], Workspace]) -> SimpleNamespace:
    """A finished search and what it printed; interrupted before any trial, and again in the first one."""
    workspace = make_workspace("searched")
    workspace.write_search(SEARCH)
    printed = _interrupt(workspace, "scoring the untouched base", "tune", "--project", "project")
    told = re.search(r"go on with: PATH=\S+ (python -m wertune .*--resume (\w+).*)", printed)
    assert told, printed
    arguments, run_id = shlex.split(told[1])[3:], told[2]
    _interrupt(workspace, "trial 01 epoch 1/2", *arguments, by=signal.SIGTERM)
    client = workspace.client
    statuses = {run.info.run_name: run.info.status for run in _family(client, run_id)}
    done = workspace.run(*arguments)
    parent, *nested = _family(client, run_id)
    again = {run.data.tags[RESTART_TAG]: run for run in nested if RESTART_TAG in run.data.tags}
    children = [run for run in nested if RESTART_TAG not in run.data.tags]
    return SimpleNamespace(
        workspace=workspace,
        output=done.stdout,
        told=done.stderr,
        client=client,
        parent=parent,
        children=children,
        again=again,
        interrupted=statuses,
    )


def _family(client: MlflowClient, run_id: str) -> list[Any]:
    """The search's run, then its trials'."""
    parent = client.get_run(run_id)
    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    return [parent, *children]


def _interrupt(workspace: Workspace, at: str, *arguments: str, by: signal.Signals = signal.SIGINT) -> str:
    """Ctrl-C, or what a scheduler sends, once a line of the search holds `at`; what it printed."""
    process = subprocess.Popen(
        workspace.command(*arguments),
        cwd=workspace.folder,
        env=workspace.environment() | {"VIRTUAL_ENV": "", "CONDA_PREFIX": ""},  # nobody has activated it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if at in line:
            process.send_signal(by)
    assert process.wait() == 128 + by, "".join(seen)
    return "".join(seen)


def _outcome(searched: SimpleNamespace, outcome: str) -> Any:
    return next(run for run in searched.children if run.data.tags["wertune.outcome"] == outcome)


def test_ctrl_c_closes_what_runs_as_killed_and_the_printed_command_resumes(searched: SimpleNamespace) -> None:
    assert set(searched.interrupted.values()) == {"KILLED"}
    assert [name.partition(":")[0] for name in sorted(searched.interrupted)] == ["trial 01", "tune searched"]
    assert {run.info.status for run in searched.children} == {"FINISHED", "FAILED"}


def test_no_library_warns_a_reader_in_any_of_its_processes(searched: SimpleNamespace) -> None:
    assert "Warning: " not in searched.told


def test_the_trial_that_raises_is_failed_and_the_search_goes_on(searched: SimpleNamespace) -> None:
    failed = _outcome(searched, "failed")
    assert failed.info.status == "FAILED"
    assert "lora.dora is true, but PEFT's DoRA cannot train" in failed.data.tags["mlflow.note.content"]
    traceback = searched.client.download_artifacts(failed.info.run_id, "traceback.txt")
    assert "in run_trial" in Path(traceback).read_text()
    assert searched.parent.info.status == "FINISHED"
    assert len(searched.children) == 2


def test_the_best_configuration_is_trained_again_on_the_cluster_and_the_mean_weighed(searched: SimpleNamespace) -> None:
    mean = searched.again.pop("mean")
    (other,) = searched.again.values()
    assert {run.info.status for run in (mean, other)} == {"FINISHED"}
    assert other.data.params["seed"] == "1"
    best = _outcome(searched, "completed").data
    assert other.data.params["learning_rate"] == best.params["learning_rate"]
    history = searched.client.get_metric_history(other.info.run_id, "val_wer")
    assert [metric.step for metric in history] == [2]  # scored at its end alone
    assert mean.data.metrics["trainable_percent"] == pytest.approx(2 * best.metrics["trainable_percent"], rel=0.05)
    assert f"seed 1: WER {100 * other.data.metrics['best_val_wer']:.2f} %" in searched.output
    taken = mean.data.metrics["best_objective"] < best.metrics["best_objective"]
    assert f"best: {mean.info.run_name if taken else 'trial 01'}" in searched.output


def test_the_trial_that_ends_is_finished_with_a_metric_for_every_epoch(searched: SimpleNamespace) -> None:
    completed = _outcome(searched, "completed")
    assert completed.info.status == "FINISHED"
    history = searched.client.get_metric_history(completed.info.run_id, "val_wer")
    assert [metric.step for metric in history] == [1, 2]
    assert completed.data.metrics["int8_layers"] == 64
    assert completed.data.metrics["trainable_percent"] < 2
    assert completed.data.params["learning_rate"] == "0.0005"


def test_the_parent_carries_baseline_leaderboard_figures_tables_and_digests(searched: SimpleNamespace) -> None:
    parent = searched.client.get_run(searched.parent.info.run_id)
    for split in ("val", "test", "retention_val", "retention"):
        assert f"baseline_{split}_wer" in parent.data.metrics
    assert {"test_wer", "term_recall", "baseline_term_recall", "retention_wer"} <= set(parent.data.metrics)
    artifacts = {file.path for file in searched.client.list_artifacts(parent.info.run_id)}
    assert {
        "leaderboard.json",
        "test_utterances.json",
        "error_report.html",
        "figures.html",
        "model_card_v1.md",
        "model_card_v1.html",
        "project.yaml",
        "search_settings.yaml",
    } <= artifacts
    told = (DOCS / "metrics.md").read_text(encoding="utf-8").partition("\n## Files\n")[2]
    assert not [name for name in artifacts if f"`{name}`" not in told and f"`{name}/`" not in told]
    figures = {file.path for file in searched.client.list_artifacts(parent.info.run_id, "figures")}
    assert {
        "figures/learning_curves.png",
        "figures/where_the_time_went.png",
        "figures/recall_by_term_test.png",
    } <= figures
    assert {entry.dataset.name for entry in parent.inputs.dataset_inputs} >= {"searched/train", "searched/test"}
    description = parent.data.tags["mlflow.note.content"]
    assert "| test WER" in description
    link = f"#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}/artifacts/error_report.html"
    assert f"[Error report]({link})" in description
    assert {"best_val_wer", "peak_memory_mb", "clips_per_s", "trainable_percent"} <= set(parent.data.metrics)
    assert f"[All trials](#/experiments/{parent.info.experiment_id}/runs?viewStateShareKey=wertune)" in description
    tags = searched.client.get_experiment(parent.info.experiment_id).tags
    assert "metrics.`term_recall`" in json.loads(tags["mlflow.sharedViewState.wertune"])["selectedColumns"]


def test_the_output_ends_with_the_table_and_what_to_type_next(searched: SimpleNamespace) -> None:
    assert "| test WER" in searched.output
    lines = searched.output.splitlines()
    assert "mlflow ui --backend-store-uri sqlite:///" in lines[lines.index("# look at it") + 1]
    assert "wertune transcribe " in searched.output


def _json_artifact(searched: SimpleNamespace, run_id: str, path: str) -> Any:
    return json.loads(Path(searched.client.download_artifacts(run_id, path)).read_text(encoding="utf-8"))


def test_the_first_version_is_1_and_carries_the_reasons_of_its_stage(searched: SimpleNamespace) -> None:
    version = searched.client.get_model_version("searched", "1")
    decision = json.loads(version.tags["wergate.decision.staging"])
    assert version.current_stage == ("Staging" if decision["passed"] else "None")
    stored = _json_artifact(searched, decision["run_id"], decision["artifact"])
    assert [gate["kind"] for gate in stored["gates"]] == ["wer"]
    assert stored["report_digest"] == decision["report_digest"]


def test_the_version_carries_its_card(searched: SimpleNamespace) -> None:
    card = searched.client.get_model_version("searched", "1").description
    assert card.startswith("# searched version 1\n")
    assert "Measured as it serves in torch" in card
    assert "No other version was in Production when the gates judged this one." in card
    whole = Path(searched.client.download_artifacts(searched.parent.info.run_id, "model_card_v1.md")).read_text()
    assert card.split("\n## ")[0] in whole
    assert f"Stage: {searched.client.get_model_version('searched', '1').current_stage}." in whole
    assert whole.count("## Results") == whole.count("## Data") == 1
    assert "packaged:whisper-tiny.en" in card


def test_the_report_of_the_version_is_complete(searched: SimpleNamespace) -> None:
    """What a gate may ask for was measured on what was registered, in a process of its own."""
    run_id = json.loads(searched.client.get_model_version("searched", "1").tags["wergate.decision.staging"])["run_id"]
    report = EvalReport.model_validate(_json_artifact(searched, run_id, "eval_report.json"))
    assert (report.model, report.version) == ("searched", "1")
    long = {"joined", "joined_clips"}
    assert set(report.sets) == {"test", "retention_test", "silence", "noise", "short"} | long
    assert set(report.baseline) == {"test", "retention_test"} | long
    assert report.baseline["test"].digest == report.sets["test"].digest
    assert report.sets["test"].wer == pytest.approx(searched.client.get_run(run_id).data.metrics["test_wer"])
    assert sum(report.training_terms.values()) > 0
    assert report.leakage == ()
    assert 0 < report.cost.trainable_percent < 2
    assert min(report.cost.real_time_factor, report.cost.peak_memory_mb, report.cost.adapter_mb) > 0
    known = report.provenance
    assert known.seed == 0
    assert all((known.base_model_digest, known.adapter_digest, known.normaliser, known.decode, known.context))
    assert set(known.data_digests) >= {"train", "test"}


def test_gates_decide_on_long_recordings_joined_of_test_clips(searched: SimpleNamespace) -> None:
    run_id = json.loads(searched.client.get_model_version("searched", "1").tags["wergate.decision.staging"])["run_id"]
    report = EvalReport.model_validate(_json_artifact(searched, run_id, "eval_report.json"))
    alone = {clip.id: clip.errors for clip in report.sets["test"].utterances}
    assert {clip.id: clip.errors for clip in report.sets["joined_clips"].utterances} == alone
    assert {clip.id for clip in report.sets["joined"].utterances} == set(alone)
    # The base writes times; the version learned none, and is heard from pause to pause.
    logged = searched.client.get_run(run_id).data.metrics
    for found, prefix in ((report.baseline, "baseline_"), (report.sets, "")):
        errors_s = [error for clip in found["joined"].utterances for error in clip.border_errors_s]
        assert len(errors_s) == 2 * len(alone)
        assert sorted(errors_s)[len(errors_s) // 2] < 1.0
        assert logged[f"{prefix}joined_border_median_s"] == pytest.approx(np.median(errors_s))
    assert logged["joined_wer"] == pytest.approx(report.sets["joined"].wer)
    evidence = Evidence(report, None, BootstrapSettings())
    rise = LongFormGate(against="clips", limit=1, judge="point").evaluate(evidence)
    assert rise.passed
    assert rise.value == pytest.approx(report.sets["joined"].wer - report.sets["joined_clips"].wer)
    skipped = SkippedSpeechGate(limit=1, judge="point").evaluate(evidence)
    assert skipped.value == logged["joined_skipped_share"]
    times = TimestampsGate(measure="median", judge="point", limit=1).evaluate(evidence)
    assert (times.passed, times.value) == (True, pytest.approx(logged["joined_border_median_s"]))
    through = LongFormGate(through="faster-whisper", limit=1).evaluate(evidence)
    assert "no export was measured in faster-whisper" in through.detail


CLEAN_PROCESS = """
import json, sys, mlflow
from pathlib import Path
model = mlflow.pyfunc.load_model("models:/searched/1")
audio = Path(sys.argv[1])
by_bytes = model.predict([{"audio": audio.read_bytes()}])["text"][0]
by_path = model.predict([{"path": str(audio)}])["text"][0]
print(json.dumps([by_bytes, by_path]))
"""


@pytest.fixture(scope="module")
def clip(searched: SimpleNamespace) -> dict[str, Any]:
    manifest = searched.workspace.project / "manifests" / "retention_test.jsonl"
    rows = map(json.loads, manifest.read_text().splitlines())
    # The shortest: what is longer than the clips of training is cut where it is served, and not where it is scored.
    return dict(min(rows, key=lambda row: row["duration"]))


@pytest.fixture(scope="module")
def pyfunc_text(searched: SimpleNamespace, clip: dict[str, Any]) -> str:
    """What the registered version writes when it is loaded in a process that knows nothing but its URI."""
    done = subprocess.run(
        [sys.executable, "-c", CLEAN_PROCESS, clip["audio_filepath"]],
        cwd=searched.workspace.folder,
        env=searched.workspace.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    by_bytes, by_path = json.loads(done.stdout.splitlines()[-1])
    assert by_bytes == by_path
    return str(by_bytes)


def test_the_registered_version_transcribes_in_a_clean_process(pyfunc_text: str) -> None:
    assert len(pyfunc_text.split()) >= 1


def test_evaluate_scores_the_registered_version_and_the_base(
    searched: SimpleNamespace, clip: dict[str, Any], pyfunc_text: str
) -> None:
    workspace = searched.workspace
    manifest = workspace.folder / "one.jsonl"
    manifest.write_text(json.dumps(clip) + "\n", encoding="utf-8")
    arguments = ("evaluate", "--project", "project", "--manifest", str(manifest), "--json", "out.json")
    workspace.run(*arguments, "--model-uri", "models:/searched/1")
    tuned = json.loads((workspace.folder / "out.json").read_text())
    assert tuned["utterances"][0]["hypothesis"] == pyfunc_text
    workspace.run(*arguments, "--base", "packaged:whisper-tiny.en")
    base = json.loads((workspace.folder / "out.json").read_text())
    keys = {"wer", "cer", "substitutions", "deletions", "insertions", "words", "term_recall", "term_precision"}
    assert keys <= set(tuned) & set(base)
    assert base["words"] == tuned["words"] == sum(row["words"] for row in base["utterances"])


def test_it_serves_over_http(searched: SimpleNamespace, clip: dict[str, Any], pyfunc_text: str) -> None:
    import base64
    import urllib.error
    import urllib.request

    port = free_port()
    server = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/searched/1"]
    server += ["--env-manager", "local", "--port", str(port), "--host", "127.0.0.1"]

    def ask(row: dict[str, str], **params: bool) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": [row], "params": params}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    with running(server, port, **searched.workspace.environment()) as process:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/ping"), process)
        audio = base64.b64encode(Path(clip["audio_filepath"]).read_bytes()).decode()
        assert ask({"audio": audio})["predictions"] == [{"text": pyfunc_text}]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask({"path": clip["audio_filepath"]})
        assert refused.value.code == 400
        assert "path is not read over HTTP" in json.load(refused.value)["message"]
        (detailed,) = ask({"audio": audio}, details=True)["predictions"]
        assert detailed["text"] == pyfunc_text
        assert -3 < detailed["avg_logprob"] < 0
        assert detailed["duration_s"] == pytest.approx(clip["duration"], abs=0.05)
        if shutil.which("curl"):
            shutil.copy(clip["audio_filepath"], searched.workspace.folder / "clip.opus")
            (shown,) = blocks_as_shown(*AS_SHOWN)
            command = ["bash", "-c", shown.replace("localhost:5001", f"127.0.0.1:{port}")]
            said = subprocess.run(command, cwd=searched.workspace.folder, capture_output=True, text=True, check=True)
            assert json.loads(said.stdout)["predictions"] == [{"text": pyfunc_text}]


def test_both_contexts_write_nearly_the_same(searched: SimpleNamespace) -> None:
    """The untouched base on real speech, alone and hence at its own length: 30 s of context against a short one."""
    from wertune.base.config import ContextConfig, DecodeConfig
    from wertune.base.text import normaliser
    from wertune.scores.metrics import count_word_edits
    from wertune.whisper.base_model import resolve_base_model
    from wertune.whisper.model import load_whisper
    from wertune.whisper.transcription import transcribe_samples

    rows = (DEMO / "manifests" / "retention_test.jsonl").read_text().splitlines()
    librivox = [row for row in map(json.loads, rows) if row["speaker"].startswith("librivox")]
    clips = [load_audio(DEMO / "manifests" / row["audio_filepath"]) for row in librivox]
    whisper = load_whisper(resolve_base_model("packaged:whisper-tiny.en").path, "en", "int8")
    normalise = normaliser("en")
    for margin_positions in (32, 256):
        contexts = (ContextConfig(short=False), ContextConfig(margin_positions=margin_positions))
        full, short = (transcribe_samples(whisper, clips, context, DecodeConfig()) for context in contexts)
        edits = [count_word_edits(normalise(a.text), normalise(b.text)) for a, b in zip(full, short, strict=True)]
        assert sum(edit.errors for edit in edits) <= 0.15 * sum(edit.length for edit in edits), (full, short)
