"""Borders by energy: in the quietest place, at the first and last sound, noise or not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.alignment.borders import PAD_S, pause_s, trimmed
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.levels import levels, quietest


def _burst(parts: list[tuple[float, float]]) -> Samples:
    """Noise of so many seconds and such a level in dB, one part after the other."""
    generator = np.random.default_rng(0)
    pieces = [10 ** (db / 20) * generator.standard_normal(round(lasts_s * SAMPLE_RATE_HZ)) for lasts_s, db in parts]
    return np.concatenate(pieces).astype(np.float32)


SYLLABLE = [(0.15, -20.0), (0.05, -45.0)]


@given(st.floats(0.2, 1.0), st.integers(2, 15), st.floats(0.2, 1.0))
def test_what_sounds_is_found_with_a_little_beside_it(before_s: float, syllables: int, after_s: float) -> None:
    level = levels(_burst([(before_s, -60), *SYLLABLE * syllables, (0.15, -20), (after_s, -60)]))
    end_s = before_s + 0.2 * syllables + 0.15
    found = trimmed(level, 0.0, end_s + after_s)
    assert found == pytest.approx((before_s - PAD_S, end_s + PAD_S), abs=0.03)


def test_noise_under_the_speech_is_not_speech() -> None:
    clip = [(0.4, -60), (0.2, -38), (1.0, -18), (0.15, -38), (1.0, -18), (0.2, -38), (0.4, -60)]
    start_s, end_s = trimmed(levels(_burst(clip)), 0.0, 3.35)
    assert (start_s, end_s) == pytest.approx((0.6 - PAD_S, 2.75 + PAD_S), abs=0.04)


def test_the_quietest_tenth_is_in_the_pause_and_not_in_a_stop() -> None:
    level = levels(_burst([(0.5, -20), (0.05, -70), (0.5, -20), (0.3, -60), (0.5, -20)]))
    assert 1.05 <= quietest(level, 0.2, 1.6) <= 1.35
    assert pause_s(level, 1.2) == pytest.approx(0.3, abs=0.03)
    assert pause_s(level, 0.8) == 0.0


@given(st.floats(-1, 3), st.floats(-1, 3))
def test_no_time_is_outside(from_s: float, to_s: float) -> None:
    assert 0 <= quietest(levels(_burst([(1.0, -20)])), from_s, to_s) <= 1.0


def test_where_all_is_alike_nothing_is_cut() -> None:
    assert trimmed(np.full(100, -30.0), 0.2, 0.8) == (0.2, 0.8)
    assert trimmed(np.full(100, -30.0), 0.5, 0.5) == (0.5, 0.5)
