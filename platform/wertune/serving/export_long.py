"""Long recordings read from an exported folder by plain libraries, in the ways that come with them; on its card."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from wertune.base.errors import ExportError
from wertune.data.long_form import LongRecording
from wertune.scores.eval_report import ExportedLong
from wertune.scores.metrics import Scores
from wertune.serving.export_card import PROMPT_OF_ENGLISH_ONLY, Format
from wertune.serving.listener import served_voice, text_of
from wertune.serving.long_form import score_texts, summed, together, write_long
from wertune.serving.served import Served
from wertune.training.prepare import Prepared

_FASTER_WHISPER = """\
from faster_whisper import WhisperModel

model = WhisperModel(".", device="cpu", compute_type="int8")


def transcribe(path):
    segments, _ = model.transcribe(path, language="{language}"{options})
    return "".join(segment.text for segment in segments).strip()
"""

_PIPELINE = """\
import soundfile
from transformers import pipeline

recogniser = pipeline("automatic-speech-recognition", model=".", dtype="float32"{chunks})


def transcribe(path):
    samples, rate_hz = soundfile.read(path, dtype="float32")
    found = recogniser({{"raw": samples, "sampling_rate": rate_hz}}{options})
    return found["text"].strip()
"""

RunCodes = Callable[[Sequence[tuple[str, Sequence[Any]]]], list[list[str]]]  # the texts of each code's recordings


@dataclass(frozen=True)
class Way:
    """How a plain library reads what is longer than 30 s: its name for gates and for people, and the code for it."""

    name: str
    said: str
    package: str
    code: str


def ways_of(form: Format, language: str, prompt: Sequence[str]) -> tuple[Way, ...] | str:
    """The ways in which a folder of that form is read, or why it is tried in none."""
    if form == "peft":
        return "their pipelines take whole models; --format merged and ctranslate2 are tried so"
    if form == "ctranslate2":
        if not find_spec("faster_whisper"):
            return "faster-whisper is not installed; `pip install faster-whisper` and export again"
        plain = ("faster-whisper", "faster-whisper on its defaults", "")
        untimed = (
            "faster-whisper-no-timestamps",
            "faster-whisper, without_timestamps=True",
            ", without_timestamps=True",
        )
        return tuple(
            Way(name, said, "faster-whisper", _FASTER_WHISPER.format(language=language, options=options))
            for name, said, options in (plain, untimed)
        )
    multilingual = len(prompt) > PROMPT_OF_ENGLISH_ONLY
    asked = f', generate_kwargs={{"language": "{language}", "task": "transcribe"}}' if multilingual else ""
    chunked = ("transformers-chunked", "transformers' pipeline, chunk_length_s=30", ", chunk_length_s=30", asked)
    in_turn = ("transformers-sequential", "transformers' pipeline, sequential", "", f", return_timestamps=True{asked}")
    return tuple(
        Way(name, said, "transformers", _PIPELINE.format(chunks=chunks, options=options))
        for name, said, chunks, options in (chunked, in_turn)
    )


@dataclass(frozen=True)
class Tried:
    """What each way wrote, by its name, and the version as it serves; or why nothing was tried."""

    reason: str = ""
    ways: Mapping[str, ExportedLong] = field(default_factory=dict)
    said: Mapping[str, Way] = field(default_factory=dict)
    as_served: ExportedLong | None = None

    def record(self) -> dict[str, Any]:
        """For the folder's own record and its card."""
        rows = [_row(self.said[name].said, self.said[name].code, found) for name, found in self.ways.items()]
        rows += [_row("the registered version as it serves", "", self.as_served)] if self.as_served else []
        return {"not_tried": self.reason, "rows": rows}

    @property
    def lines(self) -> list[str]:
        """For the terminal."""
        if self.reason:
            return [f"long recordings were not tried: {self.reason}"]
        return ["long recordings:", *(f"  {_told(row)}" for row in self.record()["rows"])]


def _row(said: str, code: str, found: ExportedLong) -> dict[str, Any]:
    alone = None if found.clips_errors is None else found.clips_errors / found.words
    return {"how": said, "code": code, "wer": found.wer, "clips_wer": alone, **found.model_dump()}


def _told(row: Mapping[str, Any]) -> str:
    alone = "" if row["clips_wer"] is None else f" (the same clips alone {row['clips_wer']:.2%})"
    return f"{row['how']}: WER {row['wer']:.2%}{alone}, {row['deletions']} of {row['words']} words left out"


def try_long(
    prepared: Prepared,
    served: Served,
    ways: Sequence[Way],
    recordings: Sequence[LongRecording],
    run: RunCodes,
) -> Tried:
    """What a plain library writes of the recordings, and of their clips alone; what fails there stops nothing."""
    if not recordings:
        return Tried("none were asked for, or the test split has no two clips to join")
    clips = [each.clip for recording in recordings for each in recording.said]
    # Clips take as long as recordings, of which each is a window: alone they are written in the library's first way.
    heard = [[*recordings, *(clips if way is ways[0] else ())] for way in ways]
    try:
        texts = run([(way.code, each) for way, each in zip(ways, heard, strict=True)])
    except ExportError as error:
        return Tried(str(error))
    count, about = len(recordings), dict[str, ExportedLong]()
    for way, written in zip(ways, texts, strict=True):
        in_place = summed(score_texts(prepared, recordings, written[:count]))
        alone = prepared.score(clips, written[count:]) if written[count:] else None
        about[way.name] = _counted(f"{way.package} {version(way.package)}", count, in_place, alone)
    return Tried("", about, {way.name: way for way in ways}, _as_served(prepared, served, recordings))


def _as_served(prepared: Prepared, served: Served, recordings: Sequence[LongRecording]) -> ExportedLong:
    voice = served_voice(served, "")
    written = [segments for group in together(recordings) for segments in write_long(voice, group)]
    in_place = summed(score_texts(prepared, recordings, [text_of(segments) for segments in written]))
    return _counted(served.engine, len(recordings), in_place, None)


def _counted(library: str, recordings: int, in_place: Scores, alone: Scores | None) -> ExportedLong:
    return ExportedLong(
        library=library,
        recordings=recordings,
        words=in_place.words.length,
        errors=in_place.words.errors,
        deletions=in_place.words.deletions,
        skipped_words=sum(utterance.skipped_words for utterance in in_place.utterances),
        clips_errors=alone.words.errors if alone else None,
    )
