"""A project's files by key: all bytes arrive, once and whole; nothing else is handed out; shared disks are used."""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.errors import StorageError
from wertune.search.shipped_files import (
    PART_BYTES,
    Entry,
    FileServer,
    Span,
    audio_here,
    base_here,
    batches,
    feature_parts,
)
from wertune.whisper.base_model import BaseModel, files_of

FEATURE = f"ab/ab{'0' * 30}.npy"
SPLIT_FEATURE = f"{'c' * 32}.npy"

sizes = st.lists(st.integers(0, 50), max_size=12)


@given(sizes, st.integers(1, 20))
def test_batches_hold_every_byte_once_in_order_and_are_small(sizes_bytes: list[int], part_bytes: int) -> None:
    entries = [Entry(f"audio/{number}", size, 0, "") for number, size in enumerate(sizes_bytes)]
    made = list(batches(entries, part_bytes))
    assert all(0 < sum(span.length for span in batch) <= part_bytes or not sum(sizes_bytes) for batch in made)
    for entry in entries:
        spans = [span for batch in made for span in batch if span.key == entry.key]
        assert spans
        assert [span.offset for span in spans] == [sum(s.length for s in spans[:n]) for n in range(len(spans))]
        assert sum(span.length for span in spans) == entry.size_bytes
    assert len(made) <= sum(sizes_bytes) // part_bytes + 1


class Driver:
    """A driver's disk with a base, two recordings and features, and its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = self._write("base/model.safetensors", b"weights" * 1000).parent
        self._write("base/config.json", b"{}")
        self._write("base/optimizer.bin", b"not a part of the model")
        self.audio = [self._write("audio/one.opus", b"one"), self._write("audio/two.opus", b"two two")]
        self._write(f"features/{FEATURE}", b"features of a clip")
        self.asked: list[Sequence[Span]] = []
        packed = FileServer.pack(files_of(BaseModel("base", self.base, "")), self.audio, folder / "features")
        self.server = FileServer(packed)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def ask(self, spans: Sequence[Span]) -> list[bytes]:
        self.asked.append(spans)
        return self.server.read(spans)

    def base_on(self, root: Path, there: Path | None = None) -> Path:
        return base_here(there or Path("/no/such"), self.server.catalogue().base, root, self.ask)

    def audio_on(self, root: Path) -> dict[Path, Path]:
        return audio_here(self.server.catalogue().audio, root, self.ask)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path / "driver")


def _catalogue_elsewhere(driver: Driver) -> dict[Path, Entry]:
    """The driver's audio, by paths that this node does not have."""
    return {Path("/no/such") / path.name: entry for path, entry in driver.server.catalogue().audio.items()}


