"""How many tokens a clip may get: what the transcripts need, in their script and with this tokenizer."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wertune.base.config import DecodeConfig, TrialConfig
from wertune.base.errors import ConfigError
from wertune.data.manifest import Recording
from wertune.whisper.loops import LEAST_RATE, LEAST_TOKENS, MOST_TOKENS, SPARE_TOKENS, token_limit

ROOM = 1.25  # what a text may have beyond the densest transcript: others will be spoken faster
SHOWN = 3


@dataclass(frozen=True)
class Need:
    """A recording and the tokens that writing its text takes, the end included."""

    recording: Recording
    tokens: int

    @property
    def per_second(self) -> float:
        """Beyond those that any clip gets."""
        return (self.tokens - SPARE_TOKENS) / self.recording.duration_s

    def __str__(self) -> str:
        return f"{self.recording.place} ({self.tokens} tokens in {self.recording.duration_s:.1f} s)"


@dataclass(frozen=True)
class Limits:
    """The limits that were not given, as the transcripts have them, and the densest of these."""

    max_new_tokens: int
    tokens_per_second: float
    densest: Need | None

    @property
    def told(self) -> str:
        """A line where the texts need more than English speech does; else nothing."""
        if self.densest is None or self.tokens_per_second <= LEAST_RATE:
            return ""
        return f"texts may have {self.tokens_per_second:g} tokens a second: {self.densest} needs the most"

    def fill(self, trial: TrialConfig) -> TrialConfig:
        """The trial with numbers for what its configuration leaves to the transcripts."""
        found = trial.decode
        values = {
            "max_new_tokens": found.max_new_tokens or self.max_new_tokens,
            "tokens_per_second": found.tokens_per_second or self.tokens_per_second,
        }
        return trial.model_copy(update={"decode": found.model_copy(update=values)})


def needs_of(recordings: Iterable[Recording], tokens_of: Callable[[str], int]) -> list[Need]:
    """`tokens_of` says how many tokens writing a text takes."""
    return [Need(recording, tokens_of(recording.text)) for recording in recordings]


def limits_of(needs: Sequence[Need]) -> Limits:
    """Room for every text and a quarter more; never less than English speech needs, so that its limits stay."""
    densest = max(needs, key=lambda need: need.per_second, default=None)
    longest = max((need.tokens for need in needs), default=0)
    rate = max(LEAST_RATE, math.ceil(ROOM * densest.per_second) if densest and densest.per_second > LEAST_RATE else 0.0)
    return Limits(min(MOST_TOKENS, max(LEAST_TOKENS, math.ceil(ROOM * longest))), rate, densest)


def check_limits(decode: DecodeConfig, needs: Sequence[Need]) -> None:
    """ConfigError where a reference has more tokens than `decode` lets a clip of its length have: it would be cut."""
    cut = [need for need in needs if need.tokens > token_limit(need.recording.duration_s, decode)]
    if not cut:
        return
    worst = max(cut, key=lambda need: need.per_second)
    shown = ", ".join(map(str, sorted(cut, key=lambda need: -need.per_second)[:SHOWN]))
    more = f" and {len(cut) - SHOWN} more" if len(cut) > SHOWN else ""
    limits = f"decode.tokens_per_second is {decode.tokens_per_second:g} and max_new_tokens {decode.max_new_tokens}"
    wanted = limits_of(needs)
    raise ConfigError(
        f"{limits}, but the text of {shown}{more} has more tokens than a clip of its length may get, and would be cut; "
        f"leave both out, so that the transcripts say them, or set them to {wanted.tokens_per_second:g} and "
        f"{wanted.max_new_tokens} ({worst.recording.place} needs the most a second)"
    )
