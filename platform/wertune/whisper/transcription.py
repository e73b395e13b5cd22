"""Transcribing clips in batches of like length, long ones cut at pauses, and scoring what was written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import Protocol, TypeVar

import torch

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.steps import clips_are_done
from wertune.base.text import Normalise, TermFinder, joined
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.levels import is_any_sound
from wertune.data.manifest import Recording
from wertune.data.pauses import MAX_SEGMENT_S, Piece, split_at_pauses
from wertune.scores.metrics import Clip, Scores, score
from wertune.whisper.features import FRAMES_PER_SECOND, Across, context_positions, here, log_mel, pad_features
from wertune.whisper.loops import compression_ratio, token_limit
from wertune.whisper.timed.attention import Floats
from wertune.whisper.wording import Wording, Written

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


class TimedTranscriber(Transcriber, Protocol):
    """What writes when it is said, too, in windows of `windows_s` seconds, and knows when each token is."""

    wording: Wording

    def check_heads(self) -> None:
        """BaseModelError where the base names no heads that follow a recording."""

    @property
    def most_tokens(self) -> int:
        """What the decoder reads, prompt and end included."""

    def generate(
        self,
        features: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]: ...

    def time_tokens(
        self, features: torch.Tensor, tokens: Sequence[int], frames: int, language: str = ""
    ) -> tuple[Floats, Floats]:
        """Seconds (tokens + 1,) at which a text's tokens begin and the last ends, and their log-probabilities.

        Of log-mel features (mel_bins, …), of which so many frames hold the recording.
        """


@dataclass(frozen=True)
class EvaluationSet:
    """Clips with their features (mel_bins, frames_i), ready to be transcribed."""

    recordings: Sequence[Recording]
    features: Sequence[torch.Tensor]


@dataclass(frozen=True)
class Word:
    """A word as it stands in a text, its times in the recording, and how likely the model holds it, from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A piece of a recording, what was written for it, and how sure the model was: of its window, where it is timed.

    What it was heard in began at `seek_s`; the figures behind it are of all that was written there. Words where they
    were asked for.
    """

    start_s: float
    end_s: float
    text: str
    avg_logprob: float
    seek_s: float = field(default=0.0, compare=False)
    compression_ratio: float | None = field(default=None, compare=False)
    no_speech_prob: float | None = field(default=None, compare=False)
    words: tuple[Word, ...] = field(default=(), compare=False)


def segment_of(start_s: float, end_s: float, text: str, written: Written, seek_s: float) -> Segment:
    """A segment of what was written for what begins at `seek_s`."""
    ratio = compression_ratio(written.text)
    return Segment(start_s, end_s, text, written.avg_logprob, seek_s, ratio, written.no_speech_prob)


@dataclass(frozen=True)
class Transcript:
    """What was written for a clip: for each of its pieces.

    Of one that was read in windows, `timed` is what is said and when.
    """

    pieces: tuple[tuple[Piece, Written], ...]
    timed: tuple[Segment, ...] | None = None

    @property
    def text(self) -> str:
        timed = self.timed
        return joined([w.text for _, w in self.pieces] if timed is None else [segment.text for segment in timed])

    @property
    def segments(self) -> tuple[Segment, ...]:
        """One after the other; those of pieces last from their first sound to their last one."""
        return tuple(self._pieces()) if self.timed is None else self.timed

    def _pieces(self) -> Iterator[Segment]:
        for piece, written in self.pieces:
            if written.log_probabilities:  # else there was nothing to hear
                yield segment_of(piece.start_s, piece.end_s, written.text, written, piece.start_s)

    @property
    def avg_logprob(self) -> float | None:
        """The mean log-probability of the tokens that were written for it; None where there was nothing to hear."""
        scores = [score for _, written in self.pieces for score in written.log_probabilities]
        return sum(scores) / len(scores) if scores else None


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
    chosen_batches: list[list[int]] = []
    for language in sorted(set(of)):
        chosen = [i for i, each in enumerate(of) if each == language]
        padded_s = [features[i].shape[1] / FRAMES_PER_SECOND for i in chosen]
        found = batches(padded_s, [durations_s[i] for i in chosen], decode)
        chosen_batches += [[chosen[position] for position in positions] for positions in found]

    def written(batch: list[int]) -> list[Each]:
        check()
        limits = [token_limit(durations_s[i], decode) for i in batch]
        done = list(write(pad_features([features[i] for i in batch]), limits, of[batch[0]]))
        clips_are_done(len(batch))
        return done

    by_clip = dict(zip(chain(*chosen_batches), chain(*across(chosen_batches, written)), strict=True))
    return [by_clip[i] for i in range(len(features))]


def batches(padded_s: Sequence[float], durations_s: Sequence[float], decode: DecodeConfig) -> Iterator[list[int]]:
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

    So reads a model that was tuned on clips without times: it unlearns them. Others read windows (`timed`). The clips
    are of the model's own language unless their `languages` are given.

    `check` is called before each piece is heard and each batch is written: it may raise what ends the work. Of
    digital silence nothing is written: Whisper makes up words of it.
    """
    cut = [split_at_pauses(clip, longest_s) for clip in clips]
    is_heard = [is_any_sound(piece.samples) for piece in chain(*cut)]
    spoken = [language for pieces, language in zip(cut, languages, strict=False) for _ in pieces]
    features, durations_s = [], []
    for piece in compress(chain(*cut), is_heard):
        check()
        durations_s.append(piece.samples.size / SAMPLE_RATE_HZ)
        features.append(log_mel(piece.samples, context_positions(durations_s[-1], context), whisper.mel_bins))
    of_heard = list(compress(spoken, is_heard))
    heard = iter(in_batches(_writer(whisper, decode), features, durations_s, decode, check, of_heard, across))
    written = iter([next(heard) if each else Written("", ()) for each in is_heard])
    return [Transcript(tuple((piece, next(written)) for piece in pieces)) for pieces in cut]
