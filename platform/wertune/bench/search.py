"""The same sixteen configurations: one after another by the field's recipe, and side by side under ASHA by ours.

Epochs of the field's recipe take as long whatever the rate and rank, so that a few of the sixteen, the one that won
ours among them, may stand for all: their mean is counted sixteen times. Ours is run from three seeds.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wertune.bench.clips import BATCH, FULL, PLAIN_LORA, fewer_clips, plain_trial
from wertune.bench.peer import PeerRecipe
from wertune.bench.rows import Row, Section
from wertune.search.driver import cluster, search
from wertune.search.search_space import AshaConfig, Choices, Range, SearchConfig
from wertune.search.study import open_study
from wertune.tracking.runs import create_run
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared

CONFIGURATIONS = 16
SEEDS = range(3)
EPOCHS = 4
TRAINING_CLIPS, VALIDATION_CLIPS = 64, 24
RATES = Range(low=2e-4, high=5e-3, log=True)
RANKS = Choices(choices=(4, 8, 16, 32))
ASHA = AshaConfig(grace_epochs=1, reduction_factor=2)

Point = dict[str, Any]


@dataclass(frozen=True)
class OurSearch:
    """The whole search: seconds with Ray's start, epochs that ASHA granted all trials, and what was best."""

    seconds: float
    epochs: int
    best_wer: float
    best_point: Point


@dataclass(frozen=True)
class TheirTrial:
    """A configuration run in full: seconds until the first step, and of all epochs with their evaluation."""

    point: Point
    start_s: float
    epochs_s: float
    wers: tuple[float, ...]


