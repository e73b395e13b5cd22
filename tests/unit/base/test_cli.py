"""The command line: what --help costs and says, JSON for programs, and the exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import sqlalchemy
import yaml
from tests.support.places import ROOT

from wertune import __main__ as wertune_line
from wertune.__main__ import COMMANDS
from wertune.base import cli as command_line
from wertune.base.errors import ManifestError, WertuneError

HEAVY = {"torch", "ray", "mlflow", "transformers", "pandas", "numpy", "pydantic", "yaml", "optuna", "rich"}
COMPUTING = {"torch", "torchaudio", "transformers", "bitsandbytes", "peft", "ray", "optuna"}
HELP = """import sys, runpy; sys.argv = {argv}
try: runpy.run_module({tool!r}, run_name='__main__')
except SystemExit: pass"""

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """`shell(*arguments)`: `wertune` in this process; exit status, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wertune", *arguments])
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        status = 0
        try:
            wertune_line.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def project(
    tmp_path: Path, tiny_whisper_folder: Path, write_noise: Callable[..., Path], write_manifest: Callable[..., Path]
) -> Path:
    """A project of three clips of noise."""
    for number, split in enumerate(("train", "validation", "test")):
        write_noise(tmp_path / f"{split}.wav", seed=number)
        row = {"audio_filepath": f"{split}.wav", "text": f"sentence {split}", "speaker": split}
        write_manifest(tmp_path / f"{split}.jsonl", [row])
    data = "".join(f"  {split}: {split}.jsonl\n" for split in ("train", "validation", "test"))
    text = f"name: small\nbase_model: {tiny_whisper_folder}\ndata:\n{data}"
    (tmp_path / "project.yaml").write_text(text)
    write_noise(tmp_path / "recordings" / "one.wav", seed=3).with_suffix(".txt").write_text("one")
    rows = [
        {
            "audio_filepath": write_noise(tmp_path / f"{n}.wav", seed=9 + n).name,
            "text": f"row {n}",
            "speaker": f"speaker {n}",
        }
        for n in range(9)
    ]
    write_manifest(tmp_path / "all.jsonl", rows)
    return tmp_path


@pytest.mark.parametrize("tool", ["wertune", "wergate"])
def test_help_imports_nothing_that_takes_long(tool: str) -> None:
    """Of the group and of each command, in one process: a later --help could not undo an earlier import."""
    names = COMMANDS if tool == "wertune" else ("promote", "approve", "rollback", "history", "check")
    calls = [HELP.format(argv=[tool, *name, "--help"], tool=tool) for name in ([], *([name] for name in names))]
    program = "\n".join([*calls, f"import sys; print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.count("Usage: ") == len(names) + 1
    assert done.stdout.count("Exit status: 0 ") == len(names) + 1
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["validate", "--project", "{project}"], ()),
        (["import", "{project}/recordings", "--project", "{project}"], ()),
        (["split", "{project}/all.jsonl", "--project", "{project}", "--out", "{project}/parts"], ()),
        (["doctor", "--project", "{project}"], ("torch, torchaudio", "device", "8-bit products", "memory")),
    ],
)
def test_commands_without_a_model_import_none(project: Path, arguments: list[str], without: tuple[str, ...]) -> None:
    """Nor what computes it: torch alone takes seconds. Four of the doctor's checks are of torch itself."""
    program = (
        "import runpy, sys\n"
        "from wertune.commands.doctor.machine import CHECKS\n"
        "from wertune.commands.doctor.project import CHECKS as OTHERS\n"
        f"for name in {without}: CHECKS.pop(name, OTHERS.pop(name, None))\n"
        f"sys.argv = {['wertune', *(each.format(project=project) for each in arguments)]}\n"
        "try: runpy.run_module('wertune', run_name='__main__')\n"
        "except SystemExit as ended: assert ended.code in (None, 0, 1), ended\n"
        f"print(sorted({COMPUTING!r} & set(sys.modules)), file=sys.stderr)"
    )
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/new.db", "WERTUNE_CACHE": str(project / "cache")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.stderr == "[]\n"
    assert {"validate": "train: 1 clips", "import": "1 clips", "split": "train: ", "doctor": "base model"}[
        arguments[0]
    ] in done.stdout


def test_the_doctor_tries_torch_without_a_model(project: Path) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['wertune', 'doctor', '--project', {str(project)!r}]\n"
        "try: runpy.run_module('wertune', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'transformers', 'peft', 'optuna', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/new.db", "WERTUNE_CACHE": str(project / "cache")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.stderr.endswith("[]\n")
    assert "8-bit products" in done.stdout


