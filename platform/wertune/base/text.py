"""Text as it is scored: Whisper's normalisers and the lexicon's terms."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from wertune.base.config import Frozen, load_yaml
from wertune.base.kept import Kept, code_digest

Normalise = Callable[[str], str]
MOST_KNOWN = 1 << 17  # texts, some tens of MB
# Thai, Lao, Burmese, Khmer, kana and Han with their marks: between words of these scripts nobody writes a blank.
_UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
# The letters of such a script, and the punctuation that is as wide as they are (CJK symbols, fullwidth forms).
_CLOSED = re.compile(f"[{_UNSPACED}\u3000-\u3003\u3008-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_BLANK_OF_OURS = re.compile(f"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])")
# What nobody sees and no tokenizer takes for nothing: soft hyphens, zero-width blanks, byte-order marks, marks of
# direction, selectors of a letter's look, tags. The two joiners are letters' business in Persian and Indic scripts;
# scoring alone does without them.
_JOINERS = "\u200c\u200d"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e01ef]"
)
_BLANKS = re.compile(r"[^\S ]+| {2,}")
COMMAND = re.compile(r"<\|[^|<>\s]*\|>")
# Signs without which a term is another word: C++, C#, A*. A full stop counts before a term alone (.NET).
_SIGNS = "+#*&@%^~="
# Of Whisper's languages those in these scripts; Latin terms, too, stand in them without blanks.
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})


def joined(pieces: Iterable[str]) -> str:
    """The pieces of a long recording as one text: a blank between them, but none where its script writes none.

    A piece that begins or ends with a Latin word keeps its blank; the full stops of Han and kana are of their script.
    """
    text = ""
    for piece in pieces:
        closed = text and piece and _CLOSED.fullmatch(text[-1]) and _CLOSED.fullmatch(piece[0])
        text += piece if not text or not piece or closed else f" {piece}"
    return text


def invisible(text: str) -> list[str]:
    """The characters of the text that nobody sees, each once, as U+200B ZERO WIDTH SPACE."""
    return [sign_name(sign) for sign in sorted(set(_INVISIBLE.findall(text)))]


def sign_name(sign: str) -> str:
    """A character for people: U+200B ZERO WIDTH SPACE."""
    nameless = "(a control character)" if unicodedata.category(sign) == "Cc" else "without a name"
    return f"U+{ord(sign):04X} {unicodedata.name(sign, nameless)}"


def visible(text: str) -> str:
    """The text as it is seen: accents composed, without what is invisible, every run of blanks as one."""
    return _BLANKS.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFC", text))).strip()


def label_text(text: str, language: str) -> str:
    """A transcript as Whisper's own begin: with a blank (` My`), but where nobody writes blanks between words.

    Its first token is then the one that it has inside of a sentence too; an empty text stays empty.
    """
    text = visible(text)
    return f" {text}" if text and language not in UNSPACED_LANGUAGES else text


@lru_cache(maxsize=8)
def normaliser(language: str) -> "Normaliser":
    """Made once a process: what it knows of texts is everybody's."""
    return Normaliser(language)


class Normaliser:
    """Whisper's English normaliser for `en`, its basic one otherwise (Radford et al. 2022, appendix C).

    As there, each letter of a script without blanks is a word of its own, and WER is CER there; but what is Latin among
    them stays a word. Other than there, marks stay: without them Tamil and Thai lose vowels, and words fall apart.
    A text is worked out once, since that takes longer than all else that is done with it; `known` may say it, too.
    """

    def __init__(self, language: str) -> None:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer

        self._normalise = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(preserve_marks=True)
        self._way = f"{normaliser_version(language)} {code_digest(__file__)}"
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The text's words with a blank between them."""
        return self.known(text, None)

    def known(self, text: str, kept: Kept | None) -> str:
        """The same, from what was kept where it is there, and kept where it is not."""
        if (found := self._known.get(text)) is not None:
            return found
        name = json.dumps(["normalised", self._way, text]) if kept else ""
        found = kept.get(name) if kept else None
        if found is None:
            found = self._clean(text)
            if kept:
                kept.put(name, found)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[text] = found
        return found

    def _clean(self, text: str) -> str:
        seen = visible(text).translate(dict.fromkeys(map(ord, _JOINERS)))
        spaced = letter_by_letter(self._normalise(seen))
        # Both turn "..." into a word "."; what has no letter and no digit is not a word.
        return " ".join(word for word in spaced.split() if any(map(str.isalnum, word)))


def letter_by_letter(text: str) -> str:
    """The text with a blank beside each letter, marks with it, of a script that has none between words."""

    def spaced(run: re.Match[str]) -> str:
        return "".join(sign if is_mark(sign) else f" {sign}" for sign in run[0]) + " "

    return _UNSPACED_RUN.sub(spaced, text)


def is_mark(sign: str) -> bool:
    """Whether it belongs to the letter before it: a tone, a vowel, an accent."""
    return unicodedata.category(sign).startswith("M")


def closed_up(normalised: str) -> str:
    """A normalised text without the blanks that stand between letters of a script that has none."""
    return _BLANK_OF_OURS.sub("", normalised)


def is_unspaced(letter: str) -> bool:
    """Whether it is of a script that puts no blank between words."""
    return bool(_UNSPACED_RUN.match(letter))


def term_pattern(terms: Iterable[str]) -> re.Pattern[str]:
    """Finds the terms as they are written, the longest first, but not inside a longer word of a script with blanks.

    Beside a letter of a script without blanks any other may stand, but no mark that belongs to it.
    """
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile("|".join(bounded(term, re.escape(term)) for term in longest_first))