def section(prepared: Prepared, of_theirs: int) -> Section:
    """Seconds of both, and the best WER that each reached; `of_theirs` configurations are run by the field's recipe."""
    small = _plain(prepared)
    points = configurations()
    ours = [_our_search(small, points, seed) for seed in SEEDS]
    best = ours[0].best_point
    others = [point for point in points[:: CONFIGURATIONS // of_theirs] if point != best]
    theirs = [_their_trial(small, point) for point in [best, *others][:of_theirs]]
    found = {"points": points, "ours": [asdict(each) for each in ours], "theirs": [asdict(trial) for trial in theirs]}
    return Section("search", found, as_markdown(ours, theirs), rows(ours, theirs))


def rows(ours: Sequence[OurSearch], theirs: Sequence[TheirTrial]) -> tuple[Row, Row]:
    """All epochs of all configurations against ours, and only as many as ASHA granted ours; best WERs beside them."""
    start_s = statistics.mean(trial.start_s for trial in theirs)
    epoch_s = statistics.mean(trial.epochs_s for trial in theirs) / EPOCHS
    pairs = {
        "theirs in full": [(CONFIGURATIONS * EPOCHS, each) for each in ours],
        "both under ASHA": [(each.epochs, each) for each in ours],
    }
    wers = _best_wer(theirs), statistics.mean(each.best_wer for each in ours)
    name = f"search of {CONFIGURATIONS} configurations (WER {100 * wers[0]:.1f} and {100 * wers[1]:.1f} %)"
    starts_s = CONFIGURATIONS * start_s
    in_full, granted = (
        Row.of_pairs(f"{name}, {how}", "s", [(starts_s + epochs * epoch_s, each.seconds) for epochs, each in runs])
        for how, runs in pairs.items()
    )
    return in_full, granted


def _best_wer(theirs: Sequence[TheirTrial]) -> float:
    return min(min(trial.wers) for trial in theirs)


def as_markdown(ours: Sequence[OurSearch], theirs: Sequence[TheirTrial]) -> str:
    """What was searched, and the WERs."""
    same = next(trial for trial in theirs if trial.point == ours[0].best_point)
    granted, wers = [each.epochs for each in ours], [100 * each.best_wer for each in ours]
    run = (
        "All of theirs were run in full, one after another with all cores"
        if len(theirs) == CONFIGURATIONS
        else f"Of theirs {len(theirs)} were run in full, one after another with all cores, and their mean counted "
        f"{CONFIGURATIONS} times"
    )
    reached = f"{statistics.mean(wers):.1f} % ({min(wers):.1f} to {max(wers):.1f})"
    return (
        f"The search: {CONFIGURATIONS} configurations of rate and rank, at most {EPOCHS} epochs of {TRAINING_CLIPS} "
        f"clips, {VALIDATION_CLIPS} clips to validate on, greedy, without augmentation. Ours is `tune`'s own: Ray "
        f"started and stopped, Optuna, ASHA (from {len(ours)} seeds it granted {min(granted)} to {max(granted)} of "
        f"{CONFIGURATIONS * EPOCHS} epochs), MLflow, a trial a core. {run}; under ASHA with the "
        f"epochs that it granted ours. Best validation WER: ours {reached}, "
        f"theirs with the first seed's configuration {100 * min(same.wers):.1f} %, the best of those run "
        f"{100 * _best_wer(theirs):.1f} %."
    )


def configurations() -> list[Point]:
    """Drawn once for both."""
    draw = np.random.default_rng(0)
    rates = np.exp(draw.uniform(np.log(RATES.low), np.log(RATES.high), CONFIGURATIONS))
    ranks = draw.choice(RANKS.choices, CONFIGURATIONS)
    return [{"train.learning_rate": float(a), "lora.r": int(b)} for a, b in zip(rates, ranks, strict=True)]


def _plain(prepared: Prepared) -> Prepared:
    """The project with few clips, and with what both recipes can do."""
    few = fewer_clips(prepared, train=TRAINING_CLIPS, validation=VALIDATION_CLIPS)
    return replace(few, project=prepared.project.model_copy(update={"trial": plain_trial(epochs=EPOCHS)}))


def _our_search(prepared: Prepared, points: Sequence[Point], seed: int) -> OurSearch:
    trial = prepared.project.trial.model_copy(update={"seed": seed})
    prepared = replace(prepared, project=prepared.project.model_copy(update={"trial": trial}))
    space = {"train.learning_rate": RATES, "lora.r": RANKS}
    config = SearchConfig(trials=CONFIGURATIONS, asha=ASHA, space=space, first_points=tuple(points))
    with tempfile.TemporaryDirectory(prefix="wertune-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        parent = create_run(f"sqlite:///{folder / 'mlflow.db'}", "bench", folder / "artifacts")
        started = time.perf_counter()
        study = open_study(parent.run_id, f"sqlite:///{folder / 'optuna.db'}", config, resume=False)
        with cluster(None, config):
            search(prepared, config, Objective(0.0, 0.0, 0.0), parent, study, folder / "search")
        seconds = time.perf_counter() - started
        trials = [(trial.intermediate_values, trial.params) for trial in study.trials if trial.intermediate_values]
    values, point = min(trials, key=lambda trial: min(trial[0].values()))
    return OurSearch(seconds, sum(max(epochs) for epochs, _ in trials), min(values.values()), dict(point))


def _their_trial(prepared: Prepared, point: Point) -> TheirTrial:
    """A fresh base for every trial, as their scripts load it; features are worked out beforehand."""
    named = prepared.whisper("int8")
    train, validation = (prepared.evaluation_set(split, FULL, named.mel_bins) for split in ("train", "validation"))
    texts = [recording.row.text for recording in train.recordings]
    wers: list[float] = []
    started = time.perf_counter()
    torch.manual_seed(0)
    recipe = PeerRecipe(prepared.base.path, named, PLAIN_LORA.model_copy(update={"r": point["lora.r"]}))
    start_s = time.perf_counter() - started

    def evaluate() -> None:
        written = recipe.transcribe(validation.features)
        wers.append(prepared.score(validation.recordings, written).wer)
        recipe.model.train()
        recipe.model.config.use_cache = False

    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        rate = point["train.learning_rate"]
        recipe.train(train.features, texts, BATCH, Path(scratch), rate, EPOCHS, evaluate)
    return TheirTrial(point, start_s, time.perf_counter() - started - start_s, tuple(wers))
