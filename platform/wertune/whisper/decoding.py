"""Writing the texts of encoded clips: greedy or beam search over Whisper's decoder, in plain sight.

Beams of a clip share what they hear: one copy of its keys and values, and one product for all of its beams, where
transformers' generate repeats both for every beam. A clip that is done leaves the batch.

All that is known of the texts stays on the model's device while they are written: the host asks now and then which
clips are done, and reads the texts at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from wertune.whisper.boost import Places, TermBoost
from wertune.whisper.forward import Layer, LeanWhisper, Linear, Multiply
from wertune.whisper.loops import LoopGuard
from wertune.whisper.restraints import Repeats, Times

IMPOSSIBLE = -1e9
# Tokens from one look at what is done to the next: on a GPU each look waits for all that was asked of it before.
LOOKS_EVERY = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Hypothesis:
    """Tokens as they were written, with the end of text unless the limit cut it off, and the model's log-probabilities.

    Those are of the model itself: neither a boost nor what may not be written changes them. `no_speech` is how likely
    the model thought before it wrote that nobody speaks.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    no_speech: float | None = None


@dataclass(frozen=True)
class Rules:
    """What may be written: the `prompt` before each text, its `end`, and tokens that never stand in it or begin it.

    `before` is what is taken to have been said earlier: Whisper's own prompt of text, its mark included. `times` are
    the tokens of a window's times, none where they may not be written. `no_speech` is the one that would say that
    nobody speaks, if the base has it.
    """

    prompt: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    never_first: tuple[int, ...]
    before: tuple[int, ...] = ()
    times: tuple[int, ...] = ()
    no_speech: int | None = None


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

    def keep(self, clips: Tensor) -> None:
        """Only these clips (kept,) stay."""
        self._heard = [(keys[clips], values[clips]) for keys, values in self._heard]

    def go_on(self, rows: Tensor) -> None:
        """Each text goes on from the one in its row of `rows`."""
        self._written = [both.index_select(1, rows) for both in self._written if both is not None]


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


class _Longer(NamedTuple):
    """Texts one token longer (clips, some), best first: sums of scores, their last tokens, places among all of a step.

    A step's are (clips x beams, 2 x beams): to each text in the batch the best tokens of its own.
    """

    sums: Tensor
    tokens: Tensor
    places: Tensor

    def chosen(self, which: Tensor) -> "_Longer":
        """Of each clip some (clips, fewer)."""
        return _Longer(*(each.gather(1, which) for each in self))

    def of(self, clips: Tensor) -> "_Longer":
        """Those of some clips (kept,)."""
        return _Longer(*(each.index_select(0, clips) for each in self))


