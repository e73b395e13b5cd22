"""Files in, texts out: a batch of recordings, whose faults are told one by one and stop none of the others.

As plain text, SubRip or WebVTT (`cues.py`), JSON, or JSON in OpenAI's shape (`verbose.py`). Times are those of the
segments that a model writes; of one that writes none, those of the cuts; and those of words, where they are asked for.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from wertune.base.errors import AudioError, ConfigError
from wertune.base.files import check_writable, storing, write_text
from wertune.data.audio import SAMPLE_RATE_HZ, Samples, load_audio
from wertune.data.importers.item import AUDIO_SUFFIXES
from wertune.serving.cues import Cue, cues
from wertune.serving.listener import Voice, text_of
from wertune.serving.verbose import verbose, word_values
from wertune.whisper.transcription import Segment

TextFormat = Literal["txt", "json", "verbose_json", "srt", "vtt"]
JSON_FORMATS = ("json", "verbose_json")
Say = Callable[[str], None]
AT_ONCE_S = 600.0  # of recordings, whose texts are told together
OUT_REMEDY = "free some space there, or give --out a folder that can be written"


def recordings_of(paths: Sequence[Path]) -> list[Path]:
    """The files as they are named, and in the place of a folder the recordings directly in it.

    Raises ConfigError for a folder without any, and with every file that is not there.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES)
        if not found:
            raise ConfigError(f"{path} holds no recording ({', '.join(sorted(AUDIO_SUFFIXES))}); name files")
        files += found
    gone = [str(file) for file in files if not file.exists()]
    if gone:
        raise ConfigError(f"{', '.join(gone)} {'do' if len(gone) > 1 else 'does'} not exist; mend the names")
    strange = [str(file) for file in files if not file.is_file()]
    if strange:  # a pipe might never end
        raise ConfigError(f"{', '.join(strange)} must be a plain file; save it as one first")
    return files


def check_out(files: Sequence[Path], out: Path, form: TextFormat) -> None:
    """ConfigError where two recordings would be written to one file, StorageError where the texts cannot be."""
    counts = Counter(_target(file, out, form) for file in files)
    twice = sorted(str(path) for path, count in counts.items() if count > 1)
    if twice:
        raise ConfigError(
            f"{', '.join(twice)} would be written by several recordings; give each folder an --out of its own"
        )
    check_writable(_target(files[0], out, form), "the texts", OUT_REMEDY)


def transcribe_files(
    voice: Voice,
    files: Sequence[Path],
    form: TextFormat,
    out: Path | None,
    longest_s: float | None,
    language: str,
    say: Say,
    complain: Say,
    words: bool = False,
) -> int:
    """Says or writes each recording's text in the order of the files; how many could not be read.

    They are of the model's own language where `language` is empty. With `words` each gets its times.

    JSON of several is said as one list, at the end.
    """
    failed = 0
    listed: list[str] | None = [] if form in JSON_FORMATS and out is None and len(files) > 1 else None
    for read in _batches(files, voice.decode.batch_size):
        clips = [samples for _, samples in read if not isinstance(samples, AudioError)]
        written = iter(voice.write(clips, longest_s, language, words))
        for file, samples in read:
            if isinstance(samples, AudioError):
                failed += 1
                complain(str(samples))
                continue
            length_s, spoken = samples.size / SAMPLE_RATE_HZ, language or voice.language
            text = rendered(next(written), form, str(file), voice.name, spoken, length_s)
            if listed is not None:
                listed.append(text.rstrip("\n"))
            elif out is None:
                say(_shown(text, file, form, alone=len(files) == 1))
            else:
                with storing("the texts", out, OUT_REMEDY):
                    write_text(_target(file, out, form), text)
                say(str(_target(file, out, form)))
    if listed is not None:
        say("[" + ",\n".join(listed) + "]")
    return failed


def _batches(files: Sequence[Path], most: int) -> Iterator[list[tuple[Path, Samples | AudioError]]]:
    """What is read and written at once: so many files, or as many as last some minutes; a long one is held alone."""
    batch, seconds = list[tuple[Path, Samples | AudioError]](), 0.0
    for file in files:
        samples = _read(file)
        lasts_s = 0.0 if isinstance(samples, AudioError) else samples.size / SAMPLE_RATE_HZ
        if batch and (len(batch) == most or seconds + lasts_s > AT_ONCE_S):
            yield batch
            batch, seconds = [], 0.0
        batch.append((file, samples))
        seconds += lasts_s
    if batch:
        yield batch


def _read(file: Path) -> Samples | AudioError:
    try:
        return load_audio(file)
    except AudioError as error:
        return error


def _shown(text: str, file: Path, form: TextFormat, alone: bool) -> str:
    """Of several recordings each text with its file's name."""
    text = text.rstrip("\n")
    if alone:
        return text
    return f"{file}: {text}" if form == "txt" else f"{file}\n{text}\n"


def _target(file: Path, out: Path, form: TextFormat) -> Path:
    return out / f"{file.stem}.{'json' if form in JSON_FORMATS else form}"


def rendered(
    segments: Sequence[Segment], form: TextFormat, file: str, model: str, language: str = "", duration_s: float = 0.0
) -> str:
    """The file's content; a segment without a word is in no cue, but stands in the JSON."""
    if form in JSON_FORMATS:
        named: dict[str, Any] = {"file": file, "model": model}
        if form == "json":
            values = named | {"text": text_of(segments), "segments": [_segment(segment) for segment in segments]}
        else:
            values = verbose(segments, language, duration_s) | named
        return json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    if form == "txt":
        return text_of(segments) + "\n"
    texts = [(cue, "\n".join(cue.lines)) for cue in cues(segments)]
    if form == "srt":
        return "\n".join(f"{number}\n{_times(cue, ',')}\n{text}\n" for number, (cue, text) in enumerate(texts, start=1))
    # In WebVTT `&` and `<` begin what is not text, and `-->` a cue.
    return "\n".join(["WEBVTT\n", *(f"{_times(cue, '.')}\n{escape(text, quote=False)}\n" for cue, text in texts)])


def _segment(segment: Segment) -> dict[str, Any]:
    words = {"words": [word_values(word) for word in segment.words]} if segment.words else {}
    times = {"start_s": segment.start_s, "end_s": segment.end_s}
    return {**times, "text": segment.text, "avg_logprob": segment.avg_logprob, **words}


def _times(cue: Cue, point: str) -> str:
    return f"{_time(cue.start_s, point)} --> {_time(cue.end_s, point)}"


def _time(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
