"""Which forms of a term are boosted: with the space that words begin with, and without it where there is none."""

from types import SimpleNamespace

import pytest

from wertune.boost import TermBoost
from wertune.config import DecodeConfig
from wertune.wording import Wording

UNLIKELY = -100.0


class Letters:
    """A tokenizer whose tokens are letters."""

    all_special_ids: tuple[int, ...] = ()

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])

    def set_prefix_tokens(self, language: str, task: str) -> None:
        """A real one writes language and task before a text."""


def _boost(language: str, *terms: str) -> TermBoost:
    wording = Wording(Letters(), SimpleNamespace(is_multilingual=True), 1 << 17, language, terms)  # type: ignore[arg-type]
    boost = wording.boost(DecodeConfig(term_boost=1.0))
    assert boost is not None
    return boost


@pytest.mark.parametrize(
    ("language", "term", "text", "gained"),
    [
        ("en", "CPF", "my CPF", 4),
        ("en", "CPF", "myCPF", 0),
        ("zh", "公积金", "我的公积金", 3),
        ("zh", "公积金", "我的 公积金", 4),
        ("zh", "CPF", "我的CPF", 3),
        ("ms", "公积金", "我的公积金", 3),
        ("th", "ภาษี", "เสียภาษี", 4),
    ],
)
def test_a_term_gains_as_it_is_written(language: str, term: str, text: str, gained: int) -> None:
    assert _boost(language, term).total(map(ord, text), UNLIKELY) == gained
