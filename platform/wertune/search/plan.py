"""What a search will take: epochs, time, memory and disk, from a probe on this machine, before anything is logged."""

import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wertune.base.config import ContextConfig, ProjectConfig
from wertune.base.errors import ConfigError
from wertune.base.files import cache_root
from wertune.base.machine import cores, free_disk_mb, free_memory_mb
from wertune.data.manifest import Recording
from wertune.search.asha_games import Range, expected_epochs
from wertune.search.search_space import SearchConfig, checked_space
from wertune.training.baseline import EVALUATION_SPLITS, ways_of
from wertune.training.batches import clips_per_epoch
from wertune.training.prepare import Prepared, prepare
from wertune.training.probe import Probe, probe
from wertune.whisper.features import FRAMES_PER_POSITION, context_positions
from wertune.whisper.footprint import product_dtype, quantization_advice

# Not measured by the probe, but on the demo's own search on two cores, 27 + 18 + 18 + 9 s: Ray's start and what its
# workers import, their first trials' imports, reports and registration, and the start of the process for the gates.
START_UP_S = 72.0
# Of a base's clip at 30 s: once it is encoded, to write it in another way is so much of it (tiny.en, eight beams).
WRITING_SHARE = 0.25
# Trials side by side share memory and caches: an allowance, not a measurement.
SIDE_BY_SIDE = 1.25
LEAST_PROCESS_MB = 400.0  # the driver beside the trials


@dataclass(frozen=True)
class Machine:
    """What there is to search on, and how many trials that carries at once."""

    cores: int
    gpus: int
    products: str
    trials_at_once: int


@dataclass(frozen=True)
class Plan:
    """The plan of `tune`, and what it stands on. Times in seconds, sizes in MB."""

    project: str
    base_model: str
    trials: int
    first_points: int
    epochs: int
    rungs: list[int]
    machine: Machine
    clips_per_epoch: int
    all_epochs: Range
    epoch_s: float
    features_s: float
    search_s: Range
    rest_s: dict[str, float]
    total_s: Range
    memory_mb: float
    memory_free_mb: float | None
    cache_mb: float
    cache_free_mb: float
    adapters_mb: float
    disk_free_mb: float
    advice: str | None
    probe: Probe

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def make_plan(folder: Path, project: ProjectConfig, search: SearchConfig) -> Plan:
    """Checks the project as `tune` would, measures, and plans; raises what `tune` would before its first trial."""
    started = time.perf_counter()
    prepared = prepare(folder, project, drawn=checked_space(search, project.trial, "search.yaml"))
    checked_s = time.perf_counter() - started
    machine = _machine(search)
    measured = probe(prepared, search.cpus_per_trial)
    trial = project.trial
    clips = sum(clips_per_epoch(trial, prepared.dataset["train"], prepared.dataset["replay"]))
    scored = sum(len(prepared.dataset[split]) for split in ("validation", "retention_validation"))
    epoch_s = clips * measured.train_clip_s + scored * measured.evaluation_clip_s
    all_epochs, span = expected_epochs(
        search.asha, search.trials, trial.train.epochs, machine.trials_at_once, len(search.first_points)
    )
    features_s = _heard(prepared, clips) * measured.features_clip_s / machine.trials_at_once
    slower = SIDE_BY_SIDE if machine.trials_at_once > 1 else 1.0
    search_s = Range(
        span.low * epoch_s,
        span.mean * epoch_s * (1 + slower) / 2 + features_s,
        span.high * epoch_s * slower + features_s,
    )
    rest_s = _rest_s(prepared, measured, machine, checked_s)
    return Plan(
        project=project.name,
        base_model=prepared.base.spec,
        trials=search.trials,
        first_points=len(search.first_points),
        epochs=trial.train.epochs,
        rungs=search.asha.rungs(trial.train.epochs),
        machine=machine,
        clips_per_epoch=clips,
        all_epochs=all_epochs,
        epoch_s=epoch_s,
        features_s=features_s,
        search_s=search_s,
        rest_s=rest_s,
        total_s=_total_s(search_s, rest_s),
        memory_mb=measured.memory_mb,
        memory_free_mb=_free_mb(machine),
        cache_mb=_cache_mb(prepared, measured.mel_bins, clips),
        cache_free_mb=free_disk_mb(cache_root()),
        adapters_mb=measured.adapter_mb * (search.trials + 1),
        disk_free_mb=free_disk_mb(Path.cwd()),
        advice=quantization_advice(prepared.base.path, trial.quantization, product_dtype(_device())),
        probe=measured,
    )


