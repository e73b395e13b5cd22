"""Boosting the lexicon's terms while a text is written: shallow fusion with a prefix tree of their tokens.

Every token that goes on with a term gets a bonus; what turns out not to be a term gives its bonus back, so that the
bonus decides only between what the model itself takes for likely (Zhao et al. 2019, "Shallow-Fusion End-to-End
Contextual Biasing", Interspeech). What is certain already earns little: else a term's end, which follows from its
beginning, would pay for a beginning that nobody said. A text that has said a term twice gets no bonus from there on.

A text that the model itself doubts, by Whisper's own threshold of a failed one (a mean log-probability of -1 a token;
Radford et al. 2022, section 4.5), is taken as it is without a boost: of an unclear short answer, of babble, the boost
would make terms.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from wertune.base.config import DecodeConfig


def doubts(log_probabilities: Sequence[float], decode: DecodeConfig) -> bool:
    """Whether a boosted text of such tokens is too unlikely to be kept."""
    if not decode.term_boost or decode.boost_floor is None or not log_probabilities:
        return False
    return sum(log_probabilities) / len(log_probabilities) < decode.boost_floor


@dataclass(eq=False)
class _Node:
    """A beginning of terms; the last `open` of its tokens are not yet part of a whole term."""

    open: int = 0
    is_term: bool = False
    fallback: "_Node | None" = None  # the longest proper end of this beginning that begins a term too
    children: dict[int, "_Node"] = field(default_factory=dict)
    # Tokens that go on with a term, and how many of the tokens before each are of that same open beginning.
    after: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def lent(self) -> int:
        """Tokens whose bonus is given back if the term is not finished."""
        return 0 if self.is_term else self.open


@dataclass(frozen=True)
class Place:
    """Where a text stands in the terms: the beginning that it ends with, if it may still gain, and what it has said.

    `lent` is what each open token of that beginning has gained: it is given back if no term comes of it.
    """

    node: _Node | None
    said: frozenset[_Node] = frozenset()
    lent: tuple[float, ...] = ()


class TermBoost:
    """Adds up to `bonus` (natural log) to each token with which a text goes on with one of the token `sequences`.

    A token gets no more than it lacks to a probability of 1, and `beyond` that; as much as the bonus: all of it always.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], bonus: float, beyond: float) -> None:
        self._bonus, self._beyond = bonus, beyond
        self._root = _Node()
        for sequence in sequences:
            node = self._root
            for token in sequence:
                node = node.children.setdefault(token, _Node())
            node.is_term = True
        for node in self._link():
            after = self._after(node)
            kept = [child.open - 1 for child in after.values()]
            node.after = torch.tensor(list(after), dtype=torch.long), torch.tensor(kept, dtype=torch.long)

    @property
    def start(self) -> Place:
        """The place of an empty text."""
        return Place(self._root)

    def after(self, place: Place, token: int, log_probability: float) -> Place:
        """The place of a text one token longer, of that log-probability in the model."""
        if place.node is None:
            return place
        node = self._next(place.node, token)
        if not node.is_term:
            gained = min(self._bonus, self._beyond - log_probability)
            return Place(node, place.said, (*place.lent, gained)[-node.open :] if node.open else ())
        # Once a term is said twice nothing is gained any more, so that no loop is fed.
        return Place(None) if node in place.said else Place(node, place.said | {node})

    def total(self, tokens: Iterable[int], log_probability: float) -> float:
        """What a whole text of that log-probability gains, terms that it does not finish given back.

        Of its single tokens nothing is known here, so that the bound is on all of them together.
        """
        place, paid = self.start, 0
        for token in tokens:
            if place.node is None:
                break
            kept = min(self._next(place.node, token).open - 1, len(place.lent))
            paid += kept + 1 - len(place.lent)
            place = self.after(place, token, -self._bonus)
        paid -= len(place.lent)
        return min(self._bonus * paid, self._beyond * paid - log_probability)

    def add_to(self, scores: torch.Tensor, places: Sequence[Place]) -> None:
        """Changes log-probabilities (texts, vocabulary) of the next token of texts that stand at `places`, in place."""
        rows, tokens, kept = [], [], []
        for row, place in enumerate(places):
            if place.node is None:
                continue
            assert place.node.after is not None
            after, open_before = place.node.after
            # Of the open tokens' gains the last few stay, as many as belong to the beginning that is gone on with.
            sums = torch.tensor([0.0, *accumulate(reversed(place.lent))])
            rows.append(torch.full_like(after, row))
            tokens.append(after)
            kept.append(sums[open_before.clamp(max=len(place.lent))])
        if not rows:
            return
        lent = torch.tensor([sum(place.lent) for place in places]).to(scores)
        where = torch.cat(rows).to(scores.device), torch.cat(tokens).to(scores.device)
        own = scores[where]
        gained = (self._beyond - own).clamp(max=self._bonus)
        scores -= lent[:, None]
        scores[where] = own + gained + torch.cat(kept).to(scores) - lent[where[0]]

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