def test_a_node_without_the_base_gets_exactly_the_files_of_the_model_once(driver: Driver, tmp_path: Path) -> None:
    folder = driver.base_on(tmp_path / "node")
    for name in ("model.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (driver.base / name).read_bytes()
    assert not (folder / "optimizer.bin").exists()
    asked = len(driver.asked)
    assert driver.base_on(tmp_path / "node") == folder
    assert len(driver.asked) == asked


def test_a_base_in_parts_is_whole(driver: Driver, tmp_path: Path) -> None:
    with (driver.base / "model.safetensors").open("wb") as file:
        file.truncate(PART_BYTES + 12345)
        file.seek(PART_BYTES)
        file.write(b"the second part")
    folder = driver.base_on(tmp_path / "node")
    assert len(driver.asked) == 2
    assert (folder / "model.safetensors").read_bytes() == (driver.base / "model.safetensors").read_bytes()


def test_a_shared_base_is_used_and_another_of_the_same_size_is_not(driver: Driver, tmp_path: Path) -> None:
    assert driver.base_on(tmp_path / "node", driver.base) == driver.base
    assert driver.asked == []
    other = tmp_path / "other"
    shutil.copytree(driver.base, other)
    (other / "model.safetensors").write_bytes(b"WEIGHTS" * 1000)
    assert driver.base_on(tmp_path / "node", other) != other


def test_workers_of_a_node_fetch_once_between_them(driver: Driver, tmp_path: Path) -> None:
    audio = _catalogue_elsewhere(driver)

    def work(_: int) -> tuple[Path, dict[Path, Path]]:
        return driver.base_on(tmp_path / "node"), audio_here(audio, tmp_path / "node" / "audio", driver.ask)

    with ThreadPoolExecutor(8) as pool:
        ((base, paths),) = {(base, tuple(paths.items())) for base, paths in pool.map(work, range(8))}
    assert base.is_dir()
    assert [path.read_bytes() for _, path in paths] == [b"one", b"two two"]
    asked_for = Counter[str]()
    for span in itertools.chain.from_iterable(driver.asked):
        asked_for[span.key.partition("/")[0]] += span.length
    assert asked_for == {"base": 7000 + 2, "audio": 3 + 7}


def test_shared_audio_is_used_and_a_changed_copy_is_fetched(driver: Driver, tmp_path: Path) -> None:
    catalogue = driver.server.catalogue().audio
    assert driver.audio_on(tmp_path / "node") == {path: path for path in driver.audio}
    copies = {}
    for path, entry in catalogue.items():
        copy = tmp_path / path.name
        shutil.copy(path, copy)  # another time, the same bytes
        copies[copy] = entry
    assert audio_here(copies, tmp_path / "node", driver.ask) == {path: path for path in copies}
    assert driver.asked == []
    changed = tmp_path / "one.opus"
    changed.write_bytes(b"ONE")
    here = audio_here(copies, tmp_path / "node", driver.ask)
    assert here[changed].read_bytes() == b"one"
    assert here[tmp_path / "two.opus"] == tmp_path / "two.opus"


def test_audio_that_changed_on_the_driver_is_refused_and_not_kept(driver: Driver, tmp_path: Path) -> None:
    audio = _catalogue_elsewhere(driver)
    driver.audio[0].write_bytes(b"ONE")
    with pytest.raises(StorageError, match=r"must be .* as it was when the search began"):
        audio_here(audio, tmp_path / "node", driver.ask)
    assert [path.name for path in (tmp_path / "node").iterdir()] == [".lock"]


def test_an_ended_workers_half_fetched_files_are_cleared_away(driver: Driver, tmp_path: Path) -> None:
    half = tmp_path / "node" / ".fetching-x"
    half.mkdir(parents=True)
    (half / "one").write_bytes(b"o")
    audio_here(_catalogue_elsewhere(driver), tmp_path / "node", driver.ask)
    assert not half.exists()


def test_a_full_disk_is_a_storage_error_and_leaves_no_base(
    driver: Driver, tmp_path: Path, disk_full_after: Callable[[int], AbstractContextManager[None]]
) -> None:
    catalogue = driver.server.catalogue()
    with disk_full_after(100), pytest.raises(StorageError, match=r"base model cannot be stored.*WERTUNE_CACHE"):
        base_here(Path("/no/such"), catalogue.base, tmp_path / "node", driver.ask)
    assert not [path for path in (tmp_path / "node").iterdir() if path.name.startswith("base-")]


def test_features_are_found_by_name_and_a_missing_one_has_no_parts(driver: Driver) -> None:
    assert b"".join(feature_parts(FEATURE, driver.ask)) == b"features of a clip"
    assert list(feature_parts(SPLIT_FEATURE, driver.ask)) == []


def test_a_large_feature_file_comes_in_parts(driver: Driver) -> None:
    path = driver.folder / "features" / SPLIT_FEATURE
    with path.open("wb") as file:
        file.truncate(2 * PART_BYTES)
    assert [len(part) for part in feature_parts(SPLIT_FEATURE, driver.ask)] == [PART_BYTES, PART_BYTES]


@pytest.mark.parametrize(
    "key",
    [
        "base/optimizer.bin",
        "base/../audio/one.opus",
        "audio/one.opus",
        "features/../base/config.json",
        f"features/../features/{FEATURE}",
        f"features/{FEATURE}\n",
        f"features/{FEATURE.upper()}",
        "/etc/passwd",
        "",
    ],
)
def test_any_other_key_is_refused(driver: Driver, key: str) -> None:
    with pytest.raises(ValueError, match="a key is one of the catalogue's"):
        driver.server.read([Span(key, 0, 10)])


@given(st.text(max_size=40))
def test_no_text_is_a_key_of_another_file(text: str) -> None:
    server = FileServer(FileServer.pack([], [], Path(os.devnull)))
    with pytest.raises(ValueError, match="a key is one of the catalogue's"):
        server.read([Span(text, 0, 10)])


@pytest.mark.parametrize("span", [(-1, 5), (0, -5), (0, PART_BYTES + 1)])
def test_a_part_is_bounded(driver: Driver, span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a part has 0 to"):
        driver.server.read([Span("base/config.json", *span)])


def test_a_file_server_that_was_started_again_answers_without_being_asked_for_its_catalogue(driver: Driver) -> None:
    (key,) = (entry.key for entry in driver.server.catalogue().audio.values() if entry.size_bytes == 3)
    again = FileServer(FileServer.pack([], driver.audio, driver.folder / "features"))
    assert again.read([Span(key, 1, 10)]) == [b"ne"]