def test_help_cuts_no_command_off(shell: Shell) -> None:
    _, out, _ = shell("--help")
    assert "..." not in out.partition("Commands:")[2]
    assert "all faults at once with file and line." in " ".join(out.split())


def test_help_tells_where_versions_are_moved(shell: Shell) -> None:
    status, out, err = shell("--help")
    assert (status, err) == (0, "")
    assert "`wergate promote | approve | rollback | history | check`" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["validate", "--project", "nowhere"], 1, "nowhere/project.yaml does not exist"),
        (["evaluate"], 1, "give one of --model-uri and --base"),
        (["train", "--set", "lora.r"], 1, "--set is 'lora.r', but must be KEY=VALUE"),
        (["import", ".", "--project", "nowhere"], 1, "make one with `wertune init ./nowhere`"),
        (["import", ".", "--project", "projects/no where"], 1, "make one with `wertune init 'projects/no where'`"),
        (["import", ".", "--project", "/proc"], 1, "must be a project's folder, with a project.yaml"),
        (["import", ".", "--project", ""], 2, "it is empty, but must be a path"),
        (["import", "", "--project", "nowhere"], 2, "it is empty, but must be a path"),
        (["split", "", "--project", "nowhere"], 2, "it is empty, but must be a path"),
        (["transcribe", "gone.wav", "--project", "nowhere", "--base", "x"], 1, "nowhere/project.yaml does not exist"),
        (["evaluate", "--base", "x", "--manifest", "/proc"], 1, "--manifest is /proc, which is no plain file; name"),
        (["evaluate", "--base", "x", "--json", "/proc/x/o.json"], 1, "/proc/x/o.json: the scores cannot be stored"),
        (["evaluate", "--base", "x", "--json", "/proc"], 1, "; give --json the path of a file that can be written"),
        (["schema", "--out", "/proc/x"], 1, "/proc/x: the schemas cannot be stored"),
        (["schema", "--out", __file__], 1, "; give --out a folder that can be written"),
        (["no-such-command"], 2, "No such command 'no-such-command'"),
        (["validate", "--no-such-option"], 2, "no such option"),
        (["evaluate", "--final", "--base", "x"], 1, "--final is given with x, but opens a version as it serves"),
        (["evaluate", "--engine", "abacus"], 2, "'abacus' is not one of"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(shell: Shell, arguments: list[str], status: int, reason: str) -> None:
    ended, out, err = shell(*arguments)
    assert (ended, out) == (status, "")
    assert err.startswith("wertune: ")
    assert reason.lower() in err.lower()
    assert len(err.splitlines()) == 1


def test_a_place_for_the_scores_is_tried_before_scoring_and_left_as_it_was(shell: Shell, tmp_path: Path) -> None:
    kept, new = tmp_path / "kept.json", tmp_path / "made" / "new.json"
    kept.write_text("as it was")
    for path in (kept, new):
        status, _, err = shell("evaluate", "--project", str(tmp_path), "--base", "x", "--json", str(path))
        assert (status, "project.yaml does not exist" in err) == (1, True)
    assert kept.read_text() == "as it was"
    assert not list(new.parent.iterdir())


def test_validate_answers_a_program(shell: Shell, project: Path) -> None:
    status, out, err = shell("validate", "--project", str(project), "--json")
    assert status == 0
    assert json.loads(out)["splits"]["train"] == {"clips": 1, "minutes": pytest.approx(1 / 60, abs=0.01)}
    assert json.loads(out)["base_model"]["digest"].startswith("sha256:")
    assert err.startswith("train: 1 clips, 0.0 minutes\n")
    status, out, err = shell("validate", "--project", str(project))
    assert (status, err) == (0, "")
    assert out.startswith("train: 1 clips, 0.0 minutes\n")


def test_validate_says_what_sets_can_show(shell: Shell, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    policy = project / "registry/policies/small.yaml"
    policy.parent.mkdir(parents=True)
    policy.write_text("staging: &all [{kind: wer, limit: 0.1}, {kind: forgetting, limit: 0.02}]\nproduction: *all\n")
    status, out, err = shell("validate", "--project", ".", "--json")
    assert status == 0
    told = err.splitlines()
    at = told.index("test: 1 clips, 0.0 minutes, 2 words, 1 speaker; too few clips to tell any rise of WER from chance")
    assert told[at + 1].startswith("  → wer_test of staging (10.0 %) asks for more: bring ")
    assert told[at + 2].startswith("→ forgetting_retention_test of staging asks for retention_test, but the project ")
    found = json.loads(out)["can_show"]
    assert (found["sets"]["test"]["words"], found["sets"]["test"]["told"]) == (2, None)
    assert found["sets"]["test"]["asked"][0]["needed"] > 100
    assert len(found["missing"]) == 1
    policy.write_text("staging: &all [{kind: were, limit: 0.1}]\nproduction: *all\n")
    status, _, err = shell("validate", "--project", ".")
    assert status == 1
    assert "registry/policies/small.yaml: " in err


def test_import_and_split_answer_a_program(shell: Shell, project: Path, write_noise: Callable[..., Path]) -> None:
    for number in range(6):
        recording = write_noise(project / "new" / f"s{number}" / "a.wav", seed=number)
        recording.with_suffix(".txt").write_text(f"sentence {number}")
    write_noise(project / "new" / "lonely.wav")
    arguments = ["import", str(project / "new"), "--project", str(project), "--name", "all", "--skip", "true", "--json"]
    status, out, err = shell(*arguments)
    done = json.loads(out)
    assert (status, done["clips"], done["speakers"], len(done["skipped"])) == (0, 6, 6, 1)
    assert "has no transcript" in err
    status, out, err = shell("split", done["manifest"], "--project", str(project), "--shares", "50,25,25", "--json")
    assert status == 0
    assert json.loads(out) == json.loads((project / "manifests" / "split.json").read_text())
    assert err.startswith("train: ")


def test_what_split_writes_validate_passes(shell: Shell, project: Path, write_noise: Callable[..., Path]) -> None:
    """Of recordings that stand there twice, one is silent and one is too short, split leaves what can be used."""
    rows = []
    for number in range(8):
        recording = write_noise(project / "new" / f"{number}.wav", seed=100 + number % 6)
        rows.append({"audio_filepath": recording.name, "text": f"sentence {number}", "speaker": f"s{number}"})
    write_noise(project / "new" / "short.wav", 0.1, seed=200)
    (project / "new" / "quiet.wav").write_bytes((project / "new" / "0.wav").read_bytes()[:44] + bytes(32_000))
    rows += [{"audio_filepath": f"{name}.wav", "text": name, "speaker": name} for name in ("short", "quiet", "gone")]
    (project / "new" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, _ = shell(
        "split", str(project / "new" / "all.jsonl"), "--project", str(project), "--shares", "50,25,25", "--json"
    )
    report = json.loads(out)
    assert (status, report["kept"]) == (0, 6)
    reasons = {each["line"]: each["reason"] for each in report["dropped"]}
    assert sorted(reasons) == [7, 8, 9, 10, 11]
    assert "the same audio as" in reasons[7]
    assert "is silent" in reasons[10]
    settings = yaml.safe_load((project / "project.yaml").read_text())
    settings["data"] = {split: f"manifests/{split}.jsonl" for split in ("train", "validation", "test")}
    (project / "project.yaml").write_text(yaml.safe_dump(settings))
    status, out, err = shell("validate", "--project", str(project), "--json")
    assert status == 0, err
    assert sum(split["clips"] for split in json.loads(out)["splits"].values()) == 6


def test_validate_tells_the_languages_of_rows(shell: Shell, project: Path) -> None:
    row = json.loads((project / "test.jsonl").read_text())
    (project / "test.jsonl").write_text(json.dumps(row | {"language": "en-SG"}))
    status, out, _ = shell("validate", "--project", str(project))
    assert (status, out.count("  in en (1 clips)\n")) == (0, 3)
    assert json.loads(shell("validate", "--project", str(project), "--json")[1])["splits"]["test"]["languages"] == {
        "en": 1
    }


def test_a_language_that_nobody_knows_is_told_before_a_model_is_loaded(shell: Shell, project: Path) -> None:
    arguments = ["transcribe", str(project / "train.wav"), "--project", str(project), "--base", "packaged:no-such-base"]
    status, _, err = shell(*arguments, "--language", "xx")
    assert (status, err) == (
        1, "wertune: --language: 'xx' is no language of Whisper's; give its code, such as en, zh, ms, ta\n",
    )  # fmt: skip


def test_export_answers_a_program(shell: Shell, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wertune.serving.export

    def export(folder: Path, uri: str, form: str, out: Path, *_: Any) -> wertune.serving.export.Exported:
        return wertune.serving.export.Exported(out, {"model": uri, "format": form}, "done")

    monkeypatch.setattr(wertune.serving.export, "export", export)
    out_folder = str(project / "out")
    status, out, err = shell("export", "--project", str(project), "--model", "1", "--out", out_folder, "--json")
    assert (status, err) == (0, "done\n")
    assert json.loads(out) == {"folder": out_folder, "model": "models:/small/1", "format": "peft"}


def test_transcribe_looks_for_the_files_before_it_loads_a_model(shell: Shell, project: Path) -> None:
    arguments = ["transcribe", str(project / "train.wav"), "gone.wav", "lost.wav", "--project", str(project)]
    status, out, err = shell(*arguments, "--base", "packaged:no-such-base")
    assert (status, out, err) == (1, "", "wertune: gone.wav, lost.wav do not exist; mend the names\n")


@pytest.mark.parametrize("command", ["transcribe", "split"])
def test_a_place_that_is_a_file_needs_no_space(
    shell: Shell, project: Path, write_noise: Callable[..., Path], command: str
) -> None:
    manifest, out = project / "all.jsonl", project / "taken"
    for n in range(9):
        write_noise(project / f"{n}.wav", seed=50 + n)
    rows = [{"audio_filepath": f"{n}.wav", "text": f"sentence {n}", "speaker": f"s{n}"} for n in range(9)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.write_text("as it was")
    base = ["--base", "packaged:no-such-base"] if command == "transcribe" else []  # and no model is looked for
    given = project / "train.wav" if command == "transcribe" else manifest
    status, _, err = shell(command, str(given), "--project", str(project), "--out", str(out), *base)
    assert (status, out.read_text()) == (1, "as it was")
    assert "cannot be stored" in err
    assert err.endswith("; give --out a folder that can be written\n")
    assert "space" not in err


def test_transcribe_answers_a_program_with_one_document(shell: Shell, project: Path) -> None:
    base = ["--project", str(project), "--base", json.loads(_base(project)), "--format", "json", "--piece-s", ""]
    files = [str(project / f"{split}.wav") for split in ("train", "test")]
    status, out, _ = shell("transcribe", *files, *base)
    assert (status, [each["file"] for each in json.loads(out)]) == (0, files)
    status, out, _ = shell("transcribe", files[0], *base)
    assert (status, json.loads(out)["file"]) == (0, files[0])


@pytest.mark.parametrize("number", ["nan", "inf", "4.9", "28.1"])
def test_pieces_are_neither_shorter_nor_longer_than_can_be_cut(shell: Shell, project: Path, number: str) -> None:
    status, _, err = shell("transcribe", str(project / "train.wav"), "--project", str(project), "--piece-s", number)
    assert (status, err) == (2, f"wertune: Invalid value for '--piece-s': {number} is not in the range 5<=x<=28.\n")


def test_a_refusal_is_a_document_too(shell: Shell, project: Path) -> None:
    (project / "train.wav").unlink()
    status, out, err = shell("validate", "--project", str(project), "--json")
    assert status == 1
    assert "train.jsonl:1: audio_filepath is train.wav" in json.loads(out)["error"]
    assert err.startswith("wertune: ")


def test_evaluate_writes_the_scores_where_it_is_told(shell: Shell, project: Path) -> None:
    arguments = ["evaluate", "--project", str(project), "--base", str(json.loads(_base(project)))]
    status, out, err = shell(*arguments, "--json", str(project / "scores.json"))
    assert (status, err) == (0, "")
    assert "wer: " in out
    written = json.loads((project / "scores.json").read_text())
    assert len(written["utterances"]) == 1
    status, out, err = shell(*arguments, "--json")
    assert json.loads(out) == written
    assert "wer: " in err
    status, out, err = shell(*arguments, "--json", "")  # as `mlflow run` passes it on
    assert (status, err) == (0, "")
    assert "utterances" not in out


def _base(project: Path) -> str:
    line = next(line for line in (project / "project.yaml").read_text().splitlines() if line.startswith("base_model"))
    return json.dumps(line.partition(": ")[2])


def test_what_libraries_print_stays_out_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> dict[str, Any]:
        print("View run at http://…")
        click.echo("trained")
        return {"wer": 0.5, "text": "ü"}

    command_line.answering(command, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"wer": 0.5, "text": "ü"}
    assert captured.err == "View run at http://…\ntrained\n"
    command_line.answering(command, as_json=False)
    assert capsys.readouterr().out == "View run at http://…\ntrained\n"


def test_a_fault_of_the_program_is_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command_line.answering(command, as_json=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (ManifestError("a.jsonl:1: text is empty"), 1, "tool: a.jsonl:1: text is empty\n"),
        (WertuneError("no"), 1, "tool: no\n"),
        (click.UsageError("--to is missing"), 2, "tool: --to is missing\n"),
        (KeyboardInterrupt(), 130, "\n"),  # behind the ^C that the terminal shows
        (click.Abort(), 130, ""),
    ],
)
def test_each_end_has_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, status: int, text: str
) -> None:
    @click.group(cls=command_line.Tool)
    def tool() -> None: ...

    @tool.command()
    def work() -> None:
        raise raised

    monkeypatch.setattr(sys, "argv", ["tool", "work"])
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    with pytest.raises(SystemExit) as ended:
        command_line.run_tool(tool, "tool", pytest.fail)
    assert ended.value.code == status
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGINT, command_line.EXIT_INTERRUPTED), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
@pytest.mark.parametrize("in_background", [False, True], ids=["", "SIGINT ignored"])
def test_what_ends_a_process_from_outside_ends_it_as_ctrl_c_does(
    sent: signal.Signals, status: int, in_background: bool
) -> None:
    """A shell's background job begins with SIGINT ignored, which then stays so."""
    if in_background and sent is signal.SIGINT:
        return
    handler = "SIG_IGN" if in_background else "default_int_handler"
    program = (
        "import signal, sys, click\nfrom wertune.base.cli import Tool, run_tool\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "@click.group(cls=Tool)\ndef tool(): pass\n"
        "@tool.command()\ndef work():\n    print('working', flush=True)\n    import time\n"
        "    try:\n        time.sleep(60)\n    finally:\n        print('closed', flush=True)\n"
        "sys.argv = ['tool', 'work']\nrun_tool(tool, 'tool', print)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    time.sleep(0.2)
    process.send_signal(sent)
    assert process.wait(30) == status
    assert process.stdout.read() == "closed\n"
    process.stdout.close()


def test_a_signal_that_python_loses_while_it_collects_garbage_ends_the_command_all_the_same() -> None:
    """What a weak reference's callback raises is dropped."""
    program = (
        "import gc, os, signal, sys, time, weakref, click\nfrom wertune.base.cli import Tool, run_tool\n"
        "class Thing: pass\n"
        "def callback(dead):\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.01)\n"
        "@click.group(cls=Tool)\ndef tool(): pass\n"
        "@tool.command()\ndef work():\n    thing = Thing()\n    thing.itself = thing\n"
        "    held = weakref.ref(thing, callback)\n    del thing\n    gc.collect()\n"
        "    print('goes on', flush=True)\n    time.sleep(30)\n    print('to its end', flush=True)\n"
        "sys.argv = ['tool', 'work']\nrun_tool(tool, 'tool', print)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "goes on\n")
    assert done.stderr.splitlines()[-1] == "tool: ended by SIGTERM"


def test_a_query_that_a_signal_cuts_in_two_shows_no_stack(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLAlchemy logs that a cursor of a connection that is gone cannot be closed."""

    @click.group(cls=command_line.Tool)
    def tool() -> None: ...

    @tool.command()
    def work() -> None:
        with sqlalchemy.create_engine("sqlite://").connect() as connection:
            rows = connection.execute(sqlalchemy.text("select 1 union select 2"))
            connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
            rows.close()

    monkeypatch.setattr(sys, "argv", ["tool", "work"])
    with pytest.raises(sqlalchemy.exc.ProgrammingError):
        command_line.run_tool(tool, "tool", pytest.fail)
    assert caplog.text == ""


def test_what_is_to_be_typed_finds_its_programs_where_nobody_has_activated_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvicorn is what `mlflow models serve` starts by its plain name."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    bare = {"PATH": "/usr/bin:/bin"}
    line = command_line.typed("python -c 'import shutil, sys; print(sys.executable, shutil.which(\"uvicorn\"))'")
    said = subprocess.run(["bash", "-c", line], env=bare, capture_output=True, text=True, check=True).stdout.split()
    folder = Path(sys.executable).parent
    assert [Path(each).parent for each in said] == [folder, folder]
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert command_line.typed("python -m wertune") == "python -m wertune"
