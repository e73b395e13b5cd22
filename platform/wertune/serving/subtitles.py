"""Segments as files: plain text, JSON, SubRip and WebVTT.

A cue is a segment, and its times are those of the cuts: a model tuned on clips without timestamps knows no others.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from wertune.serving.listener import Segment, text_of

TextFormat = Literal["txt", "json", "srt", "vtt"]


def rendered(segments: Sequence[Segment], form: TextFormat, file: str, model: str) -> str:
    """The file's content; a segment without a word is no cue, but stands in the JSON."""
    if form == "json":
        values = {"file": file, "model": model, "text": text_of(segments), "segments": [asdict(s) for s in segments]}
        return json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    if form == "txt":
        return text_of(segments) + "\n"
    cues = [segment for segment in segments if segment.text]
    if form == "srt":
        return "\n".join(f"{number}\n{_times(cue, ',')}\n{cue.text}\n" for number, cue in enumerate(cues, start=1))
    # In WebVTT `&` and `<` begin what is not text, and `-->` a cue.
    return "\n".join(["WEBVTT\n", *(f"{_times(cue, '.')}\n{_escaped(cue.text)}\n" for cue in cues)])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _times(cue: Segment, point: str) -> str:
    return f"{_time(cue.start_s, point)} --> {_time(cue.end_s, point)}"


def _time(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
