"""Long recordings joined from clips: which clips, when each is heard, and whole ones of rows with segments."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wertune.base.config import DataConfig
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.long_form import (
    CLIPS_EACH,
    HISS,
    LONG_S,
    PAUSE_S,
    joined_recordings,
    set_digest,
    unlisted,
    whole_recordings,
)
from wertune.data.manifest import Recording, load_dataset

MakeRecordings = Callable[..., list[Recording]]


@pytest.fixture(scope="module")
def clips(make_recordings: MakeRecordings) -> list[Recording]:
    return make_recordings([f"sentence {number}" for number in range(35)], seconds=[0.3 + 0.01 * n for n in range(35)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, 35), st.integers(0, 5), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_clip_stands_in_one_recording_at_most_whatever_their_order(
    clips: list[Recording], count: int, most: int, seed: int, random: object
) -> None:
    chosen = clips[:count]
    made = joined_recordings(chosen, most, seed)
    heard = Counter(each.clip.digest for recording in made for each in recording.said)
    assert set(heard.values()) <= {1}
    assert set(heard) <= {clip.digest for clip in chosen}
    assert len(made) == min(most, count // CLIPS_EACH + (count % CLIPS_EACH > 1))
    shuffled = list(chosen)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [each.digest for each in joined_recordings(shuffled, most, seed)] == [each.digest for each in made]


def test_clips_and_pauses_stand_where_it_is_said(clips: list[Recording]) -> None:
    for recording in joined_recordings(clips):
        samples = recording.samples()
        assert samples.dtype == np.float32
        assert np.array_equal(samples, recording.samples())
        for each in recording.said:  # noise from end to end is speech from end to end
            start, end = (round(time_s * SAMPLE_RATE_HZ) for time_s in (each.start_s, each.end_s))
            assert np.array_equal(samples[start:end], each.clip.samples()[: end - start])
        for one, other in pairwise(recording.said):
            pause = samples[round(one.end_s * SAMPLE_RATE_HZ) + 200 : round(other.start_s * SAMPLE_RATE_HZ) - 200]
            assert PAUSE_S[0] - 0.03 <= other.start_s - one.end_s <= PAUSE_S[1] + 0.03
            assert 0 < np.abs(pause).max() < 10 * HISS


def test_another_seed_is_another_recording_and_another_text_another_set(clips: list[Recording]) -> None:
    first, other = joined_recordings(clips, seed=0), joined_recordings(clips, seed=1)
    assert set_digest(first) == set_digest(joined_recordings(clips[::-1]))
    moved = [replace(clip, place=f"b.jsonl:{len(clips) - number}") for number, clip in enumerate(clips)]
    assert set_digest(joined_recordings(moved)) == set_digest(first)
    assert set_digest(first) != set_digest(other)
    mended = [replace(clip, row=clip.row.model_copy(update={"text": f"{clip.text}!"})) for clip in clips]
    assert set_digest(joined_recordings(mended)) != set_digest(first)


def test_long_clips_make_short_rows(make_recordings: MakeRecordings) -> None:
    made = joined_recordings(make_recordings([f"{n}" for n in range(5)], seconds=LONG_S / 2 + 0.5))
    assert [len(recording.said) for recording in made] == [2, 2]
    alone = joined_recordings(make_recordings([f"{n}" for n in range(3)], seconds=LONG_S + 1.0))
    assert [len(recording.said) for recording in alone] == [2]


def test_a_recording_is_in_one_language(make_recordings: MakeRecordings) -> None:
    mixed = [
        replace(clip, project_language="en" if number % 3 else "ta")
        for number, clip in enumerate(make_recordings([f"{n}" for n in range(33)], seconds=0.3))
    ]
    made = joined_recordings(mixed)
    assert all({each.clip.language for each in recording.said} == {recording.language} for recording in made)
    assert {recording.language for recording in joined_recordings(mixed, most=2)} == {"en", "ta"}


def test_a_whole_recording_is_all_of_its_line_in_order_of_time(
    tmp_path: Path, write_noise: Callable[..., Path], write_manifest: Callable[..., Path]
) -> None:
    for name in ("one", "two"):
        write_noise(tmp_path / f"{name}.wav", 5.0, seed=len(name) + ord(name[0]))
    times = [(2.0, 3.5), (0.5, 1.5)]
    rows = [
        {
            "audio_filepath": f"{name}.wav",
            "segments": [{"text": f"{name} {s}", "start_s": s, "end_s": e} for s, e in times],
        }
        for name in ("one", "two")
    ]
    manifest = write_manifest(tmp_path / "long.jsonl", rows)
    data = DataConfig(train=Path("t"), validation=Path("v"), test=Path("t"))
    segments = load_dataset({"long": manifest}, data, str.lower, len)["long"]
    made = whole_recordings(segments)
    assert [[each.clip.text for each in recording.said] for recording in made] == [
        ["one 0.5", "one 2.0"],
        ["two 0.5", "two 2.0"],
    ]
    assert [(each.start_s, each.end_s) for each in made[0].said] == [(0.5, 1.5), (2.0, 3.5)]
    assert made[0].samples().size == 5 * SAMPLE_RATE_HZ
    assert made[0].digest != made[1].digest


def test_what_is_in_no_segment_is_told_of(
    tmp_path: Path, write_noise: Callable[..., Path], write_manifest: Callable[..., Path]
) -> None:
    """Such as a segment that `on_bad_row: skip` left out: a version that writes what is said there is wrong by it."""
    write_noise(tmp_path / "one.wav", 30.0)
    times = [(0.5, 1.5), (6.0, 8.0), (7.0, 7.5), (14.0, 25.5)]
    data = DataConfig(train=Path("t"), validation=Path("v"), test=Path("t"))

    def told(count: int) -> str:
        said = [
            {"text": f"one {n}", "start_s": s, "end_s": e, "speaker": f"{n}"} for n, (s, e) in enumerate(times[:count])
        ]
        manifest = write_manifest(tmp_path / "long.jsonl", [{"audio_filepath": "one.wav", "segments": said}])
        return unlisted(whole_recordings(load_dataset({"long": manifest}, data, str.lower, len)["long"]))

    assert "1 stretch of more than 5 s, 28 s in all, such as 1.5 to 30.0 s of" in told(1)
    assert "1 stretch of more than 5 s, 22 s in all, such as 8.0 to 30.0 s of" in told(3)
    assert "long.jsonl:1, in no segment" in told(3)
    assert "1 stretch of more than 5 s, 6 s in all, such as 8.0 to 14.0 s" in told(4)
    times[3] = (12.0, 25.5)
    assert told(4) == ""
