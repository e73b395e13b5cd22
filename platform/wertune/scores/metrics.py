"""Word and term errors as counts; every rate is a thin view of them, summed over a corpus before dividing."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jiwer

from wertune.base.text import Normalise, TermFinder, closed_up, normaliser
from wertune.scores.alignment import Pair, align, skipped_words


def _rate(part: int, whole: int) -> float:
    """`part / whole`; with nothing to divide by, 0 when nothing is wrong and 1 otherwise, so that it stays a rate."""
    return part / whole if whole else float(part > 0)


@dataclass(frozen=True)
class EditCounts:
    """Levenshtein edits that turn the reference's words (or characters) into the hypothesis's."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def written(self) -> int:
        """Words (or characters) of the hypothesis."""
        return self.length - self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """WER of words, CER of characters."""
        return _rate(self.errors, self.length)

    def __add__(self, other: "EditCounts") -> "EditCounts":
        return EditCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


def count_edits(pairs: Collection[Pair], among: Collection[str] | None = None) -> EditCounts:
    """The edits of an alignment, or of them those that touch words `among` others; what is left then is U-WER's.

    Substitutions and deletions count by the reference's word, insertions by the hypothesis's, so that a term that
    nobody said counts too (biased WER, Le et al. 2021, arXiv:2104.02194).
    """
    touched = [pair for pair in pairs if among is None or (pair.said or pair.written) in among]
    insertions = sum(not pair.said for pair in touched)
    deletions = sum(not pair.written for pair in touched)
    errors = sum(pair.is_error for pair in touched)
    return EditCounts(errors - insertions - deletions, deletions, insertions, len(touched) - insertions)


def count_word_edits(reference: str, hypothesis: str) -> EditCounts:
    """Edits between two normalised texts; an empty reference counts every word as inserted."""
    return count_edits(align(reference, hypothesis))


def count_character_edits(reference: str, hypothesis: str) -> EditCounts:
    """As `count_word_edits`, by character, blanks included where the script has them."""
    reference, hypothesis = closed_up(reference), closed_up(hypothesis)
    if not reference:
        return EditCounts(insertions=len(hypothesis))
    found = jiwer.process_characters(reference, hypothesis)
    return EditCounts(found.substitutions, found.deletions, found.insertions, len(reference))


