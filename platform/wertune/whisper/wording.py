"""How a Whisper is asked to write and what its tokens say: all of its writing but its weights."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperConfig, WhisperTokenizerFast
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from wertune.base.config import DecodeConfig
from wertune.base.errors import BaseModelError, ConfigError
from wertune.base.text import UNSPACED_LANGUAGES, is_unspaced, label_text
from wertune.whisper.boost import TermBoost
from wertune.whisper.decoding import Rules
from wertune.whisper.hugging_face import END, knows_languages, read_json
from wertune.whisper.loops import LoopGuard
from wertune.whisper.restraints import MOST_S, STEPS_A_SECOND


@dataclass(frozen=True)
class Timed:
    """What is said between two times in seconds; without an end it goes on beyond its window."""

    text: str
    start_s: float
    end_s: float | None


@dataclass(frozen=True)
class Written:
    """A text, and the log-probability of each token written for it: its end too, unless the limit cut it off.

    Of a window, its `segments` in their order. How likely the model thought that nobody speaks is known of most bases.
    """

    text: str
    log_probabilities: tuple[float, ...]
    segments: tuple[Timed, ...] = ()
    no_speech_prob: float | None = None

    @property
    def avg_logprob(self) -> float:
        return sum(self.log_probabilities) / len(self.log_probabilities)


_ONCE_IN_CONFIG = ("suppress_tokens", "begin_suppress_tokens", "is_multilingual")
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")
# Whisper reads so many tokens of what was said before; half of its decoder's positions are for the text.
MAX_TOKENS_BEFORE = 223


@dataclass(frozen=True)
class Glossary:
    """Terms as Whisper's own prompt, and its tokens: the mark of what was said before, then the terms as text."""

    terms: tuple[str, ...]
    tokens: tuple[int, ...]


