"""Whatever writes texts of recordings, ready to be asked: a registered version as it serves, or an untouched base."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wertune.base.config import ContextConfig, DecodeConfig, ProjectConfig, ServingConfig
from wertune.base.text import joined
from wertune.data.audio import SAMPLE_RATE_HZ, Samples
from wertune.serving.pyfunc import load_registered
from wertune.training.baseline import baseline_decode
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.model import load_whisper
from wertune.whisper.transcription import MAX_SEGMENT_S, Segment, Transcriber, Transcript, transcribe_samples


@dataclass(frozen=True)
class Voice:
    """A model with the context and decoding that it writes with, and the limits that it serves under."""

    name: str
    kind: str
    whisper: Transcriber
    context: ContextConfig
    decode: DecodeConfig
    limits: ServingConfig
    longest_piece_s: float = MAX_SEGMENT_S

    def write(
        self, clips: Sequence[Samples], longest_s: float | None = None, language: str = ""
    ) -> list[list[Segment]]:
        """The segments of each clip of 16 kHz samples, one after the other; what is longer is cut at pauses.

        They are of the model's own language unless another is given.
        """
        longest_s, languages = longest_s or self.longest_piece_s, [language] * len(clips)
        transcripts = transcribe_samples(
            self.whisper, clips, self.context, self.decode, longest_s=longest_s, languages=languages
        )
        return [list(_segments(transcript)) for transcript in transcripts]


def _segments(transcript: Transcript) -> Iterator[Segment]:
    start = 0
    for size, written in transcript.pieces:
        times = start / SAMPLE_RATE_HZ, (start + size) / SAMPLE_RATE_HZ
        yield Segment(*times, written.text, written.avg_logprob)
        start += size


def text_of(segments: Sequence[Segment]) -> str:
    """The segments' texts as one."""
    return joined(segment.text for segment in segments)


def version_voice(uri: str) -> Voice:
    """A registered version as it serves; TrackingError where there is none."""
    served = load_registered(uri)
    limits = ServingConfig.model_validate(served.settings.get("serving", {}))
    name, longest_s = uri.removeprefix("models:/"), served.longest_piece_s
    return Voice(name, "registered version", served.whisper, served.context, served.decode, limits, longest_s)


def base_voice(source: str, project: ProjectConfig) -> Voice:
    """An untouched base at 30 s of context, where it is at its best, with the project's beams."""
    base = resolve_base_model(source)
    whisper = load_whisper(Path(base.path), project.language, project.trial.quantization)
    decode = baseline_decode(project.trial.decode)
    return Voice(source, "untouched base", whisper, ContextConfig(short=False), decode, project.serving)
