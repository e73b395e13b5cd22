"""What a search will take: epochs, time, memory and disk, from a probe on this machine, before anything is logged."""

import math
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from wertune.base.config import ContextConfig, ProjectConfig
from wertune.base.files import cache_root
from wertune.base.machine import cores, free_disk_mb, free_memory_mb, processor_name, room_for_trials
from wertune.battery.shelf import project_battery
from wertune.data.long_form import CLIPS_EACH, MOST_RECORDINGS
from wertune.data.manifest import LONG_SPLIT
from wertune.search.halving import Estimate, expected_epochs, one_after_another
from wertune.search.search_space import SearchConfig, checked_space
from wertune.training.baseline import EVALUATION_SPLITS, FULL_CONTEXT, Way, unwritten, ways_of
from wertune.training.batches import clips_per_epoch
from wertune.training.prepare import Prepared, prepare
from wertune.training.probe import Probe, probe
from wertune.whisper.features import FRAMES_PER_POSITION, context_positions
from wertune.whisper.footprint import dtype_name, products_here, quantization_advice

# Not measured by the probe, but on the demo's own search on two cores, 27 + 18 + 18 + 9 s: Ray's start and what its
# workers import, their first trials' imports, reports and registration, and the start of the process for the gates.
START_UP_S = 72.0
# Of a base's clip at 30 s: once it is encoded, to write it in another way is so much of it (tiny.en, eight beams).
WRITING_SHARE = 0.25
# Trials side by side share memory and caches: an allowance, not a measurement.
SIDE_BY_SIDE = 1.25
# Of several workers' time, what they do not wait for each other: an allowance, too.
WORKERS_SHARE = 0.85
LEAST_PROCESS_MB = 400.0  # the driver beside the trials


@dataclass(frozen=True)
class Machine:
    """What there is to search on, and how many trials of how many workers that carries at once."""

    cores: int
    processor: str
    gpus: int
    products: str
    trials_at_once: int
    workers: int = 1


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
    all_epochs: Estimate
    epoch_s: float
    features_s: float
    search_s: Estimate
    rest_s: dict[str, float]
    total_s: Estimate
    memory_mb: float
    memory_free_mb: float | None
    cache_mb: float
    cache_free_mb: float
    adapters_mb: float
    disk_free_mb: float
    advice: str | None
    probe: Probe


def make_plan(folder: Path, project: ProjectConfig, search: SearchConfig) -> Plan:
    """Checks the project as `tune` would, measures, and plans; raises what `tune` would before its first trial."""
    started = time.perf_counter()
    prepared = prepare(folder, project, drawn=checked_space(search, project.trial, "search.yaml"))
    checked_s = time.perf_counter() - started
    machine, trial = _machine(search), project.trial
    measured = probe(prepared, search.cpus_per_trial)
    clips = sum(clips_per_epoch(trial, prepared.dataset["train"], prepared.dataset["replay"]))
    # Clips, and ways in which they are augmented, whose features a search works out: all trials share them.
    heard = min(clips * trial.train.epochs, _clips(prepared, "train", "replay") * trial.augment.variants)
    share = machine.workers * WORKERS_SHARE if machine.workers > 1 else 1.0
    scored_s = _clips(prepared, "validation", "retention_validation") * measured.evaluation_clip_s / share
    trained_s = clips * measured.train_clip_s / share
    epoch_s = trained_s + scored_s / min(trial.train.evaluate_every_epochs, trial.train.epochs)  # in the mean
    features_s = heard * measured.features_clip_s / (machine.trials_at_once * machine.workers)
    epochs, first_points = trial.train.epochs, len(search.first_points)
    all_epochs = expected_epochs(search.asha, search.trials, epochs, first_points)
    search_s = _search_s(all_epochs, search.trials, epochs, machine.trials_at_once, epoch_s, features_s)
    battery = project_battery(folder, project)
    ordinary = len(battery.rows) if battery else 0
    rest_s = {"check": checked_s} | _rest_s(prepared, measured, machine.trials_at_once, ordinary)
    if restarts := search.restarts:
        rest_s["restarts"] = math.ceil(restarts / machine.trials_at_once) * (epochs * trained_s + scored_s)
    if search.strengths:
        rest_s["strengths"] = len(search.strengths) * scored_s
    rest = sum(rest_s.values())
    return Plan(
        project=project.name,
        base_model=prepared.base.spec,
        trials=search.trials,
        first_points=first_points,
        epochs=epochs,
        rungs=search.asha.rungs(epochs),
        machine=machine,
        clips_per_epoch=clips,
        all_epochs=all_epochs,
        epoch_s=epoch_s,
        features_s=features_s,
        search_s=search_s,
        rest_s=rest_s,
        total_s=Estimate(search_s.low + rest, search_s.mean + rest, search_s.high + rest),  # from command to verdict
        memory_mb=measured.memory_mb * machine.workers,
        memory_free_mb=_free_mb(machine),
        cache_mb=_cache_mb(prepared, measured.mel_bins, heard),
        cache_free_mb=free_disk_mb(cache_root()),
        adapters_mb=measured.adapter_mb * (search.trials + 1 + 3 * search.restarts),
        disk_free_mb=free_disk_mb(Path.cwd()),
        advice=quantization_advice(prepared.base.path, trial.quantization),
        probe=measured,
    )


def _search_s(
    epochs_of_all: Estimate, trials: int, epochs: int, at_once: int, epoch_s: float, features_s: float
) -> Estimate:
    """The low end has the features in the cache and no trial in another's way; the high end is the opposite."""
    low, mean, high = (
        one_after_another(each, trials, epochs, at_once) * epoch_s
        for each in (epochs_of_all.low, epochs_of_all.mean, epochs_of_all.high)
    )
    slower = SIDE_BY_SIDE if at_once > 1 else 1.0
    return Estimate(low, mean * (1 + slower) / 2 + features_s, high * slower + features_s)


