"""When each token of a text is said, by what the decoder's alignment heads attend to (Radford et al. 2022, timing.py).

A token's time is where the cheapest path through the heads' mean attention, which only goes on, stands on it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wertune.base.errors import BaseModelError
from wertune.whisper.features import POSITIONS_PER_SECOND

MEDIAN_POSITIONS = 7  # OpenAI's filter width
LEAST = 1e-6

Floats = npt.NDArray[np.floating[Any]]


def alignment_heads(generation: Any, layers: int, heads: int) -> tuple[tuple[int, int], ...]:
    """(layer, head) of a base's generation_config.json; BaseModelError where it names none that it has."""
    found = getattr(generation, "alignment_heads", None)
    pairs = [tuple(pair) for pair in found if len(pair) == 2] if isinstance(found, list | tuple) else []
    usable = tuple((int(layer), int(head)) for layer, head in pairs if 0 <= layer < layers and 0 <= head < heads)
    if not usable or len(usable) != len(found or ()):
        rule = f"must hold (layer, head) pairs below ({layers}, {heads}): nothing else says when a word is said"
        remedy = "take the model's own generation_config.json or another base; align takes a CTC model with --ctc, too"
        raise BaseModelError(f"generation_config.json: alignment_heads is {found!r}, but {rule}; {remedy}")
    return usable


def token_times(attended: torch.Tensor, positions: int) -> npt.NDArray[np.float64]:
    """Seconds (tokens + 1,) at which tokens begin and the last ends, by what is attended to (heads, tokens, positions).

    Of the positions so many hold the recording, the others padding.
    """
    weights = attended[..., :positions]
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=LEAST)
    mean, std = weights.mean(dim=-2, keepdim=True), weights.std(dim=-2, keepdim=True, unbiased=False)
    weights = _median((weights - mean) / std.clamp(min=LEAST)).mean(dim=0)
    return steady_path(weights.double().cpu().numpy()) / POSITIONS_PER_SECOND


def _median(weights: torch.Tensor) -> torch.Tensor:
    """Of each value and its neighbours along the last dimension, mirrored at its ends."""
    half = MEDIAN_POSITIONS // 2
    if weights.shape[-1] <= half:
        return weights
    padded = torch.nn.functional.pad(weights, (half, half), mode="reflect")
    return padded.unfold(-1, MEDIAN_POSITIONS, 1).median(dim=-1).values


def steady_path(gains: Floats) -> npt.NDArray[np.int64]:
    """First columns (rows + 1,) of each row on the path of most gain through (rows, columns); at the end, `columns`.

    The path begins in the first row, ends in the last, and goes to the next row or stays with each column: dynamic
    time warping in which every row has a column. Where there are more rows than columns, rows share them evenly.
    """
    rows, columns = gains.shape
    if rows >= columns:
        return np.linspace(0, columns, rows + 1).astype(np.int64)
    best = np.full(rows, -np.inf)
    best[0] = gains[0, 0]
    is_new = np.zeros((columns, rows), dtype=bool)
    for column in range(1, columns):
        before = np.concatenate(([-np.inf], best[:-1]))
        is_new[column] = before > best
        best = np.maximum(best, before) + gains[:, column]
    starts = np.full(rows + 1, columns, dtype=np.int64)
    row = rows - 1
    for column in range(columns - 1, 0, -1):
        if is_new[column, row]:
            starts[row] = column
            row -= 1
    starts[0] = 0
    return starts
