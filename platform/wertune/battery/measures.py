"""What goes wrong in ordinary speech, as counts of one text beside its reference: functions of texts alone."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import jiwer

from wertune.base.text import Normalise, TermFinder, letter_by_letter, term_pattern
from wertune.scores.metrics import EditCounts, count_word_edits

MIN_SKIPPED_WORDS = 3
LOOP_RATIO = 2.4  # Whisper's own (Radford et al. 2022, section 4.5): a text that compresses better repeats itself
_PAUSE = re.compile(r"[,;.?!…]+(?=\s|$)")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_SPELT = re.compile(r"\w(?:-\w)+")
_NUMBER = re.compile(r"(?<!\w)[$£€]?\d[\d,.:]*(?:-\d+)*[A-Za-z]?(?:%|(?<=\d)(?:st|nd|rd|th)\b)?")


def formatted_edits(reference: str, hypothesis: str) -> EditCounts:
    """Edits between the words as they are written: case, punctuation and the form of numbers count."""
    written = (" ".join(letter_by_letter(text).split()) for text in (reference, hypothesis))
    return count_word_edits(*written)


def entities_in(text: str) -> tuple[str, ...]:
    """The numbers, amounts and times that stand in a text in digits, for clips whose entities nobody listed."""
    return tuple(found[0].rstrip(".,:") for found in _NUMBER.finditer(text))


def entity_errors(entities: Sequence[str], hypothesis: str, normalise: Normalise) -> int:
    """How many of the entities do not stand in the text in their order; "$300" and "three hundred dollars" are one.

    A number may be written in groups or digit by digit, but no digit may stand beside it that is not its own.
    """
    pieces, start, missing = _pieces(hypothesis, normalise), 0, 0
    for entity in entities:
        end = _spelt_end(entity, hypothesis, pieces, start) if _SPELT.fullmatch(entity) else None
        if end is None:
            end = _found(_pieces(entity, normalise), pieces, start)
        if end is None:
            missing += 1
        else:
            start = end
    return missing


def _pieces(text: str, normalise: Normalise) -> list[str]:
    """The normalised words of each stretch between pauses: the normaliser would join numbers across them."""
    stretches = (normalise(stretch) for stretch in _PAUSE.split(text))
    return [_ORDINAL.sub("", word) for stretch in stretches for word in stretch.split()]


def _found(entity: Sequence[str], pieces: Sequence[str], start: int) -> int | None:
    """Where the first run of whole pieces ends that makes up the entity, or None."""
    wanted = "".join(entity)
    for first in range(start, len(pieces)):
        run = ""
        for last in range(first, len(pieces)):
            run += pieces[last]
            if run == wanted:
                return last + 1
            if not wanted.startswith(run):
                break
    return None


def _spelt_end(entity: str, hypothesis: str, pieces: Sequence[str], start: int) -> int | None:
    """`start` where the letters stand one by one or as a word of capitals, else None."""
    letters = entity.replace("-", "")
    apart = r"[\W_]+".join(map(re.escape, letters))
    spelt = rf"(?i:(?<![^\W_]){apart}(?![^\W_]))|(?<!\w){letters.upper()}(?!\w)"
    return start if pieces and re.search(spelt, hypothesis) else None


def false_terms(terms: Iterable[str], reference: str, hypothesis: str, finder: TermFinder) -> int:
    """How often a term is written that nobody said, also in the place of other words.

    One that is all capitals counts only where it is written so: "my mom" is no MOM. Its letters may be among those that
    were spelled: whoever says P-R-I says PR, too.
    """
    acronyms = tuple(term for term in terms if is_acronym(term))
    said, written = _written(acronyms, reference, finder), _written(acronyms, hypothesis, finder)
    spelt = [run.replace("-", "").upper() for run in _SPELT.findall(reference)]
    said += Counter({term: sum(letters.count(term) for letters in spelt) for term in acronyms})
    return sum((written - said).values())


def is_acronym(term: str) -> bool:
    """Whether it is letters in capitals, of which there are two or more."""
    return len(term) > 1 and term.isupper()


def _written(acronyms: tuple[str, ...], text: str, finder: TermFinder) -> Counter[str]:
    found = Counter({term: n for term, n in finder.find(text).items() if not is_acronym(term)})
    return found + Counter(_capitals(acronyms).findall(text)) if acronyms else found


@lru_cache(maxsize=4)
def _capitals(acronyms: tuple[str, ...]) -> re.Pattern[str]:
    return term_pattern(acronyms)


def skipped_s(reference: str, hypothesis: str, duration_s: float) -> float:
    """Seconds of which nothing was written: runs of three deleted words and more, at the clip's own rate of words.

    Both texts normalised.
    """
    words = len(reference.split())
    if not words:
        return 0.0
    chunks = jiwer.process_words(reference, hypothesis).alignments[0]
    runs = (chunk.ref_end_idx - chunk.ref_start_idx for chunk in chunks if chunk.type == "delete")
    return duration_s * sum(run for run in runs if run >= MIN_SKIPPED_WORDS) / words


def counts(
    reference: str,
    hypothesis: str,
    duration_s: float,
    entities: Sequence[str] | None,
    normalise: Normalise,
    terms: Iterable[str],
    finder: TermFinder,
) -> Mapping[str, int | float]:
    """The fields of UtteranceCounts that these measures fill; entities None: those that stand in the reference."""
    listed = entities_in(reference) if entities is None else entities
    edits = formatted_edits(reference, hypothesis)
    return {
        "formatted_words": edits.length,
        "formatted_errors": edits.errors,
        "entities": len(listed),
        "entity_errors": entity_errors(listed, hypothesis, normalise),
        "false_terms": false_terms(terms, reference, hypothesis, finder),
        "skipped_s": round(skipped_s(normalise(reference), normalise(hypothesis), duration_s), 3),
    }
