"""A driver that a test kills: it says epochs of two trials to a journal, and prints each once it is said."""

import sys
from pathlib import Path

from wertune.base.contract import POINT_TAG
from wertune.tracking.journal_writer import JournalWriter
from wertune.tracking.runs import RunRef, tracking_uri

TRIALS, EPOCHS = ("one", "two"), 60


def main(folder: Path, run_id: str) -> None:
    """Says everything, whatever an earlier one has said of it, and waits until the server has it."""
    journal = JournalWriter(folder / "journal", RunRef(tracking_uri(), run_id))
    for key in TRIALS:
        journal.open(key, f"trial {key}", {POINT_TAG: "{}"})
        journal.log(key, params={"lora_r": 8})
        for epoch in range(1, EPOCHS + 1):
            journal.log(key, metrics=[(epoch, {"val_wer": 1 / epoch, "loss": 2 / epoch})])
            journal.artifacts(key, {"weights": str(epoch).encode()}, "adapter")
            print(key, epoch, flush=True)
        journal.log(key, status="FINISHED")
    journal.flush(120)
    journal.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
