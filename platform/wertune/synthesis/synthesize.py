"""Speaks a project's sentences: Opus clips, their manifests and a report, the same ones for the same files."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from tqdm import tqdm

from wertune.base.errors import SynthesisError
from wertune.base.text import normaliser
from wertune.data.audio import Samples, resample
from wertune.data.augment import add_coloured_noise, telephone
from wertune.data.clip_files import check, level, trim, write_clip, write_manifest
from wertune.synthesis.advice import missing_steps
from wertune.synthesis.engines import find_engine
from wertune.synthesis.plan import ClipPlan, plan_clips
from wertune.synthesis.project import SynthesisProject, load_synthesis_project
from wertune.synthesis.report import SynthesisReport, build_report
from wertune.synthesis.retention import build_retention

_CHUNK = 4
_LISTED_FAULTS = 20
Job = tuple[ClipPlan, Path]


def synthesize(
    project_dir: Path, out_dir: Path | None = None, processes: int = 0, say: Callable[[str], object] = print
) -> SynthesisReport:
    """Writes `audio/<split>/*.opus`, `manifests/<split>.jsonl` and the report under `out_dir`, by default the project.

    A clip that exists under its digest is not spoken again. Human recordings (see retention.py) join `replay`.
    `processes` 0 is one for every core. Raises ConfigError or SynthesisError; manifests are written last.
    """
    out = out_dir or project_dir
    project = load_synthesis_project(project_dir)
    plans = plan_project(project)
    recorded_splits = {"replay", "retention_validation", "retention_test"} if project.config.recordings else set()
    _refuse_recordings(out, {plan.split for plan in plans} | recorded_splits)
    say(f"language: {project.language}" + ("" if project.project else " (no project.yaml says another)"))
    for engine, why in project.absent_engines.items():
        say(f"not used: {engine}: {why}")
    rows: dict[str, list[dict[str, Any]]] = {}
    for plan, duration_s in zip(plans, _speak(plans, out, processes, say), strict=True):
        rows.setdefault(plan.split, []).append(manifest_row(plan, duration_s))
    normalise = normaliser(project.language)
    for split, recorded in build_retention(project_dir, out, project.config, project.texts, normalise).items():
        rows.setdefault(split, []).extend(recorded)
    manifests = {split: write_manifest(out, split, found) for split, found in rows.items()}
    size = sum((out / "manifests" / row["audio_filepath"]).stat().st_size for found in rows.values() for row in found)
    report = build_report(project, manifests, rows, size)
    say(report.markdown())
    for split, manifest in manifests.items():
        say(f"{split}: {manifest}")
    say(f"audio: {report.audio_bytes / 1e6:.1f} MB; this report: {report.write()}")
    for step in missing_steps(project_dir, project.project, manifests):
        say(f"next: {step}")
    return report


def plan_project(project: SynthesisProject) -> list[ClipPlan]:
    """The plans of all clips of train, validation, test and replay."""
    plans = []
    for split, sentences in project.splits.items():
        speakers = "train" if split == "replay" else split
        voices = [voice for voice in project.config.voices if voice.split == speakers]
        plans += plan_clips(split, sentences, voices, project.speller, project.config)
    return plans


def _refuse_recordings(out: Path, splits: set[str]) -> None:
    """Manifests of other origin are not written over: who imported recordings would lose their splits."""
    paths = [out / "manifests" / f"{split}.jsonl" for split in sorted(splits)]
    foreign = [str(path) for path in paths if path.exists() and not _is_ours(path)]
    if foreign:
        raise SynthesisError(f"{', '.join(foreign)} would be written over, but was not spoken here; give another --out")


def _is_ours(manifest: Path) -> bool:
    """Whether each row names its clip, sentence and voice, as `manifest_row` does."""
    try:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        return False
    return all(isinstance(row, dict) and {"audio_filepath", "sentence", "voice"} <= row.keys() for row in rows)


def _speak(plans: Sequence[ClipPlan], out: Path, processes: int, say: Callable[[str], object]) -> list[float]:
    """Each clip's seconds; a SynthesisError lists all that could not be spoken, and what was spoken is kept."""
    jobs = [(plan, out / "audio" / plan.split / plan.filename) for plan in plans]
    unspoken = [(plan, path) for plan, path in jobs if not path.exists()]
    workers = min(processes or len(os.sched_getaffinity(0)), -(-len(unspoken) // _CHUNK))
    say(f"clips to speak: {len(unspoken)}, there already: {len(jobs) - len(unspoken)}; processes: {workers}")
    if unspoken:
        # One word by each voice: what is missing is said at once, and caches are filled before two processes would.
        for engine, name in sorted({(plan.voice.engine, plan.voice.name) for plan, _ in unspoken}):
            find_engine(engine).speak("Hello.", name, 1.0)
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            written = pool.map(_write, unspoken, chunksize=_CHUNK)
            loud = sys.stderr.isatty()
            shown = tqdm(written, "clips", len(unspoken)) if loud else _told(written, len(unspoken), say)
            faults = [fault for fault in shown if fault]
        if faults:
            more = [f"and {len(faults) - _LISTED_FAULTS} more"] if len(faults) > _LISTED_FAULTS else []
            kept = "no manifest was written, and what was spoken is kept"
            ending = f"{len(faults)} of {len(unspoken)} clips failed; {kept}"
            raise SynthesisError("\n".join([*faults[:_LISTED_FAULTS], *more, ending]))
    return [float(sf.info(path).duration) for _, path in jobs]


def _told(written: Iterable[str], count: int, say: Callable[[str], object]) -> Iterator[str]:
    """The same, and a line for logs after each tenth."""
    tenth = -(-count // 10)
    for number, fault in enumerate(written, 1):
        yield fault
        if number % tenth == 0 or number == count:
            say(f"clips: {number} of {count}")


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
    samples, rate = find_engine(plan.voice.engine).speak(plan.spoken, plan.voice.name, plan.speed)
    generator = np.random.default_rng(plan.seed)
    drawn_s, given_s = float(generator.uniform(0.1, 0.25)), plan.sentence.margin_s
    speech = level(trim(resample(samples, rate), drawn_s if given_s is None else given_s))
    if plan.channel == "telephone":
        speech = telephone(torch.from_numpy(speech)).numpy()
    elif plan.snr_db is not None:
        speech = add_coloured_noise(torch.from_numpy(speech), plan.snr_db, generator).clamp(-1, 1).numpy()
    check(speech, f"{plan.voice.id}: {plan.spoken!r}")
    return speech


def _write(job: Job) -> str:
    """Speaks the clip; what is wrong with it, or nothing."""
    plan, path = job
    try:
        write_clip(path, render(plan), plan.bitrate_kbps)
    except SynthesisError as error:
        return f"{plan.sentence.id}: {error}"
    return ""


def _one_thread() -> None:
    torch.set_num_threads(1)
