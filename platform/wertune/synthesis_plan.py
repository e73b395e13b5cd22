"""What is to be spoken by whom: the split of the sentences, and one plan a clip. Pure but for one file read."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from wertune.config import Frozen
from wertune.errors import SynthesisError
from wertune.synthesis_config import SynthesisConfig, Voice
from wertune.text import Lexicon, normaliser

Channel = Literal["clean", "telephone", "noisy"]
_MIN_TRAIN_SENTENCES = 3
_RECIPE = 1  # to be raised when trimming, levelling or a channel changes: old clips are then spoken again


class Sentence(Frozen):
    """One line of sentences.jsonl or general.jsonl."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    kind: Literal["natural", "template"] = "natural"
    template: str | None = None


@dataclass(frozen=True)
class ClipPlan:
    """Everything that decides how one clip sounds; equal plans give equal audio."""

    split: str
    sentence: Sentence
    spoken: str
    terms: tuple[str, ...]
    voice: Voice
    speed: float
    channel: Channel
    snr_db: float | None
    seed: int
    bitrate_kbps: float

    @property
    def filename(self) -> str:
        """Readable, and different as soon as anything about the sound differs."""
        about = {**asdict(self), "sentence": "", "voice": [self.voice.engine, self.voice.name], "recipe": _RECIPE}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return f"{self.sentence.id}-{self.voice.id}-{digest[:8]}.opus"


class Speller:
    """Finds the lexicon's terms as they are written, case and all, and says them as the lexicon says them."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._spoken = {entry.term: entry.spoken for entry in lexicon.terms}
        longest_first = sorted(self._spoken, key=len, reverse=True)
        self._pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")

    def spoken(self, text: str, respell: Mapping[str, str] | None = None) -> str:
        """`text` with each term in its spoken form, those words respelt; all else, punctuation too, stays."""

        def say(match: re.Match[str]) -> str:
            return " ".join((respell or {}).get(word, word) for word in self._spoken[match[0]].split())

        return self._pattern.sub(say, text) if self._spoken else text

    @property
    def written(self) -> tuple[str, ...]:
        """All terms, in the lexicon's order."""
        return tuple(self._spoken)

    def terms(self, text: str) -> tuple[str, ...]:
        """The terms in `text`, each once, in their order."""
        return tuple(dict.fromkeys(self._pattern.findall(text))) if self._spoken else ()


def load_sentences(path: Path) -> list[Sentence]:
    """The file's sentences; a SynthesisError lists every line that is not one or repeats another."""
    sentences, faults, places = [], [], dict[str, int]()
    normalise = normaliser("en")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            sentence = Sentence.model_validate_json(line)
        except ValidationError as error:
            faults.append(f"{path}:{number}: {error.errors()[0]['msg']}; mend the line")
            continue
        for key in (sentence.id, normalise(sentence.text)):
            if (earlier := places.setdefault(key, number)) != number:
                faults.append(f"{path}:{number}: {key!r} stands in line {earlier} already; remove one of the two")
        sentences.append(sentence)
    if faults:
        raise SynthesisError("\n".join(faults))
    return sentences


def split_sentences(
    sentences: Sequence[Sentence], speller: Speller, config: SynthesisConfig
) -> dict[str, list[Sentence]]:
    """Test and validation take natural sentences only, so that no template is shared; test covers every term.

    No term is left with fewer than three training sentences, or a SynthesisError names the terms.
    """
    order = np.random.default_rng(config.seed).permutation(len(sentences))
    pool = {sentences[i].id: sentences[i] for i in order if sentences[i].kind == "natural"}
    left = Counter(term for sentence in sentences for term in speller.terms(sentence.text))
    terms = {sentence.id: speller.terms(sentence.text) for sentence in sentences}
    chosen: dict[str, str] = {}
    for split, share in (("test", config.test_share), ("validation", config.validation_share)):
        picked = _pick(pool, terms, left, round(share * len(sentences)))
        chosen |= dict.fromkeys(picked, split)
    splits: dict[str, list[Sentence]] = {"train": [], "validation": [], "test": []}
    for sentence in sentences:
        splits[chosen.get(sentence.id, "train")].append(sentence)
    _check_coverage(splits, terms, speller.written)
    return splits


