"""A trial's state after an epoch, as files that another process goes on from: safetensors and JSON, no pickle."""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wertune.base.config import Frozen, TrialConfig
from wertune.base.errors import StateError
from wertune.base.files import content_digest, sha256_of, storing
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult
from wertune.whisper.adapter import ADAPTER_FILES

FORMAT = 2
RECORD, TENSORS, DIGESTS = "state.json", "training.safetensors", "sha256.json"
CHECKED = (RECORD, TENSORS, *ADAPTER_FILES)
STORAGE_REMEDY = "free some space there, or set TMPDIR to a writable disk with more"


class TrialStore(Protocol):
    """Where a trial's state outlives its process. A place that fails is an OSError or a StorageError."""

    def load(self, into: Path) -> bool:
        """The last whole state as files in the folder `into`; False where there is none."""
        ...

    def shortages(self) -> Sequence[str]:
        """Why earlier processes of the trial were ended for want of memory, each in words of its own, in order."""
        ...

    def save(self, folder: Path) -> None:
        """Replaces the last state by the files of `folder`, whole or not at all."""
        ...


class TrialRecord(Frozen):
    """`state.json`: what a trial goes on from beside tensors and its best adapter; of the trial with that digest.

    `epoch` is the last one, `peaks_mb` the peak memory of each that was scored, `halved` why the batch was halved,
    empty where it was not.
    """

    trial: str
    epoch: int
    results: tuple[EpochResult, ...]
    peaks_mb: tuple[float, ...]
    halved: str


def trial_digest(config: TrialConfig, prepared: Prepared, objective: Objective) -> str:
    """SHA-256 of all that a state depends on: configuration, base, objective, data, and what names the tensors."""
    depends_on = [
        FORMAT,
        [version(package) for package in ("peft", "transformers")],
        config.model_dump(mode="json"),
        prepared.base.texts_digest,
        [objective.retention_baseline_wer, objective.retention_margin, objective.penalty],
        [prepared.dataset.digest(split) for split in ("train", "replay", "validation", "retention_validation")],
    ]
    return content_digest(depends_on)


def write_state(record: TrialRecord, tensors: Mapping[str, torch.Tensor], adapter: Path, folder: Path) -> None:
    """The state and the best adapter's files, if there is one, in the new `folder`; StorageError without room."""
    with storing("the trial's state", folder, STORAGE_REMEDY):
        folder.mkdir()
        _copy_adapter(adapter, folder)
        save_file(dict(tensors), folder / TENSORS)
        (folder / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")
        (folder / DIGESTS).write_text(json.dumps(_digests(folder), indent=1), encoding="utf-8")


def read_state(folder: Path, trial: str, adapter: Path) -> tuple[TrialRecord, dict[str, torch.Tensor]]:
    """The state of the `trial` that the folder holds, its best adapter copied to `adapter`; StateError if it has none.

    Torn, damaged, of another trial: there is nothing to mend, a trial can always begin anew.
    """
    try:
        if json.loads((folder / DIGESTS).read_text(encoding="utf-8")) != _digests(folder):
            raise StateError(f"{DIGESTS} does not fit the other files: they are damaged")
        record = TrialRecord.model_validate_json((folder / RECORD).read_bytes())
        if record.trial != trial:
            raise StateError("it is of another configuration, base model, objective or data set")
        tensors = load_file(folder / TENSORS)
        adapter.mkdir()
        _copy_adapter(folder, adapter)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise StateError(f"it is damaged: {error}") from error
    return record, tensors


def _copy_adapter(source: Path, target: Path) -> None:
    for name in ADAPTER_FILES:
        if (source / name).exists():  # before an epoch is scored there is none
            shutil.copyfile(source / name, target / name)


def _digests(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in CHECKED if (folder / name).exists()}
