"""The speech engines by name: the built-in ones, and classes of others as `module:Class`."""

import functools
import importlib
import re
from collections.abc import Iterable, Sequence
from typing import cast

from wertune.base.errors import SynthesisError
from wertune.synthesis.engine import Engine, Offer
from wertune.synthesis.neural_voices import HibariEngine, Kokoro, Piper
from wertune.synthesis.program_voices import Espeak, Festival, Flite, Pico, RHVoice

ENGINES: dict[str, Engine] = {
    "flite": Flite(),
    "espeak": Espeak(),
    "festival": Festival(),
    "hibari": HibariEngine(),
    "kokoro": Kokoro(),
    "piper": Piper(),
    "pico": Pico(),
    "rhvoice": RHVoice(),
}
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def known_engine(name: str) -> str:
    """The name, or a ValueError where it is neither an engine nor has the form of a class."""
    if name not in ENGINES and not _CLASS.fullmatch(name):
        rule = f"must be one of {', '.join(ENGINES)} or a class as module:Class"
        raise ValueError(f"engine is {name!r}, but {rule}; mend the name")
    return name


@functools.cache
def find_engine(name: str) -> Engine:
    """The engine, made once a process; SynthesisError where its class cannot be imported."""
    if name in ENGINES:
        return ENGINES[name]
    module, _, attribute = name.partition(":")
    try:
        engine = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        remedy = "put its folder on PYTHONPATH, or mend the name"
        raise SynthesisError(f"engine {name} cannot be imported ({error}); {remedy}") from None
    except TypeError as error:  # no class, or one that asks for more
        rule = "must be a class that is made without arguments"
        raise SynthesisError(f"engine is {name}, but {rule} ({error}); mend the name, or give them defaults") from None
    if absent := [method for method in ("offers", "speak") if not callable(getattr(engine, method, None))]:
        raise SynthesisError(
            f"engine {name} has no {' and no '.join(absent)}; see Engine in wertune/synthesis/engine.py"
        )
    return cast(Engine, engine)


def offered_voices(names: Iterable[str], language: str) -> tuple[dict[str, Sequence[Offer]], dict[str, str]]:
    """The voices of each engine that is installed, and of each other one why it is not used."""
    offered: dict[str, Sequence[Offer]] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            found = find_engine(name).offers(language)
        except SynthesisError as error:
            absent[name] = str(error)
            continue
        if found:
            offered[name] = found
        else:
            absent[name] = f"has no voice for language {language}"
    return offered, absent
