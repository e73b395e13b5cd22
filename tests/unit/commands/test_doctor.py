"""Every check of the doctor has a way to fail, and says what to do then."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
from mlflow.exceptions import MlflowException

import wertune.synthesis.engines
import wertune.whisper.footprint
from wertune import __main__ as command_line
from wertune.base import machine as free
from wertune.base.errors import SynthesisError
from wertune.commands import doctor
from wertune.commands.doctor import Finding, Site, examine, fail, machine, ok, project, services, sets, warn
from wertune.synthesis.engine import Offer
from wertune.synthesis.engines import ENGINES

SITE = Site(Path("nowhere"))


@pytest.fixture
def site(
    tmp_path: Path, tiny_whisper_folder: Path, track_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Site:
    """A project whose base is there, and no server; `track_in` for what a URI with a password makes MLflow keep."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "")  # a URI's user and password go there, and with this test
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    text = f"name: small\nbase_model: {tiny_whisper_folder}\ndata: {{train: a, validation: b, test: c}}\n"
    (tmp_path / "project.yaml").write_text(text)
    return Site(tmp_path)


def _told(finding: Finding, state: str, found: str, remedy: str) -> None:
    assert (finding.state, bool(finding.remedy)) == (state, state != "ok")
    assert found in finding.found
    assert remedy in finding.remedy


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.python(SITE).state == "ok"
    monkeypatch.setattr(machine.sys, "version_info", (3, 14, 0))
    _told(machine.python(SITE), "fail", sys.version.split()[0], "use Python 3.11 to 3.13")


def test_torch_and_torchaudio_of_two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.torch_pair(SITE).state == "ok"
    monkeypatch.setattr(machine, "version", {"torch": "2.11.0+cpu", "torchaudio": "2.10.0"}.__getitem__)
    _told(machine.torch_pair(SITE), "fail", "2.11.0+cpu and 2.10.0", "from one index")
    monkeypatch.setattr(machine, "version", {"torch": "2.11.0+cpu", "torchaudio": "2.11.0"}.__getitem__)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    _told(machine.torch_pair(SITE), "fail", "torchaudio cannot be imported", "from one index")


def test_torch_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", missing)
    _told(machine.torch_pair(SITE), "fail", "torch is not installed", "install both")


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    _told(machine.device(SITE), "warn", "torch", "built for the driver's CUDA")
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    _told(machine.device(SITE), "warn", "float32", "four times as fast")
    monkeypatch.setattr(wertune.whisper.footprint, "_multiplies_bfloat16", lambda _: True)
    _told(machine.device(SITE), "ok", "bfloat16", "")


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus = [SimpleNamespace(name=name, total_memory=size * 2**30) for name, size in (("A100", 80), ("T4", 15))]
    monkeypatch.setattr(torch.cuda, "get_device_properties", gpus.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: ((8, 0), (7, 5))[device.index])
    assert machine.device(SITE) == ok("device", "A100 80 GB, bfloat16; T4 15 GB, float16")
    monkeypatch.setenv("WERTUNE_PRODUCTS", "float32")
    found = "A100 80 GB, float32; T4 15 GB, float32 as WERTUNE_PRODUCTS asks for"
    _told(machine.device(SITE), "warn", found, "unset it")


def test_a_product_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    assert machine.int8_product(SITE).state == "ok"
    right = bitsandbytes.nn.Linear8bitLt.forward
    monkeypatch.setattr(bitsandbytes.nn.Linear8bitLt, "forward", lambda self, x: 1.1 * right(self, x))
    _told(machine.int8_product(SITE), "fail", "within 10", "quantization=none")


def test_audio_that_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.audio(SITE).state == "ok"
    write = soundfile.write

    def without_mp3(file: Any, *arguments: Any, **options: Any) -> None:
        if options["format"] == "MP3":
            raise ValueError("Unknown format: 'MP3'")
        rate = 16_000 if options["format"] != "FLAC" else 8_000  # a tone of another pitch
        write(file, arguments[0], rate, **options)

    monkeypatch.setattr(soundfile, "write", without_mp3)
    finding = machine.audio(SITE)
    _told(finding, "fail", "flac (220 Hz instead of 440)", "wheel of soundfile")
    assert "mp3 (Unknown format: 'MP3')" in finding.found


