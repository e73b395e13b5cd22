"""A CTC model in the place of the base's attention: a Wav2Vec2ForCTC folder, and torchaudio's forced alignment."""

import itertools
from pathlib import Path

import numpy as np
import torch

from wertune.alignment.cutting import Timed, untimed
from wertune.alignment.hearing import Listener
from wertune.alignment.recording import Window
from wertune.base.errors import BaseModelError
from wertune.base.text import visible
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.whisper.model import brief

DELIMITER = "|"


class CtcFollower:
    """Finds the letters of a text where a CTC model hears them; letters that it has no token for get no time."""

    def __init__(self, folder: Path) -> None:
        """BaseModelError where the folder holds no such model, or one of words instead of letters."""
        from transformers import AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

        if not folder.is_dir():
            raise BaseModelError(f"--ctc is {folder}, but must be a folder that holds a CTC model; mend the name")
        try:
            self._model = AutoModelForCTC.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True)
            self._features = Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers, safetensors and JSON of another shape each raise their own kinds
            problem = f"does not hold a Wav2Vec2ForCTC in Hugging Face format: {brief(error)}"
            raise BaseModelError(f"{folder} {problem}; save model, tokenizer and feature extractor there") from error
        self._tokens, self._blank = dict(tokenizer.get_vocab()), int(tokenizer.pad_token_id)
        if not any(sign.isalpha() for sign in self._tokens if len(sign) == 1):
            rule = "must have letters for tokens, as models tuned with Wav2Vec2CTCTokenizer have"
            raise BaseModelError(f"{folder}: vocab.json has no letter, but {rule}; take another model")
        if self._features.sampling_rate != SAMPLE_RATE_HZ:
            rate = self._features.sampling_rate
            raise BaseModelError(f"{folder}: the model hears {rate} Hz, but must hear {SAMPLE_RATE_HZ}; take another")

    @torch.no_grad()
    def follow(self, window: Window, text: str) -> Timed:
        """When the text is said in the window, and how likely each letter is."""
        text = visible(text)
        timed = untimed(text, window.start_s)
        places, tokens = self._known(text)
        heard = self._features(window.samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_values
        emissions = torch.log_softmax(self._model(heard).logits.float(), dim=-1)
        repeats = sum(one == other for one, other in itertools.pairwise(tokens))
        if not tokens or len(tokens) + repeats > emissions.shape[1]:  # more letters than the window has frames for
            return timed
        from torchaudio.functional import forced_align, merge_tokens

        path, scores = forced_align(emissions, torch.tensor([tokens], dtype=torch.int32), blank=self._blank)
        frame_s = window.samples.size / SAMPLE_RATE_HZ / emissions.shape[1]
        for place, span in zip(places, merge_tokens(path[0], scores[0], blank=self._blank), strict=True):
            timed.starts_s[place] = window.start_s + frame_s * span.start
            timed.ends_s[place] = window.start_s + frame_s * span.end
            timed.log_probabilities[place] = span.score
        _fill(timed, set(places))
        return timed

    def _known(self, text: str) -> tuple[list[int], list[int]]:
        """The characters that the model has tokens for, as they are or in the other case, and these."""
        places, tokens = [], []
        for place, sign in enumerate(text):
            forms = (DELIMITER,) if sign == " " else (sign, sign.upper(), sign.lower())
            token = next((self._tokens[form] for form in forms if form in self._tokens), None)
            if token is not None and token != self._blank:
                places.append(place)
                tokens.append(token)
        return places, tokens


def _fill(timed: Timed, known: set[int]) -> None:
    """Characters without a time of their own stand at the end of the one before, the first ones at the next's start."""
    order = sorted(known)
    for place in range(len(timed.text)):
        if place not in known:
            at = int(np.searchsorted(order, place))
            near = order[at - 1] if at else order[0]
            time_s = timed.ends_s[near] if at else timed.starts_s[near]
            timed.starts_s[place] = timed.ends_s[place] = time_s
            timed.log_probabilities[place] = timed.log_probabilities[near]


class WithCtc:
    """The base writes, and the CTC model finds what it wrote."""

    def __init__(self, listener: Listener, follower: CtcFollower) -> None:
        self._listener, self._follower = listener, follower

    def write(self, window: Window) -> Timed:
        """What is heard in it, and when."""
        return self._follower.follow(window, self._listener.text(window))
