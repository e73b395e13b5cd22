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

import torch
from torch import Tensor
from torch.nn import functional

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

    @property
    def lent(self) -> int:
        """Tokens whose bonus is given back if the term is not finished."""
        return 0 if self.is_term else self.open


@dataclass(frozen=True)
class _Table:
    """The tree for many texts at once: its nodes are numbered, and 0 is the beginning of no term.

    What goes on with a node's own beginning, or an end of it, stands in its row of `tokens` and `to`, filled up with
    what stands there already; what only begins a term goes on everywhere, and stands once.
    """

    first: Tensor  # (tokens that begin a term,)
    begun: Tensor  # (tokens,): the node to which each leads from 0; the last stands for all that are beyond
    tokens: Tensor  # (nodes, most tokens that go on with one)
    to: Tensor  # the nodes to which these lead
    open: Tensor  # (nodes,)
    lent: Tensor  # (nodes,)
    is_term: Tensor  # (nodes,)
    ages: Tensor  # 0, 1, ... for as many tokens as are ever lent at once

    def on(self, device: torch.device) -> "_Table":
        return _Table(**{name: tensor.to(device) for name, tensor in vars(self).items()})


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
        table = _as_table(self._linked())
        self._tables = {table.open.device: table}

    def start(self, texts: int, device: torch.device) -> "Places":
        """The places of so many empty texts."""
        if device not in self._tables:
            self._tables[device] = next(iter(self._tables.values())).on(device)
        return Places(self._tables[device], self._bonus, self._beyond, texts)

    def total(self, tokens: Iterable[int], log_probability: float) -> float:
        """What a whole text of that log-probability gains, terms that it does not finish given back.

        Of its single tokens nothing is known here, so that the bound is on all of them together.
        """
        node, said, lent, paid = self._root, set[_Node](), 0, 0
        for token in tokens:
            node = self._next(node, token)
            paid += min(node.open - 1, lent) + 1 - lent
            lent = min(lent + 1, node.lent)
            if node in said:
                break
            if node.is_term:
                said.add(node)
        paid -= lent
        return min(self._bonus * paid, self._beyond * paid - log_probability)

    def _linked(self) -> list[_Node]:
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


def _as_table(nodes: Sequence[_Node]) -> _Table:
    """Of nodes each of which stands behind its fallback, the root first."""
    root, number = nodes[0], {node: number for number, node in enumerate(nodes)}
    assert root.children, "no term has a token"
    onward: dict[_Node | None, dict[int, _Node]] = {root: {}}
    for node in nodes[1:]:
        onward[node] = onward[node.fallback] | node.children
    filler = next(iter(root.children.items()))
    most = max(1, *map(len, onward.values()))
    rows = [list(after.items()) or [filler] for after in onward.values()]
    filled = [row + row[:1] * (most - len(row)) for row in rows]
    begun = torch.zeros(max(root.children) + 2, dtype=torch.long)
    begun[list(root.children)] = torch.tensor([number[child] for child in root.children.values()])
    return _Table(
        torch.tensor(list(root.children)),
        begun,
        torch.tensor([[token for token, _ in row] for row in filled]),
        torch.tensor([[number[node] for _, node in row] for row in filled]),
        torch.tensor([node.open for node in nodes]),
        torch.tensor([node.lent for node in nodes]),
        torch.tensor([node.is_term for node in nodes]),
        torch.arange(max(node.lent for node in nodes)),
    )


class Places:
    """Where the texts of a batch stand in the terms, and what each has gained by an unfinished one."""

    def __init__(self, table: _Table, bonus: float, beyond: float, texts: int) -> None:
        self._table, self._beyond, device = table, beyond, table.open.device
        # (texts, length + 1): the nodes of each text, the last is where it stands.
        self._nodes = torch.zeros(texts, 1, dtype=torch.long, device=device)
        # (texts, tokens): what each open token has gained, the latest first.
        self._lent = torch.zeros(texts, len(table.ages), dtype=torch.float64, device=device)
        # (texts,): what a token may gain; nothing once a term was said twice, so that no loop is fed.
        self._most = torch.full((texts,), bonus, dtype=torch.float64, device=device)

    def change(self, scores: Tensor) -> None:
        """Changes log-probabilities (texts, vocabulary) of the next token, in place."""
        table, node = self._table, self._nodes[:, -1]
        tokens, to = table.tokens.index_select(0, node), table.to.index_select(0, node)
        # Of the open tokens' gains the last few stay, as many as belong to the beginning that is gone on with.
        sums = functional.pad(self._lent.cumsum(dim=1), (1, 0)).to(scores)
        kept, lent, most = sums.gather(1, table.open.take(to) - 1), sums[:, -1:], self._most[:, None].to(scores)
        first, after = scores.index_select(1, table.first), scores.gather(1, tokens)
        first += torch.minimum(self._beyond - first, most)
        after += torch.minimum(self._beyond - after, most)
        scores -= lent
        scores.index_copy_(1, table.first, first - lent)
        scores.scatter_(1, tokens, after + kept - lent)

    def go_on(self, rows: Tensor, tokens: Tensor, log_probabilities: Tensor) -> None:
        """Each text goes on from the one in its row of `rows` with a token of that log-probability (texts,)."""
        table, before = self._table, self._nodes.index_select(0, rows)
        last, most = before[:, -1], self._most.take(rows)
        onward = (table.to.index_select(0, last) * (table.tokens.index_select(0, last) == tokens[:, None])).amax(dim=1)
        node = torch.where(onward > 0, onward, table.begun.take(tokens.clamp(max=len(table.begun) - 1)))
        gained = torch.minimum(self._beyond - log_probabilities.double(), most)
        lent = torch.cat([gained[:, None], self._lent.index_select(0, rows)], dim=1)[:, :-1]
        self._lent = lent.masked_fill(table.ages >= table.lent.take(node)[:, None], 0.0)
        again = table.is_term.take(node) & (before == node[:, None]).any(dim=1)
        self._most = most.masked_fill(again, 0.0)
        self._nodes = torch.cat([before, node[:, None]], dim=1)
