"""Transcribing clips in batches of like length, and scoring what was written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wertune.audio import SAMPLE_RATE_HZ, Samples
from wertune.config import ContextConfig, DecodeConfig
from wertune.features import context_positions, log_mel, pad_features
from wertune.manifest import Recording
from wertune.metrics import Scores, score
from wertune.model import Whisper
from wertune.text import Normalise, TermFinder

MAX_SEGMENT_S = 28.0
QUIET_SEARCH_S = 8.0
MIN_REST_S = 1.0
QUIET_WINDOW_S = 0.1


@dataclass(frozen=True)
class EvaluationSet:
    """Clips with their features (mel_bins, frames_i), ready to be transcribed."""

    recordings: Sequence[Recording]
    features: Sequence[torch.Tensor]


def score_set(
    whisper: Whisper, clips: EvaluationSet, decode: DecodeConfig, normalise: Normalise, finder: TermFinder
) -> Scores:
    """What the model writes for each clip against its reference."""
    texts = transcribe_features(whisper, clips.features, [r.duration_s for r in clips.recordings], decode)
    return score((recording.clip for recording in clips.recordings), texts, normalise, finder)


def transcribe_features(
    whisper: Whisper, features: Sequence[torch.Tensor], durations_s: Sequence[float], decode: DecodeConfig
) -> list[str]:
    """The text of each (mel_bins, frames_i), in the order given; batches are of like length."""
    texts = [""] * len(features)
    order = sorted(range(len(features)), key=lambda i: durations_s[i])
    for start in range(0, len(order), decode.batch_size):
        batch = order[start : start + decode.batch_size]
        limits = [token_limit(durations_s[i], decode) for i in batch]
        written = whisper.generate(pad_features([features[i] for i in batch]), limits, decode.num_beams)
        for i, text in zip(batch, written, strict=True):
            texts[i] = text
    return texts


def token_limit(duration_s: float, decode: DecodeConfig) -> int:
    """Enough for the fastest speech, few enough that a loop ends: Whisper repeats itself on silence.

    It follows the clip and not its padding, so that the base at 30 s of context is not charged with longer loops.
    """
    return min(decode.max_new_tokens, 8 + round(decode.tokens_per_second * duration_s))


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
    durations_s = [piece.size / SAMPLE_RATE_HZ for clip in pieces for piece in clip]
    texts = iter(transcribe_features(whisper, features, durations_s, decode))
    return [" ".join(filter(None, (next(texts) for _ in clip))) for clip in pieces]


def split_at_pauses(samples: Samples) -> list[Samples]:
    """Pieces of at most 28 s, cut where the last 8 s of each are quietest; a short clip stays whole.

    No cut leaves a rest of less than 1 s: of so little Whisper makes up words.

    Whisper's own long-form decoding needs timestamps, which a model tuned on clips without them unlearns.
    """
    longest, search = round(MAX_SEGMENT_S * SAMPLE_RATE_HZ), round(QUIET_SEARCH_S * SAMPLE_RATE_HZ)
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