def test_a_cache_that_is_full_or_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "made" / "later"))
    monkeypatch.setattr(machine, "free_disk_mb", lambda _: 5000.0)
    assert machine.cache(SITE).state == "ok"
    monkeypatch.setattr(machine, "free_disk_mb", lambda _: 100.0)
    _told(machine.cache(SITE), "warn", "0.1 GB free", "WERTUNE_CACHE")

    def forbidden(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", forbidden)
    _told(machine.cache(SITE), "fail", "cannot be written: Permission denied", "WERTUNE_CACHE")
    _told(machine.working_folder(SITE), "fail", str(Path.cwd()), "run from a folder with more")


def test_a_store_that_is_new(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{site.project}/new.db")
    _told(services.tracking(site), "ok", "made by the first run", "")
    _told(services.artifacts(site), "ok", "mlruns", "")
    assert not (site.project / "new.db").exists()
    monkeypatch.setattr(services.os, "access", lambda *_: False)
    _told(services.tracking(site), "fail", "cannot be made", "run from a folder")


def test_a_store_of_an_older_mlflow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.tracking

    def old(uri: str) -> None:
        raise MlflowException(f"Detected out-of-date database schema ({uri}, found version 1)\nTake a backup")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:secret@db/runs")
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", old)
    finding = services.tracking(site)
    _told(finding, "fail", "out-of-date database schema (postgresql://db/runs, found version 1)", "mlflow db upgrade")
    assert "secret" not in finding.found + services.artifacts(site).found
    assert services.artifacts(site).state == "fail"


@pytest.mark.parametrize(("module", "remedy"), [("psycopg2", "postgresql+psycopg2://"), ("pymysql", "install pymysql")])
def test_a_driver_that_is_missing(site: Site, monkeypatch: pytest.MonkeyPatch, module: str, remedy: str) -> None:
    import mlflow.tracking

    def without(uri: str) -> None:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://db/runs")
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", without)
    _told(services.tracking(site), "fail", f"No module named '{module}'", remedy)


def test_a_server_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{unused.getsockname()[1]}")
        assert "to a server that answers" in services._tracking_remedy("http://127.0.0.1:40329: refused")
        finding = services.tracking(site)
        _told(finding, "fail", "http://127.0.0.1", "set MLFLOW_TRACKING_URI to a server that answers")
        assert "secret" not in finding.found + services.artifacts(site).found
        assert services.artifacts(site).state == "fail"
    assert not set(services.QUICKLY) & set(os.environ)


def test_a_server_that_does_not_let_us_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(401)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Closed) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        _told(services.tracking(site), "fail", "401", "MLFLOW_TRACKING_USERNAME")
        server.shutdown()


def test_an_artifact_folder_that_is_not_ours(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.tracking

    class Client:
        def __init__(self, uri: str) -> None: ...

        def search_experiments(self, max_results: int) -> list[Any]:
            return [SimpleNamespace(artifact_location="file:///proc/nowhere")]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://tracking")
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", Client)
    monkeypatch.setattr(services.os, "access", lambda *_: False)
    _told(services.artifacts(site), "fail", "/proc/nowhere cannot be written", "--serve-artifacts")


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    _told(services.ray_cluster(SITE), "ok", "started on this machine", "")
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        _told(services.ray_cluster(Site(Path(), address)), "ok", f"{address} answers", "")
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        _told(services.ray_cluster(SITE), "ok", f"ray://{address} answers", "")
        monkeypatch.setattr(services, "RAY_CURRENT_CLUSTER", tmp_path / "current")
        _told(services.ray_cluster(Site(Path(), "auto")), "fail", "no cluster was started", "ray start --head")
        (tmp_path / "current").write_text(address)
        _told(services.ray_cluster(Site(Path(), "auto")), "ok", address, "")
    _told(services.ray_cluster(SITE), "fail", f"nothing answers at ray://{address}", "ray start --head")
    monkeypatch.setattr(services, "version", machine.version)

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(services, "version", missing)
    _told(services.ray_cluster(SITE), "fail", "not installed", "pip install")


def test_a_base_that_is_not_found(site: Site) -> None:
    assert project.base_model(site).state == "ok"
    (site.project / "project.yaml").write_text(
        "name: small\nbase_model: packaged:whisper-giant\ndata: {train: a, validation: b, test: c}\n"
    )
    _told(project.base_model(site), "fail", "packaged:whisper-giant", "correct it")
    _told(project.base_model(SITE), "fail", "nowhere/project.yaml does not exist", "give the folder of a project")


def test_too_little_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "free_memory_mb", lambda: 1702.0)  # a trial, and 7 MB of weights too many
    _told(project.memory(site), "fail", "1.7 GB free", "take a smaller base")
    monkeypatch.setattr(project, "free_memory_mb", lambda: 2000.0)
    assert project.memory(site).state == "ok"
    monkeypatch.setattr(project, "free_memory_mb", lambda: None)
    _told(project.memory(site), "warn", "does not say", "watch the first trial")


def test_a_checkout_that_is_not_clean(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "CODE", site.project)
    _told(project.checkout(site), "warn", "the code is no git checkout", "from a clone")
    monkeypatch.undo()
    _told(project.checkout(site), "warn", "the project is in no git repository", "git init")
    who = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *arguments], cwd=site.project, check=True)
    assert project.checkout(site).state == "ok"
    (site.project / "new.txt").touch()
    _told(project.checkout(site), "warn", "1 changed or new files", "commit them first")


