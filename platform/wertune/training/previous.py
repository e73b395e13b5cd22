"""What is said before a window, which the decoder reads ahead of it (Radford et al. 2022, section 2.3).

Of a stretch of a recording it is what its earlier segments say; of joined clips, which have no before, the window that
was drawn before it, as if the recording had begun with that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from wertune.base.text import joined
from wertune.data.manifest import Recording
from wertune.training.windows import Window

ENOUGH_LETTERS = 3000  # more than the tokens that are read have


def earlier_in_recording(clips: Sequence[Recording]) -> dict[str, Recording]:
    """By the place of a segment the one of its language that comes before it in its recording, if any does."""
    of_file = dict[tuple[Path, str], list[Recording]]()
    for clip in clips:
        of_file.setdefault((clip.path, clip.language), []).append(clip)
    ordered = [sorted(segments, key=lambda segment: segment.row.offset) for segments in of_file.values()]
    return {
        after.place: before
        for segments in ordered
        for before, after in pairwise(segments)
        if before.row.offset + before.duration_s <= after.row.offset + 1e-6
    }


def with_text_before(
    windows: Sequence[Window], earlier: Mapping[str, Recording], ratio: float, generator: np.random.Generator
) -> list[Window]:
    """The windows, that share of them with the text before, where there is any."""
    found, last = list[Window](), dict[str, Window]()
    for window in windows:
        is_given = bool(generator.random() < ratio)
        first = window.heard[0].clip
        if window.stretch or first.place in earlier:
            text = _said_earlier(first, earlier)
        else:
            text = _text(last[window.language]) if window.language in last else ""
        last[window.language] = window
        found.append(replace(window, before=text) if is_given else window)
    return found


def _said_earlier(clip: Recording, earlier: Mapping[str, Recording]) -> str:
    """What the segments before it say, as much as is read of it."""
    texts, letters = list[str](), 0
    while (before := earlier.get(clip.place)) and letters < ENOUGH_LETTERS:
        texts.insert(0, before.text)
        letters += len(before.text)
        clip = before
    return joined(texts)


def _text(window: Window) -> str:
    """Without a clip that its end cuts off."""
    return joined(each.clip.text for each in window.heard if each.end_s <= window.duration_s + 1e-6)
