"""What the texts of a batch say again while they are written: kept in tensors, so that no token waits for the host."""

import torch
from torch import Tensor

from wertune.whisper.loops import SIGN, LoopGuard, allowed


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
