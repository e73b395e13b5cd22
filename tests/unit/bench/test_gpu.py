"""The table of a GPU: what must hold, what is told where a part found nothing, and the bases that it is made on."""

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.support.fake_cuda import CUDA, fake_cuda, on_cuda
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from wertune.bench.clips import PLAIN_LORA
from wertune.bench.gpu import __main__ as gpu
from wertune.bench.gpu import side_by_side, ways, writing
from wertune.bench.gpu.base import OPENAI, Size, write_base
from wertune.bench.gpu.report import Condition, Found
from wertune.bench.gpu.ways import DECODE, WRITTEN_TOKENS, Pair, Way
from wertune.whisper.adapter import add_lora
from wertune.whisper.loops import token_limit
from wertune.whisper.model import load_whisper

SMALLEST = Size("smallest", 32, 1, 2)
NAMES = [size.name for size in OPENAI]
OURS = Way(step_s=0.1, epoch_s=0.5, evaluation_s=1.0, peak_mb=500.0)
THEIRS = Way(step_s=2.0, epoch_s=8.0, evaluation_s=10.0, peak_mb=2000.0)


def _found(ours: Way = OURS, sizes: Sequence[str] = NAMES, is_gpu: bool = True) -> Found:
    found = Found("NVIDIA T4", is_gpu, "float16", "2.11", product_tflop_per_s=20.0, tests={"passed": 9, "failed": 0})
    found.pairs = [Pair(name, THEIRS, ours, step_tflop=0.5) for name in sizes]
    found.side_by_side = {"1": {"clips_per_s": 50.0}, "2": {"clips_per_s": 90.0}}
    found.writing = {"1 clip, 5 beams": {"token_ms": 4.0, "waiting_share": 0.75}}
    found.seconds = {"tests/gpu": 60.0, "tiny": 40.0}
    return found


def test_what_holds_is_told_in_the_table_and_in_the_json() -> None:
    found = _found()
    page = " ".join(found.page(NAMES).split())
    assert page.startswith("NVIDIA T4, float16 products, torch 2.11 |")
    assert "| tiny: step | 2 s | 0.1 s | 20.0 |" in page
    assert "| base: peak memory | 2000 MB | 500 MB | 4.0 |" in page
    assert "| small: step, of plain products | | 5 of 20 TFLOP/s, 25.0 % | |" in page
    assert "| trials side by side: 2 | | 90 clips/s, 1.80 times one's | |" in page
    assert "| writing: 1 clip, 5 beams | | 4 ms a token, 75 % of it waiting for launches | |" in page
    assert "tests/gpu 60 s, tiny 40 s; 100 s in all" in page
    assert "| large-v2: training step, times the recipe's | at least 10 | 20 | yes |" in page
    assert "| base: peak memory at batch 8, GB | below 1 | 0.488 | yes |" in page
    assert "NO" not in page
    assert not found.fails(NAMES)
    raw = json.loads(json.dumps(found.raw(NAMES)))
    assert [each["holds"] for each in raw["must_hold"]] == [True] * 6
    assert (raw["pairs"][0]["times_faster"], raw["pairs"][0]["ours"]["peak_mb"]) == (20.0, 500.0)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"step_s": 0.21}, [f"{name}: training step" for name in NAMES]),
        ({"peak_mb": 1030.0}, ["base: peak memory"]),
        ({"peak_mb": 3100.0}, ["base: peak memory", "large-v2: peak memory"]),
    ],
)
def test_what_does_not_hold_ends_with_an_error_on_a_gpu_alone(change: dict[str, float], broken: list[str]) -> None:
    ours = replace(OURS, **change)
    found = _found(ours)
    told = [each.what for each in found.conditions(NAMES) if not each.holds]
    assert [what for what in told if not what.startswith(tuple(broken))] == []
    assert len(told) == len(broken)
    assert found.fails(NAMES)
    assert found.page(NAMES).count("| NO") == len(broken)
    on_cpu = _found(ours, is_gpu=False)
    assert not on_cpu.fails(NAMES)
    assert "must hold" not in on_cpu.page(NAMES)
    assert on_cpu.page(NAMES).startswith("CPU: there is no GPU here, and no figure below is one of a GPU")


def test_what_was_not_measured_does_not_hold() -> None:
    found = _found(sizes=NAMES[:3])
    assert found.fails(NAMES)
    assert [each.found for each in found.conditions(NAMES) if not each.holds] == [None, None]
    assert Condition("x", 1.0, None).line() == ["x", "below 1", "–", "NO"]


@pytest.mark.parametrize("is_gpu", [True, False])
def test_a_test_that_fails_and_a_part_that_found_nothing_end_with_an_error(is_gpu: bool) -> None:
    failed, missing = _found(is_gpu=is_gpu), _found(is_gpu=is_gpu)
    failed.tests["failed"] = 1
    missing.missing["writing"] = "OutOfMemoryError: of 15 GB"
    assert failed.fails(NAMES)
    assert missing.fails(NAMES)
    assert "writing: found nothing: OutOfMemoryError: of 15 GB" in missing.page(NAMES)


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(gpu, "run_tests", lambda scratch: {"passed": 1, "failed": 0})
    monkeypatch.setattr(ways, "measure", fail)
    monkeypatch.setattr(side_by_side, "measure", lambda folder, phase_s: {"1": {"clips_per_s": 1.0}})
    monkeypatch.setattr(gpu.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(writing, "measure", lambda folder: {})
    found = gpu.measure([SMALLEST], tmp_path)
    assert found.missing == {"smallest": "RuntimeError: no room"}
    assert (found.is_gpu, set(found.seconds)) == (False, {"tests/gpu", "rate", "smallest", "side by side", "writing"})
    assert found.product_tflop_per_s


def test_after_the_time_of_all_parts_none_goes_on_and_none_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*arguments: object) -> None:
        time.sleep(600)

    monkeypatch.setattr(gpu, "MOST_S", 0.5)
    monkeypatch.setattr(gpu, "run_tests", hang)
    monkeypatch.setattr(gpu.torch, "set_num_threads", lambda count: None)
    found = gpu.measure([SMALLEST], tmp_path)
    assert list(found.missing) == ["tests/gpu", "rate", "side by side", "writing", "smallest"]
    assert all(why.startswith("TimeoutError: it was ended") for why in found.missing.values())
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert found.fails(["smallest"])


