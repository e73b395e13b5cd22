"""What Whisper's programs write as JSON: OpenAI's (`verbose_json`, too), WhisperX, a list of segments."""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from wertune.base.config import LANGUAGES
from wertune.base.errors import ManifestError
from wertune.base.faults import describe
from wertune.data.importers.cue import Cue, Cues
from wertune.data.importers.item import Fault, read_text

# As programs number those whom they tell apart: in another recording somebody else is called so.
_NUMBERED = re.compile(r"SPEAKER_\d+|[A-Z]")


class _Transcript(BaseModel):
    language: str | None = None
    segments: tuple[dict[str, Any], ...]


class _Segment(BaseModel):
    start: float
    end: float
    text: str
    speaker: str | None = None


def is_whisper(path: Path) -> bool:
    """Whether it may hold segments: JSON beside a recording is often something else."""
    content = path.read_bytes()
    return b'"segments"' in content or content.lstrip()[:1] == b"["


def read_whisper(path: Path) -> Cues:
    """Segments in their language, with the speaker where a program tells them apart."""
    content = read_text(path)
    try:
        listed = content.lstrip().startswith("[")
        found = _Transcript.model_validate_json(f'{{"segments": {content}}}' if listed else content)
    except ValidationError as error:
        raise ManifestError(f"{path} is no transcript of Whisper's ({_told(error)}); write it anew") from None
    language = _code(found.language or "")
    for number, values in enumerate(found.segments, start=1):
        place = f"{path}, segment {number}"
        try:
            segment = _Segment.model_validate(values)
        except ValidationError as error:
            yield Fault(place, _told(error))
            continue
        who = segment.speaker or ""
        who = f"{path.stem}-{who}" if _NUMBERED.fullmatch(who) else who
        yield Cue(place, segment.text, segment.start, segment.end, who, language)


def _told(error: ValidationError) -> str:
    return "; ".join(describe(fault, "it") for fault in error.errors())


def _code(language: str) -> str:
    """`english`, as OpenAI's service says it, is `en`."""
    if not language or language in LANGUAGES:
        return language
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE  # seconds, for one table

    return str(TO_LANGUAGE_CODE.get(language.lower(), language))
