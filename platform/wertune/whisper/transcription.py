"""Transcribing clips in batches of like length, long ones cut at pauses, and scoring what was written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np
import torch

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.steps import clips_are_done
from wertune.base.text import Normalise, TermFinder, joined
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.manifest import Recording
from wertune.scores.metrics import Clip, Scores, score
from wertune.whisper.features import FRAMES_PER_SECOND, Across, context_positions, here, log_mel, pad_features
from wertune.whisper.loops import MOST_TOKENS, token_limit
from wertune.whisper.restraints import MOST_S
from wertune.whisper.wording import Written

MAX_SEGMENT_S = 28.0
QUIET_SEARCH_S = 8.0
MIN_REST_S = 1.0
QUIET_WINDOW_S = 0.1
LEAST_READ_S = 1.0  # of a window: less is no way on
TOKENS_OF_TIMES = 60  # of a window's segments

Each = TypeVar("Each")
Check = Callable[[], object]


class Transcriber(Protocol):
    """What turns features into texts: torch's `model.Whisper`, or an engine that serves in its place."""

    @property
    def device(self) -> torch.device: ...

    @property
    def mel_bins(self) -> int: ...

    def generate(
        self, features: torch.Tensor, token_limits: Sequence[int], decode: DecodeConfig, language: str = ""
    ) -> list[Written]:
        """The texts of a batch of log-mel features (batch, mel_bins, frames), each of at most its own tokens.

        They are of one `language`, the model's own where it is empty.
        """


class TimedTranscriber(Protocol):
    """What writes when it is said, too, in windows of `windows_s` seconds."""

    @property
    def mel_bins(self) -> int: ...

    def generate(
        self,
        features: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]: ...


@dataclass(frozen=True)
class EvaluationSet:
    """Clips with their features (mel_bins, frames_i), ready to be transcribed."""

    recordings: Sequence[Recording]
    features: Sequence[torch.Tensor]


@dataclass(frozen=True)
class Transcript:
    """What was written for a clip: for each of its pieces, of so many samples."""

    pieces: tuple[tuple[int, Written], ...]

    @property
    def text(self) -> str:
        return joined(written.text for _, written in self.pieces)

    @property
    def avg_logprob(self) -> float:
        """The mean log-probability of the tokens that were written for it."""
        scores = [score for _, written in self.pieces for score in written.log_probabilities]
        return sum(scores) / len(scores)


def score_set(
    whisper: Transcriber,
    clips: EvaluationSet,
    decode: DecodeConfig,
    normalise: Normalise,
    finder: TermFinder,
    across: Across = here,
) -> Scores:
    """What the model writes for each clip against its reference."""
    recordings = clips.recordings
    durations_s, languages = [r.duration_s for r in recordings], [r.language for r in recordings]
    texts = transcribe_features(whisper, clips.features, durations_s, decode, languages, across)
    return score(clips_of(clips.recordings), texts, normalise, finder)


def clips_of(recordings: Sequence[Recording]) -> list[Clip]:
    """What scoring needs to know of each."""
    return [
        Clip(each.place, each.text, each.row.speaker, each.row.channel, each.duration_s, each.language)
        for each in recordings
    ]


def transcribe_features(
    whisper: Transcriber,
    features: Sequence[torch.Tensor],
    durations_s: Sequence[float],
    decode: DecodeConfig,
    languages: Sequence[str] = (),
    across: Across = here,
) -> list[str]:
    """The text of each (mel_bins, frames_i), in the order given; batches are of like length."""
    written = in_batches(_writer(whisper, decode), features, durations_s, decode, languages=languages, across=across)
    return [each.text for each in written]


def _writer(whisper: Transcriber, decode: DecodeConfig) -> Callable[[torch.Tensor, Sequence[int], str], list[Written]]:
    return lambda heard, limits, language: whisper.generate(heard, limits, decode, language)


def in_batches(
    write: Callable[[torch.Tensor, Sequence[int], str], Sequence[Each]],
    features: Sequence[torch.Tensor],
    durations_s: Sequence[float],
    decode: DecodeConfig,
    check: Check = lambda: None,
    languages: Sequence[str] = (),
    across: Across = here,
) -> list[Each]:
    """What `write` makes of each clip's features and token limit, in the order given; batches are of like length.

    A batch is of one of the clips' `languages`; where none are given all are of the model's own.
    """
    of = languages or [""] * len(features)
    batches: list[list[int]] = []
    for language in sorted(set(of)):
        chosen = [i for i, each in enumerate(of) if each == language]
        padded_s = [features[i].shape[1] / FRAMES_PER_SECOND for i in chosen]
        found = _batches(padded_s, [durations_s[i] for i in chosen], decode)
        batches += [[chosen[position] for position in positions] for positions in found]

    def written(batch: list[int]) -> list[Each]:
        check()
        limits = [token_limit(durations_s[i], decode) for i in batch]
        done = list(write(pad_features([features[i] for i in batch]), limits, of[batch[0]]))
        clips_are_done(len(batch))
        return done

    by_clip = dict(zip(chain(*batches), chain(*across(batches, written)), strict=True))
    return [by_clip[i] for i in range(len(features))]


