"""How many tokens a clip may get."""

from wertune.base.config import DecodeConfig

SPARE_TOKENS = 8  # whatever the clip's length
LEAST_RATE = 10.0  # tokens a second: the fastest English
LEAST_TOKENS = 224
MOST_TOKENS = 448


def token_limit(duration_s: float, decode: DecodeConfig) -> int:
    """Enough for the fastest speech, few enough that a loop ends: Whisper repeats itself on silence.

    It follows the clip and not its padding, so that the base at 30 s of context is not charged with longer loops. What
    a configuration leaves to the transcripts, and nothing has filled in, is as for English.
    """
    rate = LEAST_RATE if decode.tokens_per_second is None else decode.tokens_per_second
    return min(decode.max_new_tokens or LEAST_TOKENS, SPARE_TOKENS + round(rate * duration_s))
