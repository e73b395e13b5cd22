"""What the texts of a batch may not say next, kept in tensors as the texts are, so that no token waits for the host.

Neither the same too often, nor, in a window, times out of their order. The rules of times are Whisper's own (Radford et
al. 2022, section 4.5; openai/whisper's `ApplyTimestampRules`): a text begins with a time, times come in pairs around
what is said, none is before the last, and where all times together are likelier than any word, a time is written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wertune.whisper.loops import SIGN, LoopGuard, allowed

STEPS_A_SECOND, MOST_S = 50, 30.0  # of times within a window
LATEST_BEGIN = STEPS_A_SECOND  # the first segment begins within a second: later, its words were skipped


class Repeats:
    """What the texts of a batch say again, and what none of them may: by the `guard`, or `size` tokens in a row.

    The latter is as transformers and CTranslate2 have it; 0: they may.
    """

    def __init__(self, guard: LoopGuard | None, size: int, texts: int, longest: int, device: torch.device) -> None:
        self._size = size
        self._kinds = torch.frombuffer(guard.kinds, dtype=torch.uint8).to(device) if guard else None
        self._most = torch.tensor([allowed(back) * back - 1 for back in range(1, longest + 1)], device=device)
        # (texts, length): their tokens, the latest first, and for each how many of the last ones stand as far behind
        # the same tokens as the next one stands behind this.
        self._tokens = torch.zeros(texts, 0, dtype=torch.long, device=device)
        self._same = torch.zeros_like(self._tokens)

    def change(self, scores: Tensor) -> None:
        """Takes away from scores (texts, vocabulary) of the next token, in place, what would be said once too often."""
        if self._size:
            self._take_away(scores, self._same >= self._size - 1)
        if self._kinds is not None:
            # Digits and letters with what stands between them are no loop.
            is_loop = self._kinds.take(self._tokens).cummax(dim=1).values != SIGN
            self._take_away(scores, is_loop & (self._same >= self._most[: self._same.shape[1]]))

    def _take_away(self, scores: Tensor, forbidden: Tensor) -> None:
        scores.scatter_add_(1, self._tokens, torch.where(forbidden, -torch.inf, 0.0))

    def go_on(self, rows: Tensor, tokens: Tensor, log_probabilities: Tensor) -> None:
        """Each text goes on from the one in its row of `rows` with a token (texts,), however likely."""
        before = self._tokens.index_select(0, rows)
        same = (self._same.index_select(0, rows) + 1) * (before == tokens[:, None])
        self._same = torch.cat([same, torch.zeros_like(tokens)[:, None]], dim=1)
        self._tokens = torch.cat([tokens[:, None], before], dim=1)


class Times:
    """Which times the texts of a batch have said, and which may come next."""

    def __init__(
        self, times: Sequence[int], end: int, windows_s: Sequence[float], beams: int, device: torch.device
    ) -> None:
        """`times` are the tokens of a window's times, in order; all other tokens are words, or the text's `end`."""
        self._times, self._end = torch.tensor(times, device=device), end
        lasts = torch.tensor([round(seconds * STEPS_A_SECOND) for seconds in windows_s], device=device)
        self._last_allowed = lasts.clamp(max=len(times) - 1).repeat_interleave(beams)
        # (texts,): the last time said; whether the last token is one; and whether the one before is, or there is none.
        self._said = torch.zeros_like(self._last_allowed)
        self._is_time = torch.zeros_like(self._said, dtype=torch.bool)
        self._was_time = torch.ones_like(self._is_time)
        self._steps, self._has_begun = torch.arange(len(times), device=device), False

    def change(self, scores: Tensor) -> None:
        """Takes away from log-probabilities (texts, vocabulary) of the next token, in place, what may not come."""
        times = scores.index_select(1, self._times)
        closes, opens = self._is_time & ~self._was_time, self._is_time & self._was_time
        # A segment lasts; the next one may begin where it ends.
        least = torch.where(closes, self._said, self._said + self._has_begun)
        forbidden = (self._steps < least[:, None]) | (self._steps > self._last_allowed[:, None])
        if not self._has_begun:
            forbidden |= self._steps > LATEST_BEGIN
        times = times.masked_fill(forbidden | opens[:, None], -torch.inf)
        scores.index_fill_(1, self._times, -torch.inf)
        # Behind a segment no word comes before the next one's time, but the text may end.
        ends = scores[:, self._end].clone()
        scores.masked_fill_(closes[:, None], -torch.inf)
        scores[:, self._end] = ends
        only_times = times.logsumexp(dim=1) > scores.max(dim=1).values
        if not self._has_begun:
            only_times = torch.ones_like(only_times)
        scores.masked_fill_(only_times[:, None], -torch.inf)
        scores.index_copy_(1, self._times, times)

    def go_on(self, rows: Tensor, tokens: Tensor, log_probabilities: Tensor) -> None:
        """Each text goes on from the one in its row of `rows` with a token (texts,)."""
        is_this = tokens[:, None] == self._times
        is_time, said = is_this.any(dim=1), self._said.index_select(0, rows)
        self._was_time = self._is_time.index_select(0, rows) | torch.full_like(is_time, not self._has_begun)
        self._said, self._is_time = torch.where(is_time, is_this.int().argmax(dim=1), said), is_time
        self._last_allowed, self._has_begun = self._last_allowed.index_select(0, rows), True
