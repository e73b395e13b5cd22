"""Writing the texts of encoded clips: greedy or beam search over Whisper's decoder, in plain sight.

Beams of a clip share what they hear: one copy of its keys and values, and one product for all of its beams, where
transformers' generate repeats both for every beam. A clip that is done leaves the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional

from wertune.whisper.boost import TermBoost
from wertune.whisper.forward import Layer, LeanWhisper, Linear, Multiply
from wertune.whisper.loops import LoopGuard

IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class Hypothesis:
    """Tokens as they were written, with the end of text unless the limit cut it off, and the model's log-probabilities.

    Those are of the model itself: neither a boost nor what may not be written changes them.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Rules:
    """What may be written: the `prompt` before each text, its `end`, and tokens that never stand in it or begin it.

    `before` is what is taken to have been said earlier: Whisper's own prompt of text, its mark included.
    """

    prompt: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    never_first: tuple[int, ...]
    before: tuple[int, ...] = ()


class _Step:
    """The decoder for one more token of each text, with what it has heard and written so far.

    Its weights are unpacked once, adapters and all, unless they are kept so: every token is a product with a few rows.
    """

    def __init__(self, model: LeanWhisper, states: Tensor, beams: int) -> None:
        self._model, self._beams, self._length = model, beams, 0
        self._layers: list[Unpacked] = model.kept or unpacked(model)
        self._heard = [layer.hear(states) for layer in self._layers]
        # Keys and values of each layer, one upon the other.
        self._written: list[Tensor | None] = [None] * len(self._layers)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (clips x beams, vocabulary), float32, after the next `tokens` (clips x beams)."""
        hidden = self._through(tokens[:, None], self._beams)
        return self._model.logits(self._model.last_norm(hidden[:, 0]))

    def read(self, tokens: Sequence[int]) -> None:
        """Takes in what was said before any text, once a clip for all of its beams."""
        heard, length = self._heard[0][0], len(tokens)
        mask = torch.full((length, length), -torch.inf, dtype=self._model.dtype, device=heard.device).triu(1)
        self._through(torch.tensor(tokens, device=heard.device).expand(len(heard), -1), 1, mask)
        self._written = [both.repeat_interleave(self._beams, dim=1) for both in self._written if both is not None]

    def _through(self, tokens: Tensor, beams: int, mask: Tensor | None = None) -> Tensor:
        """The last layer's states (clips x beams, length, d_model) after `tokens` (clips x beams, length)."""
        length = tokens.shape[1]
        hidden = self._model.embed(tokens, slice(self._length, self._length + length))
        for index, layer in enumerate(self._layers):
            normed = layer.first_norm(hidden)
            keys, values = self._append(index, layer.split(layer.k(normed)), layer.split(layer.v(normed)))
            hidden = hidden + layer.out(layer.join(layer.split(layer.q(normed)), keys, values, mask))
            # All beams of a clip are rows of one product with what is heard of it.
            normed = layer.heard_norm(hidden).view(-1, beams * length, hidden.shape[-1])
            heard = layer.heard_out(layer.join(layer.split(layer.heard_q(normed)), *self._heard[index]))
            hidden = hidden + heard.view_as(hidden)
            hidden = hidden + layer.fc2(layer.activation(layer.fc1(layer.last_norm(hidden))))
        self._length += length
        return hidden

    def _append(self, index: int, *keys_and_values: Tensor) -> Tensor:
        before, both = self._written[index], torch.stack(keys_and_values)
        self._written[index] = after = both if before is None else torch.cat([before, both], dim=3)
        return after

    def go_on(self, clips: list[int], parents: list[int]) -> None:
        """Only these clips stay, and each text goes on from the one in the row of its parent."""
        rows = torch.tensor(parents)
        self._written = [both[:, rows] for both in self._written if both is not None]
        if len(clips) < len(self._heard[0][0]):
            kept = torch.tensor(clips)
            self._heard = [(keys[kept], values[kept]) for keys, values in self._heard]


def unpacked(model: LeanWhisper) -> list["Unpacked"]:
    """The decoder's layers as its model has them now."""
    return [Unpacked(layer) for layer in model.decoder_layers]


