"""Which split each speaker and each sentence goes to, so that most rows can stay: a seeded local search.

A row stays where its speaker and its sentence are in the same split. Where speakers share sentences, as prompts read by
many, no assignment keeps all rows: what is lost is traded against the shares that were asked for. But a row is lost
only where keeping it would leak: a sentence that one speaker says goes where that speaker goes, and the reverse.
"""

import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
CHECKED = (0, 2)  # terms are to be learnt in train and to be measured in test
SWEEPS = 12
STARTS = 3
# 1300 rows of 40 speakers and 400 prompts, two seeds, at 1.25, 1.5, 1.75: validation, of which 10 % were asked for, 2.7
# and 1.5, 10.0 and 3.9, 10.4 and 9.9 %; 84 and 87, 59 and 80, 60 and 50 of 105 terms in test. The demo's 1641 rows are
# all kept at each.
SHARES_WEIGH = 1.75


@dataclass(frozen=True)
class Utterance:
    """What the search knows of a row; equal keys may not stand in two splits."""

    speaker: Hashable
    sentence: Hashable
    terms: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[tuple[str, Hashable], tuple[str, Hashable]]:
        return ("speaker", self.speaker), ("sentence", self.sentence)


Key = tuple[str, Hashable]
Assignment = dict[Key, int]


def search(rows: Sequence[Utterance], shares: Sequence[float], per_term: int, seed: int) -> Assignment:
    """The best found split, by number, of every speaker and sentence; the same for the same rows and seed."""
    draw = random.Random(seed)
    groups, followers = components(rows), _followers(rows)
    starts = [_whole_groups(groups, rows, shares, draw)]
    if len(groups) < len(rows):
        starts += [_crossed(rows, shares, draw) for _ in range(STARTS)]
    climbed = []
    for start in starts:
        followed = {each: start[key] for key, others in followers.items() for each in others}
        state = State(rows, shares, per_term, start | followed)
        state.climb(groups, followers, draw)
        state.settle()
        climbed.append(state)
    return max(climbed, key=lambda state: state.score()).assignment


def _followers(rows: Sequence[Utterance]) -> dict[Key, list[Key]]:
    """By each speaker and sentence that goes its own way, those that have rows with it alone: apart, all are lost."""
    beside: dict[Key, dict[Key, None]] = {}
    for row in rows:
        speaker, sentence = row.keys
        beside.setdefault(speaker, {})[sentence] = None
        beside.setdefault(sentence, {})[speaker] = None
    found: dict[Key, list[Key]] = {key: [] for key in beside}
    for key, others in beside.items():
        first = next(iter(others))
        if len(others) == 1 and (len(beside[first]) > 1 or key[0] == "sentence"):
            found[first].append(key)
            del found[key]
    return found


def components(rows: Sequence[Utterance]) -> list[list[Key]]:
    """Speakers and sentences that hang together by rows, the most rows first; equal ones in order of appearance."""
    import networkx

    sizes = Counter(row.keys[0] for row in rows)
    found = map(list, networkx.connected_components(networkx.Graph([row.keys for row in rows])))
    return sorted(found, key=lambda group: -sum(sizes[key] for key in group))


def _neediest(counts: Sequence[float], shares: Sequence[float]) -> int:
    """The split that has least of what it is to have; one with no share gets nothing."""
    wanted = [i for i in range(len(SPLITS)) if shares[i] > 0]
    return min(wanted, key=lambda i: counts[i] / shares[i])


def _whole_groups(
    groups: Sequence[Sequence[Key]], rows: Sequence[Utterance], shares: Sequence[float], draw: random.Random
) -> Assignment:
    """Nothing lost: what hangs together stays together, the largest first."""
    sizes = Counter(row.keys[0] for row in rows)
    counts = [0.0] * len(SPLITS)
    assignment: Assignment = {}
    for group in sorted(groups, key=lambda group: (-sum(sizes[key] for key in group), draw.random())):
        split = _neediest(counts, shares)
        counts[split] += sum(sizes[key] for key in group)
        assignment |= dict.fromkeys(group, split)
    return assignment


