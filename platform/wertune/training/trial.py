"""One trial: a configuration, a base model and data in; a logged, saved adapter and its best epoch out."""

import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from wertune.base import contract
from wertune.base.config import TrialConfig, flatten
from wertune.base.errors import StateError, first_line
from wertune.base.files import storing
from wertune.base.machine import processor_name
from wertune.training.checkpoint import STORAGE_REMEDY, TrialRecord, TrialStore, read_state, trial_digest, write_state
from wertune.training.memory import (
    give_back_memory,
    halved_once,
    is_out_of_memory,
    keep_freed_memory,
    peak_memory_mb,
    start_memory_peak,
)
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult, TrainingState, best_of, train
from wertune.training.workers import ALONE, Workers
from wertune.whisper.adapter import add_lora, remove_lora, save_adapter
from wertune.whisper.footprint import dtype_name
from wertune.whisper.model import ModelSize, Whisper

ADAPTER_ARTIFACT = "adapter"
ARTIFACT_REMEDY = "free some space where MLflow keeps artifacts, and see that this machine can write there"
STORE_REMEDY = "free some space where the search keeps its state, and see that this machine can write there"

AfterEpoch = Callable[[EpochResult], None]


class RunLog(Protocol):
    """What a trial says of itself; a fake of it lets tests do without MLflow."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...

    def tags(self, values: Mapping[str, Any]) -> None: ...

    def artifacts(self, folder: Path, name: str) -> None: ...


def run_trial(
    config: TrialConfig,
    prepared: Prepared,
    objective: Objective,
    log: RunLog,
    after_epoch: AfterEpoch | None = None,
    store: TrialStore | None = None,
    workers: Workers = ALONE,
) -> EpochResult:
    """Trains one adapter and returns its best epoch; the log then holds parameters, metrics and the best adapter.

    Each of a trial's `workers` calls it with the same configuration, data and objective; it is the first one that has
    a log and a store that keep anything.

    `after_epoch` is called once the epoch is stored and logged, and may end the trial by raising. With a `store` that
    holds a state, the trial tells its epochs again and goes on after the last of them. A batch that does not fit the
    memory is halved, once.
    Raises TrainingDiverged, OutOfMemory or StorageError: what ends this trial, and no other; and WorkersLost, after
    which the trial may be run again with other workers.
    """
    keep_freed_memory()
    start_memory_peak()
    log.params(short_names(flatten(config.model_dump(mode="json"))))
    with storing("a trial's files", Path(tempfile.gettempdir()), STORAGE_REMEDY):
        scratch = tempfile.TemporaryDirectory(prefix="wertune-", ignore_cleanup_errors=True)
    with scratch as folder, prepared.resident_whisper(config.quantization) as base:
        log.tags(where_they_run(base, config.quantization, workers))
        told = after_epoch or (lambda result: None)
        trial = _Trial(config, prepared, objective, log, told, store, Path(folder), workers)
        trial.resume()
        return trial.run(base)


@dataclass
class _Trial:
    """A trial under way: the configuration it runs, what it goes on from, and how many epochs it has told of."""

    _config: TrialConfig
    _prepared: Prepared
    _objective: Objective
    _log: RunLog
    _after_epoch: AfterEpoch
    _store: TrialStore | None
    _scratch: Path
    _workers: Workers
    _training: TrainingState | None = None
    _peaks_mb: list[float] = field(default_factory=list)
    _halved: str = ""
    _told: int = 0

    def __post_init__(self) -> None:
        self._digest = trial_digest(self._config, self._prepared, self._objective)  # whatever is halved later
        self._adapter = self._scratch / ADAPTER_ARTIFACT

    def resume(self) -> None:
        """Takes up the stored state; the batch is halved where a process was ended for want of memory since.

        A state that cannot be used is named in a tag, and the trial begins anew.
        """
        if self._store is None:
            return
        causes = [*self._store.shortages()]
        try:
            with tempfile.TemporaryDirectory(dir=self._scratch) as stored:
                if self._store.load(Path(stored)):
                    record, tensors = read_state(Path(stored), self._digest, self._adapter)
                    self._training = TrainingState(record.epoch, record.results, tensors)
                    self._peaks_mb = list(record.peaks_mb)
                    causes.insert(0, record.halved)
        except StateError as error:
            self._log.tags({contract.REFUSED_TAG: error})
        for cause in causes:
            if cause and cause != self._halved:
                self._halve(cause)

    def run(self, base: Whisper) -> EpochResult:
        """The best epoch."""
        while True:
            try:
                return self._train(base)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._workers.must_agree(error)
                cause = first_line(error)
            # Not in the except block: until its end the error holds the frames that hold the memory.
            remove_lora(base)
            give_back_memory()
            self._halve(cause)

    def _train(self, base: Whisper) -> EpochResult:
        workers = self._workers
        self._config, self._training = config, training = workers.same((self._config, self._training))
        whisper = add_lora(base, config.lora, config.seed)
        data = self._prepared.training_data(config.context, whisper.mel_bins, workers)
        self._log.metrics(size_metrics(whisper.size()))
        self._tell()

        def on_epoch(state: TrainingState, is_best: bool) -> None:
            if is_best and workers.rank == 0:
                save_adapter(whisper, self._adapter, self._prepared.base.spec, config.lora.strength)
            self._training = state
            if len(state.results) > len(self._peaks_mb):
                self._peaks_mb.append(max(workers.each(lambda: peak_memory_mb(whisper))))
            self._keep()
            self._tell()

        return train(config, whisper, data, self._objective, on_epoch, training, workers)

    def _keep(self) -> None:
        """Stores the state, before anybody is told of the epoch: who stops the trial there may go on with it."""
        if self._store is None or self._training is None:
            return
        record = TrialRecord(
            trial=self._digest,
            epoch=self._training.epoch,
            results=self._training.results,
            peaks_mb=tuple(self._peaks_mb),
            halved=self._halved,
        )
        folder = self._scratch / "state"
        try:
            write_state(record, self._training.tensors, self._adapter, folder)
            with storing("the trial's state", Path(type(self._store).__name__), STORE_REMEDY):
                self._store.save(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _tell(self) -> None:
        """Logs what was not told yet; of a resumed trial all epochs, since the last words of a dead process get lost.

        Of earlier bests the adapters are gone, and nobody needs them. The first of several workers tells, and it alone
        has a store.
        """
        if self._workers.rank:
            return
        results = self._training.results if self._training else ()
        while self._told < len(results):
            known, result = results[: self._told + 1], results[self._told]
            if result is best_of(known):
                if result is best_of(results):
                    with storing("the adapter", Path(ADAPTER_ARTIFACT), ARTIFACT_REMEDY):
                        self._log.artifacts(self._adapter, ADAPTER_ARTIFACT)
                self._log.metrics(best_metrics(result), step=result.epoch)
            peak = {contract.PEAK_MEMORY_MB: self._peaks_mb[self._told]}
            self._log.metrics(result.metrics() | peak, step=result.epoch)
            self._after_epoch(result)
            self._told += 1

    def _halve(self, cause: str) -> None:
        epoch = 1 + (self._training.epoch if self._training else 0)
        self._config = halved_once(self._config, bool(self._halved), f"epoch {epoch}", cause)
        self._halved = cause
        self._log.tags({contract.HALVED_TAG: cause})
        train = self._config.train  # under other names: a run's parameters, once logged, cannot be changed
        self._log.params({"ran_batch_size": train.batch_size, "ran_accumulation_steps": train.accumulation_steps})


def best_metrics(result: EpochResult) -> dict[str, float]:
    """What is known of the epoch whose adapter is kept; a pruned trial has it too."""
    chosen = {name: value for name, value in result.metrics().items() if name == "objective" or "_wer" in name}
    return {f"best_{name}": value for name, value in chosen.items()} | {"best_epoch": result.epoch}


def where_they_run(whisper: Whisper, quantization: str, workers: Workers) -> dict[str, str]:
    """Tags: the devices by their names, what they multiply in and what weights are stored in, and the machines."""
    weights = "" if quantization == "none" else f", {quantization} base"
    products = f"{dtype_name(whisper.product_dtype)} products{weights}"
    found = workers.each(lambda: (device_name(whisper.device), products, platform.node()))
    devices, precisions, hosts = zip(*found, strict=True)
    return {
        contract.DEVICE_TAG: ", ".join(name if n == 1 else f"{n} x {name}" for name, n in Counter(devices).items()),
        contract.PRECISION_TAG: ", ".join(dict.fromkeys(precisions)),
        contract.HOST_TAG: ", ".join(dict.fromkeys(hosts)),
    }


def device_name(device: torch.device) -> str:
    """Such as `NVIDIA H100 80GB HBM3`, or `cpu: AMD EPYC 9B14`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {processor_name()}"


def short_names(values: dict[str, Any]) -> dict[str, Any]:
    """`lora.r` as `lora_r`, `train.learning_rate` as `learning_rate`: what stands in MLflow's columns."""
    return {key.removeprefix("train.").replace(".", "_"): value for key, value in values.items()}


# Counts of the model, so that trials can be sorted by them.
SIZE_METRICS = (
    contract.TRAINABLE_PARAMETERS,
    "total_parameters",
    contract.TRAINABLE_PERCENT,
    "reduction_percent",
    "int8_layers",
    "weight_memory_mb",
)


def size_metrics(size: ModelSize) -> dict[str, float]:
    """The counts by their names."""
    return {name: getattr(size, name) for name in SIZE_METRICS}


# Of the trial that a search registers, on the search's own run too: sorted there, runs of searches compare.
BEST_METRICS = (
    contract.BEST_OBJECTIVE,
    "best_val_wer",
    "best_retention_val_wer",
    "best_epoch",
    "clips_per_s",
    contract.PEAK_MEMORY_MB,
)
