"""The best of a search's trials, and its adapter."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wertune.base import contract
from wertune.base.config import TrialConfig, with_overrides
from wertune.base.errors import WertuneError
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, children
from wertune.training.prepare import Prepared
from wertune.training.trial import ADAPTER_ARTIFACT


@dataclass(frozen=True)
class BestTrial:
    """The ended child run with the least objective, and the configuration that it ran."""

    run: RunRef
    name: str
    config: TrialConfig


def best_trial(parent: RunRef, prepared: Prepared) -> BestTrial:
    """Raises WertuneError, with the causes, when no trial finished an epoch.

    A trial that was interrupted has kept no adapter with its run yet.
    """
    runs = children(parent)
    scored = [
        run for run in runs if contract.OUTCOME_TAG in run.data.tags and contract.BEST_OBJECTIVE in run.data.metrics
    ]
    if not scored:
        causes = sorted({run.data.tags.get(DESCRIPTION_TAG, "no cause recorded") for run in runs})
        raise WertuneError(f"no trial finished an epoch; causes: {'; '.join(causes)}")
    best = min(scored, key=lambda run: run.data.metrics[contract.BEST_OBJECTIVE])
    point = json.loads(best.data.tags[contract.POINT_TAG])
    config = with_overrides(prepared.project.trial, point, f"run {best.info.run_id}")
    return BestTrial(RunRef(parent.tracking_uri, best.info.run_id), best.info.run_name, config)


@contextmanager
def downloaded_adapter(run: RunRef) -> Iterator[Path]:
    """The run's adapter in a folder that goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        yield run.download(ADAPTER_ARTIFACT, Path(scratch))