def bounded(written: str, pattern: str) -> str:
    """`pattern`, which finds what is `written` or like it, where it stands by itself as `term_pattern` says."""
    marks, own = _marks()
    before, after = rf"(?<![^\W{_UNSPACED}])(?<![{own}])", rf"(?![^\W{_UNSPACED}])"
    start, end = ("" if is_unspaced(sign) else bound for sign, bound in ((written[0], before), (written[-1], after)))
    return f"{start}(?:{pattern}){end}(?![{marks}])"


@lru_cache(maxsize=1)
def _marks() -> tuple[str, str]:
    """All marks, and those that are of no script without blanks."""
    marks = "".join(filter(is_mark, map(chr, range(0x300, 0x10000))))
    return marks, re.sub(f"[{_UNSPACED}]", "", marks)


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
    aliases: tuple[str, ...] = Field(
        (),
        description="other ways in which it is written: Kid's Start. Forms that differ in blanks, dots, hyphens or "
        "case alone are known",
    )

    @field_validator("term", "aliases")
    @classmethod
    def _is_seen(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """What nobody sees would never be found; accents and blanks become what labels and scores have."""
        if not isinstance(value, str):
            return tuple(map(_seen, value))
        return _seen(value)

    kind: str = Field("", description="for people: agency, scheme, system, …")
    meaning: str = Field("", description="for people")


def _seen(name: str) -> str:
    if hidden := invisible(name):
        raise ValueError(f"{name!r} holds {', '.join(hidden)}, which nobody sees; type the term anew")
    if COMMAND.search(name):
        raise ValueError(f"{name!r} holds a token of Whisper's own; name a word that people say")
    if not (seen := visible(name)):
        raise ValueError(f"{name!r} is blank; name a word that people say")
    return seen


def said(entry: Term, language: str) -> str:
    """The spoken form, or else the term with its words of two to five capitals spelt: "CPF" is said "C P F"."""
    letters = {"A": "ay"} if language == "en" else {}  # between other words engines take the letter for the article

    def say(word: str) -> str:
        spelt = 2 <= len(word) <= 5 and word.isalpha() and word.isupper()
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
        # As aliases are found: terms alone may differ in signs (C, C++), which are then counted as they are written.
        meant: dict[str, str] = {}
        for entry in self.terms:
            meant.setdefault(_letters(entry.term), entry.term)
        for entry in self.terms:
            for alias in entry.aliases:
                other = meant.setdefault(_letters(alias), entry.term)
                if other != entry.term:
                    raise ValueError(
                        f"{alias!r} is a name of two terms: {other}, {entry.term}; let each alias stand for one term"
                    )
        return self

    @property
    def written(self) -> tuple[str, ...]:
        """The terms as they stand in transcripts."""
        return tuple(entry.term for entry in self.terms)


def _letters(name: str) -> str:
    """What is compared where blanks, signs and case do not matter."""
    return "".join(filter(str.isalnum, name.casefold())) or name


class TermFinder:
    """Finds the terms of a lexicon in text; matching is on normalised words, so case and commas do not matter.

    Terms that the normaliser makes nothing of, one of (C, C++), or another word of (C#) are found `as_written`. Those
    that are `lost` are of punctuation alone, and never found.
    """

    def __init__(self, terms: Iterable[str], normalise: Normalise) -> None:
        terms = tuple(map(visible, terms))
        self._normalise = normalise
        shared = Counter(map(normalise, terms))
        findable = [term for term in terms if any(sign.isalnum() or sign in _SIGNS for sign in term)]
        self.lost = tuple(term for term in terms if term not in findable)
        self.as_written = tuple(t for t in findable if shared[normalise(t)] > 1 or _loses(t, normalise(t)))
        self._written = {normalise(term): term for term in findable if term not in self.as_written}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._written, key=len, reverse=True)
        return re.compile(r"(?<!\S)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\S)")

    @cached_property
    def _pattern_as_written(self) -> re.Pattern[str]:
        """A group a term, by which it is known: `re` finds more than one way to fold a letter's case."""
        beside = rf"[\w{re.escape(_SIGNS)}]"
        groups = "|".join(f"({re.escape(term)})" for term in self._longest_first)
        return re.compile(rf"(?<!{beside})(?:{groups})(?!{beside})", re.IGNORECASE)

    @cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.as_written, key=len, reverse=True)

    @cached_property
    def words(self) -> frozenset[str]:
        """Every normalised word of every term."""
        return frozenset(word for words in self._written for word in words.split())

    def find(self, text: str) -> Counter[str]:
        """How often each term occurs in `text`."""
        found = Counter[str]()
        if self._written:
            found.update(self._written[match] for match in self._pattern.findall(self._normalise(text)))
        if self.as_written:
            matches = self._pattern_as_written.finditer(visible(text))
            found.update(self._longest_first[match.lastindex - 1] for match in matches if match.lastindex)
        return found


def _loses(term: str, normalised: str) -> bool:
    """Whether a term's normalised words are not the term any more."""
    ends = term[0] in f"{_SIGNS}." or term[-1] in _SIGNS
    return not normalised or (ends and not any(sign in normalised for sign in _SIGNS))


def load_lexicon(path: Path | None) -> Lexicon:
    """The project's lexicon; none given means no terms."""
    return Lexicon(terms=()) if path is None else load_yaml(path, Lexicon)