class Unpacked:
    """A layer of the decoder whose products are plain ones."""

    def __init__(self, layer: Layer) -> None:
        self.first_norm, self.heard_norm, self.last_norm = layer.first_norm, layer.heard_norm, layer.last_norm
        self.split, self.join, self.activation = layer.attention.split, layer.attention.join, layer.activation
        written, self._hears = layer.attention, layer.hears
        self.q, self.k, self.v, self.out = map(_plain, (written.q, written.k, written.v, written.out))
        self.heard_q, self.heard_out = _plain(self._hears.q), _plain(self._hears.out)
        self.fc1, self.fc2 = _plain(layer.fc1), _plain(layer.fc2)

    def hear(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (clips, heads, positions, head_dim) of a clip's states, as they are multiplied."""
        keys, values = self.split(self._hears.k(states)), self.split(self._hears.v(states))
        return keys.contiguous(), values.contiguous()


def _plain(linear: Linear) -> Multiply:
    if not linear.is_plain:
        return linear
    weight, bias = linear.merged()
    return lambda x: functional.linear(x, weight, bias)


class _Done:
    """The finished texts of one clip with their scores, best first, at most as many as there are beams."""

    def __init__(self, beams: int) -> None:
        self._beams = beams
        self.ranked: list[tuple[float, Hypothesis]] = []

    def add(self, score: float, hypothesis: Hypothesis) -> None:
        self.ranked.append((score, hypothesis))
        self.ranked.sort(key=lambda ranked: -ranked[0])
        del self.ranked[self._beams :]

    def beats(self, best_possible: float) -> bool:
        """Whether nothing of a score like this could still come among them."""
        return len(self.ranked) == self._beams and self.ranked[-1][0] >= best_possible


@dataclass(frozen=True)
class _Running:
    """A text that is not finished: its row in the batch, what it holds, and the sum of its scores."""

    row: int
    text: Hypothesis
    score: float


@torch.no_grad()
def beam_search(
    model: LeanWhisper,
    states: Tensor,
    token_limits: Sequence[int],
    rules: Rules,
    beams: int = 1,
    boost: TermBoost | None = None,
    no_repeat_ngram: int = 0,
    guard: LoopGuard | None = None,
) -> list[Hypothesis]:
    """The likeliest text of each clip's encoder states (clips, positions, d_model), of at most its own tokens.

    A text's score is its mean log-probability a token, boost included, as in transformers at length_penalty 1; with one
    beam it is the greedy text. Unlike there, a text that ended by itself goes before one that its limit cut off.
    """
    step = _Step(model, states, beams)
    never, first = _forbidden(rules, model.vocabulary, states.device)
    room = model.positions + 1 - len(rules.before) - len(rules.prompt)
    limits = [min(limit, room) for limit in token_limits]
    done = [_Done(beams) for _ in limits]
    clips = list(range(len(limits)))
    # All beams of a clip are the same at first: one of them counts.
    texts = [_Running(row, Hypothesis((), ()), IMPOSSIBLE if row % beams else 0.0) for row in range(len(clips) * beams)]
    places = [boost.start] * len(texts) if boost else []
    if rules.before:
        step.read(rules.before)
    for token in rules.prompt[:-1]:
        step(torch.full((len(texts),), token, device=states.device))
    tokens = [rules.prompt[-1]] * len(texts)
    for length in range(1, max(limits) + 1):
        logits = step(torch.tensor(tokens, device=states.device))
        log_probabilities = logits.log_softmax(dim=-1)
        scores = log_probabilities + (first if length == 1 else never)
        if boost:
            boost.add_to(scores, places)
        _forbid_repeats(scores, texts, no_repeat_ngram, guard)
        ranked = _ranked(log_probabilities, scores, texts, beams)
        slots, running = [], []
        for slot, clip in enumerate(clips):
            at_limit = length == limits[clip]
            going = _finish(ranked[slot], done[clip], beams, rules.end, at_limit)
            if going and not done[clip].beats(going[0].score / length):
                slots.append(slot)
                running += going
        if not running:
            break
        clips = [clips[slot] for slot in slots]
        step.go_on(slots, [text.row for text in running])
        tokens = [text.text.tokens[-1] for text in running]
        if boost:
            likely = [text.text.log_probabilities[-1] for text in running]
            rows = [places[text.row] for text in running]
            places = list(map(boost.after, rows, tokens, likely))
        texts = [_Running(row, text.text, text.score) for row, text in enumerate(running)]
    return [clip.ranked[0][1] for clip in done]


def _forbidden(rules: Rules, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is added to the scores (vocabulary,) of any token, and to those of a text's first."""
    never = torch.zeros(vocabulary, device=device)
    never[list(rules.never)] = -torch.inf
    first = never.clone()
    first[list(rules.never_first)] = -torch.inf
    return never, first


def _forbid_repeats(scores: Tensor, texts: Sequence[_Running], size: int, guard: LoopGuard | None) -> None:
    """Takes away tokens that would say `size` in a row a second time, as transformers and CTranslate2 can.

    And those with which a text would say the same once too often, as the `guard` knows.
    """
    for row, text in enumerate(texts):
        tokens = text.text.tokens
        if size and len(tokens) >= size:
            last = tokens[len(tokens) - size + 1 :]
            starts = range(len(tokens) - size + 1)
            scores[row, [tokens[i + size - 1] for i in starts if tokens[i : i + size - 1] == last]] = -torch.inf
        if guard and (forbidden := guard.forbidden(tokens)):
            scores[row, list(forbidden)] = -torch.inf


def _ranked(log_probabilities: Tensor, scores: Tensor, texts: Sequence[_Running], beams: int) -> list[list[_Running]]:
    """For each clip twice as many longer texts as there are beams, best first: half of them may have ended."""
    # The best of each beam hold the best of all.
    best, tokens = scores.topk(2 * beams, dim=-1)
    sums = best + torch.tensor([[text.score] for text in texts], device=scores.device)
    ranked = []
    rows = zip(sums.tolist(), tokens.tolist(), log_probabilities.gather(1, tokens).tolist(), texts, strict=True)
    longer = [[(score, text, token, lp) for score, token, lp in zip(*row, strict=True)] for *row, text in rows]
    for start in range(0, len(texts), beams):
        candidates = sorted(chain(*longer[start : start + beams]), key=lambda candidate: -candidate[0])
        ranked.append(
            [
                _Running(text.row, Hypothesis((*text.text.tokens, token), (*text.text.log_probabilities, lp)), score)
                for score, text, token, lp in candidates[: 2 * beams]
            ]
        )
    return ranked


def _finish(ranked: Sequence[_Running], done: _Done, beams: int, end: int, at_limit: bool) -> list[_Running]:
    """Puts what has ended among the `done`, and returns as many others as there are beams; none at the limit.

    What the limit cuts off is a loop nearly always, and likely word by word: it counts only where no text has ended.
    """
    for longer in ranked[:beams]:
        if longer.text.tokens[-1] == end:
            done.add(longer.score / len(longer.text.tokens), longer.text)
    if not at_limit:
        return [longer for longer in ranked if longer.text.tokens[-1] != end][:beams]
    if not done.ranked:
        done.add(ranked[0].score, ranked[0].text)
    return []
