"""Every command that README and documentation show is one that can be given."""

import textwrap
from pathlib import Path

import click
import pytest
from tests.support import shown_commands
from tests.support.places import ROOT
from tests.support.shown_commands import (
    Shown,
    commands,
    entry_points,
    fault,
    kind,
    needed,
    pages,
    project_command,
    shown,
    started,
)

from wergate.__main__ import cli as wergate
from wertune.__main__ import cli as wertune

GROUPS = {"wertune": wertune, "wergate": wergate}

# The test that starts each kind of command, as `started` reads it from the test's source. With `AS_SHOWN` a test runs a
# page's commands as they stand there; others have other values.
RUN_BY = {
    "integration/test_tutorial.py": (
        "wertune init", "wertune import", "wertune split", "wertune validate", "wertune evaluate", "wertune tune",
        "wertune transcribe", "wergate promote", "wergate approve", "wergate history", "cat", "mv", "sed", "echo",
    ),
    "integration/test_how_to_real.py": (
        "wertune train", "wertune export", "wertune page", "wertune schema", "wergate check",
        "wergate rollback", "python registry/examples/damaged_adapters.py",
    ),
    "integration/test_shown_real.py": (
        "mlflow ui", "make audit", "python -m tests.trials.fuzz", "ray get-auth-token",
    ),
    "integration/alignment/test_align_real.py": ("wertune align",),
    "integration/synthesis/test_synthesize_engines.py": ("wertune synthesize",),
    "integration/jobs/test_search_real.py": ("mlflow models", "curl", "base64"),
    "integration/test_site.py": ("make docs",),
    "integration/bench/test_bench_scale.py": ("python -m wertune.bench.scale",),
    "integration/bench/test_gpu.py": ("make gpu", "python -m wertune.bench.gpu"),
    "integration/tracking/test_tracking_outage.py": ("mlflow server",),
    "integration/wergate/test_webhook.py": ("python registry/examples/webhook_receiver.py", "python -c"),
    "unit/base/test_cli.py": ("wertune",),
    "unit/wergate/test_cli.py": ("wergate",),
    "unit/commands/test_doctor.py": ("wertune doctor",),
    "unit/test_rooms.py": ("python docs/rooms.py",),
    "unit/test_deploy.py": ("deploy/make_env", "docker compose config"),
    "unit/bench/test_writes.py": ("python -m wertune.bench.writes",),
    "integration/serving/test_serving.py": ("python -m tests.trials.load",),
}  # fmt: skip
# What no test runs: its words are checked, and here is why, and what comes nearest.
ONLY_READ = {
    "python projects/sg_gov/recordings/unpack_games.py": "two games of Debian; unit/test_unpack_games.py",
    "wertune bench": "half an hour; its parts run in unit/bench/test_bench.py",
    "make bench": "as `wertune bench`",
    "python -m tests.trials.outage": "ten minutes; twenty seconds of the same are in integration/search/test_faults.py",
    "python -m tests.trials.shortage": "5 GB that nobody else wants; parts: test_trial_runs.py, test_driver.py",
    "python -m tests.trials.full_disk": "needs root, and minutes; parts: test_trial_runs.py, test_checkpoints.py",
    "python -m wertune.bench.starts": "minutes; its parts run in unit/bench/test_starts.py",
    "python tests/trials/search_driver.py": "ten minutes; integration/search/test_workers.py runs it in small",
    "python -m tests.trials.ray_train": "minutes, of a library that the project does not use",
    "python -m tests.trials.recorded": "minutes, or hours; unit/search/test_study.py plays some of its orders",
    "python -m tests.trials.searches": "minutes; unit/search/test_searches.py plays some of its searches",
    "python -m tests.trials.second_domain": "Debian's packages; unit/search/test_second_domain.py has others' files",
    "python -m tests.trials.strengths": "minutes, and adapters; unit/jobs/test_strengths.py runs it on a tiny Whisper",
    "python -m tests.trials.long_form": "a run; unit/training/test_windows.py, unit/whisper/timed/test_windows.py",
    "python -m tests.trials.align": "a quarter of an hour; two minutes of audio are in test_align_real.py",
    "python -m tests.trials.draws": "minutes; unit/wergate/test_power.py runs what it is made of",
    "wertune battery": "needs espeak-ng; unit/battery/test_battery.py makes one by what it calls",
    "docker compose up": "needs Docker: the services' own commands run in integration/test_team_stack.py",
    "docker compose exec": "as `docker compose up`",
    "ray up": "needs machines: Ray reads the file in unit/test_deploy.py, a second node is in test_second_node.py",
    **dict.fromkeys(("ray exec", "ray rsync-up"), "as `ray up`"),
    "ray start": "leaves a node on the machine: integration/search/test_second_node.py joins one to a cluster",
    "make tune": "nine minutes; `wertune tune` is run",
    "py-spy": "no package of the lock",
    **dict.fromkeys(("make env", "make check", "make layers"), "CI runs it beside the tests"),
    **dict.fromkeys(("make unit", "make integration", "make test", "pytest"), "these are the tests"),
    **dict.fromkeys(("apt-get", "pip"), "changes the machine"),
    **dict.fromkeys(("export", "source"), "the shell's own"),
}  # fmt: skip

