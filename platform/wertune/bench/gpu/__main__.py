"""Runs all parts on the GPU, or in small sizes on a CPU, within eight minutes; prints the table, writes the JSON."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import torch

from wertune.base.machine import processor_name
from wertune.bench.gpu import side_by_side, ways, writing
from wertune.bench.gpu.base import OPENAI, SMALL, Size, write_base
from wertune.bench.gpu.report import Found
from wertune.training.memory import give_back_memory
from wertune.whisper.footprint import dtype_name, products_here

ROOT = Path(__file__).parents[4]
GPU_TESTS, JSON_OF_A_GPU = Path("tests", "gpu"), ROOT / "docs" / "gpu.json"
# Of all parts together; what is left of the eight minutes is for imports on a cold disk.
MOST_S, MOST_S_OF_TESTS = 450.0, 180.0
SIDE_BY_SIDE_S = {True: 5.0, False: 1.0}  # each of three phases, on a GPU and on a CPU


def main(given: Sequence[str] | None = None) -> int:
    """The exit status: 1 where a test or a part failed, or, on a GPU, something that must hold does not."""
    parser = argparse.ArgumentParser(prog="python -m wertune.bench.gpu", description=__doc__)
    told = "where the JSON goes; by default docs/gpu.json on a GPU, and nowhere on a CPU"
    parser.add_argument("--out", type=Path, default=JSON_OF_A_GPU if torch.cuda.is_available() else None, help=told)
    out: Path | None = parser.parse_args(given).out
    if out:
        try:  # what cannot be written is told before eight minutes
            out.parent.mkdir(parents=True, exist_ok=True)
            is_new = not out.exists()
            out.open("a").close()
            if is_new:
                out.unlink()
        except OSError as error:
            parser.error(f"--out is {out}, but cannot be written ({error.strerror}); name a file in a folder of yours")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs and what was written goes with it
    sizes = OPENAI if torch.cuda.is_available() else SMALL
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        found = measure(sizes, Path(scratch))
    names = [size.name for size in sizes]
    if out:
        out.write_text(json.dumps(found.raw(names), indent=1) + "\n", encoding="utf-8")
    print(found.page(names))
    return int(found.fails(names))


def measure(sizes: Sequence[Size], scratch: Path) -> Found:
    """Every part; what one raises is told, and the next one goes on. After `MOST_S` all are ended."""
    is_gpu = torch.cuda.is_available()
    named = torch.cuda.get_device_name() if is_gpu else processor_name()
    found = Found(named, is_gpu, dtype_name(products_here()), torch.__version__)
    if not is_gpu:
        torch.set_num_threads(1)  # of sizes so small more are slower, and much so on a busy machine
    until = time.perf_counter() + MOST_S
    for name, part in _parts(found, sizes, scratch).items():
        started = time.perf_counter()
        try:
            with _ended_at(until):
                part()
        except Exception as error:  # whatever it is, the others' figures are not to be lost
            found.missing[name] = f"{type(error).__name__}: {error}"
        found.seconds[name] = time.perf_counter() - started
        give_back_memory()
        print(f"{name}: {found.seconds[name]:.0f} s", file=sys.stderr, flush=True)
    return found


def _parts(found: Found, sizes: Sequence[Size], scratch: Path) -> dict[str, Callable[[], None]]:
    """By name what adds its figures to `found`; the largest base comes last, which no other part waits for."""
    device = torch.device("cuda" if found.is_gpu else "cpu")

    def base_of(size: Size) -> Path:
        folder = scratch / size.name
        return folder if folder.is_dir() else write_base(folder, size, device)

    def tests() -> None:
        found.tests = run_tests(scratch)

    def rate() -> None:
        found.product_tflop_per_s = ways.product_tflop_per_s(device)

    def pair(size: Size) -> None:
        found.pairs.append(ways.measure(base_of(size), size, scratch / "trainer"))

    def beside() -> None:
        found.side_by_side = side_by_side.measure(base_of(sizes[0]), SIDE_BY_SIDE_S[found.is_gpu])

    def write() -> None:
        found.writing = writing.measure(base_of(sizes[min(1, len(sizes) - 1)]))

    *pairs, largest = ((size.name, partial(pair, size)) for size in sizes)
    others = [("side by side", beside), ("writing", write)]
    return dict([("tests/gpu", tests), ("rate", rate), *pairs, *others, largest])


@contextmanager
def _ended_at(until: float) -> Iterator[None]:
    """Raises TimeoutError inside the block when it is so late, or before it where it is later."""

    def end(*_: object) -> None:
        raise TimeoutError(f"it was ended {MOST_S:.0f} s after the first part's beginning, as all must be")

    left_s = until - time.perf_counter()
    if left_s <= 0:
        end()
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, left_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_tests(scratch: Path) -> dict[str, int]:
    """How many of tests/gpu passed, failed and were skipped, in a process of its own.

    Raises RuntimeError where none ran, ModuleNotFoundError where there is no pytest.
    """
    if find_spec("pytest") is None:
        raise ModuleNotFoundError(f"pytest is not installed, must be for {GPU_TESTS}; run `pip install pytest`")
    report = scratch / "tests.xml"
    options = ["-q", "--confcutdir", str(GPU_TESTS), "-p", "no:cacheprovider", f"--junitxml={report}"]
    ours = [str(ROOT / "platform"), str(ROOT / "registry")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OMP_NUM_THREADS": "1",  # its models are tiny
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(GPU_TESTS), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MOST_S_OF_TESTS,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    suite = ElementTree.parse(report).getroot().find("testsuite") if report.is_file() else None
    if suite is None or not int(suite.get("tests", 0)):
        raise RuntimeError(f"pytest ended with {done.returncode} and ran no test, must run {GPU_TESTS}; see above")
    failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
    return {"passed": int(suite.get("tests", 0)) - failed - skipped, "failed": failed, "skipped": skipped}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing is kept")
