"""CTranslate2 as the engine that serves an adapter on a CPU: the only file that knows the library.

The adapter goes into the base's float weights, and the library's own converter rounds the sum to int8. It knows no
boost of terms, so terms are boosted among the texts that its beam search has finished (n-best rescoring). Windows with
times are written so, too: by the library's own rules of times, as many beams, terms boosted among what is finished.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wertune.base.config import DecodeConfig
from wertune.base.files import CACHE_REMEDY, cache_root, content_digest, sha256_of, store_folder, storing
from wertune.base.machine import require_engine
from wertune.whisper.adapter import ADAPTER_FILES, check_adapter_files, merged
from wertune.whisper.base_model import BaseModel
from wertune.whisper.boost import TermBoost, doubts
from wertune.whisper.decoding import Rules
from wertune.whisper.features import POSITIONS_PER_SECOND
from wertune.whisper.hugging_face import read_json
from wertune.whisper.loops import MOST_TOKENS, LoopGuard, last_resort, shrinks
from wertune.whisper.restraints import LATEST_BEGIN
from wertune.whisper.timed.attention import Floats, alignment_heads
from wertune.whisper.wording import Wording, Written, generation_of, load_wording

QUANTIZATION = "int8"
FORMAT_VERSION = 1  # raise it whenever the same library writes anything else than before
LEAST_PROBABILITY = 1e-30  # whose logarithm is a number


def load_engine(
    base: BaseModel, adapter: Path, language: str, terms: Sequence[str] = (), quantization: str = QUANTIZATION
) -> "CTranslate2Whisper":
    """The base with the adapter in it, converted on first use; ConfigError, AdapterError or StorageError."""
    require_engine("ctranslate2")
    folder = converted(base, adapter, language, quantization)
    wording, mel_bins = load_wording(base.path, language, terms)
    return CTranslate2Whisper(folder, wording, mel_bins, quantization, base.path)


def converted(base: BaseModel, adapter: Path, language: str, quantization: str = QUANTIZATION) -> Path:
    """The folder of the merged, rounded model, named by all that it depends on: made once, whole or not at all."""
    import ctranslate2

    check_adapter_files(adapter)
    # Of the adapter both files: its strength is the alpha of its configuration.
    depends_on = [sha256_of(adapter / name) for name in ADAPTER_FILES]
    depends_on += [base.texts_digest, ctranslate2.__version__, quantization, str(FORMAT_VERSION)]
    final = cache_root() / "engines" / content_digest(depends_on)[:32]
    stamp = {"digest": base.digest, "ctranslate2": ctranslate2.__version__}
    with storing("the converted model", final, CACHE_REMEDY):
        store_folder(final, lambda folder: _convert(base.path, adapter, language, quantization, folder), stamp)
    return final


def _convert(base: Path, adapter: Path, language: str, quantization: str, folder: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    model, (wording, _) = merged(base, adapter, language), load_wording(base, language)

    class Converter(TransformersConverter):  # type: ignore[misc]
        """The library's own, of a model that is in memory: nothing is fetched, and nothing unpickled."""

        def load_model(self, *_: Any, **__: Any) -> Any:
            return model

        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return wording.tokenizer

    # The converter clears the folder that it is given, and so gets one of its own.
    inner = folder / "converted"
    Converter(str(base)).convert(str(inner), quantization=quantization)
    for file in inner.iterdir():
        file.rename(folder / file.name)
    inner.rmdir()


