"""The sentences to be spoken: read, said as the lexicon says its terms, and split so that nothing leaks.

As plain text one a line: blank lines and `# …` are left out, `{term}` or `{KIND}` stands for terms.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from wertune.base.config import Frozen, faults_of
from wertune.base.errors import SynthesisError
from wertune.base.text import Lexicon, Normalise, normaliser, said, term_pattern
from wertune.synthesis.config import SynthesisConfig

MIN_TRAIN_SENTENCES = 3
_SLOT = re.compile(r"\{([^{}]*)\}")
_ANY_TERM = "term"


class Sentence(Frozen):
    """One line of sentences.jsonl or general.jsonl, or what a line of their .txt holds."""

    id: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")  # begins the names of its clips
    text: str = Field(min_length=1)
    kind: Literal["natural", "template"] = "natural"
    template: str | None = None
    spoken: str | None = Field(None, min_length=1)  # what the voices say where the text holds figures; terms stay terms
    split: Literal["train", "validation", "test", "final", "replay"] | None = None  # drawn where it is not given
    takes: int = Field(1, ge=1, le=8)  # speakers who say it; only with a split of its own
    margin_s: float | None = Field(None, ge=0, le=1)  # silence at either end; drawn where it is not given

    @field_validator("spoken")
    @classmethod
    def _in_words(cls, value: str | None) -> str | None:
        if value and any(letter.isdigit() for letter in value):
            raise ValueError(f"spoken is {value!r}, but engines read figures each their own way; write them as words")
        return value

    @model_validator(mode="after")
    def _takes_are_of_a_split(self) -> Self:
        if self.takes > 1 and self.split is None:
            raise ValueError(f"takes is {self.takes}, but how often a drawn sentence is said follows clips; give split")
        return self


class Speller:
    """Finds the lexicon's terms as they are written, case and all, and says them as the lexicon says them."""

    def __init__(self, lexicon: Lexicon, language: str = "en") -> None:
        self._spoken = {entry.term: said(entry, language) for entry in lexicon.terms}
        self._pattern = term_pattern(self._spoken)

    def spoken(self, text: str, respell: Mapping[str, str] | None = None) -> str:
        """`text` with each term in its spoken form, those words respelt; all else, punctuation too, stays."""

        def say(match: re.Match[str]) -> str:
            return " ".join((respell or {}).get(word, word) for word in self._spoken[match[0]].split())

        return self._pattern.sub(say, text) if self._spoken else text

    @property
    def written(self) -> tuple[str, ...]:
        """All terms, in the lexicon's order."""
        return tuple(self._spoken)

    def terms(self, text: str) -> tuple[str, ...]:
        """The terms in `text`, each once, in their order."""
        return tuple(dict.fromkeys(self._pattern.findall(text))) if self._spoken else ()


def load_sentences(path: Path, language: str = "en") -> list[Sentence]:
    """The file's sentences; a SynthesisError lists every line that is not one, has no word or repeats another."""
    sentences, faults = [], []
    ids, texts = dict[str, int](), dict[str, int]()
    normalise = normaliser(language)
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            sentence = Sentence.model_validate_json(line)
        except ValidationError as error:
            faults.append(faults_of(error, place))
            continue
        found = (
            _fault_of_line(sentence.id, sentence.id, number, ids),
            _fault_of_line(sentence.text, normalise(sentence.text), number, texts),
        )
        faults += [f"{place}: {fault}" for fault in found if fault]
        sentences.append(sentence)
    _refuse_faults(path, faults, sentences)
    return sentences


def read_plain_sentences(path: Path, letter: str, lexicon: Lexicon, normalise: Normalise) -> list[Sentence]:
    """The sentences, each named by `letter` and its line; `Ask for {term}.` gives a template's sentence for every term.

    A SynthesisError lists every line that has no word, repeats another or has a slot that no term fills; what templates
    would repeat is left out.
    """
    numbered = enumerate(map(str.strip, read_utf8(path).splitlines()), 1)
    lines = [(number, text) for number, text in numbered if text and not text.startswith("#")]
    faults, places = [], dict[str, int]()
    for number, text in lines:
        if fault := _fault_of_slots(text, lexicon) or _fault_of_line(text, normalise(text), number, places):
            faults.append(f"{path}:{number}: {fault}")
    _refuse_faults(path, faults, lines)
    seen = {normalise(text) for _, text in lines if not _SLOT.search(text)}
    return [
        sentence
        for number, text in lines
        for sentence in _sentences(f"{letter}{number:04}", text, lexicon, seen, normalise)
    ]


def _fault_of_slots(text: str, lexicon: Lexicon) -> str:
    slots = _SLOT.findall(text)
    known = sorted({_ANY_TERM, *(entry.kind for entry in lexicon.terms if entry.kind)})
    if len(slots) > 1:
        return f"{text!r} has {len(slots)} slots, but one is the most; write a template for each"
    if slots and not lexicon.terms:
        return f"{text!r} has a slot, but the project has no term; write lexicon.yaml"
    if slots and not _terms(slots[0], lexicon):
        return f"{{{slots[0]}}} fits no term of the lexicon; take one of {', '.join(f'{{{name}}}' for name in known)}"
    return ""


def _terms(slot: str, lexicon: Lexicon) -> list[str]:
    return [entry.term for entry in lexicon.terms if slot in (_ANY_TERM, entry.kind) and slot]


