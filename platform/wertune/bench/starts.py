"""How long it takes until something happens: `validate`, a search's first batch, a Ray worker; of several checkouts.

`python -m wertune.bench.starts --clips 20000 --code . --code ../before` prints one JSON object. Each checkout runs on
the same made recordings, in a cache of its own, and is measured from outside, so that an older one can be, too.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wertune.bench.rows import timed
from wertune.data.audio import SAMPLE_RATE_HZ

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
CLIP_S = 3.7
SMALL = 40  # clips of the set that is searched on: few, since the base writes them all before the first batch
PATIENCE_S = 1800.0
WORDS = "please check the form again before you send it to our office on the next working day with your number"
NAME = "starts"
PROJECT = """name: starts
base_model: {base}
data: {{train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
"""
SEARCH = "trials: 1\ncpus_per_trial: 1\nspace:\n  lora.r: {choices: [4]}\n"
POLICY = "staging: [{kind: wer, limit: 1}]\nproduction: [{kind: wer, limit: 1}]\n"
# Of the checkout's own parts, wherever they lay; its names are those of before there were rooms, or those of today.
WORKER = """
import json, sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
rooms = find_spec("wertune.training") is not None
prepare = import_module("wertune.training.prepare" if rooms else "wertune.prepare").prepare
load_project = import_module("wertune.base.config" if rooms else "wertune.config").load_project
from wertune.bench import start_up
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(json.dumps(start_up.section(prepare(folder, load_project(folder))).found))
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout's code, and the folder that its commands run in: links to its own files, and a cache."""

    code: Path
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`python ARGUMENTS` in a process group of its own, its output in a file of the folder."""
        roots = os.pathsep.join(str(self.code / root) for root in ("platform", "registry"))
        env = os.environ | {"PYTHONPATH": roots, "WERTUNE_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        env["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.folder / 'mlflow.db'}"
        with (self.folder / "output.txt").open("w") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def run(self, *arguments: str) -> str:
        """What `python ARGUMENTS` prints; RuntimeError with all of it where that fails."""
        process = self.start(*arguments)
        status = process.wait()
        output = (self.folder / "output.txt").read_text()
        if status:
            raise RuntimeError(f"{self.code}: python {' '.join(arguments)} ended with {status}:\n{output}")
        return output

    def validate_s(self, project: Path) -> float:
        """Of one `wertune validate`."""
        return timed(lambda: self.run("-m", "wertune", "validate", "--project", str(project)))

    def first_batch_s(self, project: Path) -> float:
        """From `wertune tune` until the first batch's first clip lies among the features; then the search is ended."""
        started = time.perf_counter()
        process = self.start("-m", "wertune", "tune", "--project", str(project))
        try:
            while not next((self.folder / "cache" / "features").glob("??/*.npy"), None):
                if process.poll() is not None or time.perf_counter() - started > PATIENCE_S:
                    raise RuntimeError(f"{self.code}: no batch:\n{(self.folder / 'output.txt').read_text()}")
                time.sleep(0.05)
            return time.perf_counter() - started
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()

    def worker_s(self, project: Path) -> Any:
        """Seconds to the first batch of a cold and a warm Ray worker, round by round."""
        program = self.folder / "worker.py"
        program.write_text(WORKER)
        return json.loads(self.run(str(program), str(project)).splitlines()[-1])


@contextmanager
def checked_out(code: Path) -> Iterator[Checkout]:
    """The checkout with a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="wertune-starts-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        (folder / "projects").symlink_to(code / "projects")
        policies = folder / "registry" / "policies"
        policies.mkdir(parents=True)
        (policies / f"{NAME}.yaml").write_text(POLICY)
        yield Checkout(code, folder)


def make_project(folder: Path, clips: int, base: str) -> Path:
    """A project of `clips` FLAC files of 3.7 s, each of its own faint noise, text and one of a hundred speakers."""
    counts = {split: max(4, round(share * clips)) for split, share in SHARES.items()}
    (folder / "audio").mkdir(parents=True)
    (folder / "project.yaml").write_text(PROJECT.format(base=base))
    (folder / "search.yaml").write_text(SEARCH)
    start = 0
    for split, count in counts.items():
        numbers = range(start, start + count)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # encoding leaves Python's lock
            list(pool.map(partial(_write_clip, folder), numbers))
        (folder / f"{split}.jsonl").write_text("".join(_row(number, split) for number in numbers))
        start += count
    return folder


def _write_clip(folder: Path, number: int) -> None:
    samples = 0.01 * np.random.default_rng(number).standard_normal(round(CLIP_S * SAMPLE_RATE_HZ), dtype=np.float32)
    soundfile.write(folder / "audio" / f"{number}.flac", samples, SAMPLE_RATE_HZ, subtype="PCM_16")


def _row(number: int, split: str) -> str:
    text = " ".join(random.Random(number).choices(WORDS.split(), k=8))
    row = {"audio_filepath": f"audio/{number}.flac", "text": f"{text} {number}", "speaker": f"{split} {number % 100}"}
    return json.dumps(row) + "\n"


def measure(checkout: Checkout, large: Path, small: Path) -> dict[str, Any]:
    """Seconds of everything; `again` is the second time in the same cache."""
    demo: Callable[[], float] = partial(checkout.validate_s, Path("projects/sg_gov"))
    return {
        "validate_demo_s": demo(),
        "validate_demo_again_s": demo(),
        "validate_clips_s": checkout.validate_s(large),
        "validate_clips_again_s": checkout.validate_s(large),
        "validate_small_s": checkout.validate_s(small),
        "tune_to_first_batch_s": checkout.first_batch_s(small),
        "worker_cold_and_warm_s": checkout.worker_s(small),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20_000, help="of the set that is validated twice")
    parser.add_argument("--code", type=Path, action="append", help="a checkout, many times; not given: this one")
    parser.add_argument("--base", default="packaged:whisper-tiny.en", help="the base model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wertune-starts-") as scratch:
        large, small = (make_project(Path(scratch) / str(n), n, given.base) for n in (given.clips, SMALL))
        found = {}
        for code in given.code or [Path(__file__).parents[3]]:
            with checked_out(code.resolve()) as checkout:
                found[str(code)] = measure(checkout, large, small)
        print(json.dumps({"clips": given.clips, "code": found}, indent=1))


if __name__ == "__main__":
    main()
