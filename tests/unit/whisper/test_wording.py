"""What the terms come to as tokens: the forms that are boosted, and a glossary as Whisper's own prompt."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from wertune.base.config import DecodeConfig
from wertune.whisper.boost import TermBoost
from wertune.whisper.model import Whisper
from wertune.whisper.wording import MAX_TOKENS_BEFORE, Wording

UNLIKELY = -100.0


class Letters:
    """A tokenizer whose tokens are letters."""

    all_special_ids: tuple[int, ...] = ()
    named = tuple(
        f"<|{name}|>"
        for name in ["endoftext", "startoftranscript", "transcribe", "notimestamps", "en", "zh", "ms", "th"]
    )

    def convert_tokens_to_ids(self, name: str) -> int:
        return self.named.index(name) if name in self.named else 0

    def convert_ids_to_tokens(self, number: int) -> str:
        return self.named[number]

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])


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


def _told(load_tiny: Callable[..., Whisper], *terms: str) -> Wording:
    whisper = load_tiny()
    return Wording(whisper.tokenizer, whisper.bare.generation_config, whisper.bare.config.vocab_size, "en", terms)


def test_a_glossary_is_the_prompt_that_transformers_makes(load_tiny: Callable[..., Whisper]) -> None:
    wording = _told(load_tiny, "CPF", "MediShield Life")
    assert wording.glossary.terms == ("CPF", "MediShield Life")
    assert list(wording.glossary.tokens) == wording.tokenizer.get_prompt_ids("CPF, MediShield Life").tolist()
    assert wording.rules(True, wording.glossary.tokens).before == wording.glossary.tokens


def test_a_glossary_ends_with_the_last_term_that_fits_whole(load_tiny: Callable[..., Whisper]) -> None:
    terms = [f"Majulah Package {number}" for number in range(100)]
    wording = _told(load_tiny, *terms)
    kept = len(wording.glossary.terms)
    assert wording.glossary.terms == tuple(terms[:kept])
    assert len(wording.glossary.tokens) <= MAX_TOKENS_BEFORE + 1
    one_more = wording.tokenizer.get_prompt_ids(", ".join(terms[: kept + 1]))
    assert len(one_more) > MAX_TOKENS_BEFORE + 1


@pytest.mark.parametrize("terms", [(), ("x " * 300,)])
def test_nothing_is_no_prompt(load_tiny: Callable[..., Whisper], terms: tuple[str, ...]) -> None:
    assert _told(load_tiny, *terms).glossary.tokens == ()