def _sentences(name: str, text: str, lexicon: Lexicon, seen: set[str], normalise: Normalise) -> Iterator[Sentence]:
    """The line's sentence, or its template's with those terms that say nothing said before; adds to `seen`."""
    slot = _SLOT.search(text)
    if slot is None:
        yield Sentence(id=name, text=text)
        return
    for number, term in enumerate(_terms(slot[1], lexicon), 1):
        filled = text.replace(slot[0], term)
        if (key := normalise(filled)) not in seen:
            seen.add(key)
            yield Sentence(id=f"{name}-{number:03}", text=filled, kind="template", template=name)


def read_utf8(path: Path) -> str:
    """The file's text; another encoding is a SynthesisError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SynthesisError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from None


def _fault_of_line(text: str, key: str, number: int, seen: dict[str, int]) -> str:
    """Whether `key`, the text as it is compared, is empty or `seen` in another line; adds to `seen`."""
    if not key:
        return f"{text!r} has no word; remove the line"
    if (earlier := seen.setdefault(key, number)) != number:
        return f"{text!r} stands in line {earlier} already; remove one of the two"
    return ""


def _refuse_faults(path: Path, faults: Sequence[str], sentences: Collection[object]) -> None:
    """A SynthesisError with all faults, or because there is no sentence."""
    if not faults and not sentences:
        raise SynthesisError(f"{path} holds no sentence; write one a line")
    if faults:
        raise SynthesisError("\n".join(faults))


def split_sentences(
    sentences: Sequence[Sentence], speller: Speller, config: SynthesisConfig
) -> dict[str, list[Sentence]]:
    """Sentences that name their split, in it; of the others, test and validation take natural ones, at most half.

    Where there are enough of them, test covers every term, growing for it, and three training sentences are left to
    each. SynthesisError where a split is empty, and with `missing_term: stop` where a term has fewer.
    """
    drawn = [sentence for sentence in sentences if sentence.split is None]
    order = np.random.default_rng(config.seed).permutation(len(drawn))
    pool = {drawn[i].id: drawn[i] for i in order if drawn[i].kind == "natural"}
    terms = {sentence.id: speller.terms(sentence.text) for sentence in sentences}
    left = Counter(term for sentence in drawn for term in terms[sentence.id])
    kept = {term: min(MIN_TRAIN_SENTENCES, max(1, count - 1)) for term, count in left.items()}
    chosen: dict[str, str] = {}
    shares = {"test": config.test_share, "validation": config.validation_share}
    most = {split: max(1, int(share / sum(shares.values()) * len(pool) / 2)) for split, share in shares.items()}
    for split, share in shares.items():
        count = max(1, min(round(share * len(drawn)), most[split]))
        chosen |= dict.fromkeys(_pick(pool, terms, left, kept, count, cover=split == "test"), split)
    splits: dict[str, list[Sentence]] = {"train": [], "validation": [], "test": []}
    for sentence in sentences:
        splits.setdefault(sentence.split or chosen.get(sentence.id, "train"), []).append(sentence)
    if empty := [split for split, found in splits.items() if not found]:
        rule = "each split needs sentences of its own, and test and validation take none out of templates"
        remedy = "add sentences without {…}, so that each term stands in five or more"
        raise SynthesisError(f"no sentence is left for {', '.join(empty)}, but {rule}; {remedy}")
    if config.missing_term == "stop":
        _check_coverage(splits, terms, speller.written)
    return splits


def _pick(
    pool: dict[str, Sentence],
    terms: Mapping[str, tuple[str, ...]],
    left: Counter[str],
    kept: Mapping[str, int],
    count: int,
    cover: bool,
) -> list[str]:
    """Moves `count` sentences out of `pool`, the ones with the terms least picked so far first.

    Of each term, as many sentences as `kept` says stay; with `cover`, it goes on for terms that were not picked yet.
    """
    seen: Counter[str] = Counter()
    picked: list[str] = []
    while len(picked) < count or cover:
        free = [key for key in pool if all(left[term] > kept[term] for term in terms[key])]
        if len(picked) >= count:
            free = [key for key in free if not all(seen[term] for term in terms[key])]
        if not free:
            break
        # The mean, so that long lists gain nothing; the first of equals, in the drawn order.
        needs = {key: np.mean([1 / (1 + seen[term]) for term in terms[key]]) if terms[key] else 0.25 for key in free}
        best = max(free, key=needs.__getitem__)
        seen.update(terms[best])
        left.subtract(terms[best])
        picked.append(best)
        del pool[best]
    return picked


def _check_coverage(
    splits: Mapping[str, Sequence[Sentence]], terms: Mapping[str, tuple[str, ...]], known: Iterable[str]
) -> None:
    counts = {split: Counter(term for sentence in splits[split] for term in terms[sentence.id]) for split in splits}
    faults = [f"{term} has no test sentence" for term in known if not counts["test"][term]]
    faults += [
        f"{term} has {counts['train'][term]} training sentences, but needs {MIN_TRAIN_SENTENCES}"
        for term in known
        if counts["train"][term] < MIN_TRAIN_SENTENCES
    ]
    if faults:
        raise SynthesisError("sentences.jsonl: " + "; ".join(faults) + "; add natural sentences with these terms")
