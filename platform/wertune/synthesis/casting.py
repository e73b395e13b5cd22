"""Who speaks in which split, where synthesis.yaml names no voices: what the engines have, divided by speakers. Pure."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wertune.base.errors import SynthesisError
from wertune.synthesis.config import Domain, Voice
from wertune.synthesis.engine import Offer

_SPLITS: tuple[Domain, ...] = ("train", "validation", "test")
# Of each engine's speakers, in the drawn order.
_TURNS: tuple[Domain, ...] = ("train", "test", "validation", "train", "train")


def cast_voices(offered: Mapping[str, Sequence[Offer]], seed: int) -> tuple[Voice, ...]:
    """Every voice in one split, all voices of a speaker in the same; each engine speaks as much as the next one.

    SynthesisError where there are fewer than three speakers.
    """
    splits = _splits_of_speakers(offered, seed)
    voices = [(engine, offer, splits[offer.speaker]) for engine, offers in offered.items() for offer in offers]
    counts = Counter((engine, split) for engine, _, split in voices)
    return tuple(
        Voice(
            id=f"{slug(engine.rpartition(':')[2])}-{slug(offer.name)}",
            engine=engine,
            name=offer.name,
            speaker=offer.speaker,
            split=split,
            licence=offer.licence,
            weight=round(1 / counts[engine, split], 6),
            speed=offer.speed,
        )
        for engine, offer, split in voices
    )


def _splits_of_speakers(offered: Mapping[str, Sequence[Offer]], seed: int) -> dict[str, Domain]:
    splits: dict[str, Domain] = {}
    for engine, offers in offered.items():
        own = [name for name in dict.fromkeys(offer.speaker for offer in offers) if name not in splits]
        drawn = np.random.default_rng([seed, *engine.encode()]).permutation(len(own))
        splits |= {own[i]: _TURNS[turn % len(_TURNS)] for turn, i in enumerate(drawn)}
    if len(splits) < len(_SPLITS):
        noun = "speaker" if len(splits) == 1 else "speakers"
        found = f"{len(splits)} {noun} ({', '.join(splits)})" if splits else "no speaker"
        raise SynthesisError(
            f"the engines have {found}, but each of three splits needs its own; install another engine"
        )
    for split in _SPLITS:
        if split not in splits.values():
            most, _ = Counter(splits.values()).most_common(1)[0]
            splits[[speaker for speaker, at in splits.items() if at == most][-1]] = split
    return splits


def slug(name: str) -> str:
    """Small letters and digits with a hyphen between: what may stand in the name of a voice and of its clips."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