def _machine(search: SearchConfig) -> Machine:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    fitting = [room_for_trials(search, gpus), search.trials]
    fitting += [search.max_concurrent] if search.max_concurrent != "auto" else []
    at_once = max(1, int(min(fitting)))
    return Machine(cores(), processor_name(), gpus, dtype_name(products_here()), at_once, search.workers)


def _free_mb(machine: Machine) -> float | None:
    """For trials: of the GPUs, or of the machine without the driver's part."""
    if machine.gpus:
        return sum(torch.cuda.mem_get_info(i)[0] for i in range(machine.gpus)) / 2**20
    free = free_memory_mb()
    return None if free is None else free - LEAST_PROCESS_MB


def _clips(prepared: Prepared, *splits: str) -> int:
    return sum(len(prepared.dataset[split]) for split in splits)


def _rest_s(prepared: Prepared, measured: Probe, at_once: int, battery: int) -> dict[str, float]:
    """What is done beside the search; `battery` clips of ordinary speech are written once."""
    validation = _clips(prepared, "validation")
    wanted = dict.fromkeys(EVALUATION_SPLITS, (Way.PLAIN,)) | {"validation": ways_of(prepared)}
    # A clip is heard once for all ways; what is kept from before, or lies in the project, is not written again.
    missing = unwritten(prepared, wanted).items()
    heard = sum(_clips(prepared, split) * (1 + WRITING_SHARE * (len(ways) - 1)) for split, ways in missing)
    # As the version serves, for the gates; validation, with and without the boost, for what each part brings.
    final = _clips(prepared, "test", "retention_test") + (2 * validation if prepared.lexicon.terms else 0)
    # Long recordings for the gates: some joined of test clips, and whole ones as they are and segment by segment.
    joined = min(_clips(prepared, "test"), MOST_RECORDINGS * CLIPS_EACH)
    long = (joined if joined > 1 else 0) + 2 * _clips(prepared, LONG_SPLIT)
    return {
        "baseline": heard * measured.baseline_clip_s / at_once,
        "final": (final + battery + long) * measured.final_clip_s,
        "start_up": START_UP_S,
    }


def _cache_mb(prepared: Prepared, mel_bins: int, heard: int) -> float:
    """Features on disk where the cache has none of them: trained ones in 16 bits, scored ones in 32."""
    short = prepared.project.trial.context
    a_clip = _positions(prepared, short, "train", "replay") / _clips(prepared, "train", "replay")
    scored = sum(_positions(prepared, context, *EVALUATION_SPLITS) for context in (short, FULL_CONTEXT))
    return (2 * heard * a_clip + 4 * scored) * FRAMES_PER_POSITION * mel_bins / 2**20


def _positions(prepared: Prepared, context: ContextConfig, *splits: str) -> int:
    return sum(context_positions(clip.duration_s, context) for split in splits for clip in prepared.dataset[split])


def as_text(plan: Plan) -> str:
    """The plan for people; what does not fit is said at the end."""
    machine, compared = plan.machine, ", ".join(map(str, plan.rungs))
    at_once = f"{machine.trials_at_once}{f', each of {machine.workers} workers' if machine.workers > 1 else ''}"
    gpus = f"{machine.gpus} GPUs" if machine.gpus else "no GPU"
    free = "unknown" if plan.memory_free_mb is None else _size(plan.memory_free_mb)
    lines = [
        ("search", f"{plan.project} on {plan.base_model}: {plan.trials} trials of at most {plan.epochs} epochs"),
        ("ASHA", f"compares trials after epochs {compared}" if compared else "compares nothing: one epoch is all"),
        ("epochs", f"about {_range(plan.all_epochs, '{:.0f}'.format)}, of {plan.trials * plan.epochs} without ASHA"),
        ("machine", f"{machine.cores} cores of {machine.processor}, {gpus}; trials at once: {at_once}"),
        ("products", f"in {machine.products}{'' if machine.gpus else FLOAT32.get(machine.products, '')}"),
        ("an epoch", f"{plan.clips_per_epoch} clips and their scores: {_clock(plan.epoch_s)}"),
        ("features", f"{_clock(plan.features_s)} more in the whole search where the cache has none"),
        ("time", f"search {_range(plan.search_s, _clock)}; from start to verdict {_range(plan.total_s, _clock)}"),
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
    "restarts": "the best again from other seeds",
    "strengths": "the adapter at other strengths",
    "final": "final evaluation and gates",
    "start_up": "processes and reports",
}
HOW = (
    "Measured: two real steps and a small evaluation by one process. Assumed: processes start and reports are written "
    "as fast as on the demo's two cores; an epoch takes as long with every value "
    "of search.yaml as with those of project.yaml; ASHA's rule is reckoned with trials in random order{first}; between "
    "the ends lie eight of ten such searches, the upper end with trials in each other's way. Nothing was logged."
)
FIRST = ", in three of four searches with search.yaml's first_points as the best"
FLOAT32 = {"float32": ": it has no AVX-512 BF16 or AMX, with which an epoch takes up to a quarter of the time"}
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


def _range(found: Estimate, show: Callable[[float], str]) -> str:
    return f"{show(found.mean)} ({show(found.low)} to {show(found.high)})"


def _clock(seconds: float) -> str:
    """Hours, minutes or seconds, as exact as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _size(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 1024 else f"{mb / 1024:.1f} GB"
