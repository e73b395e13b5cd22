"""What a loop is: the same tokens over and over at once, or a text that zlib shrinks by more than speech.

A number read back, a phrase said twice and "no, no, no" are none, and neither is any run of digits or letters that are
said one by one. What is none of these ends with the tokens that a clip may get.
"""

import zlib
from collections.abc import Iterable, Sequence

from wertune.base.config import DecodeConfig
from wertune.base.text import is_unspaced

# Whisper's own (Radford et al. 2022, section 4.5), and that of the gate on loops.
MAX_COMPRESSION_RATIO = 2.4
# Decoded again, what loops all the same may not say so many tokens in a row twice.
LAST_RESORT_NGRAM = 6
# Tokens of a unit, and how often it may be said at once: "no, no, no, no, no, no" and "thank you, thank you, thank you"
# are meant at times; a whole sentence is said twice, but not three times over.
ALLOWED = ((2, 6), (8, 3))
ALLOWED_OF_LONGER = 2
# Of the limit on a clip's tokens.
SPARE_TOKENS = 8  # whatever the clip's length
LEAST_RATE = 10.0  # tokens a second: the fastest English
LEAST_TOKENS = 224
MOST_TOKENS = 448
# What a token writes: a number or a lone letter; a word; or what stands between them.
BETWEEN, SIGN, WORD = 0, 1, 2


class LoopGuard:
    """Knows when a text repeats itself once too often, by what each token of the vocabulary writes alone."""

    def __init__(self, written: Iterable[str]) -> None:
        self.kinds = bytearray(map(_kind, written))

    def is_loop(self, tokens: Sequence[int]) -> bool:
        """Whether a whole text says anything at once more often than it may."""
        for size in range(1, len(tokens) // 3 + 1):
            same = 0
            for end in range(size, len(tokens)):
                same = same + 1 if tokens[end] == tokens[end - size] else 0
                if same >= allowed(size) * size and self._counts(tokens[end + 1 - size : end + 1]):
                    return True
        return False

    def _counts(self, unit: Sequence[int]) -> bool:
        """Digits and letters with what stands between them are no loop."""
        return max(self.kinds[token] for token in unit) != SIGN


def allowed(size: int) -> int:
    """How often so many tokens may be said at once."""
    return next((copies for longest, copies in ALLOWED if size <= longest), ALLOWED_OF_LONGER)


def token_limit(duration_s: float, decode: DecodeConfig) -> int:
    """Enough for the fastest speech, few enough that a loop ends: Whisper repeats itself on silence.

    It follows the clip and not its padding, so that the base at 30 s of context is not charged with longer loops. What
    a configuration leaves to the transcripts, and nothing has filled in, is as for English.
    """
    rate = LEAST_RATE if decode.tokens_per_second is None else decode.tokens_per_second
    return min(decode.max_new_tokens or LEAST_TOKENS, SPARE_TOKENS + round(rate * duration_s))


def last_resort(decode: DecodeConfig) -> DecodeConfig:
    """The settings with which a text that loops is written again."""
    size = min(decode.no_repeat_ngram or LAST_RESORT_NGRAM, LAST_RESORT_NGRAM)
    return decode.model_copy(update={"no_repeat_ngram": size})


def shrinks(text: str) -> bool:
    """Whether zlib shrinks the text by more than it does speech."""
    return compression_ratio(text) > MAX_COMPRESSION_RATIO


def compression_ratio(text: str) -> float:
    """Bytes of the text over its bytes compressed by zlib."""
    return len(text.encode()) / len(zlib.compress(text.encode()))


def _kind(text: str) -> int:
    bare = text.strip()
    if bare.isnumeric() or (len(bare) == 1 and bare.isalpha() and not is_unspaced(bare)):
        return SIGN
    return WORD if any(map(str.isalnum, bare)) else BETWEEN
