"""A scored set as a gate reads it: what goes wrong in every utterance, as counts."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from wertune.base.text import Normalise, TermFinder, letter_by_letter, term_pattern
from wertune.scores.eval_report import SetReport, UtteranceCounts
from wertune.scores.metrics import EditCounts, Scores, Utterance, count_word_edits
from wertune.training.prepare import Prepared
from wertune.whisper.loops import compression_ratio

_PAUSE = re.compile(r"[,;.?!…]+(?=\s|$)")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_SPELT = re.compile(r"\w(?:-\w)+")
_NUMBER = re.compile(r"(?<!\w)[$£€]?\d[\d,.:]*(?:-\d+)*[A-Za-z]?(?:%|(?<=\d)(?:st|nd|rd|th)\b)?")


def set_report(
    prepared: Prepared, scores: Scores, digest: str, entities: Sequence[Sequence[str]] | None = None
) -> SetReport:
    """A scored set, its clips named by manifest line or by number, never by a folder of this machine.

    `entities` are those of each clip; where they are not given, the numbers in its reference.
    """
    listed = entities or [entities_in(utterance.reference) for utterance in scores.utterances]
    both = zip(scores.utterances, listed, strict=True)
    return SetReport(digest=digest, utterances=tuple(_counts(prepared, *each) for each in both))


def _counts(prepared: Prepared, utterance: Utterance, entities: Sequence[str]) -> UtteranceCounts:
    words, characters, lexicon = utterance.words, utterance.characters, utterance.lexicon_words
    reference, text = utterance.reference, utterance.hypothesis
    formatted = formatted_edits(reference, text)
    return UtteranceCounts(
        id=Path(utterance.id).name,
        speaker=utterance.speaker,
        channel=utterance.channel,
        language=utterance.language,
        duration_s=utterance.duration_s,
        reference=reference,
        hypothesis=text,
        words=words.length,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        characters=characters.length,
        character_errors=characters.errors,
        lexicon_words=lexicon.length,
        lexicon_errors=lexicon.errors,
        terms={term: (c.hits, c.misses, c.false_alarms) for term, c in utterance.terms.items()},
        hypothesis_words=words.written,
        compression_ratio=compression_ratio(text),
        formatted_words=formatted.length,
        formatted_errors=formatted.errors,
        entities=len(entities),
        entity_errors=entity_errors(entities, text, prepared.normalise),
        false_terms=false_terms(prepared.lexicon.written, reference, text, prepared.finder),
        skipped_s=round(utterance.duration_s * utterance.skipped_words / max(words.length, 1), 3),
        skipped_words=utterance.skipped_words,
        border_errors_s=utterance.border_errors_s,
    )


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
