"""What is to be spoken by whom, how fast and through which channel: one plan a clip. Pure."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from wertune.synthesis.config import SynthesisConfig, Voice
from wertune.synthesis.sentences import Sentence, Speller

Channel = Literal["clean", "telephone", "noisy"]
_SPEAKERS_A_SENTENCE = 3
_RECIPE = 1  # to be raised when trimming, levelling or a channel changes: old clips are then spoken again


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
        if self.sentence.margin_s is not None:
            about["margin_s"] = self.sentence.margin_s
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return f"{self.sentence.id}-{self.voice.id}-{digest[:8]}.opus"


def plan_clips(
    split: str, sentences: Sequence[Sentence], voices: Sequence[Voice], speller: Speller, config: SynthesisConfig
) -> list[ClipPlan]:
    """One plan a clip: voices by their weights, no speaker twice for one sentence, channels by their shares.

    Sentences that name their split are cast each by itself: one more changes no clip of another.
    """
    drawn = [sentence for sentence in sentences if sentence.split is None]
    own = [plan for s in sentences if s.split for plan in _plan_by_itself(split, s, voices, speller, config)]
    return [*(_plan_drawn(split, drawn, voices, speller, config) if drawn else ()), *own]


def _plan_by_itself(
    split: str, sentence: Sentence, voices: Sequence[Voice], speller: Speller, config: SynthesisConfig
) -> Iterator[ClipPlan]:
    """As many clips as the sentence has takes, or speakers there are; all drawn from the sentence's name."""
    generator = np.random.default_rng([config.seed, *split.encode(), 0, *sentence.id.encode()])
    for _ in range(min(sentence.takes, len({voice.speaker for voice in voices}))):
        weights = np.array([voice.weight for voice in voices])
        voice = voices[int(generator.choice(len(voices), p=weights / weights.sum()))]
        at = generator.uniform()
        noisy = at < config.telephone_share + config.noisy_share
        channel: Channel = "telephone" if at < config.telephone_share else "noisy" if noisy else "clean"
        yield _plan_clip(split, sentence, voice, channel, speller, config, generator)
        voices = [other for other in voices if other.speaker != voice.speaker]


def _plan_drawn(
    split: str, sentences: Sequence[Sentence], voices: Sequence[Voice], speller: Speller, config: SynthesisConfig
) -> list[ClipPlan]:
    generator = np.random.default_rng([config.seed, *split.encode()])
    clips, order = max(_wanted(split, sentences, voices, config), len(sentences)), generator.permutation(len(sentences))
    takes = [sentences[order[k % len(sentences)]] for k in range(clips)]  # in that order, then again from its start
    channels = _channels(len(takes), config, generator)
    plans, spoken_by = [], dict[str, set[str]]()
    used: Counter[str] = Counter()
    for sentence, channel in zip(takes, channels, strict=True):
        voice = _next_voice(voices, used, spoken_by.setdefault(sentence.id, set()))
        used[voice.id] += 1
        spoken_by[sentence.id].add(voice.speaker)
        plans.append(_plan_clip(split, sentence, voice, channel, speller, config, generator))
    return plans


def _wanted(split: str, sentences: Sequence[Sentence], voices: Sequence[Voice], config: SynthesisConfig) -> int:
    """The configured number of clips, or each sentence by three speakers where there are as many."""
    clips: int | None = getattr(config.clips, split)
    if clips is not None or split == "replay":
        return clips or 0
    return len(sentences) * min(_SPEAKERS_A_SENTENCE, len({voice.speaker for voice in voices}))


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
        spoken=speller.spoken(sentence.spoken or sentence.text, config.respell.get(voice.engine)),
        terms=speller.terms(sentence.text),
        voice=voice,
        speed=round(float(generator.uniform(*voice.speed)), 3),
        channel=channel,
        snr_db=round(snr_db, 1) if channel == "noisy" else None,
        seed=int(generator.integers(2**31)),
        bitrate_kbps=config.bitrate_kbps,
    )


def _next_voice(voices: Iterable[Voice], used: Counter[str], speakers: set[str]) -> Voice:
    """The voice that is furthest behind its weight, of the speakers who have not said the sentence yet."""
    candidates = list(voices)
    fresh = [voice for voice in candidates if voice.speaker not in speakers] or candidates
    return min(fresh, key=lambda voice: (used[voice.id] + 0.5) / voice.weight)


def _channels(clips: int, config: SynthesisConfig, generator: np.random.Generator) -> list[Channel]:
    telephone, noisy = round(config.telephone_share * clips), round(config.noisy_share * clips)
    order = generator.permutation(clips)
    return ["telephone" if i < telephone else "noisy" if i < telephone + noisy else "clean" for i in order]
