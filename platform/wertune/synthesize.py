"""Speaks a project's sentences: Opus clips and their manifests, the same ones for the same files."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch

from wertune.audio import Samples, resample
from wertune.augment import add_coloured_noise, telephone
from wertune.clips import check, level, trim, write_clip, write_manifest
from wertune.config import load_yaml
from wertune.retention import build_retention
from wertune.sentences import Speller, load_sentences, split_sentences
from wertune.synthesis_config import SynthesisConfig
from wertune.synthesis_plan import ClipPlan, plan_clips
from wertune.text import load_lexicon
from wertune.voices import ENGINES

_PROCESSES = 2


@dataclass(frozen=True)
class SynthesisReport:
    """What was written; minutes and clips by split."""

    manifests: dict[str, Path]
    clips: dict[str, int]
    minutes: dict[str, float]
    bytes: int


def synthesize(project_dir: Path, out_dir: Path | None = None) -> SynthesisReport:
    """Writes `audio/<split>/*.opus` and `manifests/<split>.jsonl` under `out_dir`, by default the project.

    A clip that exists under its digest is not spoken again. Human recordings (see retention.py) join `replay`.
    """
    out = out_dir or project_dir
    config = load_yaml(project_dir / "synthesis.yaml", SynthesisConfig)
    plans = plan_project(project_dir, config)
    jobs = [(plan, out / "audio" / plan.split / plan.filename) for plan in plans]
    _try_voices([plan for plan, path in jobs if not path.exists()])
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn"), initializer=_one_thread) as pool:
        durations = list(pool.map(_ensure_clip, jobs, chunksize=4))
    rows: dict[str, list[dict[str, Any]]] = {}
    for plan, duration_s in zip(plans, durations, strict=True):
        rows.setdefault(plan.split, []).append(manifest_row(plan, duration_s))
    for split, recorded in build_retention(project_dir, out, config).items():
        rows.setdefault(split, []).extend(recorded)
    manifests = {split: write_manifest(out, split, found) for split, found in rows.items()}
    return _report(out, manifests, rows)


def plan_project(project_dir: Path, config: SynthesisConfig) -> list[ClipPlan]:
    """The plans of all clips of train, validation, test and replay."""
    speller = Speller(load_lexicon(project_dir / "lexicon.yaml"))
    splits = split_sentences(load_sentences(project_dir / "sentences.jsonl"), speller, config)
    splits["replay"] = load_sentences(project_dir / "general.jsonl")
    plans = []
    for split, sentences in splits.items():
        speakers = "train" if split == "replay" else split
        voices = [voice for voice in config.voices if voice.split == speakers]
        plans += plan_clips(split, sentences, voices, speller, config)
    return plans


def manifest_row(plan: ClipPlan, duration_s: float) -> dict[str, Any]:
    """One manifest line; the audio's path is relative to the manifest."""
    return {
        "audio_filepath": f"../audio/{plan.split}/{plan.filename}",
        "text": plan.sentence.text,
        "duration": round(duration_s, 3),
        "speaker": plan.voice.speaker,
        "terms": list(plan.terms),
        "channel": plan.channel,
        "sentence": plan.sentence.id,
        "voice": plan.voice.id,
    }


def render(plan: ClipPlan) -> Samples:
    """Speech at 16 kHz: spoken, trimmed, levelled, sent through its channel, checked."""
    samples, rate = ENGINES[plan.voice.engine].speak(plan.spoken, plan.voice.name, plan.speed)
    generator = np.random.default_rng(plan.seed)
    speech = level(trim(resample(samples, rate), float(generator.uniform(0.1, 0.25))))
    if plan.channel == "telephone":
        speech = telephone(torch.from_numpy(speech)).numpy()
    elif plan.snr_db is not None:
        speech = add_coloured_noise(torch.from_numpy(speech), plan.snr_db, generator).clamp(-1, 1).numpy()
    check(speech, f"{plan.voice.id}: {plan.spoken!r}")
    return speech


def _try_voices(plans: Sequence[ClipPlan]) -> None:
    """One word by each voice: what is missing is said at once, and caches are filled before two processes would."""
    for engine, name in sorted({(plan.voice.engine, plan.voice.name) for plan in plans}):
        ENGINES[engine].speak("Hello.", name, 1.0)


def _ensure_clip(job: tuple[ClipPlan, Path]) -> float:
    """Speaks the clip unless it is there; its duration in seconds."""
    plan, path = job
    if not path.exists():
        write_clip(path, render(plan), plan.bitrate_kbps)
    return float(sf.info(path).duration)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _report(out: Path, manifests: dict[str, Path], rows: dict[str, list[dict[str, Any]]]) -> SynthesisReport:
    minutes = {split: sum(row["duration"] for row in found) / 60 for split, found in rows.items()}
    size = sum(clip.stat().st_size for split in rows for clip in (out / "audio" / split).glob("*.opus"))
    return SynthesisReport(manifests, {split: len(found) for split, found in rows.items()}, minutes, size)