def _machine(search: SearchConfig) -> Machine:
    found, gpus = cores(), torch.cuda.device_count() if torch.cuda.is_available() else 0
    share = min(1.0, gpus) if search.gpus_per_trial == "auto" else search.gpus_per_trial
    if share > gpus:
        raise ConfigError(f"gpus_per_trial is {share:g}, but this machine has {gpus} GPUs; lower it or set it to auto")
    fitting = [found / search.cpus_per_trial, search.trials]
    fitting += [gpus / share] if share else []
    fitting += [search.max_concurrent] if search.max_concurrent != "auto" else []
    products = str(product_dtype(_device())).removeprefix("torch.")
    return Machine(found, gpus, products, max(1, int(min(fitting))))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _free_mb(machine: Machine) -> float | None:
    """For trials: of the GPUs, or of the machine without the driver's part."""
    if machine.gpus:
        return sum(torch.cuda.mem_get_info(i)[0] for i in range(machine.gpus)) / 2**20
    free = free_memory_mb()
    return None if free is None else free - LEAST_PROCESS_MB


def _rest_s(prepared: Prepared, measured: Probe, machine: Machine, checked_s: float) -> dict[str, float]:
    """What is done beside the search."""
    validation_clips = len(prepared.dataset["validation"])
    baseline_clips = sum(len(prepared.dataset[split]) for split in EVALUATION_SPLITS)
    written_again = validation_clips * WRITING_SHARE * (len(ways_of(prepared)) - 1)
    final_clips = sum(len(prepared.dataset[split]) for split in ("test", "retention_test"))
    return {
        "check": checked_s,
        "baseline": (baseline_clips + written_again) * measured.baseline_clip_s / machine.trials_at_once,
        # Once for the results and once as the version serves, for the gates; validation for what each part brings.
        "final": (2 * final_clips + (2 * validation_clips if prepared.lexicon.terms else 0)) * measured.final_clip_s,
        "start_up": START_UP_S,
    }


def _total_s(search_s: Range, rest_s: Mapping[str, float]) -> Range:
    """From the command to the verdict; the low end is without the baseline, which an earlier search may have left."""
    rest = sum(rest_s.values())
    return Range(search_s.low + rest - rest_s["baseline"], search_s.mean + rest, search_s.high + rest)


def _heard(prepared: Prepared, clips: int) -> int:
    """Clips, and ways in which they are augmented, whose features a search works out: all trials share them."""
    trial = prepared.project.trial
    there = len(prepared.dataset["train"]) + len(prepared.dataset["replay"])
    return min(clips * trial.train.epochs, there * trial.augment.variants)


def _cache_mb(prepared: Prepared, mel_bins: int, clips: int) -> float:
    """Features on disk where the cache has none of them: trained ones in 16 bits, scored ones in 32."""
    context, dataset = prepared.project.trial.context, prepared.dataset
    trained = [*dataset["train"], *dataset["replay"]]
    scored = [recording for split in EVALUATION_SPLITS for recording in dataset[split]]
    a_clip = _positions(trained, context) / len(trained)
    short, full = _positions(scored, context), _positions(scored, ContextConfig(short=False))
    values = 2 * _heard(prepared, clips) * a_clip + 4 * (short + full)
    return values * FRAMES_PER_POSITION * mel_bins / 2**20


def _positions(recordings: Sequence[Recording], context: ContextConfig) -> int:
    return sum(context_positions(recording.duration_s, context) for recording in recordings)