@dataclass(frozen=True)
class TermCounts:
    """Occurrences of lexicon terms: said and written, said and missed, written though not said."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0

    @property
    def said(self) -> int:
        return self.hits + self.misses

    @property
    def written(self) -> int:
        return self.hits + self.false_alarms

    @property
    def recall(self) -> float:
        """Share of the said terms that were written; 1 when none was said."""
        return 1.0 - _rate(self.misses, self.said)

    @property
    def precision(self) -> float:
        """Share of the written terms that were said; 1 when none was written."""
        return 1.0 - _rate(self.false_alarms, self.written)

    @property
    def f1(self) -> float:
        total = self.said + self.written
        return 2 * self.hits / total if total else 1.0

    def __add__(self, other: "TermCounts") -> "TermCounts":
        return TermCounts(self.hits + other.hits, self.misses + other.misses, self.false_alarms + other.false_alarms)


@dataclass(frozen=True)
class Clip:
    """What scoring needs to know of a clip."""

    id: str
    reference: str
    speaker: str = ""
    channel: str = ""
    duration_s: float = 0.0
    language: str = ""  # empty: the project's


@dataclass(frozen=True, kw_only=True)
class Utterance(Clip):
    """One clip's transcript against its reference; `terms` counts by written term.

    `lexicon_words` are the edits of the terms' words, `skipped_words` those that stand in runs left out (alignment.py).
    Of a clip in a long recording `border_errors_s` say how far its start and end are from those that were written.
    """

    hypothesis: str
    words: EditCounts
    characters: EditCounts
    terms: Mapping[str, TermCounts]
    lexicon_words: EditCounts = EditCounts()
    skipped_words: int = 0
    border_errors_s: tuple[float, ...] = ()

    @property
    def missed_terms(self) -> list[str]:
        return sorted(term for term, counts in self.terms.items() if counts.misses)

    @property
    def false_terms(self) -> list[str]:
        return sorted(term for term, counts in self.terms.items() if counts.false_alarms)


def score_utterance(clip: Clip, hypothesis: str, normalise: Normalise, finder: TermFinder) -> Utterance:
    """Counts of one transcript, both texts normalised first, as its language has it."""
    normalise = normaliser(clip.language) if clip.language else normalise
    reference, written = normalise(clip.reference), normalise(hypothesis)
    pairs = align(reference, written)
    return Utterance(
        **vars(clip),
        hypothesis=hypothesis,
        words=count_edits(pairs),
        characters=count_character_edits(reference, written),
        terms=_count_terms(finder.find(clip.reference), finder.find(hypothesis)),
        lexicon_words=count_edits(pairs, finder.words),
        skipped_words=skipped_words(pairs),
    )


def _count_terms(said: Counter[str], written: Counter[str]) -> dict[str, TermCounts]:
    counts = {}
    for term in said | written:
        hits = min(said[term], written[term])
        counts[term] = TermCounts(hits, said[term] - hits, written[term] - hits)
    return counts


@dataclass(frozen=True)
class Scores:
    """A scored set of utterances."""

    utterances: tuple[Utterance, ...] = ()

    @property
    def words(self) -> EditCounts:
        return sum((utterance.words for utterance in self.utterances), EditCounts())

    @property
    def characters(self) -> EditCounts:
        return sum((utterance.characters for utterance in self.utterances), EditCounts())

    @property
    def terms(self) -> TermCounts:
        return sum((counts for utterance in self.utterances for counts in utterance.terms.values()), TermCounts())

    @property
    def wer(self) -> float:
        """Corpus WER: summed errors over summed reference words."""
        return self.words.rate

    @property
    def cer(self) -> float:
        return self.characters.rate

    def by(self, key: Callable[[Utterance], str]) -> dict[str, "Scores"]:
        """The scores of each group that `key` names, for example each speaker."""
        groups: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            groups.setdefault(key(utterance), []).append(utterance)
        return {name: Scores(tuple(members)) for name, members in sorted(groups.items())}

    def by_term(self) -> dict[str, TermCounts]:
        """Counts of each written term over the whole set."""
        total: dict[str, TermCounts] = {}
        for utterance in self.utterances:
            for term, counts in utterance.terms.items():
                total[term] = total.get(term, TermCounts()) + counts
        return dict(sorted(total.items()))

    def summary(self) -> dict[str, float | int]:
        """The figures that are logged and printed."""
        words, terms = self.words, self.terms
        return {
            "wer": words.rate,
            "cer": self.cer,
            "substitutions": words.substitutions,
            "deletions": words.deletions,
            "insertions": words.insertions,
            "words": words.length,
            "term_recall": terms.recall,
            "term_precision": terms.precision,
            "term_f1": terms.f1,
        }

    def to_json(self) -> dict[str, Any]:
        """`summary()` and a list `utterances` with reference, hypothesis, errors, terms."""
        return {**self.summary(), "utterances": [utterance_row(utterance) for utterance in self.utterances]}


def utterance_row(utterance: Utterance) -> dict[str, Any]:
    """One utterance as a flat row of a table."""
    return {
        "id": utterance.id,
        "speaker": utterance.speaker,
        "channel": utterance.channel,
        "duration_s": utterance.duration_s,
        "reference": utterance.reference,
        "hypothesis": utterance.hypothesis,
        "errors": utterance.words.errors,
        "substitutions": utterance.words.substitutions,
        "deletions": utterance.words.deletions,
        "insertions": utterance.words.insertions,
        "words": utterance.words.length,
        "missed_terms": utterance.missed_terms,
        "false_terms": utterance.false_terms,
    }


def score(clips: Iterable[Clip], hypotheses: Iterable[str], normalise: Normalise, finder: TermFinder) -> Scores:
    """Scores of `hypotheses[i]` as the transcript of `clips[i]`."""
    pairs = zip(clips, hypotheses, strict=True)
    return Scores(tuple(score_utterance(clip, text, normalise, finder) for clip, text in pairs))
