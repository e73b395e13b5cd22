"""A recording and its transcript into segments, with a hearer that knows what is said when."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wertune.alignment.align import Aligned, align
from wertune.alignment.cutting import Timed, untimed
from wertune.alignment.recording import Window, windows
from wertune.base.errors import AudioError, ManifestError
from wertune.data.audio import SAMPLE_RATE_HZ

SAID = (
    "my medisave is nearly empty this year",
    "how do i log in to the portal",
    "the officer will call you back tomorrow",
    "i lost my card at the market",
    "please bring the receipt with you",
    "we have moved to another block",
)
LETTER_S, PAUSE_S = 0.08, 0.5


class Knowing:
    """Writes and finds whatever is said in a window, a letter each 80 ms; `skips` sentences until they stand alone."""

    def __init__(self, said: Sequence[str], starts_s: Sequence[float], skips: Sequence[str] = ()) -> None:
        self._said = list(zip(said, starts_s, strict=True))
        self._skips = skips

    def write(self, window: Window) -> Timed:
        found = [each for each in self._said if window.start_s - 0.05 < each[1] < window.end_s]
        if len(found) > 1:
            found = [each for each in found if each[0] not in self._skips]
        return self._timed(found)

    def follow(self, window: Window, text: str) -> Timed:
        timed = untimed(text, window.start_s)
        for sentence, start_s in self._said:
            if (at := text.find(sentence)) >= 0:
                timed.starts_s[at : at + len(sentence)] = start_s + LETTER_S * np.arange(len(sentence))
                timed.ends_s[at : at + len(sentence)] = start_s + LETTER_S * np.arange(1, len(sentence) + 1)
        return timed

    @staticmethod
    def _timed(found: Sequence[tuple[str, float]]) -> Timed:
        timed = untimed(" ".join(sentence for sentence, _ in found), 0.0)
        at = 0
        for sentence, start_s in found:
            times = start_s + LETTER_S * np.arange(len(sentence) + 1)
            timed.starts_s[at : at + len(sentence)], timed.ends_s[at : at + len(sentence)] = times[:-1], times[1:]
            at += len(sentence) + 1
        return timed


def _record(path: Path, said: Sequence[str], times: int = 1) -> list[float]:
    """Noise for letters and near silence for blanks and pauses; when each sentence begins."""
    generator, pieces, starts, at = np.random.default_rng(0), [], [], 0.0
    for sentence in said:
        quiet = 0.001 * generator.standard_normal(round(PAUSE_S * SAMPLE_RATE_HZ))
        loud = [0.1 if letter != " " else 0.003 for letter in sentence]
        voice = np.repeat(loud, round(LETTER_S * SAMPLE_RATE_HZ))
        pieces += [quiet, voice * generator.standard_normal(voice.size)]
        starts.append(at + PAUSE_S)
        at += PAUSE_S + LETTER_S * len(sentence)
    soundfile.write(path, np.concatenate([*pieces, np.zeros(8000)]).clip(-1, 1), SAMPLE_RATE_HZ)
    return starts


def _aligned(folder: Path, transcript: Sequence[str], skips: Sequence[str] = ()) -> tuple[Aligned, dict[str, float]]:
    starts = _record(folder / "a.wav", SAID)
    knowing = Knowing(SAID, starts, skips)
    return align(folder / "a.wav", transcript, knowing, knowing, lambda _: None), dict(zip(SAID, starts, strict=True))


def test_each_sentence_is_found_where_it_is_said(tmp_path: Path) -> None:
    found, starts = _aligned(tmp_path, SAID)
    assert [each.text for each in found.segments] == list(SAID)
    assert found.absent == ()
    for each in found.segments:
        assert each.start_s == pytest.approx(starts[each.text], abs=0.08)
        assert each.end_s == pytest.approx(starts[each.text] + LETTER_S * len(each.text), abs=0.08)
        assert each.score > 0.9


def test_what_is_in_one_of_the_two_alone_stays_there(tmp_path: Path) -> None:
    strange = "quite unlike whatever xylophones juggle"
    transcript = [SAID[0], strange, *SAID[2:]]
    found, starts = _aligned(tmp_path, transcript)
    assert found.absent == (strange,)
    assert [each.text for each in found.segments] == [SAID[0], *SAID[2:]]
    for each in found.segments:
        assert each.end_s - each.start_s == pytest.approx(LETTER_S * len(each.text), abs=0.16)
        assert each.start_s == pytest.approx(starts[each.text], abs=0.08)


def test_accents_and_blanks_that_are_written_in_other_ways_do_not_matter(tmp_path: Path) -> None:
    found, _ = _aligned(tmp_path, ["My\u200b  medisave is nearly empty this y\u00ad\u00ade\u0301ar!", *SAID[1:]])
    assert len(found.segments) == len(SAID)
    assert min(each.end_s - each.start_s for each in found.segments) > 1.0


def test_what_the_base_skipped_is_heard_again(tmp_path: Path) -> None:
    found, _ = _aligned(tmp_path, SAID, skips=SAID[1:2])
    assert SAID[1] in [each.text for each in found.segments]


def test_the_transcript_of_another_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"0 of the transcript's 3 sentences .* begins with 'my medisave"):
        _aligned(tmp_path, ["xxyzz zyqxx", "qqzz vvxk jjx", "zzz xxq qqq"])


def test_audio_without_speech_is_refused(tmp_path: Path, write_noise: object) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(32000), SAMPLE_RATE_HZ)
    nobody = Knowing((), ())
    with pytest.raises(AudioError, match=r"a\.wav: no speech was heard in 2 s"):
        align(tmp_path / "a.wav", SAID, nobody, nobody, lambda _: None)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_windows_are_the_whole_recording_a_block_at_a_time(
    tmp_path: Path, rate_hz: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wertune.alignment.recording.BLOCK_S", 7.0)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(10.4 * rate_hz))
    soundfile.write(tmp_path / "a.wav", samples, rate_hz)
    found = list(windows(tmp_path / "a.wav", 5.0))
    assert [one.end_s for one in found[:-1]] == pytest.approx([other.start_s for other in found[1:]])
    assert found[0].start_s == 0
    assert found[-1].end_s == pytest.approx(10.4, abs=0.001)
    assert max(each.samples.size for each in found) <= 5.0 * SAMPLE_RATE_HZ
    if rate_hz == SAMPLE_RATE_HZ:
        assert np.concatenate([each.samples for each in found]) == pytest.approx(samples, abs=1e-4)