def as_text(plan: Plan) -> str:
    """The plan for people; what does not fit is said at the end."""
    machine, compared = plan.machine, ", ".join(map(str, plan.rungs))
    gpus = f"{machine.gpus} GPUs" if machine.gpus else "no GPU"
    free = "unknown" if plan.memory_free_mb is None else _size(plan.memory_free_mb)
    lines = [
        ("search", f"{plan.project} on {plan.base_model}: {plan.trials} trials of at most {plan.epochs} epochs"),
        ("ASHA", f"compares trials after epochs {compared}" if compared else "compares nothing: one epoch is all"),
        ("epochs", f"about {_about(plan.all_epochs)}, of {plan.trials * plan.epochs} without ASHA"),
        ("machine", f"{machine.cores} cores, {gpus}, {machine.products}; trials at once: {machine.trials_at_once}"),
        ("an epoch", f"{plan.clips_per_epoch} clips and their scores: {_clock(plan.epoch_s)}"),
        ("features", f"{_clock(plan.features_s)} more in the whole search where the cache has none"),
        ("time", f"search {_clock_range(plan.search_s)}; from start to verdict {_clock_range(plan.total_s)}"),
        ("beside", ", ".join(f"{BESIDE[name]} {_clock(rest)}" for name, rest in plan.rest_s.items())),
        ("memory", f"{_size(plan.memory_mb)} a trial, {machine.trials_at_once} at once; free: {free}"),
        ("cache", f"at most {_size(plan.cache_mb)} of features; free: {_size(plan.cache_free_mb)}"),
        ("adapters", f"{_size(plan.adapters_mb)} in MLflow; free here: {_size(plan.disk_free_mb)}"),
    ]
    how = HOW.format(first=FIRST if plan.first_points else "")
    notes = [*_warnings(plan), *([plan.advice] if plan.advice else []), how]
    return (
        "\n".join(f"{name:9} {text}" for name, text in lines)
        + "\n\n"
        + "\n".join(textwrap.fill(note, WIDTH) for note in notes)
    )


BESIDE = {
    "check": "checks",
    "baseline": "the base's scores",
    "final": "final evaluation and gates",
    "start_up": "processes and reports",
}
HOW = (
    "Measured: two real steps and a small evaluation by one process. Assumed: processes start and reports are written "
    "as fast as on the demo's two cores; an epoch takes as long with every value "
    "of search.yaml as with those of project.yaml; ASHA's rule is played with trials in random order{first}; between "
    "the ends lie eight of ten such games, the upper end with trials in each other's way. Nothing was logged."
)
FIRST = ", in three of four games with search.yaml's first_points as the best"
BUSY = 0.8
WIDTH = 100


def _warnings(plan: Plan) -> list[str]:
    wanted_mb = plan.memory_mb * plan.machine.trials_at_once
    found, share = [], plan.probe.share_of_cores
    if share < BUSY:
        idle = f"on an idle machine the search takes about {_clock(plan.search_s.mean * share)}"
        found.append(f"! busy: other programs left the probe {100 * share:.0f} % of its cores; {idle}")
    if plan.memory_free_mb is not None and wanted_mb > plan.memory_free_mb:
        remedy = "lower train.batch_size, raise cpus_per_trial, or set max_concurrent"
        found.append(f"! memory: {_size(wanted_mb)} wanted, {_size(plan.memory_free_mb)} free; {remedy}")
    if plan.cache_mb > plan.cache_free_mb:
        found.append(f"! cache: {_size(plan.cache_mb)} wanted; free some space, or point WERTUNE_CACHE elsewhere")
    if plan.adapters_mb > plan.disk_free_mb:
        found.append(f"! disk: {_size(plan.adapters_mb)} wanted; free some space, or log to a server")
    return found


def _about(found: Range) -> str:
    return f"{found.mean:.0f} ({found.low:.0f} to {found.high:.0f})"


def _clock_range(found: Range) -> str:
    return f"{_clock(found.mean)} ({_clock(found.low)} to {_clock(found.high)})"


def _clock(seconds: float) -> str:
    """Hours, minutes or seconds, as exact as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _size(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 1024 else f"{mb / 1024:.1f} GB"
