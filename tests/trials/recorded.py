"""Trials recorded once, and played again for what a search would have made of them.

`python -m tests.trials.recorded record FILE --trials 16` draws configurations at random from the project's space and
trains each to its last epoch, one a core; a second call goes on where the first ended.
`python -m tests.trials.recorded play FILE` has schedulers stop them, in many random orders. Of
`docs/learning_curves.json`, which holds objectives alone, sets drawn anew differ by a `--spread` that is drawn, too.
"""

import argparse
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import torch
from pydantic import TypeAdapter
from ray.tune.schedulers import TrialScheduler
from tests.support.trial import Log

from wertune.base.config import TrialConfig, load_project, load_yaml, with_overrides
from wertune.base.machine import cores
from wertune.jobs.tune import objective_of
from wertune.scores.metrics import Scores
from wertune.search.search_space import AshaConfig, SearchConfig
from wertune.search.study import Asha
from wertune.search.trial_log import EPOCH, METRIC, REDRAWN
from wertune.training import train as training
from wertune.training.baseline import baseline_scores
from wertune.training.batches import TrainingData
from wertune.training.objective import REDRAWS, Objective, redrawn_wer
from wertune.training.prepare import Prepared, prepare
from wertune.training.trial import run_trial
from wertune.training.workers import ALONE, Workers
from wertune.whisper.adapter import at_strength
from wertune.whisper.model import Whisper

SPLITS = ("validation", "retention_validation")
STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Errors:
    """Wrong words of each clip of validation and of retention's validation."""

    validation: tuple[int, ...]
    retention: tuple[int, ...]
    recall: float


@dataclass(frozen=True)
class Recorded:
    """A trial to its end: what it tried, each epoch's errors and seconds, and its last epoch's at other strengths."""

    number: int
    point: Mapping[str, Any]
    seed: int
    epochs: tuple[Errors, ...]
    seconds: tuple[float, ...]
    strengths: Mapping[str, Errors]


@dataclass(frozen=True)
class Sets:
    """The first line of a file: words of each clip, and what the untouched base writes wrong of retention."""

    validation_words: tuple[int, ...]
    retention_words: tuple[int, ...]
    retention_baseline_wer: float
    margin: float
    penalty: float
    epochs: int


def record(project: Path, file: Path, trials: int, processes: int) -> None:
    """Trains what the file lacks of so many random configurations, and appends each as it ends."""
    known = {each.number for each in read(file)[1]} if file.exists() else set()
    missing = [number for number in range(trials) if number not in known]
    if not file.exists():
        prepared, _, objective = _opened(project)
        file.write_text(json.dumps(asdict(_sets(prepared, objective))) + "\n", encoding="utf-8")
    alone = {"mp_context": get_context("spawn"), "initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(processes, **alone) as pool:
        going = [pool.submit(_trained, project, number) for number in missing]
        for done in as_completed(going):
            found = done.result()
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(found)) + "\n")
            print(f"trial {found.number}: {sum(found.seconds):.0f} s", flush=True)


def _opened(project: Path) -> tuple[Prepared, SearchConfig, Objective]:
    settings = load_project(project)
    prepared = prepare(project, settings)
    objective = objective_of(prepared, baseline_scores(prepared, SPLITS))
    return prepared, load_yaml(project / "search.yaml", SearchConfig), objective


def _sets(prepared: Prepared, objective: Objective) -> Sets:
    words = {
        split: tuple(len(prepared.normalise(each.text).split()) for each in prepared.dataset[split]) for split in SPLITS
    }
    return Sets(
        words["validation"],
        words["retention_validation"],
        objective.retention_baseline_wer,
        objective.retention_margin,
        objective.penalty,
        prepared.project.trial.train.epochs,
    )


def _point(search: SearchConfig, number: int) -> dict[str, Any]:
    """Drawn by the trial's number alone."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return dict(study.ask(search.distributions()).params)


def _trained(project: Path, number: int) -> Recorded:
    prepared, search, objective = _opened(project)
    point = _point(search, number)
    told = point | {"seed": number, "train.evaluate_every_epochs": 1}  # schedulers may ask after any
    config = with_overrides(prepared.project.trial, told, "recorded")
    epochs, strengths, inner = list[Errors](), dict[str, Errors](), training.validation_scores

    def recorded(
        config: TrialConfig, whisper: Whisper, data: TrainingData, workers: Workers = ALONE
    ) -> tuple[Scores, Scores | None]:
        found = inner(config, whisper, data, workers)
        epochs.append(_errors(*found))
        if len(epochs) == config.train.epochs:  # nothing that comes after it is kept
            for strength in STRENGTHS:
                with at_strength(whisper, strength):
                    strengths[f"{strength}"] = _errors(*inner(config, whisper, data, workers))
        return found

    training.validation_scores, seconds = recorded, list[float]()
    try:
        run_trial(
            config, prepared, objective, Log(), lambda result: seconds.append(result.train_s + result.evaluation_s)
        )
    finally:
        training.validation_scores = inner
    return Recorded(number, point, config.seed, tuple(epochs), tuple(seconds), strengths)


def _errors(validation: Scores, retention: Scores | None) -> Errors:
    both = ([each.words.errors for each in scores.utterances] if scores else [] for scores in (validation, retention))
    return Errors(*map(tuple, both), validation.terms.recall)


def read(file: Path) -> tuple[Sets, list[Recorded]]:
    """What `record` wrote, packed or not, in the order of the trials' numbers."""
    content = file.read_bytes()
    sets, *trials = (gzip.decompress(content) if file.suffix == ".gz" else content).decode("utf-8").splitlines()
    found = [TypeAdapter(Recorded).validate_json(line) for line in trials]
    return TypeAdapter(Sets).validate_json(sets), sorted(found, key=lambda trial: trial.number)


