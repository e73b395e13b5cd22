"""Sentences as plain text, one a line: blank lines and `# …` are left out, `{term}` or `{KIND}` stands for terms."""

import re
from collections.abc import Iterator
from pathlib import Path

from wertune.base.text import Lexicon, Normalise
from wertune.synthesis.sentences import Sentence, fault_of_line, read_utf8, refuse_faults

_SLOT = re.compile(r"\{([^{}]*)\}")
_ANY_TERM = "term"


def read_plain_sentences(path: Path, letter: str, lexicon: Lexicon, normalise: Normalise) -> list[Sentence]:
    """The sentences, each named by `letter` and its line; `Ask for {term}.` gives a template's sentence for every term.

    A SynthesisError lists every line that has no word, repeats another or has a slot that no term fills; what templates
    would repeat is left out.
    """
    lines = list(_lines(path))
    faults, places = [], dict[str, int]()
    for number, text in lines:
        if fault := _fault_of_slots(text, lexicon) or fault_of_line(text, normalise(text), number, places):
            faults.append(f"{path}:{number}: {fault}")
    refuse_faults(path, faults, lines)
    seen = {normalise(text) for _, text in lines if not _SLOT.search(text)}
    return [
        sentence
        for number, text in lines
        for sentence in _sentences(f"{letter}{number:04}", text, lexicon, seen, normalise)
    ]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if (text := line.strip()) and not text.startswith("#"):
            yield number, text


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