class Wording:
    """The prompt that says language and task, what may not be written, and terms that may be boosted.

    Every token is found by its name, and no id by where it stands: bases have other languages, and teams add tokens.
    """

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
        self._generation, self._vocabulary = generation, vocabulary
        said = getattr(generation, "is_multilingual", None)
        self.is_multilingual = knows_languages(said, tokenizer.convert_tokens_to_ids(END))
        self.language = language
        self._special = frozenset(tokenizer.all_special_ids)
        self._boosts: dict[tuple[float, float], TermBoost] = {}
        self.end = self._id(END)
        self._prompts: dict[str, tuple[int, ...]] = {}
        self.prompt = self.prompt_in("")

    def _id(self, name: str) -> int:
        """The token of that name; BaseModelError where the base has none."""
        if (found := self._find(name)) is None:
            remedy = "take the tokenizer and the weights of one model, as it was published"
            problem = f"base_model has no token {name} below {self._vocabulary}, which every Whisper has"
            raise BaseModelError(f"{problem}; {remedy}")
        return found

    def _find(self, name: str) -> int | None:
        """An unknown name is told as the end of text."""
        found = self.tokenizer.convert_tokens_to_ids(name)
        known = found is not None and self.tokenizer.convert_ids_to_tokens(found) == name
        return int(found) if known and found < self._vocabulary else None

    def prompt_in(self, language: str) -> tuple[int, ...]:
        """The tokens before a text of that language, of the project's where it is empty; ConfigError."""
        language = language or self.language
        if language not in self._prompts:
            asked = (self._language_id(language), self._id("<|transcribe|>")) if self.is_multilingual else ()
            self._prompts[language] = (self._id("<|startoftranscript|>"), *asked, self._id("<|notimestamps|>"))
        if not self.is_multilingual and language != "en":
            remedy = "take a multilingual base, such as packaged:whisper-base or openai/whisper-base"
            raise ConfigError(f"language is {language}, but base_model knows English only; {remedy}")
        return self._prompts[language]

    def _language_id(self, language: str) -> int:
        if (found := self._find(f"<|{language}|>")) is None:
            remedy = "take one that has (openai/whisper-large-v3 has yue), or name the nearest language that it knows"
            raise ConfigError(f"language is {language}, but base_model has no token for it; {remedy}")
        return found

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """The tokens before a text by their names."""
        return tuple(self.tokenizer.convert_ids_to_tokens(list(self.prompt)))

    def facts(self) -> dict[str, Any]:
        """What generation_config.json has to say of this vocabulary for plain transformers to write in a language."""
        known = {"is_multilingual": self.is_multilingual, "no_timestamps_token_id": self.prompt[-1]}
        known |= {"decoder_start_token_id": self.prompt[0], "eos_token_id": self.end}
        if not self.is_multilingual:
            return known
        tasks = {task: self._id(f"<|{task}|>") for task in ("transcribe", "translate")}
        named = {f"<|{language}|>": self._find(f"<|{language}|>") for language in LANGUAGES}
        languages = {name: number for name, number in named.items() if number is not None}
        return known | {"lang_to_id": languages, "task_to_id": tasks}

    def label(self, text: str, language: str = "") -> list[int]:
        """Tokens of a transcript, its prompt and end included; of the project's `language` where it is empty."""
        return [*self.prompt_in(language), *self._said(text, language), self.end]

    def timed_label(self, segments: Sequence[tuple[float, str, float | None]], language: str = "") -> list[int]:
        """Tokens of segments with their starts and ends in seconds, prompt and end included (Radford et al. 2022, 2.3).

        One without an end is cut off by the window's: its start alone is said, and the next window begins there.
        """
        said = list[int]()
        for start_s, text, end_s in segments:
            said.append(self.timestamp(start_s))
            if end_s is not None:
                said += [*self._said(text, language), self.timestamp(end_s)]
        return [*self.prompt_in(language)[:-1], *said, self.end]

    def before(self, text: str, most: int, language: str = "") -> list[int]:
        """Whisper's mark of what was said before and the last tokens of that text, so many in all; or none of both.

        As many of them as Whisper itself reads (Radford et al. 2022, section 2.3; OpenAI's code: `n_ctx // 2 - 1`).
        """
        most = min(most - 1, MAX_TOKENS_BEFORE)
        if not text or most < 1:
            return []
        said = self.tokenizer(label_text(text, language or self.language), add_special_tokens=False).input_ids
        return [self._id("<|startofprev|>"), *said[-most:]]

    def timestamp(self, seconds: float) -> int:
        """The token of a time within a window, to the nearest 20 ms; BaseModelError where the base has none."""
        steps = round(min(max(seconds, 0.0), MOST_S) * STEPS_A_SECOND)
        named = self._find(f"<|{steps / STEPS_A_SECOND:.2f}|>")
        # OpenAI's first tokenizers do not name their timestamps, which stand behind the last name.
        found = self.prompt[-1] + 1 + steps if named is None else named
        if found >= self._vocabulary:
            remedy = "train without them (train.timestamps_ratio: 0), or take a base as OpenAI published it"
            raise BaseModelError(
                f"base_model has no token for {steps / STEPS_A_SECOND:.2f} s, which every Whisper has; {remedy}"
            )
        return found

    def _said(self, text: str, language: str) -> list[int]:
        said: list[int] = self.tokenizer(
            label_text(text, language or self.language), add_special_tokens=False
        ).input_ids
        # Where the blank is a token of its own (Telugu, Bengali), no text that is written begins with it (`rules`).
        return said[len(self._blank) :] if said[: len(self._blank)] == self._blank else said

    @cached_property
    def _blank(self) -> list[int]:
        """A lone blank's tokens."""
        found: list[int] = self.tokenizer(" ", add_special_tokens=False).input_ids
        return found

    def rules(self, may_be_empty: bool, before: Sequence[int] = (), language: str = "", timed: bool = False) -> Rules:
        """Whisper's own, and no timestamps: a damaged adapter was seen to write them though the prompt says none.

        Where windows are to be `timed`, the prompt does not say so, and they may be written.
        """
        # No text begins with a lone blank, nor with its end unless it may be empty: Whisper's own, said or not.
        own = (*self._blank, self.end)
        begin = own if self._generation.begin_suppress_tokens is None else self._suppressed("begin_suppress_tokens")
        first = [token for token in begin if not (may_be_empty and token == self.end)]
        prompt, never = self.prompt_in(language), (*self._suppressed("suppress_tokens"), *self._never_written)
        if timed:
            times = frozenset(self.times)
            return Rules(
                prompt=prompt[:-1],
                end=self.end,
                never=(*(token for token in never if token not in times), prompt[-1]),
                never_first=(),  # a text begins with its time
                before=tuple(before),
                times=self.times,
                no_speech=self._no_speech,
            )
        return Rules(prompt, self.end, never, tuple(first), tuple(before), no_speech=self._no_speech)

    @cached_property
    def _no_speech(self) -> int | None:
        """OpenAI's first tokenizers have it by another name, some bases of others not at all."""
        names = (self._find(name) for name in ("<|nospeech|>", "<|nocaptions|>"))
        return next((found for found in names if found is not None), None)

    @cached_property
    def times(self) -> tuple[int, ...]:
        """The tokens of a window's times, one every 20 ms; BaseModelError where the base has not all of them."""
        return tuple(self.timestamp(step / STEPS_A_SECOND) for step in range(round(MOST_S * STEPS_A_SECOND) + 1))

    @property
    def has_times(self) -> bool:
        """Whether the base has a token for every time."""
        try:
            return bool(self.times)
        except BaseModelError:
            return False

    def _suppressed(self, key: str) -> tuple[int, ...]:
        """The ids of a list in generation_config.json; BaseModelError where they are not of this vocabulary."""
        found = tuple(getattr(self._generation, key, None) or ())
        if strange := [each for each in found if not isinstance(each, int) or not 0 <= each < self._vocabulary]:
            rule = f"must hold ids from 0 to {self._vocabulary - 1}"
            raise BaseModelError(
                f"generation_config.json: {key} holds {strange[0]!r}, but {rule}; take that model's own"
            )
        return found

    @cached_property
    def _never_written(self) -> tuple[int, ...]:
        """Timestamps, and what no token has a name for: OpenAI's first tokenizers do not name their timestamps.

        A token that a team added stands behind them, and may be written.
        """
        names = {number: name for name, number in self.tokenizer.get_vocab().items()}
        late = range(self.prompt[-1] + 1, self._vocabulary)
        return tuple(token for token in late if token not in names or _TIMESTAMP.fullmatch(names[token]))

    @cached_property
    def glossary(self) -> Glossary:
        """As many of the terms, in their order and whole, as the prompt holds; tokens as transformers makes them."""
        kept, tokens = 0, list[int]()
        for count in range(1, len(self.terms) + 1):
            written = self.tokenizer(f" {', '.join(self.terms[:count])}", add_special_tokens=False).input_ids
            if len(written) > MAX_TOKENS_BEFORE:
                break
            kept, tokens = count, written
        return Glossary(self.terms[:kept], (self._id("<|startofprev|>"), *tokens) if tokens else ())

    @cached_property
    def guard(self) -> LoopGuard:
        """What keeps a text from saying the same over and over."""
        return _guard(self.tokenizer, self._vocabulary)

    def boost(self, decode: DecodeConfig) -> TermBoost | None:
        """The terms' boost, made once for its settings; None where there is nothing to boost."""
        settings = decode.term_boost, decode.boost_beyond_certainty
        if not decode.term_boost or not self.terms:
            return None
        if settings not in self._boosts:
            # Whisper's words begin with their space, the first of a text too; between words without one there is none.
            bare = [term for term in self.terms if is_unspaced(term[0]) or self.language in UNSPACED_LANGUAGES]
            forms = [*(f" {term}" for term in self.terms), *bare]
            written = [self.tokenizer(form, add_special_tokens=False).input_ids for form in forms]
            self._boosts[settings] = TermBoost(written, *settings)
        return self._boosts[settings]

    def segments(self, tokens: Sequence[int]) -> tuple[Timed, ...]:
        """What the tokens of a window say and when, in its seconds; what has no end goes on beyond it."""
        steps = {token: step for step, token in enumerate(self.times)}
        found, said, start = list[Timed](), list[int](), None
        for token in tokens:
            if token not in steps:
                said.append(token)
                continue
            at_s = steps[token] / STEPS_A_SECOND
            if start is not None and (text := self.text(said)):
                found.append(Timed(text, start, at_s))
                start = None
            else:
                start = at_s
            said = []
        if start is not None:
            found.append(Timed(self.text(said), start, None))
        return tuple(found)

    def text(self, tokens: Iterable[int]) -> str:
        """What the tokens say, without special ones."""
        return str(self.tokenizer.decode([token for token in tokens if token not in self._special])).strip()


