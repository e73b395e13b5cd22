"""A line for one recording of any length: its segments, listed or as Whisper's own timestamps in the text, as rows."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wertune.data.audio import MISSING_S
from wertune.data.rows import LANGUAGE_KEYS, MAX_SECONDS, At, Fault, Row, in_one_language, one_name, place_of, problem

_TIME = re.compile(r"<\|([0-9]+(?:\.[0-9]+)?)\|>")
_BEGINS_TIMED = re.compile(rf"\s*{_TIME.pattern}")


class Segment(BaseModel):
    """A part of a recording and what is said in it; what it does not name is its row's."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    text: str
    start_s: float = Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False, strict=True)
    end_s: float = Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False, strict=True)
    speaker: str | None = None
    language: str = Field("", validation_alias=AliasChoices(*LANGUAGE_KEYS))

    @model_validator(mode="before")
    @classmethod
    def _in_one_language(cls, values: Any) -> Any:
        return in_one_language(values)

    @field_validator("speaker")
    @classmethod
    def _is_one_name(cls, value: str | None) -> str | None:
        return value if value is None else one_name(value)

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> "Segment":
        if self.end_s <= self.start_s:
            rule = f"must be after start_s, which is {self.start_s:.12g}"
            raise ValueError(f"end_s is {self.end_s:.12g}, but {rule}; mend the times")
        return self


class Span(Protocol):
    """What somebody says from one time to another."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def speaker(self) -> str: ...


EachSpan = TypeVar("EachSpan", bound=Span)


def clashes(spans: Sequence[EachSpan]) -> tuple[list[tuple[EachSpan, EachSpan]], int]:
    """Of spans in order of time those that overlap with another of their speaker, with the first such, and a count.

    It is of those that begin while another speaker's goes on.
    """
    found: dict[int, EachSpan] = {}
    mixed: set[int] = set()
    for earlier, later in _overlaps(spans):
        if earlier.speaker == later.speaker:
            found.setdefault(id(earlier), later)
            found.setdefault(id(later), earlier)
        else:
            mixed.add(id(later))
    return [(span, found[id(span)]) for span in spans if id(span) in found], len(mixed)


def _overlaps(spans: Iterable[EachSpan]) -> Iterator[tuple[EachSpan, EachSpan]]:
    """Of each span those in which it begins, a speaker's longest; what rounding takes is none."""
    latest: dict[str, EachSpan] = {}
    for span in spans:
        yield from ((other, span) for other in latest.values() if other.end_s - span.start_s > MISSING_S)
        latest[span.speaker] = max(latest.get(span.speaker, span), span, key=lambda each: each.end_s)


class Placed(NamedTuple):
    """A row and where it stands."""

    at: At
    row: Row

    @property
    def start_s(self) -> float:
        return self.row.offset

    @property
    def end_s(self) -> float:
        """Of a segment, as it was given."""
        return round(self.row.offset + (self.row.duration or 0.0), 6)

    @property
    def speaker(self) -> str:
        return self.row.speaker


@dataclass
class Line:
    """The rows that a line stands for, what is wrong with it, and in how many segments two speakers are heard."""

    rows: list[Placed] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    mixed: int = 0


def read_line(file: object, number: int, values: Any) -> Line:
    """One row, or one for each segment as if it stood in a line of its own; a bad segment costs no other."""
    line, at = Line(), At(number)
    listed = listed_segments(values)
    if listed is None:
        try:
            line.rows.append(Placed(at, Row.model_validate(values)))
        except ValidationError as error:
            line.faults.append(Fault(place_of(file, at), problem(error)))
        return line
    row, wrong = _whole(values, listed)
    if wrong:
        line.faults.append(Fault(place_of(file, at), "; ".join(wrong)))
    found: list[Placed] = []
    for segment, each in enumerate(listed if isinstance(listed, list) else []):
        try:
            found.append(Placed(At(number, segment), _row(row, each)))
        except (ValidationError, ValueError) as error:
            line.faults.append(Fault(place_of(file, At(number, segment)), problem(error, "the segment")))
    if isinstance(row, Row):
        _settle(file, line, sorted(found, key=lambda each: (each.start_s, each.at)))
    return line


