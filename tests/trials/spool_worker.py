"""A driver that a test kills: it says epochs of two trials to a spool, and prints each once it is said."""

import sys
from pathlib import Path

from wertune.tracking.runs import RunRef, tracking_uri
from wertune.tracking.spool import Spool

TRIALS, EPOCHS = ("one", "two"), 60


def main(folder: Path, run_id: str) -> None:
    """Says everything, whatever an earlier one has said of it, and waits until the server has it."""
    spool = Spool(folder / "spool", RunRef(tracking_uri(), run_id))
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    for key in TRIALS:
        run = spool.open(key, f"trial {key}", {"wertune.point": "{}"})
        run.params({"lora_r": 8})
        for epoch in range(1, EPOCHS + 1):
            run.metrics({"val_wer": 1 / epoch, "loss": 2 / epoch}, step=epoch)
            (adapter / "weights").write_text(str(epoch))
            run.artifacts(adapter, "adapter")
            print(key, epoch, flush=True)
        run.end("FINISHED")
    spool.flush(120)
    spool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