EVERY = [each for page in pages() for each in shown(page)]


@pytest.mark.parametrize("each", EVERY, ids=lambda each: f"{each.place}: {' '.join(each.words)[:60]}")
def test_a_shown_command_can_be_given(each: Shown) -> None:
    assert fault(each.words) == "", f"{each.place}: {' '.join(each.words)}"


def test_a_search_on_a_cluster_is_shown_with_its_experiment() -> None:
    """Of MLflow's own, `Default`, whoever signs in to the team's server may only read."""
    lines = [" ".join(each.words) for each in EVERY if each.place in ("deploy/README.md", "docs/howto/cluster.md")]
    lines += [" ".join(each.words) for each in EVERY if each.words[0] in ("docker", "ray")]
    runs = [line for line in lines if "mlflow run . -e" in line]
    assert len(runs) >= 4
    assert [line for line in runs if "--experiment-name" not in line] == []


def test_each_kind_is_run_by_a_test_or_it_is_told_why_not() -> None:
    run = [name for names in RUN_BY.values() for name in names]
    assert sorted({kind(each.words) for each in EVERY}) == sorted([*run, *ONLY_READ])
    assert not [name for name in ONLY_READ if not ONLY_READ[name]]


@pytest.mark.parametrize("test", RUN_BY)
def test_a_test_starts_every_command_that_it_is_named_for(test: str) -> None:
    assert set(RUN_BY[test]) - started(ROOT / "tests" / test) == set()


