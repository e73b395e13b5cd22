"""The base at work: what it writes of a window, and when each character of a text is said there."""

import numpy as np
import torch

from wertune.alignment.cutting import Timed, untimed
from wertune.alignment.recording import Window
from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.text import label_text, visible
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.whisper.features import SAMPLES_PER_POSITION, context_positions, log_mel
from wertune.whisper.loops import token_limit
from wertune.whisper.model import Whisper

FULL = ContextConfig(short=False)


class Listener:
    """A Whisper that writes windows and follows texts by its alignment heads, at 30 s of context."""

    def __init__(self, whisper: Whisper, decode: DecodeConfig) -> None:
        self._whisper = whisper
        # Where the words are is of more matter than which they are: one beam, and nothing where nobody speaks.
        self._decode = decode.model_copy(update={"num_beams": 1, "term_boost": 0.0, "may_be_empty": True})

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """Which follow the recording; BaseModelError where the base names none."""
        return self._whisper.heads

    def text(self, window: Window) -> str:
        """What is heard in it."""
        return self._text(self._encode(window), window)

    def write(self, window: Window) -> Timed:
        """What is heard in it, and when."""
        states = self._encode(window)
        return self._timed(states, window, self._text(states, window))

    def follow(self, window: Window, text: str) -> Timed:
        """When the text is said in the window, and how likely it is."""
        return self._timed(self._encode(window), window, text)

    def _text(self, states: torch.Tensor, window: Window) -> str:
        limit = token_limit(window.samples.size / SAMPLE_RATE_HZ, self._decode)
        return visible(self._whisper.write(states, [limit], self._decode)[0].text)

    def _encode(self, window: Window) -> torch.Tensor:
        features = log_mel(window.samples, context_positions(0, FULL), self._whisper.mel_bins)
        with torch.no_grad():
            return self._whisper.encode(features[None])

    def _timed(self, states: torch.Tensor, window: Window, text: str) -> Timed:
        """A token's time is shared by its characters."""
        text = visible(text)
        written = label_text(text, self._whisper.language)
        blank = len(written) - len(text)
        wording = self._whisper.wording
        said = wording.tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
        ids = said.input_ids[: self._whisper.most_tokens - len(wording.prompt) - 1]
        if not ids:
            return untimed(text, window.start_s)
        times, likely = self._whisper.follow_tokens(states, ids, -(-window.samples.size // SAMPLES_PER_POSITION))
        times = times + window.start_s
        timed = untimed(text, float(times[-1]))
        for token, (start, end) in enumerate(said.offset_mapping[: len(ids)]):
            shares = np.linspace(times[token], times[token + 1], max(1, end - start) + 1)
            for place in range(max(start, blank), end):
                timed.starts_s[place - blank], timed.ends_s[place - blank] = shares[place - start : place - start + 2]
                timed.log_probabilities[place - blank] = likely[token]
        return timed
