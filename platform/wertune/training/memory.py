"""A trial whose batches do not fit the memory: told from other errors, and halved."""

from collections.abc import Mapping
from typing import Any

import torch

from wertune.base.config import TrainConfig, TrialConfig
from wertune.base.errors import OutOfMemory

MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")  # c10's allocators; CUDA's driver
ONEDNN = "could not create a primitive"  # though it can do what is asked, or it would miss "a primitive descriptor"
REMEDY = "lower train.batch_size, set train.gradient_checkpointing: true, or give each trial more memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether more memory would have helped: torch says so by class on GPUs, on CPUs by the text alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (text == ONEDNN or any(message in text for message in MESSAGES))


def halved(config: TrialConfig) -> TrialConfig:
    """Half as many clips a batch and as many batches more an update: as many clips an update, or as near as can be."""
    train = config.train
    size = train.batch_size // 2
    steps = round(train.batch_size * train.accumulation_steps / size)
    return config.model_copy(
        update={"train": train.model_copy(update={"batch_size": size, "accumulation_steps": steps})}
    )


def halved_once(config: TrialConfig, is_halved: bool, place: str, cause: str) -> TrialConfig:
    """`config` with its batch halved; OutOfMemory where that was done before, or a batch is a single clip."""
    if is_halved or config.train.batch_size == 1:
        known = "halved already" if is_halved else "which cannot be halved"
        size = f"train.batch_size is {config.train.batch_size}, {known}"
        raise OutOfMemory(f"{place}: {size}, but a trial must fit the memory ({cause}); {REMEDY}")
    return halved(config)


def ran_params(train: TrainConfig) -> Mapping[str, Any]:
    """What a halved trial ran with: a run's parameters, once logged, cannot be changed."""
    return {"ran_batch_size": train.batch_size, "ran_accumulation_steps": train.accumulation_steps}
