"""What a loop is: the same tokens over and over at once, or a text that zlib shrinks by more than speech.

A number read back, a phrase said twice and "no, no, no" are none, and neither is any run of digits or letters that are
said one by one.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import cache

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


class LoopGuard:
    """Knows the tokens with which a text would repeat itself once too often; `decode` says what one token writes."""

    def __init__(self, decode: Callable[[int], str]) -> None:
        self._kind = cache(lambda token: _kind(decode(token)))

    def forbidden(self, tokens: Sequence[int]) -> set[int]:
        """The tokens that would complete one copy too many of what the text ends with."""
        found: set[int] = set()
        for size in range(1, (len(tokens) + 1) // 3 + 1):
            allowed = next((copies for longest, copies in ALLOWED if size <= longest), ALLOWED_OF_LONGER)
            if _repeated(tokens, size) >= allowed * size - 1:
                kinds = {self._kind(token) for token in tokens[-size:]}
                # Digits and letters with what stands between them are no loop.
                if "sign" not in kinds or "word" in kinds:
                    found.add(tokens[-size])
        return found

    def is_loop(self, tokens: Sequence[int]) -> bool:
        """Whether a whole text says anything at once more often than it may."""
        return any(tokens[end] in self.forbidden(tokens[:end]) for end in range(2, len(tokens)))


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


def _repeated(tokens: Sequence[int], size: int) -> int:
    """How many of the last tokens are each the same as the one `size` before it."""
    count = 0
    while count + size < len(tokens) and tokens[-1 - count] == tokens[-1 - count - size]:
        count += 1
    return count


def _kind(text: str) -> str:
    """`sign`: a number or a lone letter; `word`; or `between`, which is neither."""
    bare = text.strip()
    if bare.isnumeric() or (len(bare) == 1 and bare.isalpha() and not is_unspaced(bare)):
        return "sign"
    return "word" if any(map(str.isalnum, bare)) else "between"