class _Written:
    """All tokens of all steps, whatever became of their texts, and where each text in the batch has its last."""

    def __init__(self, texts: int, beams: int, device: torch.device) -> None:
        self._each, self.count = 2 * beams, 0
        self._last = torch.full((texts,), -1, device=device)
        self._before, self._tokens, self._log_probabilities = list[Tensor](), list[Tensor](), list[Tensor]()

    def add(self, tokens: Tensor, log_probabilities: Tensor) -> None:
        """A step's (clips x beams, 2 x beams)."""
        self._before.append(self._last)
        self._tokens.append(tokens.flatten())
        self._log_probabilities.append(log_probabilities.flatten())

    def go_on(self, places: Tensor) -> None:
        """The texts (clips x beams,) that stay, by the places of their last tokens in the step."""
        self._last = places + self.count
        self.count += self._tokens[-1].numel()

    def texts(self, ends: Sequence[int]) -> list[Hypothesis]:
        """Those whose last tokens stand at these places among all."""
        before, tokens = torch.cat(self._before).tolist(), torch.cat(self._tokens).tolist()
        log_probabilities, texts = torch.cat(self._log_probabilities).tolist(), []
        for place in ends:
            path = list[int]()
            for _ in self._before:  # no text has more tokens than there were steps
                if place >= 0:
                    path.append(place)
                    place = before[place // self._each]
            path.reverse()
            texts.append(Hypothesis(tuple(tokens[i] for i in path), tuple(log_probabilities[i] for i in path)))
        return texts


class _Done:
    """Of each clip the best finished text, the scores of as many as there are beams, and whether better may come."""

    def __init__(self, limits: Sequence[int], beams: int, end: int, device: torch.device) -> None:
        self._beams, self._end, self._lengths = beams, end, set(limits)
        # Where the last token of each finished clip's text stands, as the host knows it, and the clips that are left.
        self.ends, self._clips = dict[int, int](), list(range(len(limits)))
        self._limits = torch.tensor(limits, device=device)
        # (clips,): the same for the best text so far, and whether the clip is still written.
        self._ends = torch.full_like(self._limits, -1)
        self._open = torch.ones_like(self._limits, dtype=torch.bool)
        # (clips, beams), best first; what is impossible goes before what is not there.
        self._scores = torch.full((len(limits), beams), -torch.inf, dtype=torch.float64, device=device)

    def add(self, longer: _Longer, length: int, count: int) -> Tensor:
        """Takes in what has ended among texts of that `length`, after `count` tokens; which go on (clips, beams).

        What the limit cuts off is a loop nearly always, and likely word by word: it counts where no text has ended.
        """
        is_end = longer.tokens == self._end
        going = is_end.int().argsort(dim=1, stable=True)[:, : self._beams]
        means = (longer.sums.double() / length).clamp(min=torch.finfo(torch.float64).min)
        ended = torch.where((is_end & self._open[:, None])[:, : self._beams], means[:, : self._beams], -torch.inf)
        # The first of the best; where nothing has ended the likeliest of all.
        best, which = ended.max(dim=1)
        better = best > self._scores[:, 0]
        if length in self._lengths:
            better |= (self._limits == length) & (self._ends < 0)
        self._ends = torch.where(better, longer.places.gather(1, which[:, None])[:, 0] + count, self._ends)
        self._scores = torch.cat([self._scores, ended], dim=1).topk(self._beams).values
        # Nothing that goes on could still come among them.
        self._open &= ~(self._scores[:, -1] >= means.gather(1, going[:, :1])[:, 0])
        if length in self._lengths:
            self._open &= self._limits > length
        return going

    def look(self) -> list[int]:
        """Which of the clips that are left are still written: the host waits for it."""
        found: list[int] = torch.where(self._open, -1, self._ends).tolist()
        self.ends |= {clip: end for clip, end in zip(self._clips, found, strict=True) if end >= 0}
        return [slot for slot, end in enumerate(found) if end < 0]

    def keep(self, clips: Tensor, slots: Sequence[int]) -> None:
        """Only these of the clips (kept,) stay."""
        self._clips = [self._clips[slot] for slot in slots]
        self._limits, self._scores = self._limits[clips], self._scores[clips]
        self._ends, self._open = self._ends[clips], self._open[clips]


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
    windows_s: Sequence[float] = (),
) -> list[Hypothesis]:
    """The likeliest text of each clip's encoder states (clips, positions, d_model), of at most its own tokens.

    A text's score is its mean log-probability a token, boost included, as in transformers at length_penalty 1; with one
    beam it is the greedy text. Unlike there, a text that ended by itself goes before one that its limit cut off.

    Where the clips are windows of so many seconds, texts say when their segments begin and end, by Whisper's own rules.
    """
    device = states.device
    step = _Step(model, states, beams)
    never, first = _forbidden(rules, model.vocabulary, device)
    room = model.positions + 1 - len(rules.before) - len(rules.prompt)
    limits = [min(limit, room) for limit in token_limits]
    texts, longest = len(limits) * beams, max(limits)
    # All beams of a clip are the same at first: one of them counts.
    sums = torch.full((len(limits), beams), IMPOSSIBLE, device=device)
    sums[:, 0] = 0.0
    written, done = _Written(texts, beams, device), _Done(limits, beams, rules.end, device)
    watching: list[Places | Repeats | Times] = [boost.start(texts, device)] if boost else []
    if guard or no_repeat_ngram:
        watching.append(Repeats(guard, no_repeat_ngram, texts, longest, device))
    if windows_s:  # first: by the model's own probabilities times are told from text
        watching.insert(0, Times(rules.times, rules.end, windows_s, beams, device))
    if rules.before:
        step.read(rules.before)
    silent: Tensor | None = None
    for place, token in enumerate(rules.prompt[:-1]):
        logits = step(torch.full((texts,), token, device=device))
        if place == 0:
            silent = _silent(logits, rules, beams)
    tokens = torch.full((texts,), rules.prompt[-1], device=device)
    for length in range(1, longest + 1):
        logits = step(tokens)
        if length == len(rules.prompt) == 1:
            silent = _silent(logits, rules, beams)
        log_probabilities = logits.log_softmax(dim=-1)
        scores = log_probabilities + (first if length == 1 else never)
        for each in watching:
            each.change(scores)
        # The best of each beam hold the best of all.
        best, tokens = scores.topk(2 * beams, dim=-1)
        own = log_probabilities.gather(1, tokens)
        longer = _ranked(best, tokens, sums)
        going, is_fewer = longer.chosen(done.add(longer, length, written.count)), False
        written.add(tokens, own)
        if length % LOOKS_EVERY[device.type] == 0 or length == longest:
            slots = done.look()
            if not slots:
                break
            if is_fewer := len(slots) < len(sums):
                kept = torch.tensor(slots, device=device)
                going = going.of(kept)
                step.keep(kept)
                done.keep(kept, slots)
        sums, tokens, places = going.sums, going.tokens.flatten(), going.places.flatten()
        rows = places // (2 * beams)
        written.go_on(places)
        if beams > 1 or is_fewer:  # else each text goes on from itself
            step.go_on(rows)
        for each in watching:
            each.go_on(rows, tokens, own.take(places))
    found = written.texts([done.ends[clip] for clip in range(len(limits))])
    if silent is None:
        return found
    return [replace(text, no_speech=share) for text, share in zip(found, silent.tolist(), strict=True)]


def _silent(logits: Tensor, rules: Rules, beams: int) -> Tensor | None:
    """How likely it is of each clip (clips,) that nobody speaks, by what may follow the start of the transcript."""
    return None if rules.no_speech is None else logits[::beams].softmax(dim=-1)[:, rules.no_speech]


def _forbidden(rules: Rules, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is added to the scores (vocabulary,) of any token, and to those of a text's first."""
    never = torch.zeros(vocabulary, device=device)
    never[list(rules.never)] = -torch.inf
    first = never.clone()
    first[list(rules.never_first)] = -torch.inf
    return never, first


def _ranked(best: Tensor, tokens: Tensor, sums: Tensor) -> _Longer:
    """For each clip twice as many longer texts as there are beams, best first: half of them may have ended.

    Of a step's tokens and their scores (clips x beams, 2 x beams), and of sums (clips, beams) of those before.
    """
    clips, beams = sums.shape
    ranked, order = (best + sums.view(-1, 1)).view(clips, -1).sort(dim=1, descending=True, stable=True)
    each = best.numel() // clips
    places = order[:, : 2 * beams] + torch.arange(0, best.numel(), each, device=sums.device)[:, None]
    return _Longer(ranked[:, : 2 * beams], tokens.take(places), places)
