"""The best configuration again from other seeds, and the mean of its adapters where validation says so.

Runs of one configuration agree in what they learnt and differ in noise: their mean keeps the first and loses of the
second, at the price of one adapter when it serves (model soups, Wortsman et al. 2022, arXiv:2203.05482).
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from textwrap import shorten

from wertune.base import contract
from wertune.base.config import TrialConfig
from wertune.base.errors import AdapterError
from wertune.base.files import content_digest, write_files
from wertune.base.steps import minutes
from wertune.jobs.trials import BestTrial, downloaded_adapter
from wertune.search.driver import train_across
from wertune.search.search_space import SearchConfig
from wertune.search.trial_log import GatheredLog
from wertune.search.trial_runs import CAUSE_CHARACTERS
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, nested_run, now_ms, restarts
from wertune.training.batches import TrainingData
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import validation_scores
from wertune.training.trial import ADAPTER_ARTIFACT, size_metrics
from wertune.whisper.adapter import average_adapters, load_adapter
from wertune.whisper.model import Whisper

# Of the mean's rank over that of a run: most of what the runs agree in lies in the first directions.
RANKS = 2
MEAN = "mean"  # what its run is known as
Say = Callable[[str], object]


def restarted(
    run: RunRef, prepared: Prepared, search: SearchConfig, best: BestTrial, objective: Objective, say: Say
) -> BestTrial:
    """The mean of the best trial and `search.restarts` more runs of it, or the best trial where that is the better.

    Each run is one of MLflow's below the search's. Those that a run of before, interrupted, has finished are taken as
    they are; one that fails is left out.
    """
    others = f"{search.restarts} other seeds" if search.restarts > 1 else "another seed"
    took = minutes(sum(best.run.history("train_s").values()))
    say(f"{best.name} again from {others}, to take the mean: {took} of training each …")
    wanted = [_member(best.config, n) for n in range(1, search.restarts + 1)]
    known = restarts(run)
    members = {key: RunRef(run.tracking_uri, known[key].info.run_id) for key in map(_key, wanted) if key in known}
    missing = [config for config in wanted if _key(config) not in known]
    trials, start_ms = [(config, GatheredLog()) for config in missing], now_ms()
    for number, fault in train_across(prepared, search, trials, objective, say):
        config, log = trials[number]
        if fault:
            why = shorten(str(fault) or type(fault).__name__, CAUSE_CHARACTERS)
            say(f"seed {config.seed} failed, and is left out of the mean: {why}")
            continue
        members[_key(config)] = _logged(run, best, config, log, start_ms)
        say(f"seed {config.seed}: {figures(_best(log))}")
    if not members:
        return best
    name = f"mean of {len(members) + 1} runs of {best.name}"
    kept = known.get(MEAN)
    if kept and kept.info.run_name == name:
        mean, told = RunRef(run.tracking_uri, kept.info.run_id), kept.data.tags[DESCRIPTION_TAG]
    else:
        try:
            mean, told = _mean(run, prepared, best, list(members.values()), objective, name)
        except AdapterError as error:  # with lora.dora, lengths are learnt too
            say(f"no mean of the runs: {error}; {best.name} is taken alone")
            return best
    say(told)
    value, alone = (each.latest((contract.BEST_OBJECTIVE,))[contract.BEST_OBJECTIVE] for each in (mean, best.run))
    return BestTrial(mean, name, best.config) if value < alone else best


def _member(config: TrialConfig, number: int) -> TrialConfig:
    """From another seed, on the same waveforms, whose features the search has; scored once, at the end."""
    waveforms, own = config.augment.waveform_seed, config.seed
    augment = config.augment.model_copy(update={"waveform_seed": own if waveforms is None else waveforms})
    train = config.train.model_copy(update={"evaluate_every_epochs": config.train.epochs})
    return config.model_copy(update={"seed": own + number, "augment": augment, "train": train})


def _key(config: TrialConfig) -> str:
    return content_digest([config.model_dump(mode="json")])[:16]


def _best(log: GatheredLog) -> dict[str, float]:
    return {name: value for _, values in log.said_metrics for name, value in values.items() if name.startswith("best_")}


def figures(metrics: Mapping[str, float]) -> str:
    """Of a run's best metrics, for people."""
    kept = metrics.get("best_retention_val_wer")
    return f"WER {100 * metrics['best_val_wer']:.2f} %" + ("" if kept is None else f", retention {100 * kept:.2f} %")


def _logged(run: RunRef, best: BestTrial, config: TrialConfig, log: GatheredLog, start_ms: int) -> RunRef:
    """The run below the search's that has all of it."""
    tags = {contract.RESTART_TAG: _key(config)}
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        write_files(log.files, Path(scratch))
        with nested_run(run, f"seed {config.seed} of {best.name}", tags, start_ms) as nested:
            nested.params(log.said_params)
            nested.tags(log.said_tags)
            for step, values in log.said_metrics:
                nested.metrics(values, step)
            nested.artifacts(Path(scratch), ADAPTER_ARTIFACT)
    return nested


def measured(best: BestTrial, whisper: Whisper, data: TrainingData, objective: Objective) -> dict[str, float]:
    """The metrics of a run whose adapter was not trained but made of that of `best`, as those of a trial are."""
    validation, retention = validation_scores(best.config, whisper, data)
    value = objective(validation.wer, retention.wer if retention else None)
    metrics = {contract.BEST_OBJECTIVE: value, "best_val_wer": validation.wer} | _size(whisper)
    metrics |= {"best_retention_val_wer": retention.wer} if retention else {}
    return metrics | best.run.latest((contract.PEAK_MEMORY_MB, "clips_per_s", "best_epoch"))


def _size(whisper: Whisper) -> dict[str, float]:
    """Of a model whose adapter is loaded and so frozen: its weights count as trained all the same."""
    adapter = sum(p.numel() for name, p in whisper.model.named_parameters() if "lora_" in name)
    return size_metrics(replace(whisper.size(), trainable_parameters=adapter))


def _mean(
    run: RunRef, prepared: Prepared, best: BestTrial, members: Sequence[RunRef], objective: Objective, name: str
) -> tuple[RunRef, str]:
    """The run of the mean of the members and the best, below the search's, and a line of it."""
    config, start_ms = best.config, now_ms()
    with ExitStack() as until_the_end, tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        adapters = [until_the_end.enter_context(downloaded_adapter(each)) for each in (best.run, *members)]
        mean = Path(scratch) / ADAPTER_ARTIFACT
        average_adapters(adapters, mean, RANKS * config.lora.r)
        whisper = load_adapter(prepared.whisper(config.quantization), mean)
        data = prepared.training_data(config.context, whisper.mel_bins)
        metrics = measured(best, whisper, data, objective)
        value, alone = metrics[contract.BEST_OBJECTIVE], best.run.latest((contract.BEST_OBJECTIVE,))
        told = f"{name}: {figures(metrics)}, objective {value:.4f}; "
        told += f"{alone[contract.BEST_OBJECTIVE]:.4f} of {best.name} alone"
        with nested_run(run, name, {contract.RESTART_TAG: MEAN, DESCRIPTION_TAG: told}, start_ms) as nested:
            nested.metrics(metrics)
            nested.artifacts(mean, ADAPTER_ARTIFACT)
    return nested, told
