"""Aliases of the lexicon's terms written as the terms: "elder shield" as ElderShield, "C.P.F." as CPF.

A pure function of texts: what of a term's errors is spelling alone. Nothing that serves uses it.
"""

import re
from collections.abc import Callable
from itertools import pairwise

from wertune.base.text import Lexicon, bounded

_PARTS = re.compile(r"[ .\-]+")
# Between letters of a word at most one of these; after a dot of an abbreviation a blank may follow.
_BETWEEN, _BETWEEN_CAPITALS = r"[ .\-]?", r"(?:\. ?|[ \-])?"


def alias_writer(lexicon: Lexicon) -> Callable[[str], str]:
    """What writes each alias in a text, and each form that differs from a term in blanks, dots, hyphens or case alone,
    as its term.

    Words of capitals are found in capitals alone ("my mom" is no MOM), and nothing inside of a longer word. What is a
    term already stays, the longest form wins.
    """
    forms = {form: entry.term for entry in lexicon.terms for form in (entry.term, *entry.aliases) if _letters(form)}
    if not forms:
        return lambda text: text
    whole = {form.lower(): term for form, term in forms.items()}
    longest_first = sorted(forms, key=lambda form: len(_letters(form)), reverse=True)
    pattern = re.compile("|".join(f"({bounded(form.strip(' .-'), _form(form))})" for form in longest_first))

    def term_of(found: re.Match[str]) -> str:
        assert found.lastindex
        return whole.get(found[0].lower()) or forms[longest_first[found.lastindex - 1]]

    return lambda text: pattern.sub(term_of, text)


def _letters(text: str) -> str:
    return _PARTS.sub("", text)


def _form(form: str) -> str:
    """Finds a form however it is parted."""
    words = _PARTS.split(form.strip(" .-"))
    found = _word(words[0])
    for before, word in pairwise(words):
        found += (_BETWEEN_CAPITALS if before.isupper() else r"[ \-]?") + _word(word)
    # Of "C.P.F. is" the last dot is the abbreviation's; the last of a text ends the sentence too.
    return found + (r"(?:(?:(?<=\.\w)|(?<=\. \w))\.(?= ))?" if words[-1].isupper() else "")


def _word(word: str) -> str:
    letters = map(re.escape, word)
    return _BETWEEN_CAPITALS.join(letters) if word.isupper() else f"(?i:{_BETWEEN.join(letters)})"
