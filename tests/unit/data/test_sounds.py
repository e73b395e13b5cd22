"""What is known of a recording is never what another one, or an older one, sounds like, whatever befalls the cache."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

import wertune.data.sounds as module
from wertune.base import kept as keeper
from wertune.base.errors import AudioError
from wertune.base.kept import FILE, Kept
from wertune.data.audio import Samples, audio_digest, load_audio
from wertune.data.sounds import Part, Sound, known_sound, sound_of

WriteNoise = Callable[..., Path]
LATER_NS = 10 * module.TICK_NS
MEASURE = """
import sys, time
from pathlib import Path
import wertune.base.kept as keeper
import wertune.data.sounds as module
clock = time.time_ns
module.time.time_ns = lambda: clock() + 10 * module.TICK_NS
kept = keeper.Kept(Path(sys.argv[1]))
for path in map(Path, sys.argv[2:]):
    part = module.Part(path, 0.0, 31.0)
    module.known_sound(part, kept) or module.sound_of(part, kept)
kept.close()
"""


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded, in order; they changed long ago."""
    found: list[Path] = []

    def load(path: Path, *part: Any) -> Samples:
        found.append(path)
        return load_audio(path, *part)

    clock = time.time_ns
    monkeypatch.setattr(module, "load_audio", load)
    monkeypatch.setattr(module.time, "time_ns", lambda: clock() + LATER_NS)
    return found


@pytest.fixture
def clip(tmp_path: Path, write_noise: WriteNoise) -> Path:
    """A recording of one second."""
    return write_noise(tmp_path / "clip.wav", seed=1)


def _heard(path: Path, kept: Kept, offset_s: float = 0.0, duration_s: float = 31.0) -> Sound:
    part = Part(path, offset_s, duration_s)
    return known_sound(part, kept) or sound_of(part, kept)


def _sound(folder: Path, path: Path, offset_s: float = 0.0, duration_s: float = 31.0) -> Sound:
    """As a command would find it, and as it is."""
    with closing(Kept(folder)) as kept:
        found = _heard(path, kept, offset_s, duration_s)
    samples = load_audio(path, offset_s, duration_s)
    assert found == (samples.size, audio_digest(samples), hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def test_a_recording_is_decoded_once(tmp_path: Path, clip: Path, decoded: list[Path]) -> None:
    first = _sound(tmp_path / "cache", clip)
    assert _sound(tmp_path / "cache", clip) == first
    assert first.duration_s == 1.0
    assert decoded == [clip]


def test_parts_of_a_recording_are_told_apart(tmp_path: Path, clip: Path, decoded: list[Path]) -> None:
    parts = [(0.0, 31.0), (0.5, 31.0), (0.0, 0.5), (0.5, 0.25)]
    for _ in range(2):
        assert len({_sound(tmp_path, clip, *part).digest for part in parts}) == len(parts)
    assert len(decoded) == len(parts)


def test_a_recording_that_changed_is_decoded_again(
    tmp_path: Path, clip: Path, decoded: list[Path], write_noise: WriteNoise
) -> None:
    """One longer, one of the same size, and one of the same size whose time was set back: the kernel's own tells."""
    before = clip.stat()
    _sound(tmp_path, clip)
    for seconds, seed in ((2.0, 2), (2.0, 3), (1.0, 4)):
        write_noise(clip, seconds, seed=seed)
        os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns))
        _sound(tmp_path, clip)
        _sound(tmp_path, clip)
    other = write_noise(tmp_path / "other.wav", seed=5)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(clip)
    _sound(tmp_path, clip)
    assert len(decoded) == 5


def test_what_changed_just_now_may_change_again_unseen(
    tmp_path: Path, clip: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = max(clip.stat().st_mtime_ns, clip.stat().st_ctime_ns)
    for now in (changed - 10**9, changed, changed + module.TICK_NS):  # a clock that is behind the disk's, too
        monkeypatch.setattr(module.time, "time_ns", lambda now=now: now)
        _sound(tmp_path, clip)
    monkeypatch.setattr(module.time, "time_ns", lambda: changed + module.TICK_NS + 1)
    _sound(tmp_path, clip)
    assert len(decoded) == 4
    _sound(tmp_path, clip)
    assert len(decoded) == 4


def test_what_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, clip: Path, decoded: list[Path], write_noise: WriteNoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = module.load_audio

    def changing(path: Path, *part: Any) -> Samples:
        samples = load(path, *part)
        write_noise(path, seed=len(decoded))
        return samples

    with monkeypatch.context() as patch, closing(Kept(tmp_path)) as kept:
        patch.setattr(module, "load_audio", changing)
        _heard(clip, kept)
    _sound(tmp_path, clip)
    assert len(decoded) == 2


def test_another_library_decodes_again(
    tmp_path: Path, clip: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _sound(tmp_path, clip)
    monkeypatch.setattr(module, "_decoder", lambda: "another")
    _sound(tmp_path, clip)
    assert len(decoded) == 2


def test_what_cannot_be_decoded_is_never_known(tmp_path: Path, decoded: list[Path]) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    for _ in range(2):
        with closing(Kept(tmp_path)) as kept, pytest.raises(AudioError, match="cannot be decoded"):
            _heard(bad, kept)
    assert len(decoded) == 2


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(4096))


def _cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3000])


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _other_digests(file: Path) -> None:
    """Whole by its form, but with another sound's values: what a damaged disk may do."""
    with closing(sqlite3.connect(file)) as store, store:
        store.execute("UPDATE kept SET value = replace(value, 'a', 'b')")


