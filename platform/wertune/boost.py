"""Boosting the lexicon's terms while a text is written: shallow fusion with a prefix tree of their tokens.

Every token that goes on with a term gets a bonus; what turns out not to be a term gives its bonus back, so that the
bonus decides only between what the model itself takes for likely (Zhao et al. 2019, "Shallow-Fusion End-to-End
Contextual Biasing", Interspeech). A text that has said a term twice gets none from there on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch


@dataclass(eq=False)
class _Node:
    """A beginning of terms; the last `open` of its tokens are not yet part of a whole term."""

    open: int = 0
    is_term: bool = False
    fallback: "_Node | None" = None  # the longest proper end of this beginning that begins a term too
    children: dict[int, "_Node"] = field(default_factory=dict)
    bonuses: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def lent(self) -> int:
        """Tokens whose bonus is given back if the term is not finished."""
        return 0 if self.is_term else self.open


@dataclass(frozen=True)
class Place:
    """Where a text stands in the terms: the beginning that it ends with, if it may still gain, and what it has said."""

    node: _Node | None
    said: frozenset[_Node] = frozenset()


class TermBoost:
    """Adds `bonus` (natural log) to each token with which a text goes on with one of the token `sequences`."""

    def __init__(self, sequences: Iterable[Sequence[int]], bonus: float) -> None:
        self._bonus = bonus
        self._root = _Node()
        for sequence in sequences:
            self._add(sequence)
        for node in self._link():
            after = self._after(node)
            gained = [bonus * (child.open - node.lent) for child in after.values()]
            node.bonuses = torch.tensor(list(after), dtype=torch.long), torch.tensor(gained)

    @property
    def start(self) -> Place:
        """The place of an empty text."""
        return Place(self._root)

    def after(self, place: Place, token: int) -> Place:
        """The place of a text one token longer."""
        if place.node is None:
            return place
        node = self._next(place.node, token)
        if not node.is_term:
            return Place(node, place.said)
        # Once a term is said twice nothing is gained any more, so that no loop is fed.
        return Place(None) if node in place.said else Place(node, place.said | {node})

    def total(self, tokens: Iterable[int]) -> float:
        """What a whole text has gained, terms that it did not finish given back."""
        place, total = self.start, 0.0
        for token in tokens:
            if place.node is None:
                return total
            total += self._bonus * (self._next(place.node, token).open - place.node.lent)
            place = self.after(place, token)
        return total - self._bonus * (place.node.lent if place.node else 0)

    def add_to(self, scores: torch.Tensor, places: Sequence[Place]) -> None:
        """Changes the scores (texts, vocabulary) of the next token of texts that stand at `places`, in place."""
        rows, tokens, gains = [], [], []
        for row, place in enumerate(places):
            if place.node is None:
                continue
            assert place.node.bonuses is not None
            lent = self._bonus * place.node.lent
            if lent:
                scores[row] -= lent
            after, gained = place.node.bonuses
            rows.append(torch.full_like(after, row))
            tokens.append(after)
            gains.append(gained + lent)
        if rows:
            where = torch.cat(rows).to(scores.device), torch.cat(tokens).to(scores.device)
            scores.index_put_(where, torch.cat(gains).to(scores), accumulate=True)

    def _add(self, sequence: Sequence[int]) -> None:
        node = self._root
        for token in sequence:
            node = node.children.setdefault(token, _Node())
        node.is_term = True

    def _link(self) -> list[_Node]:
        """All nodes, shorter ones first, each with its fallback (Aho and Corasick 1975)."""
        nodes = [self._root]
        for node in nodes:
            for token, child in node.children.items():
                child.open = node.lent + 1
                child.fallback = self._root if node is self._root else self._next(node.fallback, token)
                nodes.append(child)
        return nodes

    def _next(self, node: _Node | None, token: int) -> _Node:
        while node is not None:
            if token in node.children:
                return node.children[token]
            node = node.fallback
        return self._root

    def _after(self, node: _Node) -> dict[int, _Node]:
        """Every token that goes on with a term, or begins one, and where it leads."""
        after: dict[int, _Node] = {}
        start: _Node | None = node
        while start is not None:
            after = start.children | after
            start = start.fallback
        return after