def test_voices_that_are_missing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(project.voices(site), "ok", "not needed", "")
    voices = "".join(
        f"  - {{id: {split}, engine: {engine}, name: {engine}, speaker: {split}, split: {split}, licence: CC0}}\n"
        for split, engine in (("train", "flite"), ("validation", "flite"), ("test", "espeak"))
    )
    (site.project / "synthesis.yaml").write_text(
        f"clips: {{train: 1, validation: 1, test: 1, replay: 0}}\nvoices:\n{voices}"
    )
    spoken = []

    def speak(text: str, voice: str, speed: float) -> None:
        spoken.append(voice)

    def mute(text: str, voice: str, speed: float) -> None:
        raise SynthesisError("espeak-ng is not installed; on Debian: apt-get install espeak-ng")

    monkeypatch.setattr(wertune.synthesis.engines, "find_engine", ENGINES.__getitem__)
    monkeypatch.setitem(ENGINES, "flite", SimpleNamespace(speak=speak))
    monkeypatch.setitem(ENGINES, "espeak", SimpleNamespace(speak=speak))
    _told(project.voices(site), "ok", "espeak, flite", "")
    assert spoken == ["espeak", "flite"]
    monkeypatch.setitem(ENGINES, "espeak", SimpleNamespace(speak=mute))
    _told(project.voices(site), "warn", "espeak-ng is not installed", "only `synthesize` needs them: on Debian")


def test_engines_without_voices_are_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(text: str, voice: str, speed: float) -> None:
        if voice == "hoarse":
            raise SynthesisError("hoarse has no voice left; rest it")

    def engine(*names: str) -> SimpleNamespace:
        found = [Offer(name, name, "free") for name in names]
        return SimpleNamespace(offers=lambda language: found if language == "en" else [], speak=speak)

    def absent(language: str) -> None:
        raise SynthesisError("flite is not installed; on Debian: apt-get install flite")

    monkeypatch.setattr(wertune.synthesis.engines, "find_engine", ENGINES.__getitem__)
    for name in ENGINES:
        monkeypatch.setitem(ENGINES, name, SimpleNamespace(offers=absent))
    (site.project / "sentences.txt").write_text("Hello.\n")
    _told(project.voices(site), "warn", "flite: flite is not installed", "apt-get install flite")
    monkeypatch.setitem(ENGINES, "espeak", engine("a", "b"))
    _told(project.voices(site), "warn", "the engines have 2 speakers (", "install another engine")
    monkeypatch.setitem(ENGINES, "espeak", engine("a", "b", "c"))
    _told(project.voices(site), "ok", "espeak", "")
    (site.project / "synthesis.yaml").write_text("engines: [espeak, flite]\n")
    _told(project.voices(site), "warn", "flite: flite is not installed", "apt-get install flite")
    (site.project / "synthesis.yaml").write_text("engines: [espeak]\n")
    monkeypatch.setitem(ENGINES, "espeak", engine("hoarse", "b", "c"))
    _told(project.voices(site), "warn", "hoarse has no voice left", "rest it")
    with (site.project / "project.yaml").open("a") as file:
        file.write("language: de\n")
    _told(project.voices(site), "warn", "espeak: has no voice for language de", "install another engine")


def test_a_check_that_breaks_is_a_finding_and_not_the_last() -> None:
    def broken(site: Site) -> Finding:
        raise ZeroDivisionError("by zero")

    found = list(examine(SITE, {"first": broken, "second": lambda _: ok("second", "fine")}))
    assert [each.state for each in found] == ["fail", "ok"]
    assert found[0].found == "ZeroDivisionError: by zero"


def test_every_check_is_called_as_it_is_told(site: Site) -> None:
    for name, check in machine.CHECKS.items() | services.CHECKS.items():
        assert check(site).name == name
    for name, check in (project.CHECKS | sets.CHECKS).items():
        assert check(site).name == name


