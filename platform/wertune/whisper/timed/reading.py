"""How far one recording is read in windows: where the next one begins, what was said, and what is to be read again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.levels import FRAMES_PER_SECOND, levels
from wertune.data.pauses import Piece, split_at_pauses
from wertune.whisper.loops import shrinks
from wertune.whisper.restraints import LATEST_BEGIN, STEPS_A_SECOND
from wertune.whisper.timed.guards import (
    LEAST_LOGPROB,
    SKIPPED_S,
    Loud,
    is_silence,
    loops,
    most_s,
    passed_over,
    peak_db,
    seconds,
    sounds,
    speech,
    trimmed,
)
from wertune.whisper.transcription import Segment, Transcript, segment_of
from wertune.whisper.wording import Timed, Written

LEAST_READ_S = 1.0  # of a window: less is no way on
LEAD_S = 0.2  # of silence before the first sound of a window
NO_WORDS = Written("", ())


@dataclass(frozen=True)
class Again:
    """A stretch to be read again, in samples, and the segment whose place what is written may take."""

    first: int
    last: int
    instead: Segment | None = None
    is_whole: bool = False  # a whole window: taken as it comes


class Reading:
    """How far a recording is read, window by window."""

    def __init__(self, samples: Samples, window_s: float, longest_s: float) -> None:
        self.again = list[Again]()
        self._segments, self._pieces = list[Segment](), list[tuple[Piece, Written]]()
        self._samples, self._at, self.longest_s = samples, 0, longest_s
        self._size, self._level = round(window_s * SAMPLE_RATE_HZ), levels(samples)
        self._peak = peak_db(self._level)
        self._sounds = sounds(self._level, self._peak)

    def next_window(self) -> Samples | None:
        """What is to be read next, where anything is left; silence is left out, and nothing is written for it."""
        frame = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
        heard = self._sounds[self._at // frame :]
        quiet = int(heard.argmax()) if heard.any() else heard.size
        if quiet > LATEST_BEGIN / STEPS_A_SECOND * FRAMES_PER_SECOND:  # no segment may begin so late
            end = self._samples.size
            self._go_on(round(quiet * frame - LEAD_S * SAMPLE_RATE_HZ) if heard.any() else end - self._at, NO_WORDS)
        return self._window() if self._at < self._samples.size else None

    def _window(self) -> Samples:
        return self._samples[self._at : self._at + self._size]

    def _go_on(self, size: int, written: Written) -> None:
        start_s, end_s = (at / SAMPLE_RATE_HZ for at in (self._at, self._at + size))
        self._pieces.append((Piece(size, start_s, end_s, self._samples[self._at : self._at + size]), written))
        self._at += size

    def take(self, written: Written) -> None:
        """Takes in what a window says; the next one begins where the last segment ends, or one begins that has none.

        Nothing is skipped that the model has not passed by; a window in which it does not come on is left.
        """
        length = self._window().size
        is_last = self._at + length >= self._samples.size
        length_s = length / SAMPLE_RATE_HZ
        said = [_within(each, length_s, is_last) for each in written.segments]
        whole = [each for each in said if each.text and each.end_s is not None]
        read, loud = _read(said, length, is_last), self._loud(length)
        if is_silence(written):
            self._go_on(length, NO_WORDS)
        elif loops(said, written.text, length_s) or (read is None and seconds(loud, 0, length_s) >= SKIPPED_S):
            self._distrust(is_last)
        else:
            read = length if read is None else read
            self._keep(whole, written, loud, read / SAMPLE_RATE_HZ)
            self._go_on(read, written)

    def _loud(self, length: int) -> Loud:
        first, last = (round(each / SAMPLE_RATE_HZ * FRAMES_PER_SECOND) for each in (self._at, self._at + length))
        return speech(self._level[first:last], self._peak)

    def _distrust(self, is_last: bool) -> None:
        """The window's pieces are read again; the last one is the next window's, unless it is the recording's."""
        pieces = split_at_pauses(self._window(), self.longest_s)
        kept = pieces if is_last or len(pieces) == 1 else pieces[:-1]
        size = sum(piece.size for piece in kept)
        self.again.append(Again(self._at, self._at + size, is_whole=True))
        self._at += size

    def _keep(self, said: Sequence[Timed], written: Written, loud: Loud, read_s: float) -> None:
        """Takes in the segments of a window, and asks for what they pass over."""
        at_s, spans = self._at / SAMPLE_RATE_HZ, list[tuple[float, float]]()
        for each in said:
            assert each.end_s is not None
            spans.append((each.start_s, each.end_s))
            start_s, end_s = trimmed(loud, *spans[-1])
            segment = segment_of(at_s + start_s, at_s + end_s, each.text, written, at_s)
            self._segments.append(segment)
            if seconds(loud, *spans[-1]) - most_s(each.text) >= SKIPPED_S:
                self._ask(*spans[-1], segment)
        for from_s, to_s in passed_over(spans, loud, read_s):
            self._ask(from_s, to_s)

    def _ask(self, from_s: float, to_s: float, instead: Segment | None = None) -> None:
        first, last = (self._at + round(each * SAMPLE_RATE_HZ) for each in (from_s, to_s))
        self.again.append(Again(first, last, instead))

    def stretch(self, again: Again) -> Samples:
        """What is heard in it."""
        return self._samples[again.first : again.last]

    def answer(self, again: Again, transcript: Transcript) -> None:
        """Takes in what was written for a stretch, unless it is worse than what stands there."""
        if again.is_whole:
            self._pieces += transcript.pieces
        elif not self._is_better(again, transcript):
            return
        if again.instead:
            self._segments.remove(again.instead)
        found = [self._placed(segment, again.first / SAMPLE_RATE_HZ) for segment in transcript.segments if segment.text]
        self._segments = sorted([*self._segments, *found], key=lambda segment: segment.start_s)

    def _is_better(self, again: Again, transcript: Transcript) -> bool:
        """Sure words, and more than stand there; not those at the border of a neighbour, whose times were wrong."""
        sure = (transcript.avg_logprob or 0.0) >= LEAST_LOGPROB and not shrinks(transcript.text)
        if not transcript.text or not sure:
            return False
        if again.instead:
            return most_s(transcript.text) >= most_s(again.instead.text) + SKIPPED_S / 2
        at_s = again.first / SAMPLE_RATE_HZ
        before = [_bare(each.text) for each in self._segments if each.start_s < at_s][-1:]
        after = [_bare(each.text) for each in self._segments if each.start_s >= at_s][:1]
        words = _bare(transcript.text)
        is_said = any(f" {text}".endswith(f" {words}") for text in before)
        return bool(words) and not is_said and not any(f"{text} ".startswith(f"{words} ") for text in after)

    def _placed(self, segment: Segment, at_s: float) -> Segment:
        """A piece's segment in the recording, from its first sound to its last."""
        first, last = (round((at_s + each) * FRAMES_PER_SECOND) for each in (segment.start_s, segment.end_s))
        loud = speech(self._level[first:last], self._peak)
        start_s, end_s = trimmed(loud, 0.0, segment.end_s - segment.start_s)
        at_s += segment.start_s
        return replace(segment, start_s=at_s + start_s, end_s=at_s + end_s, seek_s=at_s)

    def transcript(self) -> Transcript:
        """All that was read."""
        return Transcript(tuple(self._pieces), tuple(self._segments))


def _within(said: Timed, length_s: float, is_last: bool) -> Timed:
    """Times within the window; what goes on to the recording's end ends there."""
    end_s = length_s if said.end_s is None and is_last else said.end_s
    return Timed(said.text, min(said.start_s, length_s), None if end_s is None else min(end_s, length_s))


def _read(said: Sequence[Timed], length: int, is_last: bool) -> int | None:
    """How much of the window, of so many samples, is read; None where the model does not come on."""
    if is_last and said:
        return length
    last = said[-1] if said else Timed("", 0.0, None)
    read = round((last.start_s if last.end_s is None else last.end_s) * SAMPLE_RATE_HZ)
    return min(read, length) if read >= LEAST_READ_S * SAMPLE_RATE_HZ else None


def _bare(text: str) -> str:
    return " ".join("".join(filter(str.isalnum, word)) for word in text.casefold().split())
