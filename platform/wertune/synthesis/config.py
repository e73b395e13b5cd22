"""What `synthesis.yaml` may say: voices, channels, sizes of the splits, and human recordings beside them."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from wertune.base.config import Frozen
from wertune.synthesis.engines import known_engine

Domain = Literal["train", "validation", "test", "final"]
EngineName = Annotated[str, AfterValidator(known_engine)]
MissingTerm = Literal["report", "stop"]
_CLIPS = "at least; each sentence by three speakers where it is not given"

# The letter A of an abbreviation is said "ay", which these engines read as "eye".
_RESPELL = {"espeak": {"ay": "eigh"}, "hibari": {"ay": "eh"}, "kokoro": {"ay": "eh"}, "piper": {"ay": "eigh"}}


class Voice(Frozen):
    """One voice of one engine; a speaker is a person (or a persona), who may have several voices."""

    id: str = Field(pattern=r"^[a-z0-9-]+$", description="in the names of its clips and in manifests")
    engine: EngineName = Field(description="one that wertune has, or a class of one's own as module:Class")
    name: str = Field(min_length=1, description="as the engine names it; espeak: accent+variant[:pitch]")
    speaker: str = Field(min_length=1, description="who is heard; nobody is in two splits")
    split: Domain = Field(description="where it speaks; voices of train say replay, too")
    licence: str = Field(min_length=1, description="of the voice, for the report")
    weight: float = Field(1.0, gt=0, description="its share of the split's clips, beside the other weights")
    speed: tuple[float, float] = Field((0.92, 1.08), description="drawn between the two; 1: as the engine speaks")


class Noise(Frozen):
    """Of the noisy clips, in dB, drawn uniformly."""

    low_snr_db: float = Field(10.0, description="the loudest noise: so far below the speech")
    high_snr_db: float = Field(25.0, description="the faintest noise")


class Recordings(Frozen):
    """Human speech from outside the domain that a system package holds."""

    speaker: str = Field(pattern=r"^[^/\\]+$", description="who is heard; begins the names of the clips")
    folder: Path = Field(description="where the package puts them; relative to the project")
    package: str = Field(min_length=1, description="the Debian package that installs the folder")
    unpack: str = Field("", description="the command that makes the folder of what the package holds")
    transcripts: Path = Field(
        description="lines of FILE<TAB>TEXT, and <TAB>SPEAKER where it is another; FILE is relative to the folder"
    )
    licence: str = Field(min_length=1, description="of the recordings, for people")
    only: Literal["retention_validation", "retention_test", "replay"] | None = Field(
        None, description="the one split that they may join; any of the three where it is not given"
    )
    whole: bool = Field(False, description="all of them join it, beside the numbers that `retention` gives")

    @model_validator(mode="after")
    def _whole_joins_one(self) -> "Recordings":
        if self.whole and self.only is None:
            raise ValueError(f"whole is true for {self.transcripts}, but no split is named; give `only`")
        return self


class RetentionSizes(Frozen):
    """How many human recordings go where, and where what is left goes."""

    validation: int = Field(60, ge=1, description="recordings in retention_validation, at most")
    test: int = Field(80, ge=1, description="recordings in retention_test, at most")
    rest: Literal["replay", "retention_test"] = Field(
        "replay", description="what is left; retention_test: who says retention is nowhere in replay"
    )
    replay: int = Field(350, ge=0, description="recordings in replay, at most, where the rest goes there")
    replay_weight: int = Field(1, ge=1, le=100, description="of a human recording beside a synthetic one")


class ClipCounts(Frozen):
    """At least so many: every sentence is spoken once, and the first ones again by other speakers.

    Where no number is given, three speakers say each sentence of the domain, and one each of replay.
    """

    train: int | None = Field(None, ge=0, description=_CLIPS)
    validation: int | None = Field(None, ge=0, description=_CLIPS)
    test: int | None = Field(None, ge=0, description=_CLIPS)
    replay: int | None = Field(None, ge=0, description="at least; each sentence once where it is not given")


class SynthesisConfig(Frozen):
    """`synthesis.yaml`; without one, or with an empty one, these are the values."""

    seed: int = Field(0, ge=0, description="of the cast, the splits, and what is drawn for each clip")
    bitrate_kbps: float = Field(14.0, ge=6, le=128, description="of the Opus clips")
    validation_share: float = Field(0.09, gt=0, lt=1, description="of the sentences")
    test_share: float = Field(0.16, gt=0, lt=1, description="of the sentences; more where a term needs it")
    clips: ClipCounts = ClipCounts()
    telephone_share: float = Field(0.12, ge=0, le=1, description="of each split's clips, as over the telephone")
    noisy_share: float = Field(0.13, ge=0, le=1, description="of each split's clips, with noise behind the speech")
    noise: Noise = Noise()
    respell: dict[EngineName, dict[str, str]] = Field(
        _RESPELL, description="words of the lexicon's spoken forms that an engine misreads, as it needs them spelt"
    )
    sentences: Path | None = Field(None, description="sentences.jsonl or sentences.txt where it is not given")
    general: Path | None = Field(None, description="everyday sentences for replay: general.jsonl or .txt, or none")
    missing_term: MissingTerm = Field(
        "report", description="of a term without a test sentence or with fewer than three training sentences"
    )
    engines: tuple[EngineName, ...] = Field((), description="whose voices are cast; none given: all that are installed")
    voices: tuple[Voice, ...] = Field((), description="none given: cast from what the engines have")
    recordings: tuple[Recordings, ...] = Field((), description="people's everyday speech, for retention and replay")
    retention: RetentionSizes = RetentionSizes()

    @model_validator(mode="after")
    def _disjoint(self) -> "SynthesisConfig":
        if self.voices and self.engines:
            raise ValueError("both voices and engines are given, but engines are cast where no voices are; remove one")
        splits: dict[str, str] = {}
        for voice in self.voices:
            if splits.setdefault(voice.speaker, voice.split) != voice.split:
                raise ValueError(f"speaker {voice.speaker} is in {splits[voice.speaker]} and {voice.split}; choose one")
        doubled = [name for name, count in Counter(voice.id for voice in self.voices).items() if count > 1]
        if doubled:
            raise ValueError(f"voices listed twice: {', '.join(doubled)}; give each its own id")
        if self.voices and (missing := {"train", "validation", "test"} - set(splits.values())):
            raise ValueError(f"no voice for {', '.join(sorted(missing))}; give each split a voice")
        return self
