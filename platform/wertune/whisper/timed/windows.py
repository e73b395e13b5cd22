"""Long recordings, read window by window by a model that writes times (Radford et al. 2022, section 4.5).

The next window begins where the last segment ends. What the guards find (`guards.py`) is read again as versions without
times read all: cut at pauses, with the guards that clips have.
"""

from collections.abc import Sequence

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.data.pauses import MAX_SEGMENT_S
from wertune.whisper.features import context_positions, log_mel, pad_features
from wertune.whisper.loops import MOST_TOKENS, token_limit
from wertune.whisper.restraints import MOST_S
from wertune.whisper.timed.reading import Reading
from wertune.whisper.transcription import (
    Check,
    TimedTranscriber,
    Transcript,
    batches,
    transcribe_samples,
)

TOKENS_OF_TIMES = 60  # of a window's segments
AGAIN_S = 10.0  # what is read again is cut into pieces of at most so much: a loop has its end there


def transcribe_windows(
    whisper: TimedTranscriber,
    clips: Sequence[Samples],
    context: ContextConfig,
    decode: DecodeConfig,
    window_s: float = MOST_S,
    check: Check = lambda: None,
    language: str = "",
    longest_s: float = MAX_SEGMENT_S,
) -> list[Transcript]:
    """What is said in recordings (n,) of any length, and when: read in windows by a model that writes times.

    The windows of a recording come one after the other, those of several recordings beside each other. What has to be
    read again is cut into pieces of at most `longest_s`, and 10 s. `check` may raise what ends the work.
    """
    readings = [Reading(clip, window_s, min(longest_s, AGAIN_S)) for clip in clips]
    while going := [(each, window) for each in readings if (window := each.next_window()) is not None]:
        lengths_s = [window.size / SAMPLE_RATE_HZ for _, window in going]
        features = [
            log_mel(window, context_positions(length_s, context), whisper.mel_bins)
            for (_, window), length_s in zip(going, lengths_s, strict=True)
        ]
        for batch in batches(lengths_s, lengths_s, decode):
            check()
            limits = [min(MOST_TOKENS, token_limit(lengths_s[i], decode) + TOKENS_OF_TIMES) for i in batch]
            chosen = pad_features([features[i] for i in batch])
            written = whisper.generate(chosen, limits, decode, language, [lengths_s[i] for i in batch])
            for i, each in zip(batch, written, strict=True):
                going[i][0].take(each)
        _read_again([each for each, _ in going], whisper, context, decode, check, language)
    return [reading.transcript() for reading in readings]


def _read_again(
    readings: Sequence[Reading],
    whisper: TimedTranscriber,
    context: ContextConfig,
    decode: DecodeConfig,
    check: Check,
    language: str,
) -> None:
    """All stretches that the guards ask for, at once."""
    asked = [(reading, again) for reading in readings for again in reading.again]
    clips, languages = [reading.stretch(again) for reading, again in asked], [language] * len(asked)
    longest_s = min((reading.longest_s for reading in readings), default=AGAIN_S)
    transcripts = transcribe_samples(whisper, clips, context, decode, check, longest_s, languages)
    for (reading, again), transcript in zip(asked, transcripts, strict=True):
        reading.answer(again, transcript)
    for reading in readings:
        reading.again.clear()


def transcribe_recordings(
    whisper: TimedTranscriber,
    clips: Sequence[Samples],
    context: ContextConfig,
    decode: DecodeConfig,
    longest_s: float,
    window_s: float | None,
    check: Check = lambda: None,
    language: str = "",
) -> list[Transcript]:
    """What is longer than a window is read in windows; all else, and all where there are none, is cut at pauses."""
    is_long = [window_s is not None and clip.size > round(window_s * SAMPLE_RATE_HZ) for clip in clips]
    short = [clip for clip, long in zip(clips, is_long, strict=True) if not long]
    long = [clip for clip, long in zip(clips, is_long, strict=True) if long]
    cut = iter(transcribe_samples(whisper, short, context, decode, check, longest_s, [language] * len(short)))
    read = iter(transcribe_windows(whisper, long, context, decode, window_s or MOST_S, check, language, longest_s))
    return [next(read if long else cut) for long in is_long]
