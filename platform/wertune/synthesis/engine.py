"""What a speech engine is: one small protocol, and what the engines behind it share."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wertune.base.errors import SynthesisError
from wertune.data.audio import Samples


@dataclass(frozen=True)
class Offer:
    """A voice that an engine has here; a speaker is a person (or a persona), whatever the engine."""

    name: str
    speaker: str
    licence: str
    speed: tuple[float, float] = (0.92, 1.08)


class Engine(Protocol):
    """One way of turning text into speech; a class of one's own is named in synthesis.yaml as `module:Class`."""

    def offers(self, language: str) -> Sequence[Offer]:
        """Its voices for Whisper's `language`, maybe none; a SynthesisError says what is to be installed."""
        ...

    def speak(self, text: str, voice: str, speed: float) -> tuple[Samples, int]:
        """(samples,) float32 mono and their rate, equal for equal arguments; a failure is a SynthesisError."""
        ...


def require(module: str, package: str) -> Any:
    """The module, or a SynthesisError that names the package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SynthesisError(f"{module} cannot be imported ({error}); pip install {package}") from None


def check_installed(module: str, package: str) -> None:
    """A SynthesisError where the module is not there; it is not imported, which may take seconds."""
    if importlib.util.find_spec(module) is None:
        raise SynthesisError(f"{module} is not installed; pip install {package}")
