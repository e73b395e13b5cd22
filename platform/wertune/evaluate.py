"""Transcribing clips in batches of like length, and scoring what was written."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from wertune.audio import SAMPLE_RATE_HZ, Samples
from wertune.config import ContextConfig, DecodeConfig
from wertune.features import FRAMES_PER_POSITION, POSITIONS_PER_SECOND, context_positions, log_mel, pad_features
from wertune.model import Whisper

MAX_SEGMENT_S = 28.0
QUIET_SEARCH_S = 8.0
QUIET_WINDOW_S = 0.1

Progress = Callable[[int], None]


def transcribe_features(
    whisper: Whisper, features: Sequence[torch.Tensor], decode: DecodeConfig, progress: Progress | None = None
) -> list[str]:
    """The text of each (mel_bins, frames_i), in the order given; batches are of like length."""
    texts = [""] * len(features)
    order = sorted(range(len(features)), key=lambda i: features[i].shape[1])
    for start in range(0, len(order), decode.batch_size):
        batch = order[start : start + decode.batch_size]
        padded = pad_features([features[i] for i in batch])
        written = whisper.generate(padded, _token_limit(padded.shape[2], decode), decode.num_beams)
        for i, text in zip(batch, written, strict=True):
            texts[i] = text
        if progress is not None:
            progress(len(batch))
    return texts


def _token_limit(frames: int, decode: DecodeConfig) -> int:
    """Enough for the fastest speech, few enough that a loop ends: Whisper repeats itself on silence."""
    seconds = frames / FRAMES_PER_POSITION / POSITIONS_PER_SECOND
    return min(decode.max_new_tokens, 8 + round(decode.tokens_per_second * seconds))


def transcribe_samples(
    whisper: Whisper, clips: Sequence[Samples], context: ContextConfig, decode: DecodeConfig
) -> list[str]:
    """The text of each clip of 16 kHz samples; what is longer than 30 s is cut at pauses and joined again."""
    pieces = [split_at_pauses(clip) for clip in clips]
    features = [
        log_mel(piece, context_positions(piece.size / SAMPLE_RATE_HZ, context), whisper.mel_bins)
        for clip in pieces
        for piece in clip
    ]
    texts = iter(transcribe_features(whisper, features, decode))
    return [" ".join(filter(None, (next(texts) for _ in clip))) for clip in pieces]


def split_at_pauses(samples: Samples) -> list[Samples]:
    """Pieces of at most 28 s, cut where the last 8 s of each are quietest; a short clip stays whole.

    Whisper's own long-form decoding needs timestamps, which a model tuned on clips without them unlearns.
    """
    longest, search = round(MAX_SEGMENT_S * SAMPLE_RATE_HZ), round(QUIET_SEARCH_S * SAMPLE_RATE_HZ)
    pieces = []
    while samples.size > longest:
        cut = longest - search + _quietest(samples[longest - search : longest])
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


def _quietest(samples: Samples) -> int:
    """The middle of the window of 0.1 s with the least energy."""
    window = round(QUIET_WINDOW_S * SAMPLE_RATE_HZ)
    energy = np.square(samples[: samples.size // window * window], dtype=np.float64).reshape(-1, window).sum(axis=1)
    return int(energy.argmin()) * window + window // 2