@lru_cache(maxsize=4)
def _guard(tokenizer: WhisperTokenizerFast, vocabulary: int) -> LoopGuard:
    """A fifth of a second for a whole vocabulary."""
    return LoopGuard(tokenizer.batch_decode([[token] for token in range(vocabulary)]))


def generation_of(path: Path) -> GenerationConfig:
    """What a Hugging Face folder says of generation: of a base of before generation_config.json, its config.json.

    What neither says stays open: transformers would put in what is right for English-only bases.
    """
    if (path / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(path, local_files_only=True)
    said = read_json(path / "config.json")
    return GenerationConfig(**{key: said[key] for key in _ONCE_IN_CONFIG if key in said})


def load_wording(path: Path, language: str, terms: Sequence[str] = ()) -> tuple[Wording, int]:
    """The wording of a Hugging Face folder, and how many mel bins its model hears; no weights are read."""
    try:
        config = WhisperConfig.from_pretrained(path, local_files_only=True)
        generation = generation_of(path)
        tokenizer = WhisperTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizers and JSON of another shape each raise their own kinds
        problem = f"does not hold a Whisper model in Hugging Face format: {error}"
        raise BaseModelError(f"{path} {problem}; download the model again") from error
    return Wording(tokenizer, generation, int(config.vocab_size), language, terms), int(config.num_mel_bins)