class CTranslate2Whisper:
    """A converted Whisper as a `Transcriber`: the same context, limits, prompt, rules and beams as torch's.

    A text's log-probabilities are all the mean of its tokens, which is what the library tells.
    """

    def __init__(self, folder: Path, wording: Wording, mel_bins: int, quantization: str, base: Path) -> None:
        self.wording, self._base = wording, base
        self.mel_bins = mel_bins
        self.device = torch.device("cpu")
        self._folder, self._quantization = folder, quantization
        self._models: dict[tuple[int, ...], Any] = {}

    def generate(
        self,
        features: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]:
        """The texts of a batch of log-mel features (batch, mel_bins, frames), each of at most its own tokens.

        With their segments' times where they are windows of so many seconds.
        """
        timed = bool(windows_s)
        found = self._write(features, token_limits, decode, language, timed)
        looping = [clip for clip, (_, loops) in enumerate(found) if loops]
        if looping:
            limits = [token_limits[clip] for clip in looping]
            again = self._write(features[looping], limits, last_resort(decode), language, timed)
            found = [again.pop(0) if clip in looping else each for clip, each in enumerate(found)]
        return [written for written, _ in found]

    def _write(
        self, features: torch.Tensor, token_limits: Sequence[int], decode: DecodeConfig, language: str, timed: bool
    ) -> list[tuple[Written, bool]]:
        """Each clip's text, and whether it is one that the guard would have kept from looping."""
        import ctranslate2

        rules = self.wording.rules(decode.may_be_empty, language=language, timed=timed)
        token_limits = [min(limit, self.most_tokens - len(rules.prompt)) for limit in token_limits]
        boost = self.wording.boost(decode)
        guard = self.wording.guard if decode.loop_guard else None
        # A window begins with its time, whatever else no text may begin with: one copy of the weights does for both.
        found = self._model(self.wording.rules(decode.may_be_empty)).generate(
            ctranslate2.StorageView.from_array(features.numpy()),
            [list(rules.prompt)] * len(features),
            beam_size=decode.num_beams,
            num_hypotheses=decode.num_beams,
            no_repeat_ngram_size=decode.no_repeat_ngram,
            # Sums, not the library's means: its mean of no token at all is minus infinity, and no beam would be empty.
            length_penalty=0,
            # The library writes at most half of it, and knows one limit for all.
            max_length=2 * max(token_limits),
            suppress_tokens=list(rules.never),
            suppress_blank=not timed,
            max_initial_timestamp_index=LATEST_BEGIN,
            return_scores=True,
            return_no_speech_prob=True,
        )
        best = []
        for clip, limit in zip(found, token_limits, strict=True):
            written, loops = self._best(clip, limit, boost, guard, timed)
            if doubts(written.log_probabilities, decode):
                written, loops = self._best(clip, limit, None, guard, timed)
            best.append((replace(written, no_speech_prob=float(clip.no_speech_prob)), loops))
        return best

    def check_heads(self) -> None:
        """BaseModelError where the base names no heads that follow a recording: the library would read beyond them."""
        config = read_json(self._base / "config.json")
        alignment_heads(generation_of(self._base), config["decoder_layers"], config["decoder_attention_heads"])

    def time_tokens(
        self, features: torch.Tensor, tokens: Sequence[int], frames: int, language: str = ""
    ) -> tuple[Floats, Floats]:
        """Seconds (tokens + 1,) at which a text's tokens begin and the last ends, and their log-probabilities.

        Of log-mel features (mel_bins, …) so many frames hold the recording; by the library's own `align`.
        """
        import ctranslate2

        self.check_heads()
        heard, before = ctranslate2.StorageView.from_array(features[None].numpy()), self.wording.prompt_in(language)
        (found,) = self._model(self.wording.rules(may_be_empty=True)).align(
            heard, list(before[:-1]), [list(tokens)], [min(frames, features.shape[1])]
        )
        starts = dict[int, int]()
        for token, position in found.alignments:
            starts.setdefault(token, position)
        last = max((position + 1 for _, position in found.alignments), default=0)
        times = np.array([starts.get(token, last) for token in range(len(tokens) + 1)]) / POSITIONS_PER_SECOND
        return times, np.log(np.maximum(found.text_token_probs, LEAST_PROBABILITY))

    @property
    def most_tokens(self) -> int:
        """What the decoder reads, prompt and end included."""
        return MOST_TOKENS

    def _model(self, rules: Rules) -> Any:
        """The model that begins no text with these tokens: the library reads them from the file beside its weights."""
        import ctranslate2

        if rules.never_first not in self._models:
            files: dict[str, Any] = {file.name: file.read_bytes() for file in self._folder.glob("*.json")}
            settings = json.loads(files["config.json"]) | {"suppress_ids_begin": list(rules.never_first)}
            files["config.json"] = json.dumps(settings).encode()
            with (self._folder / "model.bin").open("rb") as weights:
                self._models[rules.never_first] = ctranslate2.models.Whisper(
                    str(self._folder),
                    device="cpu",
                    compute_type=self._quantization,
                    intra_threads=torch.get_num_threads(),
                    files=files | {"model.bin": weights},
                )
        return self._models[rules.never_first]

    def _best(
        self, found: Any, limit: int, boost: TermBoost | None, guard: LoopGuard | None = None, timed: bool = False
    ) -> tuple[Written, bool]:
        """The likeliest text, boost included, and whether it loops; what ended goes before what was cut off.

        The library knows no guard such as torch's, and so what loops comes last.
        """
        ranked = [_ranked(ids, sum_, limit, boost) for ids, sum_ in zip(found.sequences_ids, found.scores, strict=True)]
        ranked.sort(key=lambda each: each[:2], reverse=True)
        straight = next((each for each in ranked if not (guard and self._loops(each[3], guard))), None)
        ended, _, mean, tokens = straight or ranked[0]
        segments = self.wording.segments(tokens) if timed else ()
        return Written(self.wording.text(tokens), (mean,) * (len(tokens) + ended), segments), straight is None

    def _loops(self, tokens: list[int], guard: LoopGuard) -> bool:
        return guard.is_loop(tokens) or shrinks(self.wording.text(tokens))


def _ranked(
    tokens: list[int], log_prob: float, limit: int, boost: TermBoost | None
) -> tuple[bool, float, float, list[int]]:
    """Whether a text ended within its limit, its score, its mean log-probability, and its tokens without the end."""
    ended = len(tokens) < limit
    mean = log_prob / (len(tokens) + ended)
    gained = boost.total(tokens, log_prob) if boost else 0.0
    return ended, mean + gained / (len(tokens) + ended), mean, tokens[:limit]
