"""What load_audio makes of every container, rate and damage."""

import math
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torchaudio.functional
from hypothesis import example, given, settings
from hypothesis import strategies as st

import wertune.data.audio
from wertune.base.errors import AudioError
from wertune.data.audio import (
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    SAMPLE_RATE_HZ,
    audio_digest,
    load_audio,
    refuse_cut_off,
    refuse_unheard,
    resample,
)
from wertune.data.clip_files import write_clip

Array = npt.NDArray[np.float32]
WriteNoise = Callable[..., Path]

CONTAINERS: dict[str, dict[str, Any]] = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "float wav": {"format": "WAV", "subtype": "FLOAT"},
    "flac": {"format": "FLAC"},
    "ogg/opus": {"format": "OGG", "subtype": "OPUS"},
    "ogg/vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "mp3": {"format": "MP3"},
}
RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
RATES_OF = {"ogg/opus": (8000, 12_000, 16_000, 24_000, 48_000)}
CASES = [(container, rate) for container in CONTAINERS for rate in RATES_OF.get(container, RATES)]


def _voice(rate_hz: int, seconds: float = 1.0) -> Array:
    """A buzz at 120 Hz with a swelling loudness, all of it below 3 kHz: any rate and codec can hold it."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    buzz = sum(np.sin(2 * np.pi * 120 * k * time + k * k) / k for k in range(1, 25))
    return (0.2 * buzz * (1 + np.sin(2 * np.pi * 3 * time)) / 2).astype(np.float32)


def _encoded(container: str, samples: Array, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate_hz, **CONTAINERS[container])
    return buffer.getvalue()


def _likeness(left: Array, right: Array) -> float:
    """Correlation at the best shift of up to 100 ms: codecs delay what they carry."""
    size = min(left.size, right.size) - 1600
    reference = right[800 : 800 + size]
    scores = np.correlate(left[: size + 1600], reference, "valid")
    windows = np.convolve(np.square(left[: size + 1600]), np.ones(size), "valid")
    return float((scores / np.sqrt(windows * np.square(reference).sum())).max())


@pytest.mark.parametrize(("container", "rate_hz"), CASES)
def test_every_container_and_rate_gives_the_sound_at_16_khz(container: str, rate_hz: int) -> None:
    samples = load_audio(_encoded(container, _voice(rate_hz), rate_hz))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert samples.size == pytest.approx(SAMPLE_RATE_HZ, abs=2)
    assert _likeness(samples, _voice(SAMPLE_RATE_HZ)) > 0.97


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path, write_noise: WriteNoise) -> None:
    path = write_noise(tmp_path / "clip.wav")
    np.testing.assert_array_equal(load_audio(path), load_audio(path.read_bytes()))


def test_a_lossless_file_at_16_khz_is_left_as_it_is() -> None:
    voice = _voice(SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(load_audio(_encoded("float wav", voice)), voice)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_recording_longer_than_a_block_is_read_whole(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encoded(container, np.stack([_voice(SAMPLE_RATE_HZ), -_voice(SAMPLE_RATE_HZ) / 2], axis=1))
    whole, part = load_audio(data), load_audio(data, 0.2, 0.5)
    monkeypatch.setattr(wertune.data.audio, "BLOCK_VALUES", 2 * 999)
    np.testing.assert_allclose(load_audio(data, 0.2, 0.5), part, atol=1e-6)
    in_blocks = load_audio(data)
    assert in_blocks.size == whole.size
    np.testing.assert_allclose(in_blocks[:-20], whole[:-20], atol=1e-6)  # libsndfile ends Ogg streams by its own lights


def test_channels_are_averaged() -> None:
    left, right = _voice(SAMPLE_RATE_HZ), np.zeros(SAMPLE_RATE_HZ, np.float32)
    stereo = np.stack([left, right], axis=1)
    np.testing.assert_allclose(load_audio(_encoded("float wav", stereo)), left / 2, atol=1e-7)


@given(st.floats(0, 0.99), st.floats(0.001, 2))
def test_a_segment_is_that_part_of_the_whole(offset_s: float, duration_s: float) -> None:
    voice = _voice(SAMPLE_RATE_HZ)
    start, count = round(offset_s * SAMPLE_RATE_HZ), round(duration_s * SAMPLE_RATE_HZ)
    segment = load_audio(_encoded("float wav", voice), offset_s, duration_s)
    np.testing.assert_array_equal(segment, voice[start : start + count])


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_segment_is_told_in_seconds_of_any_file(container: str) -> None:
    rate = 48_000 if container == "ogg/opus" else 44_100
    data = _encoded(container, _voice(rate, 3.0), rate)
    segment = load_audio(data, 1.0, 1.5)
    assert segment.size == pytest.approx(24_000, abs=2)
    assert _likeness(segment, load_audio(data)[16_000:40_000]) > 0.97


def test_a_segment_behind_the_end_is_an_error() -> None:
    with pytest.raises(AudioError, match=r"the audio holds no samples from 1\.5 s on; remove the row or mend its off"):
        load_audio(_encoded("wav", _voice(SAMPLE_RATE_HZ)), offset_s=1.5)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_an_empty_recording_is_an_error(tmp_path: Path, container: str) -> None:
    path = tmp_path / "empty"
    path.write_bytes(_encoded(container, np.zeros(0, np.float32)))
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_no_number_is_an_error(tmp_path: Path, value: float) -> None:
    voice = _voice(SAMPLE_RATE_HZ)
    voice[7] = value
    path = tmp_path / "broken.wav"
    path.write_bytes(_encoded("float wav", voice))
    with pytest.raises(AudioError, match=r"broken\.wav holds NaN or infinite samples; export it again"):
        load_audio(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is a text file", bytes(1000)])
def test_what_is_no_audio_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"notes\.wav cannot be decoded .*; give wav, flac, ogg/opus or mp3"):
        load_audio(path)


def test_bytes_that_are_no_audio_are_called_the_audio() -> None:
    with pytest.raises(AudioError, match=r"^the audio cannot be decoded \(Error opening the audio: [^<>]*\); give wav"):
        load_audio(b"this is a text file")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone.wav does not exist"):
        load_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=f"{tmp_path} cannot be decoded"):
        load_audio(tmp_path)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.95])
def test_a_truncated_file_gives_what_is_left_or_an_error(container: str, share: float) -> None:
    data = _encoded(container, _voice(SAMPLE_RATE_HZ))
    try:
        samples = load_audio(data[: int(share * len(data))])
    except AudioError:
        return
    assert container not in ("flac", "ogg/opus")
    assert 0 < samples.size < SAMPLE_RATE_HZ


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(AudioError):
        load_audio(data)


@settings(max_examples=200)
@given(st.sampled_from(["wav", "flac"]), st.integers(0, 60), st.binary(min_size=1, max_size=6))
@example("flac", 21, b"r")  # promises 8,589,936,192 frames
def test_a_damaged_header_raises_nothing_else(container: str, at: int, junk: bytes) -> None:
    data = bytearray(_encoded(container, _voice(SAMPLE_RATE_HZ, 0.1)))
    data[at : at + len(junk)] = junk
    try:
        samples = load_audio(bytes(data))
    except AudioError:
        return
    assert np.isfinite(samples).all()
    assert samples.size > 0


@pytest.mark.parametrize("rate_hz", [1, MIN_RATE_HZ - 1, MAX_RATE_HZ + 1])
def test_a_rate_at_which_nobody_records_is_an_error(rate_hz: int) -> None:
    with pytest.raises(AudioError, match=f"the audio has {rate_hz} Hz, but must have 4000 to 384000 Hz; export it"):
        load_audio(_encoded("wav", _voice(SAMPLE_RATE_HZ), rate_hz))


@given(st.integers(MIN_RATE_HZ, MAX_RATE_HZ))
def test_no_rate_makes_a_kernel_of_gigabytes(rate_hz: int) -> None:
    asked: list[tuple[int, int]] = []

    def spy(waveform: Any, orig_freq: int, new_freq: int) -> Any:
        asked.append((orig_freq, new_freq))
        return waveform

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchaudio.functional, "resample", spy)
        resample(np.zeros(1, np.float32), rate_hz)
    for from_hz, to_hz in asked:
        assert math.gcd(from_hz, to_hz) >= 25
        assert abs(from_hz - rate_hz) <= 12


@given(
    st.sampled_from([4000, 8000, 11_025, 16_000, 22_050, 44_100, 47_975, 48_000, 96_000, 384_000]),
    st.integers(1, 30_000),
    st.integers(1, 20_000),
)
@example(44_100, 29_999, 1)
def test_pieces_join_to_what_the_whole_gives(rate_hz: int, frames: int, piece_frames: int) -> None:
    piece_frames = max(piece_frames, frames // 50)
    noise = (0.1 * np.random.default_rng(frames).standard_normal(frames)).astype(np.float32)
    whole = resample(noise, rate_hz)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wertune.data.audio, "PIECE_FRAMES", piece_frames)
        in_pieces = resample(noise, rate_hz)
        read = load_audio(_encoded("float wav", noise, rate_hz))
    assert in_pieces.size == whole.size
    np.testing.assert_allclose(in_pieces, whole, atol=1e-6)
    np.testing.assert_allclose(read, whole, atol=1e-6)


def test_the_work_can_be_ended_while_a_recording_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def end_at_the_third() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(wertune.data.audio, "PIECE_FRAMES", 1000)
    with pytest.raises(KeyboardInterrupt):
        load_audio(_encoded("flac", _voice(48_000), 48_000), check=end_at_the_third)


def test_half_an_hour_at_96_khz_takes_little_memory() -> None:
    seconds = 1800
    flac = _encoded("flac", np.zeros(seconds * 96_000, np.int16), 96_000)
    code = (
        "import resource, sys; from wertune.data.audio import load_audio; import torchaudio.functional;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "size = load_audio(sys.stdin.buffer.read()).size;"
        "print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=flac, capture_output=True, check=True)
    size, grown_kb = map(int, done.stdout.split())
    assert size == seconds * SAMPLE_RATE_HZ
    assert grown_kb < 700_000  # 115 MB of samples, and what joins them; at its own rate it is 691 MB, a few times over


def test_equal_sound_has_an_equal_digest_in_any_file() -> None:
    quantised = load_audio(_encoded("wav", _voice(SAMPLE_RATE_HZ)))
    assert audio_digest(load_audio(_encoded("flac", quantised))) == audio_digest(quantised)
    other = quantised.copy()
    other[100] += 1e-4
    assert audio_digest(other) != audio_digest(quantised)


def test_channels_that_cancel_each_other_out_are_told() -> None:
    voice = _voice(SAMPLE_RATE_HZ)
    for other, cancels in ((-voice, True), (-0.95 * voice, True), (0 * voice, False), (-0.5 * voice, False)):
        stereo = _encoded("wav", np.stack([voice, other], axis=1))
        if cancels:
            with pytest.raises(AudioError, match=r"has channels that cancel each other out .* give one of them"):
                load_audio(stereo)
        else:
            assert np.abs(load_audio(stereo)).max() > 0.05


def test_a_recording_of_another_scale_is_told_and_a_little_over_it_is_not() -> None:
    loud = 8 * _voice(SAMPLE_RATE_HZ)
    with pytest.raises(AudioError, match=r"is too loud: \d+\.\d% of its samples are beyond full scale, up to [\d.]+ "):
        load_audio(_encoded("float wav", loud))
    peak = _voice(SAMPLE_RATE_HZ)
    peak[100] = 1.3  # one sample, as a decoder's filter makes it
    assert load_audio(_encoded("float wav", peak)).max() == np.float32(1.3)


@pytest.mark.parametrize("container", ["wav", "float wav", "mp3"])
def test_what_was_cut_off_on_its_way_is_told(container: str) -> None:
    whole = _encoded(container, _voice(SAMPLE_RATE_HZ, 4.0))
    with pytest.raises(AudioError, match=r"promises 4\.\d+ s, but \d\.\d+ s are there: it was cut off on its way"):
        load_audio(whole[: len(whole) // 2])
    assert load_audio(whole).size >= 4 * SAMPLE_RATE_HZ - 1600


def test_a_header_of_a_stream_promises_nothing() -> None:
    """ffmpeg writes 0xFFFFFFFF where it cannot go back to the header."""
    whole = bytearray(_encoded("wav", _voice(SAMPLE_RATE_HZ)))
    at = whole.index(b"data") + 4
    whole[4:8] = whole[at : at + 4] = b"\xff\xff\xff\xff"
    assert load_audio(bytes(whole)).size == SAMPLE_RATE_HZ


@pytest.mark.parametrize(("level", "told"), [(0.0, "is silent"), (1e-4, "peaks at -80 dBFS"), (1e-3, "")])
def test_what_nobody_can_hear_is_told(level: float, told: str) -> None:
    samples = np.tile(np.array([level, -level], np.float32), 800)
    if told:
        with pytest.raises(AudioError, match=f"{told}, but must reach -66 dBFS for speech to be heard"):
            refuse_unheard(samples, "it")
    else:
        refuse_unheard(samples, "it")


def test_a_steady_level_is_no_sound() -> None:
    with pytest.raises(AudioError, match="is silent, but must reach -66 dBFS"):
        refuse_unheard(np.full(16_000, 0.3, np.float32), "it")
    refuse_unheard(np.full(16_000, 0.3, np.float32) + np.sin(np.arange(16_000), dtype=np.float32) * 1e-2, "it")


def test_half_an_ogg_stream_is_told_though_its_header_promises_nothing(tmp_path: Path) -> None:
    write_clip(tmp_path / "whole.opus", np.sin(np.arange(64_000) / 9).astype(np.float32) * 0.3, 24)
    whole = (tmp_path / "whole.opus").read_bytes()
    refuse_cut_off(tmp_path / "whole.opus", "it")
    refuse_cut_off(b"RIFF and so on", "it")
    (tmp_path / "half.opus").write_bytes(whole[: len(whole) // 2])
    for half in (tmp_path / "half.opus", whole[: len(whole) // 2]):
        with pytest.raises(AudioError, match="it ends before its last page: it was cut off"):
            refuse_cut_off(half, "it")
