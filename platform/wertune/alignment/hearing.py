"""What the base writes of each window of a recording, letter by letter with times."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wertune.alignment.attention import alignment_heads, token_times
from wertune.alignment.cutting import Timed
from wertune.alignment.recording import Window
from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.text import visible
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.whisper.features import SAMPLES_PER_POSITION, context_positions, log_mel
from wertune.whisper.loops import token_limit
from wertune.whisper.model import Whisper

FULL = ContextConfig(short=False)


class Listener:
    """The base, and which of its heads follow the recording."""

    def __init__(self, whisper: Whisper, decode: DecodeConfig) -> None:
        self._whisper, self._decode = whisper, decode
        config = whisper.bare.config
        self._heads = alignment_heads(
            whisper.bare.generation_config, config.decoder_layers, config.decoder_attention_heads
        )

    def write(self, window: Window) -> Timed:
        """What is heard in it, with its times."""
        states = self._encode(window)
        limit = token_limit(window.samples.size / SAMPLE_RATE_HZ, self._decode)
        return self._timed(states, window, self._whisper.write(states, [limit], self._decode)[0].text)

    def follow(self, window: Window, text: str) -> Timed:
        """When the text is said in the window, and how likely it is."""
        return self._timed(self._encode(window), window, text)

    def _encode(self, window: Window) -> torch.Tensor:
        features = log_mel(window.samples, context_positions(0, FULL), self._whisper.mel_bins)
        with torch.no_grad():
            return self._whisper.encode(features[None])

    def _timed(self, states: torch.Tensor, window: Window, text: str) -> Timed:
        text = visible(text)
        whisper, count = self._whisper, len(text)
        if not text:
            return Timed("", *(np.zeros(0) for _ in range(3)))
        said = whisper.tokenizer(f" {text}", add_special_tokens=False, return_offsets_mapping=True)
        prompt = list(whisper.wording.prompt)
        label = torch.tensor([[*prompt[1:], *said.input_ids, whisper.wording.end]])
        scores, attended = whisper.follow(states, label, self._heads)
        first = len(prompt) - 1
        positions = -(-window.samples.size // SAMPLES_PER_POSITION)
        times = token_times(attended[0, :, first:], positions) + window.start_s
        starts, ends, likely = np.zeros(count), np.zeros(count), np.zeros(count)
        for token, (a, b) in enumerate(said.offset_mapping):
            spread = np.linspace(times[token], times[token + 1], max(1, b - a) + 1)
            for place in range(max(a, 1), b):  # the blank before the text is none of its characters
                starts[place - 1], ends[place - 1] = spread[place - a], spread[place - a + 1]
                likely[place - 1] = float(scores[0, first + token])
        return Timed(text, starts, ends, likely)