def _other_table(file: Path) -> None:
    with closing(sqlite3.connect(file)) as store, store:
        store.executescript("DROP TABLE kept; CREATE TABLE kept (name TEXT)")


@pytest.mark.parametrize("damage", [_garbage, _cut_short, _emptied, _other_digests])
def test_a_damaged_cache_says_nothing_wrong_and_is_made_anew(
    tmp_path: Path, clip: Path, decoded: list[Path], damage: Callable[[Path], None]
) -> None:
    _sound(tmp_path, clip)
    damage(tmp_path / FILE)
    for _ in range(3):
        _sound(tmp_path, clip)
    assert 2 <= len(decoded) <= 3  # where the damage is found in reading, nothing is kept until the next command


def test_a_cache_of_another_form_is_left_alone(
    tmp_path: Path, clip: Path, decoded: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    _sound(tmp_path, clip)
    _other_table(tmp_path / FILE)
    _sound(tmp_path, clip)
    assert len(decoded) == 2
    assert "no such column" in caplog.text


@pytest.mark.parametrize("known", [True, False])
def test_a_folder_that_cannot_be_written(
    tmp_path: Path,
    clip: Path,
    decoded: list[Path],
    write_noise: WriteNoise,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    known: bool,
) -> None:
    """What is known there is taken; what is new is decoded, and that it cannot be kept is said once."""
    _sound(tmp_path, clip)
    connect = sqlite3.connect
    monkeypatch.setattr(
        keeper.sqlite3, "connect", lambda path, **options: connect(f"file:{path}?mode=ro", uri=True, **options)
    )
    others = [write_noise(tmp_path / f"{seed}.wav", seed=seed) for seed in (2, 3)]
    with closing(Kept(tmp_path)) as kept:
        for path in [clip] if known else [clip, *others]:
            _heard(path, kept)
    assert decoded == ([clip] if known else [clip, *others])
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (0 if known else 1)
    assert all("cannot be kept" in text and "WERTUNE_CACHE" in text for text in told)


def test_a_folder_that_cannot_be_made(tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    _sound(clip / "cache", clip)
    assert "cannot be kept" in caplog.text


def test_a_full_disk(
    tmp_path: Path,
    clip: Path,
    decoded: list[Path],
    disk_full_after: Callable[[int], AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with disk_full_after(100):
        _sound(tmp_path / "cache", clip)
    assert "cannot be kept" in caplog.text
    _sound(tmp_path / "cache", clip)
    _sound(tmp_path / "cache", clip)
    assert len(decoded) == 2


def test_threads_and_processes_at_once(tmp_path: Path, decoded: list[Path], write_noise: WriteNoise) -> None:
    """Each sound is right whoever kept it, and nobody is refused by another's writing."""
    clips = [write_noise(tmp_path / f"{number}.wav", 0.1, seed=number) for number in range(30)]
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "cache"), *map(str, clips)]
    others = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    with closing(Kept(tmp_path / "cache")) as kept, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: _heard(path, kept), clips))
    assert [other.communicate()[1] for other in others] == ["", ""]
    decoded.clear()
    for path in clips:
        _sound(tmp_path / "cache", path)
    assert decoded == []


def test_who_is_killed_while_writing_leaves_what_was_there(tmp_path: Path, clip: Path, decoded: list[Path]) -> None:
    """A transaction half on the disk is taken back by whoever opens the cache next."""
    _sound(tmp_path, clip)
    program = (
        "import os, signal, sqlite3, sys\n"
        "store = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "store.execute('PRAGMA cache_size = 1')\n"
        "store.execute('BEGIN IMMEDIATE')\n"
        "store.execute(\"UPDATE kept SET value = 'wrong'\")\n"
        "rows = ((str(n), 'x' * 500, 'x') for n in range(2000))\n"
        "store.executemany('INSERT INTO kept VALUES (?, ?, ?)', rows)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / FILE)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / f"{FILE}-journal").stat().st_size > 0
    _sound(tmp_path, clip)
    assert len(decoded) == 1
    with closing(sqlite3.connect(tmp_path / FILE)) as store:
        assert store.execute("SELECT count(*) FROM kept").fetchone() == (1,)
