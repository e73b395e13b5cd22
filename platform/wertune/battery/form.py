"""`battery.yaml`: what a battery says, in which voices, and whose recordings join it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from wertune.base.config import LANGUAGES, Frozen
from wertune.base.faults import NAME
from wertune.synthesis.engines import known_engine

Part = Literal[
    "short_answers",
    "digits",
    "read_backs",
    "figures",
    "repeats",
    "spelled",
    "everyday",
    "questions",
    "hesitations",
    "nonspeech",
]
PARTS: tuple[Part, ...] = Part.__args__  # type: ignore[attr-defined]
PADDING_S = 0.3
_ENTITY = re.compile(r"\[([^\[\]|]+)(?:\|([^\[\]|]+))?\]")


class BatteryVoice(Frozen):
    """One voice of one engine; it should train no adapter that is measured with it."""

    id: str = Field(pattern=r"^[a-z0-9-]+$", description="in the names of its clips")
    engine: Annotated[str, AfterValidator(known_engine)] = Field(
        description="one that wertune has, or a class of one's own as module:Class"
    )
    name: str = Field(min_length=1, description="as the engine names it; espeak: accent+variant[:pitch]")
    speaker: str = Field(min_length=1, description="who is heard")
    licence: str = Field("", description="of the voice")
    speed: float = Field(1.0, gt=0.3, lt=3, description="1: as the engine speaks")


class SpokenPart(Frozen):
    """Texts of one part, as Whisper writes them; `[written|said]` marks what is checked letter by letter."""

    part: Part | None = Field(None, description="whose clips these are; the key where it is not given")
    per_text: int = Field(1, ge=1, description="in how many voices each text is spoken")
    padded: bool = Field(False, description="each clip trimmed, and again with 0.3 s of silence on both sides")
    texts: tuple[str, ...] = Field(
        min_length=1,
        description="[$300|three hundred dollars]: an entity and how it is said; [6225-5322] is read sign by sign",
    )


class People(Frozen):
    """People's recordings that a package holds."""

    source: str = Field(pattern=NAME, description="in manifest rows and in names of clips")
    folder: Path = Field(description="where the package puts them; relative to --recordings where that is given")
    package: str = Field(min_length=1, description="what installs the folder")
    licence: str = Field(min_length=1, description="of the recordings")
    transcripts: Path = Field(description="lines of FILE<TAB>PART<TAB>SPEAKER<TAB>TEXT beside this file")


class BatteryForm(Frozen):
    """`battery.yaml`."""

    language: str = Field("en", description="as Whisper names it", json_schema_extra={"enum": [*LANGUAGES]})
    seed: int = Field(0, ge=0, description="of who says what")
    bitrate_kbps: float = Field(16.0, ge=6, le=128, description="of the Opus clips")
    digits: tuple[str, ...] = Field((), description="how zero to nine are read out; else as the engine reads them")
    letters: Mapping[str, str] = Field({}, description="letters that an engine misreads, as it needs them spelt")
    voices: tuple[BatteryVoice, ...] = Field((), description="none given: all that the installed engines have")
    parts: Mapping[str, SpokenPart] = Field(description="by part; `short_answers`, `digits`, …")
    recordings: tuple[People, ...] = Field((), description="people beside the engines")
    sounds: bool = Field(True, description="clips in which nobody speaks, made by formula")

    @model_validator(mode="after")
    def _known(self) -> "BatteryForm":
        if self.language not in LANGUAGES:
            raise ValueError(f"language is {self.language!r}, but must be one of Whisper's: {', '.join(LANGUAGES)}")
        if self.digits and len(self.digits) != len("0123456789"):
            raise ValueError(f"digits has {len(self.digits)} words, but must have ten, for 0 to 9; complete it")
        if wrong := [key for key, spoken in self.parts.items() if (spoken.part or key) not in PARTS]:
            raise ValueError(f"parts has {wrong[0]!r}, but a part is one of {', '.join(PARTS)}; mend it or give `part`")
        ids = Counter(voice.id for voice in self.voices)
        if twice := [voice for voice, count in ids.items() if count > 1]:
            raise ValueError(f"voices has {twice[0]!r} twice, but sources.json has one licence an id; rename one")
        if not (self.parts or self.recordings or self.sounds):
            raise ValueError(
                "parts and recordings are empty and sounds is false, but a battery has a clip; give a part"
            )
        texts = [(key, text) for key, spoken in self.parts.items() for text in spoken.texts]
        if faults := [f"parts.{key}.texts has {text!r}, but {why}" for key, text in texts if (why := _wrong(text))]:
            raise ValueError("; ".join(faults))
        return self

    def lines(self) -> Iterator[tuple[Part, SpokenPart, "Line"]]:
        """Every text with its part, in the file's order."""
        for key, spoken in self.parts.items():
            part: Part = spoken.part or key  # type: ignore[assignment]  # checked above
            for text in spoken.texts:
                yield part, spoken, read_line(text, self.digits, self.letters)


def _wrong(marked: str) -> str:
    """What is wrong with a text, if anything."""
    if re.search(r"[\[\]]", _ENTITY.sub("", marked)):
        return "its brackets are no mark, such as [$300|three hundred dollars] or [41]; mend them"
    if not any(sign.isalnum() for sign in marked):
        return "nothing of it is said; write words, or take it out"
    return ""


@dataclass(frozen=True)
class Line:
    """A text as Whisper writes it, as it is said, and the entities in it as they are written."""

    text: str
    said: str
    entities: tuple[str, ...]


def read_line(marked: str, digits: Sequence[str], letters: Mapping[str, str]) -> Line:
    """The line that `marked` stands for; see SpokenPart."""

    def say(found: re.Match[str]) -> str:
        return found[2] or read_out(found[1], digits, letters)

    entities = tuple(found[1] for found in _ENTITY.finditer(marked))
    return Line(_ENTITY.sub(r"\1", marked), _ENTITY.sub(say, marked), entities)


def read_out(written: str, digits: Sequence[str], letters: Mapping[str, str]) -> str:
    """Sign by sign: "62-5K" is "six two, five K". Single letters between hyphens are one group."""
    groups = [written.replace("-", "")] if re.fullmatch(r"\w(-\w)+", written) else re.split(r"[\s-]+", written)

    def say(sign: str) -> str:
        return digits[int(sign)] if digits and sign.isdecimal() else letters.get(sign, sign)

    return ", ".join(" ".join(map(say, group)) for group in groups if group)
