"""What a line of a manifest holds: a row in NeMo's field names, its place, and what is wrong with it."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wertune.base.config import LANGUAGES
from wertune.base.faults import describe
from wertune.base.files import NUL_RULE

MAX_SECONDS = 1e6
LANGUAGE_KEYS = ("language", "lang")
_PLACE = re.compile(r"(.*):(\d+)(?:: segments\[(\d+)\])?", re.DOTALL)


class At(NamedTuple):
    """A line, from 1, and of one with segments which of them, from 0 as in JSON; -1 is the line itself."""

    line: int
    segment: int = -1


def place_of(file: object, at: At) -> str:
    """Where a row stands, for people: `train.jsonl:12`, or `train.jsonl:12: segments[3]`."""
    return f"{file}:{at.line}" + (f": segments[{at.segment}]" if at.segment >= 0 else "")


def file_and_at(place: str) -> tuple[str, At]:
    """The reverse of `place_of`."""
    found = _PLACE.fullmatch(place)
    assert found, f"{place} is no place of a row"
    return found[1], At(int(found[2]), int(found[3] or -1))


def line_place(place: str) -> str:
    """The place of the line that a row or a segment stands in."""
    file, at = file_and_at(place)
    return place_of(file, At(at.line))


@dataclass(frozen=True)
class Fault:
    """What is wrong at a place: with one row."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


def one_language(named: Mapping[str, str]) -> str:
    """The code of the language that all values name, te of te-IN and TE; empty where none names one. ValueError."""
    codes = {key: re.split("[-_]", value.lower())[0] for key, value in named.items() if value}
    for key, code in codes.items():
        if code not in LANGUAGES:
            raise ValueError(
                f"{key}: {named[key]!r} is no language of Whisper's; give its code, such as en, zh, ms, ta"
            )
    if len(set(codes.values())) > 1:
        told = ", but ".join(f"{key} is {named[key]!r}" for key in codes)
        raise ValueError(f"{told}: a clip is in one language; keep the one that is right")
    return next(iter(codes.values()), "")


def one_name(speaker: str) -> str:
    """The same for the same speaker, however accents are written and blanks stand around."""
    return unicodedata.normalize("NFC", speaker).strip()


def in_one_language(values: Any) -> Any:
    """An object with its language under one key; what is no text is left to the field, which tells of it."""
    if not isinstance(values, dict):
        return values
    named = {key: values[key] for key in LANGUAGE_KEYS if values.get(key) is not None}
    if not named or not all(isinstance(value, str) for value in named.values()):
        return values
    rest = {key: value for key, value in values.items() if key not in LANGUAGE_KEYS}
    return rest | {"language": one_language(named)}


class Row(BaseModel):
    """One clip: NeMo's field names; keys that are not ours are kept out of the way, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    audio_filepath: str = Field(min_length=1)
    text: str
    duration: float | None = Field(None, gt=0, le=MAX_SECONDS)
    offset: float = Field(0.0, ge=0, le=MAX_SECONDS)
    speaker: str = ""
    terms: tuple[str, ...] = ()
    channel: str = ""
    recording: str = Field("", description="what the clip was cut from, where that is not its own file: any name")
    language: str = Field(
        "", validation_alias=AliasChoices(*LANGUAGE_KEYS), description="of the clip, where it is not the project's"
    )
    weight: int = Field(1, ge=1, le=100, description="how often a pass over a training split holds the clip")

    @model_validator(mode="before")
    @classmethod
    def _in_one_language(cls, values: Any) -> Any:
        return in_one_language(values)

    @field_validator("speaker")
    @classmethod
    def _is_one_name(cls, value: str) -> str:
        return one_name(value)

    @field_validator("audio_filepath")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError(NUL_RULE)
        return value


def parse_line(line: str) -> Any:
    """The JSON of a line; ValueError where it is none, cannot be written again, or holds a key twice."""
    repeated: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):  # of two values the one that was meant is anybody's guess
            repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return values

    try:
        values = json.loads(line, object_pairs_hook=once)
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair ({error}); write the character in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); a line holds one object") from None
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there twice; keep the one that is right")
    return values


def problem(error: Exception, whole: str = "the line") -> str:
    """What is wrong, in words; `whole` is what no key names."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = []
    for fault in error.errors():
        # A validator of the whole row names its keys itself.
        told = describe(fault, "" if fault["type"] == "value_error" else whole)
        lacks_text = whole == "the line" and fault["type"] == "missing" and fault["loc"] == ("text",)
        found.append(f"{told}, or segments with their times" if lacks_text else told)
    return "; ".join(found)
