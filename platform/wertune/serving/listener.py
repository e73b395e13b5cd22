"""Whatever writes texts of recordings, ready to be asked: a registered version as it serves, or an untouched base."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from wertune.base.config import ContextConfig, DecodeConfig, ProjectConfig, ServingConfig
from wertune.base.text import joined
from wertune.data.audio import Samples
from wertune.data.pauses import MAX_SEGMENT_S
from wertune.serving.pyfunc import load_registered
from wertune.serving.served import Served
from wertune.training.baseline import baseline_decode
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.model import load_whisper
from wertune.whisper.restraints import MOST_S
from wertune.whisper.timed.windows import transcribe_recordings
from wertune.whisper.timed.words import with_words
from wertune.whisper.transcription import Segment, TimedTranscriber, Transcriber


@dataclass(frozen=True)
class Voice:
    """A model with the context and decoding that it writes with, and the limits that it serves under."""

    name: str
    kind: str
    whisper: TimedTranscriber
    context: ContextConfig
    decode: DecodeConfig
    limits: ServingConfig
    longest_piece_s: float = MAX_SEGMENT_S
    window_s: float | None = None  # none: it writes no times
    language: str = ""

    def write(
        self, clips: Sequence[Samples], longest_s: float | None = None, language: str = "", words: bool = False
    ) -> list[list[Segment]]:
        """The segments of each clip of 16 kHz samples, one after the other; with their `words` where asked for.

        What is longer than a window is read in windows with times where the model writes them; else, and where
        `longest_s` is given, what is longer is cut at pauses. They are of the model's own language unless another is
        given.
        """
        transcripts = transcribe_recordings(
            self.whisper,
            clips,
            self.context,
            self.decode,
            longest_s or self.longest_piece_s,
            None if longest_s else self.window_s,
            language=language,
        )
        segments = [list(transcript.segments) for transcript in transcripts]
        if not words:
            return segments
        return [
            with_words(self.whisper, samples, found, self.context, language)
            for samples, found in zip(clips, segments, strict=True)
        ]

    def check_words(self) -> None:
        """BaseModelError where no head of the base follows a recording: before anything is transcribed."""
        self.whisper.check_heads()


def text_of(segments: Sequence[Segment]) -> str:
    """The segments' texts as one."""
    return joined(segment.text for segment in segments)


def version_voice(uri: str) -> Voice:
    """A registered version as it serves; TrackingError where there is none."""
    return served_voice(load_registered(uri), uri.removeprefix("models:/"))


def served_voice(served: Served, name: str, whisper: Transcriber | None = None) -> Voice:
    """What answers for the version where it serves; `whisper` writes for it in the place of its own engine."""
    limits = ServingConfig.model_validate(served.settings.get("serving", {}))
    writes = cast(TimedTranscriber, whisper or served.whisper)  # processes that write (jobs/writers.py) time no words
    return Voice(
        name,
        "registered version",
        writes,
        served.context,
        served.decode,
        limits,
        served.longest_piece_s,
        served.window_s,
        served.settings["language"],
    )


def base_voice(source: str, project: ProjectConfig) -> Voice:
    """An untouched base at 30 s of context, where it is at its best, with the project's beams, and times."""
    base = resolve_base_model(source)
    whisper = load_whisper(Path(base.path), project.language, project.trial.quantization)
    decode = baseline_decode(project.trial.decode)
    window_s = MOST_S if whisper.wording.has_times else None
    return Voice(
        source,
        "untouched base",
        whisper,
        ContextConfig(short=False),
        decode,
        project.serving,
        window_s=window_s,
        language=project.language,
    )
