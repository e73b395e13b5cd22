"""How long a clip's context is, that its features are Whisper's own, and what the cache promises."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.base.config import ContextConfig
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.manifest import Recording
from wertune.whisper.features import (
    FRAMES_PER_POSITION,
    FULL_CONTEXT_POSITIONS,
    POSITIONS_PER_SECOND,
    FeatureCache,
    context_positions,
    log_mel,
    pad_features,
)

MakeRecordings = Callable[..., list[Recording]]
DiskFullAfter = Callable[[int], AbstractContextManager[None]]
SHORT = ContextConfig()
CACHE_FILE = "*.npy"

samples_of_a_clip = st.integers(1, 31 * SAMPLE_RATE_HZ)
contexts = st.builds(
    ContextConfig, short=st.just(True), margin_positions=st.integers(0, 1500), multiple=st.integers(1, 512)
)


def _noise(samples: int, seed: int, loudness: float = 0.1) -> npt.NDArray[np.float32]:
    return (loudness * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def _assert_same(left: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@given(samples_of_a_clip, contexts)
def test_a_context_covers_its_clip_and_no_more_than_it_must(samples: int, context: ContextConfig) -> None:
    positions = context_positions(samples / SAMPLE_RATE_HZ, context)
    needed = ceil(samples * POSITIONS_PER_SECOND / SAMPLE_RATE_HZ) + context.margin_positions
    assert positions <= FULL_CONTEXT_POSITIONS
    assert positions >= min(needed, FULL_CONTEXT_POSITIONS)
    assert positions % context.multiple == 0 or positions == FULL_CONTEXT_POSITIONS
    assert positions < needed + 1 + context.multiple


@given(samples_of_a_clip)
def test_a_context_is_a_multiple_of_16_or_whole(samples: int) -> None:
    positions = context_positions(samples / SAMPLE_RATE_HZ, SHORT)
    assert positions % 16 == 0 or positions == 1500
    assert positions >= min(1500, samples / SAMPLE_RATE_HZ * 50 + 32)


@given(samples_of_a_clip, samples_of_a_clip)
def test_a_longer_clip_has_no_shorter_context(left: int, right: int) -> None:
    short, long = sorted((left, right))
    assert context_positions(short / SAMPLE_RATE_HZ, SHORT) <= context_positions(long / SAMPLE_RATE_HZ, SHORT)


@given(samples_of_a_clip)
def test_without_a_short_context_every_clip_has_30_s(samples: int) -> None:
    assert context_positions(samples / SAMPLE_RATE_HZ, ContextConfig(short=False)) == 1500


@settings(max_examples=15)
@given(st.integers(3200, 29 * SAMPLE_RATE_HZ), st.integers(0, 9), st.sampled_from([0.001, 0.1, 0.5]))
def test_cropped_features_are_those_at_30_s(samples: int, seed: int, loudness: float) -> None:
    clip = _noise(samples, seed, loudness)
    cropped = log_mel(clip, context_positions(samples / SAMPLE_RATE_HZ, SHORT))
    whole = log_mel(clip, FULL_CONTEXT_POSITIONS)
    torch.testing.assert_close(cropped, whole[:, : cropped.shape[1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("positions", "mel_bins"), [(16, 80), (400, 80), (64, 128)])
def test_features_have_two_frames_a_position(positions: int, mel_bins: int) -> None:
    features = log_mel(_noise(5000, 0), positions, mel_bins)
    assert features.shape == (mel_bins, FRAMES_PER_POSITION * positions)
    assert features.dtype == torch.float32


def test_audio_beyond_the_context_is_cut() -> None:
    clip = _noise(3 * SAMPLE_RATE_HZ, 0)
    torch.testing.assert_close(log_mel(clip, 50), log_mel(clip[:SAMPLE_RATE_HZ], 50), rtol=0, atol=0)


def test_silence_has_finite_features() -> None:
    assert torch.isfinite(log_mel(np.zeros(SAMPLE_RATE_HZ, np.float32), 64)).all()


def test_a_batch_is_padded_as_a_longer_context_would_be() -> None:
    clips = [_noise(8000, 1, 0.01), _noise(40_000, 2, 0.5), _noise(16_000, 3, 0.1)]
    positions = [context_positions(clip.size / SAMPLE_RATE_HZ, SHORT) for clip in clips]
    batch = pad_features([log_mel(clip, count) for clip, count in zip(clips, positions, strict=True)])
    for row, clip in zip(batch, clips, strict=True):
        torch.testing.assert_close(row, log_mel(clip, max(positions)), rtol=0, atol=1e-6)


def test_a_hit_equals_what_was_computed_and_reads_no_audio(tmp_path: Path, make_recordings: MakeRecordings) -> None:
    recordings = make_recordings(["a", "b", "c"], [0.3, 1.0, 0.5])
    cache = FeatureCache(tmp_path / "cache")
    computed = cache.load(recordings, SHORT, 80)
    _assert_same(computed, [log_mel(r.samples(), context_positions(r.duration_s, SHORT)) for r in recordings])
    for recording in recordings:
        recording.path.unlink()
    _assert_same(cache.load(recordings, SHORT, 80), computed)
    assert len(_files(tmp_path / "cache")) == 1


def test_what_the_cache_gives_can_be_changed_without_changing_it(
    tmp_path: Path, make_recordings: MakeRecordings
) -> None:
    recordings, cache = make_recordings(["a"]), FeatureCache(tmp_path / "cache")
    expected = cache.load(recordings, SHORT, 80)[0].clone()
    for _ in range(2):
        (features,) = cache.load(recordings, SHORT, 80)
        torch.testing.assert_close(features, expected, rtol=0, atol=0)
        features.zero_()


def test_everything_that_features_depend_on_has_its_own_file(tmp_path: Path, make_recordings: MakeRecordings) -> None:
    recordings, cache = make_recordings(["a", "b"]), FeatureCache(tmp_path / "cache")
    cache.load(recordings, SHORT, 80)
    for changed in (
        lambda: cache.load(recordings, ContextConfig(margin_positions=64), 80),
        lambda: cache.load(recordings, SHORT, 128),
        lambda: cache.load(recordings[::-1], SHORT, 80),
        lambda: cache.load(recordings[:1], SHORT, 80),
    ):
        before = len(_files(tmp_path / "cache"))
        changed()
        assert len(_files(tmp_path / "cache")) == before + 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_computed_again(tmp_path: Path, make_recordings: MakeRecordings, share: float) -> None:
    recordings, cache = make_recordings(["a", "b"]), FeatureCache(tmp_path / "cache")
    computed = cache.load(recordings, SHORT, 80)
    (path,) = (tmp_path / "cache").glob(CACHE_FILE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    _assert_same(cache.load(recordings, SHORT, 80), computed)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: bytes(len(whole)),
        lambda whole: b"PK\3\4" + whole,
        lambda whole: whole.replace(b"'shape': (", b"'shape': [", 1),
        lambda whole: whole.replace(b"<f4", b"<f8", 1),
        lambda whole: whole.replace(b"<f4", b"<i4", 1),
    ],
    ids=["zeros", "zip", "header", "wider numbers", "whole numbers"],
)
def test_a_damaged_file_is_computed_again(
    tmp_path: Path, make_recordings: MakeRecordings, damage: Callable[[bytes], bytes]
) -> None:
    recordings, cache = make_recordings(["a"]), FeatureCache(tmp_path / "cache")
    computed = cache.load(recordings, SHORT, 80)
    (path,) = (tmp_path / "cache").glob(CACHE_FILE)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    _assert_same(cache.load(recordings, SHORT, 80), computed)
    assert path.read_bytes() == whole


def test_concurrent_writers_leave_one_whole_file(tmp_path: Path, make_recordings: MakeRecordings) -> None:
    recordings = make_recordings(["a", "b", "c"])

    def load(_: int) -> list[torch.Tensor]:
        return FeatureCache(tmp_path / "cache").load(recordings, SHORT, 80)

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(load, range(16))
    for other in others:
        _assert_same(other, first)
    (name,) = _files(tmp_path / "cache")
    assert name.endswith(".npy")


def test_on_a_full_disk_features_are_worked_out_each_time_and_it_is_said_once(
    tmp_path: Path, make_recordings: MakeRecordings, disk_full_after: DiskFullAfter, caplog: pytest.LogCaptureFixture
) -> None:
    recordings, folder = make_recordings(["a"]), tmp_path / "cache"
    expected = [log_mel(r.samples(), context_positions(r.duration_s, SHORT)) for r in recordings]
    whole, clips = FeatureCache(folder), FeatureCache(folder)
    with disk_full_after(10_000):
        for _ in range(2):
            _assert_same(whole.load(recordings, SHORT, 80), expected)
            assert torch.equal(clips.get(["a"], lambda: expected[0]), expected[0])
    (message,) = caplog.messages
    assert re.fullmatch(
        rf"{folder}: the features cannot be stored \(.*(too large|requested and).*\); free some space there, or point "
        r"WERTUNE_CACHE to a writable local disk with more; until then they are worked out each time",
        message,
    )
    assert not [path for path in folder.rglob("*") if path.is_file()]
    _assert_same(whole.load(recordings, SHORT, 80), expected)
    assert len(list(folder.glob(CACHE_FILE))) == 1


def test_where_no_cache_may_be_features_come_all_the_same(tmp_path: Path, make_recordings: MakeRecordings) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    assert len(FeatureCache(folder).load(make_recordings(["a"]), SHORT, 80)) == 1
    assert torch.equal(FeatureCache(folder).get(["a"], lambda: torch.ones(2)), torch.ones(2))


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, make_recordings: MakeRecordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: Any, values: Any) -> None:
        file.write(b"\x93NUMPY")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path / "cache").load(make_recordings(["a"]), SHORT, 80)
    assert _files(tmp_path / "cache") == []


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:100], lambda whole: b"no" + whole[2:]])
def test_a_clip_is_worked_out_once_and_again_where_its_file_is_damaged(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    cache, calls = FeatureCache(tmp_path), []

    def compute() -> torch.Tensor:
        calls.append(1)
        return torch.arange(6.0).reshape(2, 3).half()

    for _ in range(2):
        torch.testing.assert_close(cache.get(["clip", 1], compute), torch.arange(6.0).reshape(2, 3).half())
    assert len(calls) == 1
    (path,) = tmp_path.rglob("*.npy")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert torch.equal(cache.get(["clip", 1], compute), torch.arange(6.0).reshape(2, 3).half())
    assert path.read_bytes() == whole
    cache.get(["clip", 2], compute)
    assert len(calls) == 3


def _other_node(folder: Path) -> Callable[[str], list[bytes]]:
    """What a file server gives of another cache: the file in two parts, or nothing."""

    def fetch(name: str) -> list[bytes]:
        path = folder / name
        content = path.read_bytes() if path.exists() else b""
        return [part for part in (content[:100], content[100:]) if part]

    return fetch


def test_a_split_comes_from_another_nodes_cache_without_its_audio(
    make_recordings: MakeRecordings, tmp_path: Path
) -> None:
    recordings = make_recordings(["one", "two"], 0.3)
    computed = FeatureCache(tmp_path / "there").load(recordings, SHORT, 80)
    deaf = [replace(recording, path=tmp_path / "no such file") for recording in recordings]
    cache = FeatureCache(tmp_path / "here", _other_node(tmp_path / "there"))
    _assert_same(cache.load(deaf, SHORT, 80), computed)
    _assert_same(FeatureCache(tmp_path / "here").load(deaf, SHORT, 80), computed)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not numpy at all"])
def test_what_another_node_lacks_or_has_damaged_is_computed(
    make_recordings: MakeRecordings, tmp_path: Path, content: bytes
) -> None:
    recordings = make_recordings(["one"], 0.3)
    wanted = FeatureCache(tmp_path / "there").load(recordings, SHORT, 80)
    cache = FeatureCache(tmp_path / "here", lambda name: [content] if content else [])
    _assert_same(cache.load(recordings, SHORT, 80), wanted)
    (path,) = (tmp_path / "here").glob(CACHE_FILE)
    assert path.read_bytes() == next((tmp_path / "there").glob(CACHE_FILE)).read_bytes()


def test_a_clip_comes_from_another_nodes_cache_and_is_kept(tmp_path: Path) -> None:
    features = torch.rand(80, 32).half()
    FeatureCache(tmp_path / "there").get(["a clip"], lambda: features)
    cache = FeatureCache(tmp_path / "here", _other_node(tmp_path / "there"))
    _assert_same([cache.get(["a clip"], lambda: features + 1)], [features])
    _assert_same([FeatureCache(tmp_path / "here").get(["a clip"], lambda: features + 1)], [features])


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not numpy at all"])
def test_a_clip_that_another_node_lacks_or_has_damaged_is_computed(tmp_path: Path, content: bytes) -> None:
    features = torch.rand(80, 32).half()
    cache = FeatureCache(tmp_path, lambda name: [content] if content else [])
    _assert_same([cache.get(["a clip"], lambda: features)], [features])
    _assert_same([FeatureCache(tmp_path).get(["a clip"], lambda: features + 1)], [features])