def _crossed(rows: Sequence[Utterance], shares: Sequence[float], draw: random.Random) -> Assignment:
    """Speakers and sentences apart: of a product of the two, the shares of rows are those that were asked for."""
    roots = [share**0.5 for share in shares]
    assignment: Assignment = {}
    for side in (0, 1):
        sizes = Counter(row.keys[side] for row in rows)
        counts = [0.0] * len(SPLITS)
        keys = list(sizes)
        draw.shuffle(keys)
        for key in keys:
            assignment[key] = _neediest(counts, roots)
            counts[assignment[key]] += sizes[key]
    return assignment


class State:
    """An assignment with the counts that its score is made of, kept up to date move by move."""

    def __init__(
        self, rows: Sequence[Utterance], shares: Sequence[float], per_term: int, assignment: Mapping[Key, int]
    ) -> None:
        self.assignment = dict(assignment)
        self._rows, self._shares, self._per_term = rows, shares, per_term
        self._rows_of: dict[Key, list[Utterance]] = {}
        for row in rows:
            for key in row.keys:
                self._rows_of.setdefault(key, []).append(row)
        totals = Counter(term for row in rows for term in row.terms)
        # What a term that is too rare cannot have is no split's fault.
        self._wanted = {term: min(per_term, count // 2) for term, count in totals.items()}
        self._terms = [Counter[str]() for _ in SPLITS]
        self.counts = [0] * len(SPLITS)
        self._missing = sum(self._wanted.values()) * len(CHECKED)
        self._all_missing = max(1, self._missing)
        for row in rows:
            self._count(row, 1)

    def _count(self, row: Utterance, step: int) -> None:
        if not self._stays(row):
            return
        split = self.assignment[row.keys[0]]
        self.counts[split] += step
        for term in row.terms:
            had = self._terms[split][term]
            self._terms[split][term] = had + step
            if split in CHECKED:
                wanted = self._wanted[term]
                self._missing += min(had, wanted) - min(had + step, wanted)

    def score(self) -> float:
        """Share of rows that stay, less what the splits' shares and the terms are short of; an empty split is worst."""
        kept = sum(self.counts)
        if not kept:
            return -10.0
        empty = sum(share > 0 and not count for count, share in zip(self.counts, self._shares, strict=True))
        off = sum(abs(count / kept - share) for count, share in zip(self.counts, self._shares, strict=True))
        return kept / len(self._rows) - SHARES_WEIGH * off - self._missing / self._all_missing - empty

    def move(self, keys: Sequence[Key], split: int) -> None:
        touched = {id(row): row for key in keys for row in self._rows_of[key]}.values()
        for row in touched:
            self._count(row, -1)
        self.assignment.update(dict.fromkeys(keys, split))
        for row in touched:
            self._count(row, 1)

    def climb(
        self, groups: Sequence[Sequence[Key]], followers: Mapping[Key, Sequence[Key]], draw: random.Random
    ) -> None:
        """Moves speakers, sentences and what hangs together while that makes the score better."""
        units: list[Sequence[Key]] = [[key, *others] for key, others in followers.items()]
        units += [group for group in groups if sum(key in followers for key in group) > 1]
        open_splits = [split for split in range(len(SPLITS)) if self._shares[split] > 0]
        for _ in range(SWEEPS):
            draw.shuffle(units)
            if not sum(self._improve(unit, open_splits) for unit in units):
                return

    def settle(self) -> None:
        """Moves what keeps no row to where it keeps one: what is lost after that would leak."""
        for row in self._rows:
            for key, other in (row.keys, row.keys[::-1]):
                if not any(self._stays(each) for each in self._rows_of[key]):
                    self.move([key], self.assignment[other])

    def _stays(self, row: Utterance) -> bool:
        speaker, sentence = row.keys
        return self.assignment[speaker] == self.assignment[sentence]

    def _improve(self, unit: Sequence[Key], open_splits: Sequence[int]) -> bool:
        best, before = self.score(), {key: self.assignment[key] for key in unit}
        chosen: int | None = None
        for split in open_splits:
            if set(before.values()) == {split}:
                continue
            self.move(unit, split)
            if self.score() > best + 1e-12:
                best, chosen = self.score(), split
        if chosen is not None:
            self.move(unit, chosen)
            return True
        for split in set(before.values()):
            self.move([key for key in unit if before[key] == split], split)
        return False
