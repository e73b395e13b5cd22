"""Recordings joined from the demo's clips with drawn pauses, so that it is known when each sentence is said."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tests.support.places import ROOT

from wertune.data.audio import SAMPLE_RATE_HZ, Samples, load_audio
from wertune.data.nonspeech import speech_span_s

MANIFESTS = ROOT / "projects" / "sg_gov" / "manifests"
PAUSES_S = (0.25, 0.8)
FLOOR = 10 ** (-60 / 20)  # of the room, that pauses are not nothing


@dataclass(frozen=True)
class Said:
    """A sentence, and where the energy of its speech begins and ends in the joined recording."""

    text: str
    start_s: float
    end_s: float


def join(splits: Sequence[str], minutes: float, seed: int, out: Path) -> list[Said]:
    """Writes a recording (wav) of so many minutes of drawn clips, no sentence twice; what is said in it, in order."""
    generator = np.random.default_rng(seed)
    rows = [json.loads(line) for split in splits for line in (MANIFESTS / f"{split}.jsonl").read_text().splitlines()]
    order = [rows[number] for number in generator.permutation(len(rows))]
    drawn = {row["text"]: row for row in reversed(order)}  # of one text the first
    return lay([row for row in order if row is drawn[row["text"]]], generator, out, 60 * minutes)


def lay(rows: Sequence[Any], generator: np.random.Generator, out: Path, most_s: float = math.inf) -> list[Said]:
    """Writes the clips of rows one after the other until they last so long, and gives back what is said and when."""
    pieces, said, at = list[Samples](), list[Said](), 0
    for row in rows:
        if at > most_s * SAMPLE_RATE_HZ:
            break
        clip = load_audio(MANIFESTS / row["audio_filepath"])
        start_s, end_s = speech_span_s(clip)
        said.append(Said(row["text"], at / SAMPLE_RATE_HZ + start_s, at / SAMPLE_RATE_HZ + end_s))
        pause = np.zeros(round(generator.uniform(*PAUSES_S) * SAMPLE_RATE_HZ), np.float32)
        pieces += [clip, pause]
        at += clip.size + pause.size
    samples = np.concatenate(pieces)
    samples += (FLOOR * generator.standard_normal(samples.size)).astype(np.float32)
    soundfile.write(out, samples.clip(-1, 1), SAMPLE_RATE_HZ)
    return said


def strange_sentences(number: int, seed: int, but: Sequence[str]) -> list[str]:
    """Sentences of the demo's other splits that are not among `but`: of the same field, and nobody says them here."""
    names = ("train", "validation", "test", "final")
    rows = [json.loads(line) for name in names for line in (MANIFESTS / f"{name}.jsonl").read_text().splitlines()]
    others = sorted({row["text"] for row in rows} - set(but))
    return [others[i] for i in np.random.default_rng(seed).permutation(len(others))[:number]]


def changed(said: Sequence[Said], out_share: float, strange_share: float, seed: int) -> list[str]:
    """The transcript with a share of its sentences taken out, and a share of strange ones put in."""
    generator = np.random.default_rng(seed)
    texts = [each.text for each in said]
    kept = [text for text in texts if generator.random() >= out_share]
    strange = strange_sentences(round(strange_share * len(texts)), seed, texts)
    for sentence in strange:
        kept.insert(int(generator.integers(len(kept) + 1)), sentence)
    return kept