def test_sets_that_show_too_little(site: Site) -> None:
    check = sets.evaluation_sets
    _told(check(site), "warn", "a does not exist", "`wertune validate`")
    for split, clips in (("a", 1), ("b", 2), ("c", 40)):
        rows = [{"audio_filepath": "gone.wav", "text": f"eight words stand in this line {n}"} for n in range(clips)]
        (site.project / split).write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = check(site)
    _told(
        found, "ok", "validation: 14 words; too few clips to tell any rise of WER from chance\ntest: 280 words; a", ""
    )
    assert found.values["sets"]["test"]["words"] == 280
    assert found.values["missing"] == []
    policy = Path("registry/policies/small.yaml")
    policy.parent.mkdir(parents=True)
    policy.write_text(
        "staging: &all [{kind: wer, limit: 0.1}, {kind: battery, measure: wer, limit: 0.02}]\nproduction: *all\n"
    )
    found = check(site)
    _told(found, "warn", "test: 280 words", "wer_test of staging (10.0 %) asks for more: bring ")
    assert "\n→ battery_wer of staging asks for a battery, but the project has none" in found.remedy
    (site.project / "c").write_text("no row\n")
    _told(check(site), "warn", "c:1: ", "mend the rows")
    policy.write_text("staging: []\n")
    (site.project / "c").write_text('{"audio_filepath": "x", "text": "x"}\n')
    assert check(site).state == "warn"


@pytest.mark.parametrize(
    ("findings", "status", "fit"),
    [((ok("a", "x"), warn("b", "y", "do")), 0, True), ((fail("a", "x", "do"),), 1, False)],
)
def test_the_status_is_1_for_what_must_be_mended(
    findings: tuple[Finding, ...],
    status: int,
    fit: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fake(finding: Finding) -> Callable[[Site], Finding]:
        return lambda _: finding

    monkeypatch.setattr(doctor, "all_checks", lambda: {each.name: fake(each) for each in findings})
    for arguments in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["wertune", "doctor", *arguments])
        ended = 0
        try:
            command_line.main()
        except SystemExit as error:
            ended = int(error.code or 0)
        assert ended == status
    out = capsys.readouterr().out
    table, document = out[: out.index("{")], json.loads(out[out.index("{") :])
    assert document["checks"] == [asdict(each) for each in findings]
    assert document["fit"] is fit
    signs = {"ok": "✓", "warn": "!", "fail": "✗"}
    for each in findings:
        assert f"{signs[each.state]}  {each.name}  {each.found}" in table
    assert ("→ do" in table) == any(each.remedy for each in findings)


def test_findings_are_told_as_they_come(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    def second(_: Site) -> Finding:
        told.append(capsys.readouterr().out)
        return ok("a longer name", "fine")

    monkeypatch.setattr(doctor, "all_checks", lambda: {"short": lambda _: ok("short", "x"), "a longer name": second})
    monkeypatch.setattr(sys, "argv", ["wertune", "doctor"])
    command_line.main()
    assert [line.rstrip() for line in (*told, capsys.readouterr().out)] == [
        "✓  short          x",
        "✓  a longer name  fine",
    ]


def test_memory_that_a_container_may_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable:  4096000 kB\n")
    monkeypatch.setattr(free, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free, "CGROUP", tmp_path)
    assert free.free_memory_mb() == 4000
    (tmp_path / "memory.current").write_text(f"{100 * 2**20}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free.free_memory_mb() == 4000
    (tmp_path / "memory.max").write_text(f"{400 * 2**20}\n")
    assert free.free_memory_mb() == 300
    monkeypatch.setattr(free, "MEMINFO", tmp_path / "none")
    assert free.free_memory_mb() == 300
    monkeypatch.setattr(free, "CGROUP", tmp_path / "none")
    assert free.free_memory_mb() is None


def test_trials(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _told(project.trials(site), "ok", "no search.yaml", "")
    monkeypatch.setattr(free, "cores", lambda: 8)
    search = site.project / "search.yaml"
    search.write_text("gpus_per_trial: 0\nworkers_per_trial: 2\ncpus_per_trial: 2\nspace: {lora.r: {choices: [8]}}\n")
    _told(project.trials(site), "ok", "room for 2 at once, each of 2 workers", "")
    _told(project.trials(Site(site.project, "head:6379")), "ok", "the cluster has places for, each of 2 workers", "")
    search.write_text(search.read_text().replace("workers_per_trial: 2", "workers_per_trial: 8"))
    _told(project.trials(site), "fail", "but this machine has 8 cores", "lower workers_per_trial or cpus_per_trial")
    search.write_text("cpus_per_trial: 0")
    _told(project.trials(site), "fail", "cpus_per_trial is 0", "")