def _batches(padded_s: Sequence[float], durations_s: Sequence[float], decode: DecodeConfig) -> Iterator[list[int]]:
    """Indices, shortest first, in batches that hold neither more clips nor more seconds than `decode` allows."""
    batch: list[int] = []
    for i in sorted(range(len(durations_s)), key=lambda i: durations_s[i]):
        if batch and (len(batch) == decode.batch_size or (len(batch) + 1) * padded_s[i] > decode.batch_seconds):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def transcribe_samples(
    whisper: Transcriber,
    clips: Sequence[Samples],
    context: ContextConfig,
    decode: DecodeConfig,
    check: Check = lambda: None,
    longest_s: float = MAX_SEGMENT_S,
    languages: Sequence[str] = (),
    across: Across = here,
) -> list[Transcript]:
    """What each clip of 16 kHz samples says; what is longer than `longest_s` is cut at pauses.

    The clips are of the model's own language unless their `languages` are given.

    `check` is called before each piece is heard and each batch is written: it may raise what ends the work.
    """
    cut = [split_at_pauses(clip, longest_s) for clip in clips]
    of_pieces = [language for pieces, language in zip(cut, languages, strict=False) for _ in pieces]
    features, durations_s = [], []
    for piece in chain(*cut):
        check()
        durations_s.append(piece.size / SAMPLE_RATE_HZ)
        features.append(log_mel(piece, context_positions(durations_s[-1], context), whisper.mel_bins))
    written = iter(in_batches(_writer(whisper, decode), features, durations_s, decode, check, of_pieces, across))
    return [Transcript(tuple((piece.size, next(written)) for piece in pieces)) for pieces in cut]


def split_at_pauses(samples: Samples, longest_s: float = MAX_SEGMENT_S) -> list[Samples]:
    """Pieces of at most 28 s, cut where the last 8 s of each are quietest (of less, in proportion); short ones stay.

    No cut leaves a rest of less than 1 s: of so little Whisper makes up words.

    Whisper's own long-form decoding needs timestamps, which a model tuned on clips without them unlearns.
    """
    longest = round(longest_s * SAMPLE_RATE_HZ)
    search = round(longest * QUIET_SEARCH_S / MAX_SEGMENT_S)
    pieces = []
    while samples.size > longest:
        end = min(longest, samples.size - round(MIN_REST_S * SAMPLE_RATE_HZ))
        cut = longest - search + _quietest(samples[longest - search : end])
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


def _quietest(samples: Samples) -> int:
    """The middle of the window of 0.1 s with the least energy."""
    window = round(QUIET_WINDOW_S * SAMPLE_RATE_HZ)
    energy = np.square(samples[: samples.size // window * window], dtype=np.float64).reshape(-1, window).sum(axis=1)
    return int(energy.argmin()) * window + window // 2


@dataclass(frozen=True)
class Segment:
    """A piece of a recording, what was written for it, and how sure the model was: of its window, where it is timed."""

    start_s: float
    end_s: float
    text: str
    avg_logprob: float


class _Reading:
    """How far a recording is read, window by window."""

    def __init__(self, samples: Samples) -> None:
        self.spoken = list[Segment]()
        self._samples, self._at = samples, 0

    @property
    def is_done(self) -> bool:
        return self._at >= self._samples.size

    def window(self, window_s: float) -> Samples:
        return self._samples[self._at : self._at + round(window_s * SAMPLE_RATE_HZ)]

    def take(self, written: Written, window_s: float) -> None:
        """Takes in what a window says; the next one begins where the last segment ends, or one begins that has none.

        Nothing is skipped that the model has not passed by; a window in which it does not come on is left.
        """
        at_s, length = self._at / SAMPLE_RATE_HZ, self.window(window_s).size
        is_last = self._at + length >= self._samples.size
        for segment in written.segments:
            end_s = length / SAMPLE_RATE_HZ if segment.end_s is None and is_last else segment.end_s
            if end_s is not None and segment.text:
                self.spoken.append(Segment(at_s + segment.start_s, at_s + end_s, segment.text, written.avg_logprob))
        self._at += self._read(written, length, is_last)

    def _read(self, written: Written, length: int, is_last: bool) -> int:
        """How much of the window, of so many samples, is read."""
        if is_last or not written.segments:
            return length
        last = written.segments[-1]
        read = round((last.start_s if last.end_s is None else last.end_s) * SAMPLE_RATE_HZ)
        return min(read, length) if read >= LEAST_READ_S * SAMPLE_RATE_HZ else length


def transcribe_windows(
    whisper: TimedTranscriber,
    clips: Sequence[Samples],
    context: ContextConfig,
    decode: DecodeConfig,
    window_s: float = MOST_S,
    check: Check = lambda: None,
    language: str = "",
) -> list[list[Segment]]:
    """What is said in recordings (n,) of any length, and when: read in windows by a model that writes times.

    The windows of a recording come one after the other, those of several recordings beside each other.
    """
    readings = [_Reading(clip) for clip in clips]
    while going := [reading for reading in readings if not reading.is_done]:
        heard = [reading.window(window_s) for reading in going]
        lengths_s = [window.size / SAMPLE_RATE_HZ for window in heard]
        features = [
            log_mel(window, context_positions(seconds, context), whisper.mel_bins)
            for window, seconds in zip(heard, lengths_s, strict=True)
        ]
        for batch in _batches(lengths_s, lengths_s, decode):
            check()
            limits = [min(MOST_TOKENS, token_limit(lengths_s[i], decode) + TOKENS_OF_TIMES) for i in batch]
            chosen = pad_features([features[i] for i in batch])
            written = whisper.generate(chosen, limits, decode, language, [lengths_s[i] for i in batch])
            for i, each in zip(batch, written, strict=True):
                going[i].take(each, window_s)
    return [reading.spoken for reading in readings]
