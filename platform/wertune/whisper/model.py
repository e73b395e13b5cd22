"""Whisper on an 8-bit base: loading it, its loss, and what it writes at short context."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BitsAndBytesConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers import logging as transformers_logging

from wertune.base.config import DecodeConfig
from wertune.base.errors import BaseModelError
from wertune.whisper.boost import doubts
from wertune.whisper.decoding import beam_search, unpacked
from wertune.whisper.features import FRAMES_PER_POSITION
from wertune.whisper.footprint import product_dtype
from wertune.whisper.forward import LeanWhisper
from wertune.whisper.loops import last_resort, shrinks
from wertune.whisper.timed.attention import Floats, alignment_heads, token_times
from wertune.whisper.wording import Wording, Written, generation_of

# isort: split
# Once `forward` has imported them.
import bitsandbytes
from peft import PeftModel

# 0: no columns of outliers are kept in 16 bits beside the 8-bit product. They matter from 6.7 billion parameters on
# (Dettmers et al. 2022, section 4); tiny.en and base write as well without (README), and a third faster on a CPU.
OUTLIER_THRESHOLD = 0.0
# oneDNN keeps code for the last 1024 shapes of a product; beams grow by one at each token, and the cache to a gigabyte.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


@dataclass(frozen=True)
class ModelSize:
    """What is trained, what is stored. Weight memory counts every parameter and buffer at its stored width."""

    trainable_parameters: int
    total_parameters: int
    int8_layers: int
    weight_memory_mb: float

    @property
    def trainable_percent(self) -> float:
        return 100.0 * self.trainable_parameters / self.total_parameters

    @property
    def reduction_percent(self) -> float:
        """How many fewer parameters are trained than in full fine-tuning."""
        return 100.0 - self.trainable_percent


@dataclass
class BatchPart:
    """Which rows this process has of a batch of so many clips; all of them where `rows` is empty."""

    rows: Sequence[int] = ()
    clips: int = 0


class Whisper:
    """A Whisper model, its tokenizer, the prompt that says language and task, and terms that may be boosted."""

    def __init__(
        self,
        model: WhisperForConditionalGeneration | PeftModel,
        tokenizer: WhisperTokenizerFast,
        language: str,
        terms: Sequence[str] = (),
        products: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.language = language
        self.part = BatchPart()  # of what the loss is taken of: dropout is drawn for the whole batch
        self.wording = Wording(tokenizer, model.generation_config, self.bare.config.vocab_size, language, terms)
        self._lean = LeanWhisper(self.bare, products or product_dtype(self.device))

    def with_model(self, model: WhisperForConditionalGeneration | PeftModel) -> "Whisper":
        """The same in all else."""
        return Whisper(model, self.tokenizer, self.language, self.wording.terms)

    @property
    def bare(self) -> WhisperForConditionalGeneration:
        """The model without PEFT's wrapper; its layers carry the adapters all the same."""
        return self.model.base_model.model if isinstance(self.model, PeftModel) else self.model

    @property
    def device(self) -> torch.device:
        return torch.device(self.bare.device)

    @property
    def is_quantised(self) -> bool:
        kinds = (bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit)
        return any(isinstance(module, kinds) for module in self.bare.modules())

    @property
    def product_dtype(self) -> torch.dtype:
        """What the forward pass multiplies in."""
        return self._lean.dtype

    @property
    def mel_bins(self) -> int:
        return int(self.bare.config.num_mel_bins)

    def label_ids(self, text: str, language: str = "") -> list[int]:
        """The label of `text`: what the decoder must write after `<|startoftranscript|>`, its language named first."""
        return self.wording.label(text, language)[1:]

    def timed_label_ids(self, segments: Sequence[tuple[float, str, float | None]], language: str = "") -> list[int]:
        """The same of segments with their starts and ends in seconds, as `Wording.timed_label` has them."""
        return self.wording.timed_label(segments, language)[1:]

    def checkpoint_layers(self, checkpointed: bool) -> None:
        """Whether `loss` keeps no more of each layer than its input: less memory, a third more products."""
        self._lean.checkpointed = checkpointed

    def keep_unpacked(self) -> None:
        """For serving, where no weight changes any more: the decoder is unpacked now, and not for every request.

        It takes no more memory than the writing of a text does.
        """
        self._lean.kept = unpacked(self._lean)

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Encoder states (batch, positions, d_model) of log-mel features (batch, mel_bins, 2 x positions)."""
        return self._lean.encode(features.to(self.device))

    def loss(self, features: torch.Tensor, labels: torch.Tensor, before: Sequence[Sequence[int]] = ()) -> torch.Tensor:
        """Mean cross-entropy over the labels (batch, tokens) that are not -100."""
        return self.summed_loss(features, labels, before=before) / (labels != -100).sum()

    def summed_loss(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        rows: Sequence[int] = (),
        clips: int = 0,
        before: Sequence[Sequence[int]] = (),
    ) -> torch.Tensor:
        """Cross-entropy summed over the labels (batch, tokens) that are not -100.

        Of a part of a batch, `rows` are its places among so many `clips`, all padded alike. A row's tokens `before` are
        read ahead of its start token; its labels begin with as many -100.
        """
        self.part.rows, self.part.clips = rows, clips
        labels = labels.to(self.device)
        written = self._lean.decode(self.encode(features), self._before(labels, before))
        said = labels != -100
        return torch.nn.functional.cross_entropy(self._lean.logits(written[said]), labels[said], reduction="sum")

    def _before(self, labels: torch.Tensor, before: Sequence[Sequence[int]] = ()) -> torch.Tensor:
        """What the decoder reads to write each label: the start token, and all labels but the last.

        Ahead of the start token a row has what was said `before`, in the place of its first labels, which are -100.
        """
        read = labels.new_full(labels.shape, self.wording.prompt[0])
        read[:, 1:] = labels[:, :-1]
        for row, tokens in enumerate(before):
            read[row, : len(tokens) + 1] = labels.new_tensor([*tokens, self.wording.prompt[0]])
        return read.masked_fill(read == -100, self.wording.end)

    @torch.no_grad()
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
        return self.write(self.encode(features), token_limits, decode, language=language, windows_s=windows_s)

    @torch.no_grad()
    def write(
        self,
        states: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        before: Sequence[int] = (),
        language: str = "",
        windows_s: Sequence[float] = (),
    ) -> list[Written]:
        """The texts of encoded clips; `before` are tokens of what is taken to have been said earlier.

        What loops is written again against loops, and what the model doubts as it would be without a boost.
        """
        written = self._write(states, token_limits, decode, before, language, windows_s)

        def again(chosen: list[int], write: Callable[..., list[Written]], otherwise: DecodeConfig) -> None:
            limits, lengths_s = ([each[clip] for clip in chosen if each] for each in (token_limits, windows_s))
            texts = write(states[chosen], limits, otherwise, before, language, lengths_s)
            for clip, text in zip(chosen, texts, strict=True):
                written[clip] = text

        if looping := [clip for clip, each in enumerate(written) if decode.loop_guard and shrinks(each.text)]:
            again(looping, self._write, last_resort(decode))
        if doubtful := [clip for clip, each in enumerate(written) if doubts(each.log_probabilities, decode)]:
            again(doubtful, self.write, decode.model_copy(update={"term_boost": 0.0}))
        return written

    def _write(
        self,
        states: torch.Tensor,
        token_limits: Sequence[int],
        decode: DecodeConfig,
        before: Sequence[int],
        language: str,
        windows_s: Sequence[float],
    ) -> list[Written]:
        found = beam_search(
            self._lean,
            states,
            token_limits,
            self.wording.rules(decode.may_be_empty, before, language, timed=bool(windows_s)),
            decode.num_beams,
            self.wording.boost(decode),
            decode.no_repeat_ngram,
            self.wording.guard if decode.loop_guard else None,
            windows_s,
        )
        segments = [self.wording.segments(each.tokens) if windows_s else () for each in found]
        return [
            Written(self.wording.text(each.tokens), each.log_probabilities, timed, each.no_speech)
            for each, timed in zip(found, segments, strict=True)
        ]

    @torch.no_grad()
    def follow(
        self, states: torch.Tensor, labels: torch.Tensor, heads: Sequence[tuple[int, int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of labels (batch, tokens), and what `heads` attend to (batch, heads, tokens, positions).

        Of a label the attention is that of the step that writes it; what is -100 is of no meaning.
        """
        labels = labels.to(self.device)
        hidden, attended = self._lean.follow(states, self._before(labels), heads)
        scores = self._lean.logits(hidden).log_softmax(dim=-1)
        return scores.gather(2, labels.clamp(min=0)[..., None])[..., 0], attended

    @property
    def most_tokens(self) -> int:
        """What the decoder reads, prompt and end included."""
        return self._lean.positions

    @cached_property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of those that follow a recording; BaseModelError where the base names none."""
        config = self.bare.config
        return alignment_heads(self.bare.generation_config, config.decoder_layers, config.decoder_attention_heads)

    def check_heads(self) -> None:
        """BaseModelError where the base names no heads that follow a recording."""
        assert self.heads

    @torch.no_grad()
    def follow_tokens(
        self, states: torch.Tensor, tokens: Sequence[int], positions: int, language: str = ""
    ) -> tuple[Floats, Floats]:
        """Seconds (tokens + 1,) at which a text's tokens begin and the last ends; their log-probabilities (tokens,).

        Of the states (1, …, d_model) so many positions hold the recording. BaseModelError where no head follows it.
        """
        prompt = self.wording.prompt_in(language)
        labels = torch.tensor([[*prompt[1:], *tokens, self.wording.end]])
        scores, attended = self.follow(states, labels, self.heads)
        first = len(prompt) - 1  # of the row that writes the text's first token
        likely = scores[0, first : first + len(tokens)].float().cpu().numpy()
        return token_times(attended[0, :, first:], positions)[: len(tokens) + 1], np.asarray(likely)

    @torch.no_grad()
    def time_tokens(
        self, features: torch.Tensor, tokens: Sequence[int], frames: int, language: str = ""
    ) -> tuple[Floats, Floats]:
        """The same by log-mel features (mel_bins, …), of which so many frames hold the recording."""
        return self.follow_tokens(self.encode(features[None]), tokens, -(-frames // FRAMES_PER_POSITION), language)

    def pad_labels(self, labels: Sequence[list[int]]) -> torch.Tensor:
        """Labels as one (batch, longest), padded with -100, which the loss leaves out."""
        rows = [torch.tensor(ids, dtype=torch.long) for ids in labels]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)

    def size(self) -> ModelSize:
        """Counts over the whole model; tied weights count once."""
        parameters = list(self.model.parameters())
        stored = parameters + list(self.model.buffers())
        return ModelSize(
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            # 4-bit weights are packed two in a byte.
            total_parameters=sum(p.numel() * (1 + isinstance(p, bitsandbytes.nn.Params4bit)) for p in parameters),
            int8_layers=sum(isinstance(m, bitsandbytes.nn.Linear8bitLt) for m in self.model.modules()),
            weight_memory_mb=sum(t.numel() * t.element_size() for t in stored) / 2**20,
        )


def load_whisper(
    path: Path,
    language: str,
    quantization: str,
    device: str | None = None,
    terms: Sequence[str] = (),
    dtype: torch.dtype | None = None,
) -> Whisper:
    """The frozen base from a local Hugging Face folder, its linear layers quantised on load.

    `quantization`: `int8` is LLM.int8's, vector by vector (Dettmers et al. 2022, arXiv:2208.07339), `nf4` is QLoRA's
    (arXiv:2305.14314).
    """
    _quiet_libraries()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or product_dtype(torch.device(device))
    try:
        model, found = WhisperForConditionalGeneration.from_pretrained(
            path,
            dtype=dtype,
            quantization_config=_quantization_config(quantization, dtype),
            device_map={"": device},
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # told by name below
            output_loading_info=True,
        )
        model.generation_config = generation_of(path)
        tokenizer = WhisperTokenizerFast.from_pretrained(path, local_files_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # safetensors, tokenizers, torch and JSON of another shape each raise their own kinds
        problem = f"does not hold a Whisper model in Hugging Face format: {brief(error)}"
        raise BaseModelError(f"{path} {problem}; download the model again") from error
    _check_weights(path, model, found)
    model.requires_grad_(False)
    model.eval()
    return Whisper(model, tokenizer, language, terms)


def _check_weights(path: Path, model: WhisperForConditionalGeneration, found: Mapping[str, Any]) -> None:
    """BaseModelError where the files lack weights or hold some of another size: transformers starts those at random."""
    missing = sorted(set(found["missing_keys"]) - {"proj_out.weight"})  # tied to the decoder's embeddings
    # On the way into 8 or 4 bits no size is checked, neither by transformers nor by bitsandbytes.
    misfits = {f"{name}.weight" for name, module in model.named_modules() if not _fits(module)}
    misfits |= {name for name, *_ in found["mismatched_keys"]}
    # Other weights that it has no place for are of no matter; a layer that is left out changes every text.
    beyond = sorted(name for name in found["unexpected_keys"] if ".layers." in name)
    problems = (
        (misfits, "not of the size that config.json says"),
        (missing, "missing"),
        (beyond, "of layers that config.json does not name"),
    )
    for names, problem in ((sorted(each), told) for each, told in problems):
        if names:
            many = f"{len(names)} weight{'s are' if len(names) > 1 else ' is'} {problem}, such as {names[0]}"
            raise BaseModelError(f"{path}: {many}, but a base model must be whole; download it again")


def _fits(layer: torch.nn.Module) -> bool:
    """A layer that is not linear does."""
    if not isinstance(layer, torch.nn.Linear):
        return True
    weight = layer.weight
    shape = weight.quant_state.shape if isinstance(weight, bitsandbytes.nn.Params4bit) else weight.shape
    return tuple(shape) == (layer.out_features, layer.in_features)


def brief(error: Exception) -> str:
    """The first fault that an error tells of, and how many more lines it has: torch writes one for each tensor."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    if more and first.endswith(":"):
        first, more = f"{first} {more[0]}", more[1:]
    return f"{first} (and {len(more)} more)" if more else first


def _quiet_libraries() -> None:
    """A line for every generate: thousands of no use."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _quantization_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIER_THRESHOLD)
    if quantization == "nf4":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return None