@dataclass(frozen=True)
class Curve:
    """A trial as schedulers see it: after each epoch the best objective so far, on the sets and on sets drawn anew."""

    values: tuple[float, ...]
    redrawn: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]


def curve(sets: Sets, trial: Recorded) -> Curve:
    """By the rule of `Objective`."""
    objective = Objective(sets.retention_baseline_wer, sets.margin, sets.penalty)
    values, redrawn, best = list[float](), list[tuple[float, ...]](), float("inf")
    for epoch in trial.epochs:
        both = ((epoch.validation, sets.validation_words), (epoch.retention, sets.retention_words))
        value = objective(*(sum(errors) / sum(words) for errors, words in both))
        if value < best:
            drawn = (redrawn_wer(list(zip(*each, strict=True))).tolist() for each in both)
            best, now = value, tuple(map(objective, *drawn))
        values.append(best)
        redrawn.append(now)
    return Curve(tuple(values), tuple(redrawn), trial.seconds)


def plain_curves(file: Path, spread: float) -> list[Curve]:
    """Of objectives after each epoch; on a set drawn anew a trial's differ by the same in all of its epochs, mostly."""
    generator, curves = np.random.default_rng(0), list[Curve]()
    for objectives in json.loads(file.read_text(encoding="utf-8"))["curves"]:
        best = np.minimum.accumulate(objectives)
        of_trial, of_epochs = generator.normal(0, spread, REDRAWS), generator.normal(0, spread, (best.size, REDRAWS))
        redrawn = best[:, None] + np.sqrt(0.5) * (of_trial + of_epochs)
        curves.append(Curve(tuple(best.tolist()), tuple(map(tuple, redrawn.tolist())), (1.0,) * best.size))
    return curves


@dataclass(frozen=True)
class Played:
    """A search of recorded trials: the least objective, what it took, and of the best quarter how many were stopped."""

    best: float
    epochs: int
    core_s: float
    false_stops: int
    good: int


def play(
    proposed: Iterable[Curve],
    asha: AshaConfig | None,
    epochs: int,
    at_once: int = 2,
    told: Callable[[int, int, bool], None] = lambda number, epoch, ends: None,
) -> Played:
    """The trials in this order on so many places, each stopped as the scheduler says; `None` stops none.

    A trial is proposed once there is a place for it; `told` hears of each epoch, and whether it was the trial's last.
    """
    scheduler = Asha(asha, epochs) if asha else None
    waiting, curves = iter(proposed), list[Curve]()
    free_at, reached = [0.0] * at_once, dict[int, int]()
    going: list[tuple[float, int, int]] = []  # when its next epoch ends, the trial, the epoch
    while True:
        while len(going) < at_once and (trial := next(waiting, None)):
            number = len(curves)
            curves.append(trial)
            going.append((min(free_at) + trial.seconds[0], number, 1))
            free_at.remove(min(free_at))
            if scheduler:
                scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(number)))
        if not going:
            break
        going.sort()
        at, number, epoch = going.pop(0)
        result = {EPOCH: epoch, METRIC: curves[number].values[epoch - 1], REDRAWN: curves[number].redrawn[epoch - 1]}
        known = SimpleNamespace(trial_id=str(number))
        decision = scheduler.on_trial_result(None, known, result) if scheduler else TrialScheduler.CONTINUE
        ends = decision == TrialScheduler.STOP or epoch == epochs
        told(number, epoch, ends)
        if ends:
            reached[number] = epoch
            free_at.append(at)
        else:
            going.append((at + curves[number].seconds[epoch], number, epoch + 1))
    good = np.argsort([each.values[epochs - 1] for each in curves])[: max(1, len(curves) // 4)]
    return Played(
        min(curves[number].values[epoch - 1] for number, epoch in reached.items()),
        sum(reached.values()),
        sum(sum(curves[number].seconds[:epoch]) for number, epoch in reached.items()),
        sum(reached[number] < epochs for number in good),
        len(good),
    )


def main() -> None:
    """Records, or plays and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("record", "play"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--project", type=Path, default=Path("projects/sg_gov"))
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--spread", type=float, default=0.0065, help="deviation of an objective from set to set")
    given = parser.parse_args()
    if given.what == "record":
        record(given.project, given.file, given.trials, given.processes)
        return
    if given.file.suffix == ".json":
        curves = plain_curves(given.file, given.spread)
    else:
        sets, trials = read(given.file)
        curves = [curve(sets, trial) for trial in trials]
    epochs = min(len(each.values) for each in curves)
    orders = [np.random.default_rng(seed).permutation(len(curves))[: given.trials] for seed in range(given.orders)]
    print("| scheduler | best objective | share of all epochs | of the best quarter stopped |\n|---|---|---|---|")
    for name, asha in _schedulers().items():
        played = [play([curves[number] for number in order], asha, epochs) for order in orders]
        best = np.array([each.best for each in played])
        share = np.mean([each.epochs for each in played]) / (epochs * len(orders[0]))
        stopped = sum(each.false_stops for each in played) / sum(each.good for each in played)
        print(
            f"| {name} | {100 * best.mean():.2f} % ({100 * best.min():.2f} to {100 * best.max():.2f}) "
            f"| {100 * share:.0f} % | {100 * stopped:.0f} % |"
        )


def _schedulers() -> dict[str, AshaConfig | None]:
    found: dict[str, AshaConfig | None] = {"none": None}
    for grace, confidence in product((1, 2), (0.0, 0.7, 0.8, 0.9, 0.95)):
        name = f"ASHA from {grace}, 1 in 2, confidence {confidence:g}"
        found[name] = AshaConfig(grace_epochs=grace, reduction_factor=2, confidence=confidence)
    return found


if __name__ == "__main__":
    main()