def _pick(pool: dict[str, Sentence], terms: Mapping[str, tuple[str, ...]], left: Counter[str], count: int) -> list[str]:
    """Moves `count` sentences out of `pool`, the ones with the terms least picked so far first."""
    seen: Counter[str] = Counter()
    picked: list[str] = []
    while len(picked) < count:
        free = [key for key in pool if all(left[term] > _MIN_TRAIN_SENTENCES for term in terms[key])]
        if not free:
            break
        best = max(free, key=lambda key: _need(terms[key], seen))  # the first of equals, in the drawn order
        seen.update(terms[best])
        left.subtract(terms[best])
        picked.append(best)
        del pool[best]
    return picked


def _need(terms: Sequence[str], seen: Counter[str]) -> float:
    """High when a sentence holds a term that was picked rarely; the mean, so that long lists gain nothing."""
    return float(np.mean([1 / (1 + seen[term]) for term in terms])) if terms else 0.25


def _check_coverage(
    splits: Mapping[str, Sequence[Sentence]], terms: Mapping[str, tuple[str, ...]], known: Iterable[str]
) -> None:
    counts = {split: Counter(term for sentence in splits[split] for term in terms[sentence.id]) for split in splits}
    faults = [f"{term} has no test sentence" for term in known if not counts["test"][term]]
    faults += [
        f"{term} has {counts['train'][term]} training sentences, but needs {_MIN_TRAIN_SENTENCES}"
        for term in known
        if counts["train"][term] < _MIN_TRAIN_SENTENCES
    ]
    if faults:
        raise SynthesisError("sentences.jsonl: " + "; ".join(faults) + "; add natural sentences with these terms")


def plan_clips(
    split: str, sentences: Sequence[Sentence], voices: Sequence[Voice], speller: Speller, config: SynthesisConfig
) -> list[ClipPlan]:
    """One plan a clip: voices by their weights, no speaker twice for one sentence, channels by exact shares."""
    generator = np.random.default_rng([config.seed, *split.encode()])
    takes = _takes(sentences, max(getattr(config.clips, split), len(sentences)), generator)
    channels = _channels(len(takes), config, generator)
    plans, spoken_by = [], dict[str, set[str]]()
    used: Counter[str] = Counter()
    for sentence, channel in zip(takes, channels, strict=True):
        voice = _next_voice(voices, used, spoken_by.setdefault(sentence.id, set()))
        used[voice.id] += 1
        spoken_by[sentence.id].add(voice.speaker)
        plans.append(_plan_clip(split, sentence, voice, channel, speller, config, generator))
    return plans


def _plan_clip(
    split: str,
    sentence: Sentence,
    voice: Voice,
    channel: Channel,
    speller: Speller,
    config: SynthesisConfig,
    generator: np.random.Generator,
) -> ClipPlan:
    snr_db = float(generator.uniform(config.noise.low_snr_db, config.noise.high_snr_db))
    return ClipPlan(
        split=split,
        sentence=sentence,
        spoken=speller.spoken(sentence.text, config.respell.get(voice.engine)),
        terms=speller.terms(sentence.text),
        voice=voice,
        speed=round(float(generator.uniform(*voice.speed)), 3),
        channel=channel,
        snr_db=round(snr_db, 1) if channel == "noisy" else None,
        seed=int(generator.integers(2**31)),
        bitrate_kbps=config.bitrate_kbps,
    )


def _takes(sentences: Sequence[Sentence], clips: int, generator: np.random.Generator) -> list[Sentence]:
    """The sentences in a drawn order, then again from the start until there are `clips`."""
    order = generator.permutation(len(sentences))
    return [sentences[order[k % len(sentences)]] for k in range(clips)] if sentences else []


def _next_voice(voices: Iterable[Voice], used: Counter[str], speakers: set[str]) -> Voice:
    """The voice that is furthest behind its weight, of the speakers who have not said the sentence yet."""
    candidates = list(voices)
    fresh = [voice for voice in candidates if voice.speaker not in speakers] or candidates
    return min(fresh, key=lambda voice: (used[voice.id] + 0.5) / voice.weight)


def _channels(clips: int, config: SynthesisConfig, generator: np.random.Generator) -> list[Channel]:
    telephone, noisy = round(config.telephone_share * clips), round(config.noisy_share * clips)
    order = generator.permutation(clips)
    return ["telephone" if i < telephone else "noisy" if i < telephone + noisy else "clean" for i in order]
