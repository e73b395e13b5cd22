"""What was said in the shape that OpenAI's `verbose_json` and faster-whisper's segments have.

Only what is known: no token ids, and no `no_speech_prob` of a base that has no token for it.
"""

from collections.abc import Sequence
from typing import Any

from wertune.base.text import joined
from wertune.whisper.transcription import Segment, Word

TEMPERATURE = 0.0  # nothing is drawn: greedy, or beams
SEEK_PER_SECOND = 100  # frames of mel


def verbose(segments: Sequence[Segment], language: str, duration_s: float) -> dict[str, Any]:
    """A recording; `words` where the segments have them."""
    said = [word_values(word) for segment in segments for word in segment.words]
    return {
        "task": "transcribe",
        "language": language,
        "duration": round(duration_s, 3),
        "text": joined(segment.text for segment in segments),
        "segments": segment_values(segments),
        **({"words": said} if said else {}),
    }


def segment_values(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Each segment; those without a word are none here."""
    return [_values(number, each) for number, each in enumerate(segment for segment in segments if segment.text)]


def _values(number: int, segment: Segment) -> dict[str, Any]:
    figures = {"compression_ratio": segment.compression_ratio, "no_speech_prob": segment.no_speech_prob}
    return {
        "id": number,
        "seek": round(segment.seek_s * SEEK_PER_SECOND),
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "temperature": TEMPERATURE,
        "avg_logprob": segment.avg_logprob,
        **{name: value for name, value in figures.items() if value is not None},
        **({"words": [word_values(word) for word in segment.words]} if segment.words else {}),
    }


def word_values(word: Word) -> dict[str, Any]:
    """As both name them, each as it stands in the text."""
    return {
        "word": word.text,
        "start": round(word.start_s, 3),
        "end": round(word.end_s, 3),
        "probability": round(word.probability, 4),
    }