def test_what_a_test_starts_is_read_from_its_lists_its_calls_and_its_page(tmp_path: Path) -> None:
    source = """
        import sys
        from wertune.bench import writes
        from tests.trials.load import main
        ROOT = Path(__file__).parents[1]
        AS_SHOWN = ("docs/howto/serving.md", "curl")
        SCRIPT = ROOT / "registry" / "examples" / "webhook_receiver.py"
        COMMANDS = {"make tune", "docs"}  # words, and no command
        def test(workspace, uri):
            run([sys.executable, "-m", "mlflow", "ui", "--port", "1"], ["make", "-o", "x", "BIN=b", "docs"])
            run([sys.executable, str(SCRIPT)], ["make", "-n", "tune"], [folder / "make_env"])
            workspace.run("train", "--epochs", "1")
            writes.main(["--tracking", uri])
            main([])
    """
    (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
    assert started(tmp_path / "test_it.py") == {
        "mlflow ui",
        "make docs",
        "make -n",
        "python registry/examples/webhook_receiver.py",
        "deploy/make_env",
        "wertune train",
        "python -m wertune.bench.writes",
        "python -m tests.trials.load",
        "curl",
        "base64",
    }


def test_the_pages_show_each_kind_of_command() -> None:
    kinds = {each.words[:2] if each.words[0] in ("mlflow", "python") else each.words[:1] for each in EVERY}
    assert {("mlflow", "run"), ("python", "-m"), ("wertune",), ("wergate",), ("make",), ("pytest",)} <= kinds


@pytest.mark.parametrize(
    ("entry_point", "parameter"),
    [(name, parameter) for name, spec in entry_points().items() for parameter in spec["parameters"]],
)
def test_what_is_given_to_mlflow_run_reaches_the_option_of_its_name(entry_point: str, parameter: str) -> None:
    given = dict.fromkeys(needed(entry_point), "needed") | {parameter: "two words"}
    (words,) = commands(project_command(entry_point, given))
    _, _, tool, name, *rest = words
    command = GROUPS[tool].get_command(click.Context(GROUPS[tool]), name)
    assert command is not None
    read, _, _ = command.make_parser(click.Context(command)).parse_args(list(rest))
    (taking,) = [
        each for each in command.params if f"--{parameter.replace('_', '-')}" in each.opts or parameter in each.opts
    ]
    assert read[taking.name] in ("two words", ["two words"], ("two words",))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mlflow run . -e tunes", "no entry point tunes"),
        ("mlflow run . -e tune -P trial=3", "no parameter trial"),
        ("mlflow run . -e import", "needs source"),
        ("mlflow run . -e tune --env local", "No such option"),
        ("wertune tunes", "no command tunes"),
        ("wertune tune --trial-count 3", "No such option"),
        ("python -m wergate promote --to Live", "is not one of"),
        ("make tun", "no target tun"),
        ("pytest tests/unit/test_none.py", "does not exist"),
        ("wertunes validate", "neither"),
        ("mlflow models serves -m a", "mlflow has no command serves"),
        ("mlflow ui --backend sqlite:///a.db", "No such option"),
        ("mlflow run . -e promote -P version=1 -P to=Live", "is not one of"),
        ("ray up deploy/cluster.yaml", "does not exist"),
        ("docker compose -f deploy/compose.yaml exec ray wertune tune", "no service ray"),
        ("docker compose -f deploy/compose.yaml exec ray-head wertune tunes", "no command tunes"),
        ("ray get-auth-token --generated", "No such option"),
        ("ray exec deploy/ray-cluster.yaml 'cd x && wertune tunes'", "no command tunes"),
        ("python registry/examples/none.py", "does not exist"),
        ("python -c 'print('", "was never closed"),
        ('pip install "wertune[tiny]"', "no extra tiny"),
        ("mlflow server --backend-store-uri postgresql://… --port 5000", "leaves something out"),
        ("export A=$(wertunes x)", "neither"),
    ],
)
def test_a_slip_is_found(command: str, said: str) -> None:
    assert said in fault(next(commands(command)))


def test_a_span_that_wraps_and_a_block_that_is_indented_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_commands, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    block = "   ```\n   B=$(cat b) make docs\n   ```\n"
    page.write_text(f"1. As `wertune\n   tune --trials 2` and `A=1 make tune`, not `make`:\n\n{block}")
    assert [each.words for each in shown(page)] == [
        ("cat", "b"),
        ("make", "docs"),
        ("wertune", "tune", "--trials", "2"),
        ("make", "tune"),
    ]


def test_assignments_here_documents_and_continued_lines_are_read_as_the_shell_reads_them() -> None:
    script = "A=1 make tune && cd x\ncat > f <<'E'\nno command\nE\nwertune validate \\\n  --project p  # why\n"
    assert list(commands(script)) == [
        ("make", "tune"),
        ("cd", "x"),
        ("cat",),
        ("wertune", "validate", "--project", "p"),
    ]
