"""How a Whisper is asked to write and what its tokens say: all of its writing but its weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperConfig, WhisperTokenizerFast

from wertune.base.config import DecodeConfig
from wertune.base.errors import BaseModelError, ConfigError
from wertune.base.text import UNSPACED_LANGUAGES, is_unspaced, label_text
from wertune.whisper.boost import TermBoost
from wertune.whisper.decoding import Rules
from wertune.whisper.loops import LoopGuard


@dataclass(frozen=True)
class Written:
    """A text, and the log-probability of each token written for it: its end too, unless the limit cut it off."""

    text: str
    log_probabilities: tuple[float, ...]

    @property
    def avg_logprob(self) -> float:
        return sum(self.log_probabilities) / len(self.log_probabilities)


# Whisper reads so many tokens of what was said before; half of its decoder's positions are for the text.
MAX_TOKENS_BEFORE = 223


@dataclass(frozen=True)
class Glossary:
    """Terms as Whisper's own prompt, and its tokens: the mark of what was said before, then the terms as text."""

    terms: tuple[str, ...]
    tokens: tuple[int, ...]


class Wording:
    """The prompt that says language and task, what may not be written, and terms that may be boosted."""

    def __init__(
        self,
        tokenizer: WhisperTokenizerFast,
        generation: Any,
        vocabulary: int,
        language: str,
        terms: Sequence[str] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.terms = tuple(terms)
        self._generation, self._vocabulary, self._language = generation, vocabulary, language
        multilingual = bool(getattr(generation, "is_multilingual", False))
        if not multilingual and language != "en":
            remedy = "take a multilingual base, such as packaged:whisper-base or openai/whisper-base"
            raise ConfigError(f"language is {language}, but base_model knows English only; {remedy}")
        if multilingual:
            tokenizer.set_prefix_tokens(language=language, task="transcribe")
        self._special = frozenset(tokenizer.all_special_ids)
        self._boosts: dict[tuple[float, float], TermBoost] = {}

    def label(self, text: str) -> list[int]:
        """Tokens of a transcript, its prompt and end included."""
        ids: list[int] = self.tokenizer(label_text(text, self._language)).input_ids
        return ids

    def rules(self, may_be_empty: bool, before: Sequence[int] = ()) -> Rules:
        """Whisper's own, and no timestamps: a damaged adapter was seen to write them though the prompt says none."""
        settings, end = self._generation, self.tokenizer.eos_token_id
        timestamps = range(self.tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1, self._vocabulary)
        # No text begins with a lone blank, nor with its end unless it may be empty.
        first = [token for token in settings.begin_suppress_tokens or () if not (may_be_empty and token == end)]
        return Rules(
            prompt=tuple(self.tokenizer("").input_ids[:-1]),
            end=end,
            never=(*(settings.suppress_tokens or ()), *timestamps),
            never_first=tuple(first),
            before=tuple(before),
        )

    @cached_property
    def glossary(self) -> Glossary:
        """As many of the terms, in their order and whole, as the prompt holds; tokens as transformers makes them."""
        kept, tokens = 0, list[int]()
        for count in range(1, len(self.terms) + 1):
            written = self.tokenizer(f" {', '.join(self.terms[:count])}", add_special_tokens=False).input_ids
            if len(written) > MAX_TOKENS_BEFORE:
                break
            kept, tokens = count, written
        mark = self.tokenizer.convert_tokens_to_ids("<|startofprev|>")
        return Glossary(self.terms[:kept], (mark, *tokens) if tokens else ())

    @cached_property
    def guard(self) -> LoopGuard:
        """What keeps a text from saying the same over and over."""
        return LoopGuard(lambda token: str(self.tokenizer.decode([token])))

    def boost(self, decode: DecodeConfig) -> TermBoost | None:
        """The terms' boost, made once for its settings; None where there is nothing to boost."""
        settings = decode.term_boost, decode.boost_beyond_certainty
        if not decode.term_boost or not self.terms:
            return None
        if settings not in self._boosts:
            # Whisper's words begin with their space, the first of a text too; between words without one there is none.
            bare = [term for term in self.terms if is_unspaced(term[0]) or self._language in UNSPACED_LANGUAGES]
            forms = [*(f" {term}" for term in self.terms), *bare]
            written = [self.tokenizer(form, add_special_tokens=False).input_ids for form in forms]
            self._boosts[settings] = TermBoost(written, *settings)
        return self._boosts[settings]

    def text(self, tokens: Iterable[int]) -> str:
        """What the tokens say, without special ones."""
        return str(self.tokenizer.decode([token for token in tokens if token not in self._special])).strip()


def load_wording(path: Path, language: str, terms: Sequence[str] = ()) -> tuple[Wording, int]:
    """The wording of a Hugging Face folder, and how many mel bins its model hears; no weights are read."""
    try:
        config = WhisperConfig.from_pretrained(path, local_files_only=True)
        generation = GenerationConfig.from_pretrained(path, local_files_only=True)
        tokenizer = WhisperTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizers and JSON of another shape each raise their own kinds
        problem = f"does not hold a Whisper model in Hugging Face format: {error}"
        raise BaseModelError(f"{path} {problem}; download the model again") from error
    return Wording(tokenizer, generation, int(config.vocab_size), language, terms), int(config.num_mel_bins)
