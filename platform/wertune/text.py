"""Text as it is scored: Whisper's normalisers and the lexicon's terms."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path

from pydantic import Field, model_validator

from wertune.config import Frozen, load_yaml

Normalise = Callable[[str], str]
_ABBREVIATION = re.compile(r"[A-Z]{2,5}")


@lru_cache(maxsize=2)
def normaliser(language: str) -> Normalise:
    """Whisper's English normaliser for `en`, its basic one otherwise (Radford et al. 2022, appendix C)."""
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()

    def clean(text: str) -> str:
        # Both turn "..." into a word "."; what has no letter and no digit is not a word.
        return " ".join(word for word in normalise(text).split() if any(map(str.isalnum, word)))

    return clean


def normaliser_version(language: str) -> str:
    """Name and version of the normaliser, to be logged beside every WER."""
    return f"whisper-normalizer {version('whisper-normalizer')} {'english' if language == 'en' else 'basic'}"


class Term(Frozen):
    """A word or words of the domain: as written, and as said for speech synthesis (see `said` where not given)."""

    term: str = Field(min_length=1, description="as it stands in transcripts")
    spoken: str | None = Field(
        None,
        min_length=1,
        description="as it is said, for speech synthesis: CPF is `see pee eff`; else abbreviations are spelt",
    )
    kind: str = Field("", description="for people: agency, scheme, system, …")
    meaning: str = Field("", description="for people")


def said(entry: Term, language: str) -> str:
    """The spoken form, or else the term with its words of two to five capitals spelt: "CPF" is said "C P F"."""
    letters = {"A": "ay"} if language == "en" else {}  # between other words engines take the letter for the article

    def say(word: str) -> str:
        spelt = _ABBREVIATION.fullmatch(word)
        return " ".join(letters.get(letter, letter) for letter in word) if spelt else word

    return entry.spoken or " ".join(map(say, entry.term.split()))


class Lexicon(Frozen):
    """The domain's terms; the longest match wins, so that `MediShield Life` is not also `MediShield`."""

    terms: tuple[Term, ...] = Field(description="words that are boosted while they are written, and counted")

    @model_validator(mode="after")
    def _distinct(self) -> "Lexicon":
        twice = [term for term, count in Counter(entry.term.lower() for entry in self.terms).items() if count > 1]
        if twice:
            raise ValueError(f"terms listed twice: {', '.join(sorted(twice))}; keep one entry for each")
        return self

    @property
    def written(self) -> tuple[str, ...]:
        """The terms as they stand in transcripts."""
        return tuple(entry.term for entry in self.terms)


class TermFinder:
    """Finds the terms of a lexicon in text; matching is on normalised words, so case and commas do not matter."""

    def __init__(self, terms: Iterable[str], normalise: Normalise) -> None:
        self._written = {words: term for term in terms if (words := normalise(term))}
        self._normalise = normalise

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._written, key=len, reverse=True)
        return re.compile(r"(?<!\S)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\S)")

    @cached_property
    def words(self) -> frozenset[str]:
        """Every normalised word of every term."""
        return frozenset(word for words in self._written for word in words.split())

    def find(self, text: str) -> Counter[str]:
        """How often each term occurs in `text`."""
        if not self._written:
            return Counter()
        return Counter(self._written[match] for match in self._pattern.findall(self._normalise(text)))


def load_lexicon(path: Path | None) -> Lexicon:
    """The project's lexicon; none given means no terms."""
    return Lexicon(terms=()) if path is None else load_yaml(path, Lexicon)
