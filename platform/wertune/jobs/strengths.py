"""The adapter that a search ends with at other strengths: that costs no training, and validation says which is kept."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from wertune.base import contract
from wertune.base.config import TrialConfig, with_overrides
from wertune.jobs.soup import figures, measured
from wertune.jobs.trials import BestTrial, downloaded_adapter
from wertune.search.search_space import SearchConfig
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, nested_run, restarts
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.trial import ADAPTER_ARTIFACT
from wertune.whisper.adapter import at_strength, load_adapter, weigh_adapter

STRENGTH = "strength of {}"  # what its run is known as, by those that were tried


def at_the_best_strength(
    run: RunRef,
    prepared: Prepared,
    search: SearchConfig,
    best: BestTrial,
    objective: Objective,
    say: Callable[[str], object],
) -> BestTrial:
    """Of `search.strengths` and the adapter's own the one with the least objective.

    Another than its own is a run of MLflow's below the search's; that of a job of before, interrupted, is taken.
    """
    names = {f"{best.name} at strength {strength:g}": strength for strength in search.strengths}
    tag = STRENGTH.format(", ".join(f"{strength:g}" for strength in search.strengths))
    kept = restarts(run).get(tag)
    if kept and kept.info.run_name in names:
        say(kept.data.tags[DESCRIPTION_TAG])
        strength = names[kept.info.run_name]
        return BestTrial(RunRef(run.tracking_uri, kept.info.run_id), kept.info.run_name, _at(best, strength))
    own, (before,) = best.config.lora.strength, best.run.latest((contract.BEST_OBJECTIVE,)).values()
    with downloaded_adapter(best.run) as adapter:
        whisper = load_adapter(prepared.whisper(best.config.quantization), adapter)
        data = prepared.training_data(best.config.context, whisper.mel_bins)
        tried = dict[str, dict[str, float]]()
        for name, strength in names.items():
            if strength != own:
                with at_strength(whisper, strength / own):
                    tried[name] = measured(best, whisper, data, objective)
                say(_told(name, tried[name], before, own))
        name = min(tried, key=lambda name: tried[name][contract.BEST_OBJECTIVE], default="")
        if not name or tried[name][contract.BEST_OBJECTIVE] >= before:
            return best
        tags = {contract.RESTART_TAG: tag, DESCRIPTION_TAG: _told(name, tried[name], before, own)}
        with tempfile.TemporaryDirectory(prefix="wertune-") as scratch, nested_run(run, name, tags) as nested:
            weighed = shutil.copytree(adapter, Path(scratch) / ADAPTER_ARTIFACT)
            weigh_adapter(weighed, names[name] / own)
            nested.metrics(tried[name])
            nested.artifacts(weighed, ADAPTER_ARTIFACT)
    return BestTrial(nested, name, _at(best, names[name]))


def _at(best: BestTrial, strength: float) -> TrialConfig:
    return with_overrides(best.config, {"lora.strength": strength}, "search.yaml: strengths")


def _told(name: str, metrics: Mapping[str, float], before: float, own: float) -> str:
    return f"{name}: {figures(metrics)}, objective {metrics[contract.BEST_OBJECTIVE]:.4f}; {before:.4f} at {own:g}"
