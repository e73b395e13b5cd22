"""Reference and transcript word beside word: which were kept, swapped, left out or added."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, zip_longest

import jiwer

MIN_SKIPPED_WORDS = 3


@dataclass(frozen=True)
class Pair:
    """One word of the reference beside one of the hypothesis; an empty one stands for none."""

    said: str
    written: str

    @property
    def is_error(self) -> bool:
        return self.said != self.written


def align(reference: str, hypothesis: str) -> list[Pair]:
    """The words of two normalised texts in pairs, with the fewest edits, by jiwer; the edits are WER's."""
    said, written = reference.split(), hypothesis.split()
    if not said:
        return [Pair("", word) for word in written]
    pairs = []
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
        left = said[chunk.ref_start_idx : chunk.ref_end_idx]
        right = written[chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs += [Pair(*pair) for pair in zip_longest(left, right, fillvalue="")]
    return pairs


def skipped_words(pairs: Iterable[Pair]) -> int:
    """Words of the reference in runs of three and more of which nothing was written."""
    runs = (len(list(run)) for is_deleted, run in groupby(pairs, lambda pair: not pair.written) if is_deleted)
    return sum(run for run in runs if run >= MIN_SKIPPED_WORDS)


def in_columns(before: Iterable[Pair], after: Iterable[Pair]) -> list[tuple[str, str, str]]:
    """Two alignments of one reference as columns `(said, written before, written after)`.

    Words that one of them adds stand between the words of the reference, beside those that the other adds there.
    """
    columns: list[tuple[str, str, str]] = []
    slots = zip(_by_said_word(before), _by_said_word(after), strict=True)
    for (added_before, pair_before), (added_after, pair_after) in slots:
        columns += [("", *added) for added in zip_longest(added_before, added_after, fillvalue="")]
        if pair_before.said:
            columns.append((pair_before.said, pair_before.written, pair_after.written))
    return columns


def _by_said_word(pairs: Iterable[Pair]) -> list[tuple[list[str], Pair]]:
    """Each pair with a word of the reference, and the words added before it; last, what is added at the end."""
    slots: list[tuple[list[str], Pair]] = []
    added: list[str] = []
    for pair in pairs:
        if pair.said:
            slots.append((added, pair))
            added = []
        else:
            added.append(pair.written)
    return [*slots, (added, Pair("", ""))]


def confusions(alignments: Iterable[Iterable[Pair]]) -> Counter[Pair]:
    """How often each wrong pair occurs."""
    return Counter(pair for pairs in alignments for pair in pairs if pair.is_error)