def listed_segments(values: Any) -> Any:
    """What stands under `segments`, or in a text that begins with a time; None where a line is a clip."""
    if not isinstance(values, dict):
        return None
    if values.get("segments") is not None:
        return values["segments"]
    text = values.get("text")
    return list(_in_text(text)) if isinstance(text, str) and _BEGINS_TIMED.match(text) else None


def _in_text(text: str) -> Iterator[dict[str, Any] | ValueError]:
    """The segments of `<|0.00|> Hello.<|2.40|><|2.80|> …`, or what is wrong with one."""
    _, *parts = _TIME.split(text)
    for i in range(0, len(parts), 4):
        start, said, *rest = parts[i : i + 4]
        if not rest:
            rule = "the text between two times is a segment"
            yield ValueError(f"<|{start}|> begins a segment that has no end, but {rule}; write its end behind it")
        elif rest[1].strip():
            rule = "the text between two times is a segment, and begins with one of its own"
            yield ValueError(f"{rest[1].strip()[:60]!r} stands behind the end, <|{rest[0]}|>, but {rule}; add its time")
        else:
            yield {"text": said.strip(), "start_s": float(start), "end_s": float(rest[0])}


def _whole(values: Mapping[str, Any], listed: Any) -> tuple[Row | None, list[str]]:
    """What the segments of a line have in common, and what is wrong with that."""
    wrong = []
    if not isinstance(listed, list):
        wrong.append(f"segments is {listed!r}, but must be a list")
    elif not listed:
        wrong.append("segments is empty; transcribe the recording, or remove the row")
    if values.get("segments") is not None and values.get("text") not in (None, ""):
        wrong.append("text and segments stand there both; keep the one that holds the times")
    if values.get("offset"):
        rule = "times of segments are those of the whole recording"
        wrong.append(f"offset is {values['offset']!r}, but {rule}; add it to them and take it out")
    shared = {key: value for key, value in values.items() if key not in ("segments", "offset")}
    try:
        return Row.model_validate(shared | {"text": ""}), wrong
    except ValidationError as error:
        return None, [problem(error), *wrong]


def _row(whole: Row | None, given: Any) -> Row:
    """The row that a segment stands for; ValueError or ValidationError."""
    if isinstance(given, ValueError):
        raise given
    segment = Segment.model_validate(given)
    own: dict[str, Any] = {"text": segment.text, "offset": segment.start_s}
    own["duration"] = round(segment.end_s - segment.start_s, 6)  # what subtraction leaves behind is no time
    if segment.speaker is not None:
        own["speaker"] = segment.speaker
    if segment.language:
        own["language"] = segment.language
    return (whole or Row(audio_filepath="-", text="")).model_copy(update=own)


def _settle(file: object, line: Line, said: list[Placed]) -> None:
    """Adds the rows, but those of one speaker that overlap, both of which are at fault."""
    found, line.mixed = clashes(said)
    bad = {one.at for one, _ in found}
    line.rows += sorted((each for each in said if each.at not in bad), key=lambda each: each.at)
    line.faults += [Fault(place_of(file, one.at), _clash(one, other)) for one, other in found]


def _clash(one: Placed, other: Placed) -> str:
    who = f"{one.speaker!r} says both" if one.speaker else "no speakers are named"
    own, others = (f"from {each.start_s:.2f} to {each.end_s:.2f} s" for each in (one, other))
    return f"lasts {own}, but segments[{other.at.segment}] {others}, and {who}; mend the times"


def with_segments(values: Mapping[str, Any], kept: Iterable[int]) -> dict[str, Any]:
    """The line with these segments alone; one that keeps them all is as it stands."""
    listed, numbers = listed_segments(values), sorted(kept)
    if listed is None or len(numbers) == len(listed):
        return dict(values)
    rest = {key: value for key, value in values.items() if key != "text"}
    return rest | {"segments": [listed[number] for number in numbers]}


def count_segments(line: bytes) -> int:
    """About how many rows a line stands for, without reading it."""
    return max(1, line.count(b'"start_s"'), line.count(b"<|") // 2)
