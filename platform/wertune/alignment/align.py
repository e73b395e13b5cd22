"""A long recording and a transcript without times into segments: heard, placed, cut out, scored.

1. The base writes the recording window by window, and again what it skipped (`hearing.py`, `unheard.py`).
2. Each sentence finds its place among what was written, or none, letter by letter (`places.py`).
3. The transcript's own words are followed there, by attention (`timed/attention.py`) or a CTC model (`ctc.py`).
4. Borders go into the pauses between them (`cutting.py`, `borders.py`), and each segment gets a score (`scores.py`).

A window's samples are held at a time: of an hour no more than of a minute but its words.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wertune.alignment.cutting import Cut, Follower, Timed, cut_out
from wertune.alignment.heard import Word, bare_words, items, timed_words
from wertune.alignment.places import Place, place_sentences
from wertune.alignment.recording import Window, duration_s, windows
from wertune.alignment.scores import lengths, score
from wertune.alignment.unheard import merged, unheard
from wertune.base.errors import AudioError, ManifestError
from wertune.base.steps import Steps, clips_are_done, heard_by
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.levels import levels
from wertune.data.pauses import MAX_SEGMENT_S

MOST_AGAIN = 3  # a stretch that nothing was written for is cut out and heard again so often
SHORTEST_S, LONGEST_S = 0.2, 30.0
LEAST_PLACED = 0.1  # of the sentences: a transcript of which less is found is another recording's


class Hearer(Protocol):
    """What writes a window of the recording, with the times of each character."""

    def write(self, window: Window) -> Timed: ...


@dataclass(frozen=True)
class Segment:
    """A sentence of the transcript and when it is said, from 0 to 1 how sure that is."""

    text: str
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Aligned:
    """The sentences that were found, in order of time, and those that were not, in the transcript's."""

    segments: tuple[Segment, ...]
    absent: tuple[str, ...]
    duration_s: float


def align(
    recording: Path, sentences: Sequence[str], hearer: Hearer, follower: Follower, say: Callable[[str], object]
) -> Aligned:
    """When each sentence is said; AudioError where nobody speaks, ManifestError where other words are said."""
    lasts_s = duration_s(recording)
    with heard_by(Steps("heard", round(lasts_s), say, unit="seconds of audio")):
        words = [word for window in windows(recording, MAX_SEGMENT_S) for word in _heard(hearer, window)]
    if not words:
        raise AudioError(f"{recording}: no speech was heard in {lasts_s:.0f} s; give a recording in which people speak")
    bare = [bare_words(sentence) for sentence in sentences]
    places = place_sentences(bare, [word.letters for word in words])
    found = sum(place is not None for place in places)
    if found < LEAST_PLACED * len(sentences) or not found:
        heard = " ".join(word.text for word in words[:12])
        raise ManifestError(
            f"{found} of the transcript's {len(sentences)} sentences were heard in {recording}, which begins with "
            f"{heard!r}: it is the transcript of another recording, or in another language; give its own"
        )
    ordered = items(sentences, places, words)
    with heard_by(Steps("cut out", found, say, unit="sentences")):
        cuts = list(_counted(cut_out(recording, ordered, follower, lasts_s)))
    segments = _segments(sentences, [sum(map(len, words)) for words in bare], places, cuts)
    cut = {each.sentence for each in cuts}
    return Aligned(segments, tuple(text for number, text in enumerate(sentences) if number not in cut), lasts_s)


def _heard(hearer: Hearer, window: Window) -> list[Word]:
    words = hear(hearer, window)
    clips_are_done(round(window.end_s) - round(window.start_s))
    return words


def hear(hearer: Hearer, window: Window, again: int = MOST_AGAIN) -> list[Word]:
    """The words of a window; stretches of it with speech that nothing was written for are heard by themselves."""
    timed = hearer.write(window)
    words = list(timed_words(timed.text, timed.starts_s, timed.ends_s))
    if not again:
        return words
    parts = []
    for start_s, end_s in unheard(words, levels(window.samples), window.start_s):
        first, last = (round((each - window.start_s) * SAMPLE_RATE_HZ) for each in (start_s, end_s))
        if 0 < last - first < window.samples.size:
            parts.append(hear(hearer, Window(start_s, window.samples[first:last]), again - 1))
    return merged(words, parts)


def _counted(cuts: Iterator[Cut]) -> Iterator[Cut]:
    for cut in cuts:
        clips_are_done(1)
        yield cut


def _segments(
    sentences: Sequence[str], letters: Sequence[int], places: Sequence[Place | None], cuts: Sequence[Cut]
) -> tuple[Segment, ...]:
    """The cuts with their scores; of what no clip can be the score is 0."""
    durations_s = [cut.end_s - cut.start_s for cut in cuts]
    found = []
    for cut, length in zip(cuts, lengths([sentences[cut.sentence] for cut in cuts], durations_s), strict=True):
        number, place = cut.sentence, places[cut.sentence]
        sure = 0.0
        if place and SHORTEST_S <= cut.end_s - cut.start_s <= LONGEST_S:
            sure = score(letters[number], place.edits, cut.beside, cut.log_probability, length)
        found.append(Segment(sentences[number], round(cut.start_s, 3), round(cut.end_s, 3), round(sure, 3)))
    return tuple(sorted(found, key=lambda segment: segment.start_s))
