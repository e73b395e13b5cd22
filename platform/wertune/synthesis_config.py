"""What `synthesis.yaml` may say: voices, channels, sizes of the splits, and human recordings beside them."""

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from wertune.config import Frozen

Domain = Literal["train", "validation", "test"]
EngineName = Literal["flite", "espeak", "festival", "hibari", "kokoro", "piper"]


class Voice(Frozen):
    """One voice of one engine; a speaker is a person (or a persona), who may have several voices."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    engine: EngineName
    name: str = Field(min_length=1, description="as the engine names it; espeak: accent+variant[:pitch]")
    speaker: str = Field(min_length=1)
    split: Domain
    licence: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0, description="its share of the split's clips, beside the other weights")
    speed: tuple[float, float] = (0.92, 1.08)


class Noise(Frozen):
    """Of the noisy clips, in dB, drawn uniformly."""

    low_snr_db: float = 10.0
    high_snr_db: float = 25.0


class Recordings(Frozen):
    """Human speech from outside the domain that a system package holds."""

    speaker: str = Field(min_length=1)
    folder: Path
    package: str = Field(min_length=1, description="the Debian package that installs the folder")
    transcripts: Path = Field(description="lines of FILE<TAB>TEXT; FILE is relative to the folder")
    licence: str = Field(min_length=1)
    only: Literal["retention_validation", "retention_test", "replay"] | None = None


class RetentionSizes(Frozen):
    """How many human recordings go where; what is left joins the replay split."""

    validation: int = Field(60, ge=1)
    test: int = Field(80, ge=1)
    replay: int = Field(350, ge=0, description="at most")
    replay_weight: int = Field(1, ge=1, le=100, description="of a human recording beside a synthetic one")


class ClipCounts(Frozen):
    """At least so many: every sentence is spoken once, and the first ones again by other speakers."""

    train: int = Field(ge=0)
    validation: int = Field(ge=0)
    test: int = Field(ge=0)
    replay: int = Field(ge=0)


class SynthesisConfig(Frozen):
    """`synthesis.yaml`."""

    seed: int = Field(0, ge=0)
    bitrate_kbps: float = Field(14.0, ge=6, le=128)
    validation_share: float = Field(0.09, gt=0, lt=1, description="of the sentences")
    test_share: float = Field(0.16, gt=0, lt=1)
    clips: ClipCounts
    telephone_share: float = Field(0.12, ge=0, le=1)
    noisy_share: float = Field(0.13, ge=0, le=1)
    noise: Noise = Noise()
    respell: dict[EngineName, dict[str, str]] = Field(
        {}, description="words of the lexicon's spoken forms that an engine misreads, as it needs them spelt"
    )
    voices: tuple[Voice, ...] = Field(min_length=3)
    recordings: tuple[Recordings, ...] = ()
    retention: RetentionSizes = RetentionSizes()

    @model_validator(mode="after")
    def _disjoint(self) -> "SynthesisConfig":
        splits: dict[str, str] = {}
        for voice in self.voices:
            if splits.setdefault(voice.speaker, voice.split) != voice.split:
                raise ValueError(f"speaker {voice.speaker} is in {splits[voice.speaker]} and {voice.split}; choose one")
        doubled = [name for name, count in Counter(voice.id for voice in self.voices).items() if count > 1]
        if doubled:
            raise ValueError(f"voices listed twice: {', '.join(doubled)}; give each its own id")
        if missing := {"train", "validation", "test"} - set(splits.values()):
            raise ValueError(f"no voice for {', '.join(sorted(missing))}; give each split a voice")
        return self
