"""Windows of several clips: what is in them, when it is said, and what an epoch makes of them."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.base.config import TrainConfig, TrialConfig, with_overrides
from wertune.base.text import TermFinder, normaliser
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.manifest import Recording, Row
from wertune.data.nonspeech import speech_span_s
from wertune.training.batches import TrainingData, batches_per_epoch, training_batches
from wertune.training.windows import MOST_TOKENS, NEIGHBOURS_S, Heard, Window, draw_windows, in_blocks
from wertune.training.workers import Workers
from wertune.whisper.features import FRAMES_PER_SECOND
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet

MakeRecordings = Callable[..., list[Recording]]
LoadTiny = Callable[..., Whisper]
NOTHING = EvaluationSet([], [])


def _clip(number: int, duration_s: float, language: str = "") -> Recording:
    row = Row(audio_filepath=f"{number}.wav", text=f"clip {number}", language=language)
    return Recording(row, f"train.jsonl:{number}", Path(f"{number}.wav"), duration_s, f"{number:064x}")


@given(
    st.lists(st.tuples(st.floats(0.2, 30.0), st.sampled_from(["en", "ms"]), st.integers(1, 400)), max_size=40),
    st.floats(0, 1),
    st.floats(2, 30),
    st.integers(1, 16),
    st.integers(0, 9),
)
def test_each_clip_is_single_or_in_one_window_that_whisper_can_hear_and_write(
    drawn: list[tuple[float, str, int]], ratio: float, window_s: float, batch_size: int, seed: int
) -> None:
    clips = [(_clip(number, seconds, language), 0) for number, (seconds, language, _) in enumerate(drawn)]
    tokens = [count for *_, count in drawn]
    config = TrainConfig(joined_ratio=ratio, window_s=window_s, batch_size=batch_size)
    single, windows = draw_windows(clips, tokens, config, np.random.default_rng(seed))
    joined = [heard.clip for window in windows for heard in window.heard]
    assert Counter([clips[i][0].digest for i in single] + [clip.digest for clip in joined]) == Counter(
        clip.digest for clip, _ in clips
    )
    counts = {clip.digest: count for (clip, _), count in zip(clips, tokens, strict=True)}
    for window in windows:
        assert 1 <= window.clips <= batch_size
        assert len({heard.clip.language for heard in window.heard}) == 1
        assert window.duration_s <= max(window_s, window.heard[0].clip.duration_s) + 1e-9
        said = sum(counts[heard.clip.digest] + 2 for heard in window.heard)
        assert window.clips == 1 or said <= MOST_TOKENS
        for before, after in zip(window.heard, window.heard[1:], strict=False):
            assert 0.2 <= after.start_s - before.end_s <= 1.2
        assert window.duration_s > window.heard[-1].start_s
        assert window.is_timed or window.duration_s == pytest.approx(window.heard[-1].end_s)


def test_all_or_none_of_the_clips_are_joined_as_asked_for() -> None:
    clips = [(_clip(number, 3.0), 0) for number in range(50)]
    for ratio, count in ((0.0, 50), (1.0, 0)):
        config = TrainConfig(joined_ratio=ratio)
        assert len(draw_windows(clips, [10] * 50, config, np.random.default_rng(0))[0]) == count
    windows = draw_windows(clips, [10] * 50, TrainConfig(joined_ratio=1.0), np.random.default_rng(0))[1]
    lengths = [window.duration_s for window in windows]
    assert min(lengths) < 10 < 20 < max(lengths)
    assert {window.is_timed for window in windows} == {False, True}
    assert any(window.duration_s < window.heard[-1].end_s for window in windows)


def _segment(number: int, start_s: float, duration_s: float, path: str = "call.wav", language: str = "") -> Recording:
    row = Row(audio_filepath=path, text=f"part {number}", offset=start_s, duration=duration_s, language=language)
    return Recording(row, f"train.jsonl:1, segment {number}", Path(path), duration_s, f"{number:064x}")


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(-0.5, 4), st.floats(0.2, 12), st.sampled_from(["", "ms"]))),
    st.floats(2, 30),
    st.randoms(),
)
def test_blocks_are_neighbours_of_one_recording_and_hold_each_clip_once(
    drawn: list[tuple[str, float, float, str]], most_s: float, order: Any
) -> None:
    ends, clips = {"a": 1.0, "b": 0.5}, list[Recording]()
    for number, (path, gap_s, duration_s, language) in enumerate(drawn):
        start_s = max(0.0, ends[path] + gap_s)
        clips.append(_segment(number, start_s, duration_s, path, language))
        ends[path] = start_s + duration_s
    order.shuffle(clips)
    blocks = in_blocks(clips, most_s)
    assert Counter(clip.place for block in blocks for clip in block) == Counter(clip.place for clip in clips)
    for block in blocks:
        assert len({(clip.path, clip.language) for clip in block}) == 1
        spans = [(clip.row.offset, clip.row.offset + clip.duration_s) for clip in block]
        assert len(block) == 1 or spans[-1][1] - spans[0][0] <= most_s
        for (_, end_s), (start_s, _) in pairwise(spans):
            assert -1e-6 <= start_s - end_s <= NEIGHBOURS_S + 1e-6
            between = [clip for clip in clips if clip.path == block[0].path and end_s < clip.row.offset < start_s]
            assert not between


def test_what_follows_in_a_recording_is_heard_as_it_is_there(load_tiny: LoadTiny, tmp_path: Path) -> None:
    waveform = (0.3 * np.random.default_rng(0).standard_normal(6 * SAMPLE_RATE_HZ)).clip(-1, 1).astype(np.float32)
    soundfile.write(tmp_path / "call.wav", waveform, SAMPLE_RATE_HZ, subtype="FLOAT")
    path = str(tmp_path / "call.wav")
    parts = [_segment(number, at_s, 0.8, path) for number, at_s in enumerate((0.5, 1.5, 2.4, 5.0))]
    config = TrainConfig(joined_ratio=1.0, timestamps_ratio=1.0, window_s=10.0)
    blocks = in_blocks(parts, config.window_s)
    assert [len(block) for block in blocks] == [4]
    follows = {a.place: b.place for a, b in pairwise(blocks[0])}
    clips = [(clip, 0) for clip in blocks[0]]
    windows = [
        window
        for seed in range(9)
        for window in draw_windows(clips, [5] * 4, config, np.random.default_rng(seed), follows)[1]
    ]
    assert {window.clips for window in windows} >= {4}
    whisper = load_tiny()
    for window in windows:
        first = window.heard[0].clip
        assert [heard.start_s for heard in window.heard] == pytest.approx(
            [heard.clip.row.offset - first.row.offset for heard in window.heard]
        )
        begin = round(first.row.offset * SAMPLE_RATE_HZ)
        heard = window.samples(lambda heard: heard.clip.samples(), np.random.default_rng(0))
        assert np.array_equal(heard, waveform[begin : begin + round(window.duration_s * SAMPLE_RATE_HZ)])
    whole = next(window for window in windows if window.clips == 4 and window.duration_s > 5)
    assert _named(whisper, whole).startswith("<|0.00|> _part _0 <|0.80|> <|1.00|> _part _1 <|1.80|> <|1.90|>")


def test_segments_are_no_neighbours_where_the_one_between_waits_for_another_epoch() -> None:
    """What is said there would be taught to be skipped."""
    parts = [_segment(0, 0.0, 1.0), _segment(1, 1.2, 0.5), _segment(2, 1.9, 1.0)]
    follows = {a.place: b.place for a, b in pairwise(in_blocks(parts, 30.0)[0])}
    config = TrainConfig(joined_ratio=1.0)
    _, windows = draw_windows([(parts[0], 0), (parts[2], 0)], [5, 5], config, np.random.default_rng(0), follows)
    assert all(window.stretch is None for window in windows)


def _window(clips: list[Recording], pause_s: float = 0.5, cut_s: float = 0.0, is_timed: bool = True) -> Window:
    heard, end_s = [], 0.0
    for clip in clips:
        heard.append(Heard(clip, 0, end_s + (pause_s if heard else 0.0), -6.0))
        end_s = heard[-1].end_s
    return Window(tuple(heard), end_s - cut_s, is_timed)


def test_a_window_holds_its_clips_in_their_places_and_the_floor_between(make_recordings: MakeRecordings) -> None:
    clips = make_recordings(["a", "b"], seconds=[0.5, 0.8])
    quiet = np.float32(1e-3)  # what is between is as loud as the quietest tenth of what is around
    window = _window(clips)
    samples = window.samples(lambda heard: heard.clip.samples() * quiet, np.random.default_rng(0))
    assert samples.size == round(1.8 * SAMPLE_RATE_HZ)
    second = clips[1].samples() * quiet * np.float32(10 ** (-6 / 20))
    assert np.allclose(samples[round(1.0 * SAMPLE_RATE_HZ) + 200 :][:8000], second[200:8200])
    between = samples[round(0.6 * SAMPLE_RATE_HZ) : round(0.9 * SAMPLE_RATE_HZ)]
    assert 0.3 < float(np.std(between)) / float(np.std(second)) < 1.5
    assert _window(clips, cut_s=0.3).samples(lambda heard: heard.clip.samples(), np.random.default_rng(0)).size == (
        round(1.5 * SAMPLE_RATE_HZ)
    )


def _named(whisper: Whisper, window: Window) -> str:
    return " ".join(whisper.tokenizer.convert_ids_to_tokens(window.label_ids(whisper))).replace("Ġ", "_")


def test_a_label_says_when_each_clip_begins_and_ends(load_tiny: LoadTiny, make_recordings: MakeRecordings) -> None:
    whisper, clips = load_tiny(), make_recordings(["yes", "no"], seconds=[0.5, 0.8])
    end = "<|endoftext|>"
    assert _named(whisper, _window(clips)) == f"<|0.00|> _yes <|0.50|> <|1.00|> _no <|1.80|> {end}"
    assert _named(whisper, _window(clips, cut_s=0.3)) == f"<|0.00|> _yes <|0.50|> <|1.00|> {end}"
    assert _named(whisper, _window(clips, is_timed=False)) == f"<|notimestamps|> _yes _no {end}"


@given(st.floats(-1, 40))
def test_a_timestamp_is_the_token_of_the_nearest_fiftieth(load_tiny: LoadTiny, seconds: float) -> None:
    wording = load_tiny().wording
    name = wording.tokenizer.convert_ids_to_tokens(wording.timestamp(seconds))
    assert abs(float(name.strip("<|>")) - min(max(seconds, 0.0), 30.0)) <= 0.01 + 1e-9


@given(st.floats(0, 1), st.floats(0.3, 2), st.floats(0, 1))
def test_speech_is_found_between_what_is_quiet(before_s: float, speech_s: float, after_s: float) -> None:
    generator = np.random.default_rng(0)
    parts = [(before_s, 1e-4), (speech_s, 0.1), (after_s, 1e-4)]
    sounds = [level * generator.standard_normal(round(seconds * SAMPLE_RATE_HZ)) for seconds, level in parts]
    first_s, last_s = speech_span_s(np.concatenate(sounds).astype(np.float32))
    assert first_s == pytest.approx(before_s, abs=0.011)
    assert last_s == pytest.approx(before_s + speech_s, abs=0.011)


def test_silence_and_nothing_are_all_of_it() -> None:
    assert speech_span_s(np.zeros(8000, np.float32)) == (0.0, 0.5)
    assert speech_span_s(np.zeros(0, np.float32)) == (0.0, 0.0)


def _config(**train: Any) -> TrialConfig:
    values = {"nonspeech_ratio": 0.0, "joined_ratio": 0.7, "window_s": 5.0, "batch_size": 4} | train
    return with_overrides(TrialConfig(), {f"train.{key}": value for key, value in values.items()}, "test")


def _data(clips: list[Recording]) -> TrainingData:
    normalise = normaliser("en")
    return TrainingData(clips, (), NOTHING, NOTHING, normalise, TermFinder([], normalise))


@pytest.fixture(scope="module")
def twenty(make_recordings: MakeRecordings) -> list[Recording]:
    return make_recordings([f"word {number}" for number in range(20)], seconds=[0.4, 0.8, 1.3, 0.6, 2.0] * 4)


@settings(max_examples=15)
@given(st.integers(1, 20), st.integers(1, 6), st.floats(0.1, 1), st.integers(1, 3))
def test_an_epoch_of_windows_has_all_clips_in_as_many_batches_as_are_reckoned_with(
    load_tiny: LoadTiny, twenty: list[Recording], count: int, batch_size: int, ratio: float, size: int
) -> None:
    config, data, whisper = _config(batch_size=batch_size, joined_ratio=ratio), _data(twenty[:count]), load_tiny()
    batches = list(training_batches(config, whisper, data, 1))
    assert len(batches) == batches_per_epoch(config, data)
    assert sum(batch.clips for batch in batches) == count
    assert all(0 < batch.clips < 3 * batch_size for batch in batches)
    of_workers = [list(training_batches(config, whisper, data, 1, Workers(rank, size))) for rank in range(size)]
    for batch, *parts in zip(batches, *of_workers, strict=True):
        rows = {row: (part, i) for part in parts if not part.mirrors for i, row in enumerate(part.rows)}
        assert sorted(rows) == list(range(batch.size))
        for row, (part, i) in rows.items():
            assert part.labels[i].tolist() == batch.labels[row].tolist()
            frames = part.features.shape[-1]
            assert torch.equal(part.features[i], batch.features[row][:, :frames])


def test_a_window_is_heard_as_long_as_it_lasts_and_anew_in_every_epoch(
    load_tiny: LoadTiny, twenty: list[Recording]
) -> None:
    config, data, whisper = _config(joined_ratio=1.0), _data(twenty), load_tiny()
    first, again, second = (list(training_batches(config, whisper, data, epoch)) for epoch in (1, 1, 2))
    assert all(torch.equal(a.features, b.features) for a, b in zip(first, again, strict=True))
    assert [b.labels.tolist() for b in first] != [b.labels.tolist() for b in second]
    longest_s = max(batch.features.shape[-1] for batch in first) / FRAMES_PER_SECOND
    assert 2.0 < longest_s < 5.0 + 3.0  # and the margin


def test_a_clip_of_an_epoch_without_windows_is_what_it_was(load_tiny: LoadTiny, twenty: list[Recording]) -> None:
    config, data, whisper = _config(joined_ratio=0.0), _data(twenty), load_tiny()
    others = replace_train(config, window_s=9.0, timestamps_ratio=1.0)
    for a, b in zip(*(training_batches(each, whisper, data, 1) for each in (config, others)), strict=True):
        assert a.labels.tolist() == b.labels.tolist()


def replace_train(config: TrialConfig, **values: Any) -> TrialConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=values)})
