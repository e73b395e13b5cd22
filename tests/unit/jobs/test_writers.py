"""Several processes that hold one model write what one writes, and end with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.errors import BaseModelError
from wertune.base.steps import heard_by
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.jobs import writers as module
from wertune.jobs.writers import WriterLost, Writers, writers
from wertune.whisper.model import Whisper, load_whisper
from wertune.whisper.transcription import transcribe_samples

DECODE = DecodeConfig(max_new_tokens=4, batch_size=2)
# Two processes that write for ever, in one that is about to be killed.
UNTIL_KILLED = """
import sys
from functools import partial
from pathlib import Path
from wertune.jobs import writers as module
from wertune.whisper.model import load_whisper
from tests.unit.jobs.test_writers import CLIPS, texts

if __name__ == "__main__":
    module.CLIPS_EACH, module.cores = 1, lambda: 2
    load = partial(load_whisper, Path(sys.argv[1]), "en", "none")
    with module.writers(load(), load, len(CLIPS)) as hands:
        while True:
            texts(hands)
            print("written", flush=True)
"""


def _clips() -> list[Samples]:
    generator = np.random.default_rng(0)
    lengths = (0.3, 1.4, 0.8, 2.0, 0.5, 1.1)
    return [generator.normal(0, 0.1, round(s * SAMPLE_RATE_HZ)).astype(np.float32) for s in lengths]


CLIPS = _clips()


def texts(hands: Writers) -> list[str]:
    written = transcribe_samples(hands.whisper, CLIPS, ContextConfig(), DECODE, across=hands.across)
    return [each.text for each in written]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIPS_EACH", 1)
    monkeypatch.setattr(module, "cores", lambda: 2)


@pytest.fixture
def load(tiny_whisper_folder: Path) -> Callable[[], Whisper]:
    return partial(load_whisper, tiny_whisper_folder, "en", "none")


def _writing(process: psutil.Process) -> list[psutil.Process]:
    """What the process has had forked from the one that has imported."""
    servers = [child for child in process.children() if "forkserver" in " ".join(child.cmdline())]
    return [child for server in servers for child in server.children()]


@contextmanager
def _two(load: Callable[[], Whisper]) -> Iterator[Writers]:
    with writers(load(), load, len(CLIPS)) as hands:
        assert hands.processes == 2
        yield hands


def test_two_processes_write_what_one_writes_and_one_that_is_killed_is_told(
    two_cores: None, load: Callable[[], Whisper]
) -> None:
    done: list[int] = []
    with _two(load) as hands:
        with heard_by(done.append):
            found = texts(hands)
        peak_mb = hands.peak_memory_mb()
        for child in _writing(psutil.Process()):
            child.send_signal(signal.SIGKILL)
        with pytest.raises(WriterLost, match="one of 2 processes that write texts has died"):
            texts(hands)
    assert found == texts(Writers(load()))
    assert any(found)
    assert sum(done) == len(CLIPS)
    assert peak_mb > 100  # of those that wrote: a Python with torch


def test_few_clips_little_memory_one_core_or_another_engine_are_one_writer(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[], Whisper]
) -> None:
    whisper = load()

    def processes(clips: int = 10_000) -> int:
        with writers(whisper, load, clips) as hands:
            return hands.processes

    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr(module, "cores", lambda: 4)
    assert processes(clips=2 * module.CLIPS_EACH - 1) == 1
    monkeypatch.setattr(module, "free_memory_mb", lambda: 100.0)
    assert processes() == 1
    monkeypatch.setattr(module, "free_memory_mb", lambda: None)
    monkeypatch.setattr(module, "cores", lambda: 1)
    assert processes() == 1


def test_what_a_process_cannot_load_is_told_as_it_is(two_cores: None, load: Callable[[], Whisper]) -> None:
    with (
        pytest.raises(BaseModelError, match="nowhere"),
        writers(load(), partial(_gone, "nowhere"), len(CLIPS)) as hands,
    ):
        texts(hands)


def _gone(place: str) -> Whisper:
    raise BaseModelError(f"{place} is gone")


def test_ctrl_c_is_the_first_process_s_and_none_outlives_it(tiny_whisper_folder: Path, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all at once."""
    program = tmp_path / "until_killed.py"
    program.write_text(UNTIL_KILLED, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(program), str(tiny_whisper_folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "written\n"
        children = psutil.Process(process.pid).children(recursive=True)
        writing = _writing(psutil.Process(process.pid))
        assert len(writing) == 2
        for child in writing:
            child.send_signal(signal.SIGINT)
        assert [process.stdout.readline() for _ in range(3)] == ["written\n"] * 3
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, [" ".join(each.cmdline()) for each in alive]