def test_sigterm_ends_it_as_ctrl_c_does_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that pytest, which a part runs, ends with it."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(gpu, "measure", lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            gpu.main(["--out", str(tmp_path / "gpu.json")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    assert f"--out is {tmp_path}, but cannot be written (Is a directory); name a file" in capsys.readouterr().err


def test_figures_of_a_cpu_are_kept_only_where_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, out = tmp_path / "gpu.json", tmp_path / "asked.json"
    monkeypatch.setattr(gpu, "JSON_OF_A_GPU", kept)
    monkeypatch.setattr(gpu, "measure", lambda sizes, scratch: _found(is_gpu=False))
    assert gpu.main([]) == 0
    assert gpu.main(["--out", str(out)]) == 0
    assert "CPU: there is no GPU here" in capsys.readouterr().out
    assert (kept.exists(), json.loads(out.read_text())["is_gpu"]) == (False, False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "measure", lambda sizes, scratch: _found(replace(OURS, step_s=1.0)))
    assert gpu.main([]) == 1
    assert json.loads(kept.read_text())["is_gpu"]


@pytest.mark.parametrize(
    ("wrong", "counts"), [("", (1, 0, 1)), ("assert False", (0, 1, 1)), ("import nowhere", (0, 1, 0))]
)
def test_tests_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, counts: tuple[int, int, int]
) -> None:
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    top, inside = (wrong, "pass") if wrong.startswith("import") else ("", wrong or "pass")
    lines = [top, "import pytest", "def test_one():", f"    {inside}", "@pytest.mark.skip", "def test_two(): pass"]
    (tmp_path / "tests" / "gpu" / "test_it.py").write_text("\n".join(lines))
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert tuple(gpu.run_tests(tmp_path).values()) == counts


def test_where_no_test_ran_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match=r"ran no test, must run tests/gpu"):
        gpu.run_tests(tmp_path)
    monkeypatch.setattr(gpu, "MOST_S_OF_TESTS", 0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.run_tests(tmp_path)
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pytest is not installed, must be for tests/gpu"):
        gpu.run_tests(tmp_path)


def test_our_way_goes_through_on_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fake tensors: what meets one of another device fails."""
    shorter = {"DURATIONS_S": (2.0,), "LEAST_STEPS": 1, "STEPS_S": 0.0}
    for name, value in shorter.items():
        monkeypatch.setattr(ways, name, value)
    monkeypatch.setattr(ways, "DECODE", DECODE.model_copy(update={"max_new_tokens": 2}))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    loaded = load_whisper(write_base(tmp_path / "base", SMALLEST, torch.device("cpu")), "en", "int8")
    tuned = add_lora(loaded, PLAIN_LORA, seed=0)
    with fake_cuda():
        whisper = on_cuda(tuned)
        assert whisper.device == CUDA
        found = ways.our_way(whisper, 0.0)
    assert min(found.step_s, found.epoch_s, found.evaluation_s) > 0


def test_a_gpu_waits_where_no_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the profiler tells of a GPU: kernels, copies, what called them, and spans with a name of their own."""

    def told(device_type: DeviceType, microseconds: int, is_named: bool = False) -> FunctionEventAvg:
        event = FunctionEventAvg()  # type: ignore[no-untyped-call]
        event.device_type, event.is_user_annotation = device_type, is_named
        event.self_device_time_total = microseconds
        return event

    kernel, copy = told(DeviceType.CUDA, 200_000), told(DeviceType.CUDA, 50_000)
    watched = SimpleNamespace(
        key_averages=lambda: [kernel, copy, told(DeviceType.CPU, 250_000), told(DeviceType.CUDA, 900_000, True)]
    )
    monkeypatch.setattr(writing, "profile", lambda activities: nullcontext(watched))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert writing.waiting_share(lambda: None, torch.device("cuda"), seconds=1.0) == pytest.approx(0.75)
    assert writing.waiting_share(lambda: None, torch.device("cuda"), seconds=0.1) == 0.0


def test_a_base_of_random_weights_is_one_that_loads_and_spells(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", SMALLEST, torch.device("cpu"))
    whisper = load_whisper(folder, "en", "int8")
    assert whisper.wording.is_multilingual
    assert whisper.wording.prompt_names == ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
    label = whisper.label_ids("my CPF, 新")
    assert whisper.wording.text(label[3:-1]) == "my CPF, 新"
    assert (whisper.bare.config.d_model, whisper.bare.config.encoder_layers) == (32, 1)
    assert whisper.bare.config.vocab_size == 51865


def test_both_ways_write_as_many_tokens() -> None:
    assert {token_limit(seconds, DECODE) for seconds in ways.DURATIONS_S} == {WRITTEN_TOKENS}
