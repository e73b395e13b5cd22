"""How fast a tracking store takes what trials say: `python -m wertune.bench.writes --tracking http://127.0.0.1:5000`.

Without `--tracking` a new SQLite database. Prints one JSON object; see docs/scaling.md.
"""

import argparse
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from wertune.tracking.child_runs import ChildRuns
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.outage import patience_s
from wertune.tracking.runs import create_run

TRIALS, EPOCHS, METRICS_AN_EPOCH = 20, 50, 10
SINGLE_WRITES = 100


class Away(ChildRuns):
    """A store that takes nothing."""

    def _find(self, *said: Any, **more: Any) -> NoReturn:
        raise ConnectionError("away, so that the journal fills")

    _create = _log = _upload = _set_status = _find


def measure(tracking: str) -> dict[str, Any]:
    """Writes `TRIALS` runs into a new experiment of the store: epochs of ten metrics, each of 20 trials in turn.

    In a second: `said_per_s` into the journal; `replayed_per_s` from there to the store, in batches, as after an
    outage; `single_per_s` with a request for each epoch, as without a journal.
    """
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        folder = Path(scratch)
        store = tracking or f"sqlite:///{folder / 'mlflow.db'}"
        parent = create_run(store, f"writes {folder.name}")
        with closing(JournalWriter(folder / "journal", parent, Away(parent), say=lambda line: None)) as journal:
            started = time.perf_counter()
            _say(journal)
            said_s = time.perf_counter() - started
        started = time.perf_counter()
        with closing(JournalWriter(folder / "journal", parent)) as journal:
            journal.flush(patience_s())
            replayed_s = time.perf_counter() - started
        started = time.perf_counter()
        for epoch in range(1, SINGLE_WRITES + 1):
            parent.metrics(_values(epoch), epoch)
        single_s = time.perf_counter() - started
    epochs, single = TRIALS * EPOCHS, {"single_per_s": SINGLE_WRITES / single_s}
    said = {"store": tracking or "sqlite", "said_per_s": epochs / said_s, "replayed_per_s": epochs / replayed_s}
    return said | single


def _say(journal: JournalWriter) -> None:
    for trial in range(TRIALS):
        journal.open(str(trial), f"trial {trial}", {})
    for epoch in range(1, EPOCHS + 1):
        for trial in range(TRIALS):
            journal.log(str(trial), metrics=[(epoch, _values(epoch))])


def _values(epoch: int) -> dict[str, float]:
    return {f"metric_{number}": number / epoch for number in range(METRICS_AN_EPOCH)}


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Prints and returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracking", default="", help="the store's URI")
    measured = measure(parser.parse_args(given).tracking)
    print(json.dumps(measured))
    return measured


if __name__ == "__main__":
    main()
