"""The field's recipe and ours on one base: a step, an epoch, an evaluation, peak memory.

Clips are made: 32 of 2 to 8 s, of which theirs hears 30 s each. Both write as many tokens for each, however soon a text
would end.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wertune.base.config import ContextConfig, DecodeConfig, TrainConfig
from wertune.bench.clips import BATCH, PLAIN_LORA
from wertune.bench.counted import FRAMES_AT_30_S, MB, MEL_BINS
from wertune.bench.gpu.base import Size
from wertune.bench.peer import PeerRecipe
from wertune.training.memory import give_back_memory, process_peak_mb, start_memory_peak
from wertune.training.optimizer import Updater
from wertune.training.probe import seconds_of
from wertune.whisper.adapter import add_lora
from wertune.whisper.features import FRAMES_PER_POSITION, context_positions
from wertune.whisper.footprint import product_dtype
from wertune.whisper.model import Whisper, load_whisper
from wertune.whisper.transcription import transcribe_features

DURATIONS_S = (2.0, 4.0, 6.0, 8.0)  # of a batch each; on a CPU there is the first alone
TEXT = "a line of some words"  # twenty bytes, and so twenty tokens
WRITTEN_TOKENS = 32
DECODE = DecodeConfig(max_new_tokens=WRITTEN_TOKENS, tokens_per_second=1e3, loop_guard=False, batch_size=BATCH)
LARGEST_PRODUCT, SMALL_PRODUCT = 8192, 1024
LEAST_STEPS, MOST_STEPS, STEPS_S = 3, 30, 3.0


@dataclass(frozen=True)
class Way:
    """Seconds and MB; a step is of eight clips, of 4 s in ours. On a CPU MB are what the process grew by, roughly."""

    step_s: float
    epoch_s: float
    evaluation_s: float
    peak_mb: float


@dataclass(frozen=True)
class Pair:
    """Both ways on a base of that name, and how many TFLOP of products a step of ours has."""

    name: str
    theirs: Way
    ours: Way
    step_tflop: float

    @property
    def step_tflop_per_s(self) -> float:
        """Of our step."""
        return self.step_tflop / self.ours.step_s

    @property
    def times_faster(self) -> float:
        """Our step than theirs."""
        return self.theirs.step_s / self.ours.step_s


def measure(folder: Path, size: Size, scratch: Path) -> Pair:
    """Of the base in `folder`, which has that size."""
    before_mb = _begun_mb()
    whisper = add_lora(load_whisper(folder, "en", "int8"), PLAIN_LORA, seed=0)
    whisper.checkpoint_layers(size.is_checkpointed)
    ours = our_way(whisper, before_mb)
    step_tflop = _tflop(whisper)
    before_mb = _begun_mb()
    return Pair(size.name, _theirs(PeerRecipe(folder, whisper, PLAIN_LORA), scratch, before_mb), ours, step_tflop)


def trainer(whisper: Whisper, seconds: float = 4.0) -> Callable[[], None]:
    """A step of training on eight clips of so many seconds, as a trial takes it."""
    updater = Updater(TrainConfig(), whisper.model.train(), MOST_STEPS, products=whisper.product_dtype)
    features, labels = _batch(whisper, seconds)

    def step() -> None:
        loss = whisper.loss(features, labels)
        if not math.isfinite(loss.item()):
            raise ArithmeticError(f"the loss of random weights is {loss.item()}, must be finite; report it")
        updater.scaled(loss).backward()  # type: ignore[no-untyped-call]
        updater.step()

    return step


def _batch(whisper: Whisper, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    frames = FRAMES_PER_POSITION * context_positions(seconds, ContextConfig())
    labels = whisper.pad_labels([whisper.label_ids(TEXT)] * BATCH)
    return torch.randn(BATCH, MEL_BINS, frames, generator=torch.Generator().manual_seed(0)), labels


def our_way(whisper: Whisper, before_mb: float) -> Way:
    """Of a model with fresh adapters; `before_mb` is what was held before it was loaded."""
    device, step = whisper.device, trainer(whisper)
    step_s = steps_s(device, step)
    peak_mb = _peak_mb() - before_mb
    lengths = _durations_s(device)
    passes = [trainer(whisper, seconds) for seconds in lengths]
    epoch_s = warm_s(device, lambda: [each() for each in passes])
    whisper.model.eval()
    features = [clip for seconds in lengths for clip in _batch(whisper, seconds)[0]]
    durations_s = [seconds for seconds in lengths for _ in range(BATCH)]
    write = partial(transcribe_features, whisper, features, durations_s, DECODE)
    return Way(step_s, epoch_s, warm_s(device, write), peak_mb)


def _theirs(recipe: PeerRecipe, scratch: Path, before_mb: float) -> Way:
    batches = len(_durations_s(recipe.model.device))
    clips = BATCH * batches
    features = list(torch.randn(clips, MEL_BINS, FRAMES_AT_30_S, generator=torch.Generator().manual_seed(0)))
    device = recipe.model.device
    recipe.train(features[:BATCH], [TEXT] * BATCH, BATCH, scratch)
    epoch_s = recipe.train(features, [TEXT] * clips, BATCH, scratch)
    peak_mb = _peak_mb() - before_mb
    recipe.transcribe(features[:1], longest=2)
    evaluation_s = seconds_of(device, lambda: recipe.transcribe(features, WRITTEN_TOKENS))
    return Way(epoch_s / batches, epoch_s, evaluation_s, peak_mb)


def _durations_s(device: torch.device) -> tuple[float, ...]:
    return DURATIONS_S if device.type == "cuda" else DURATIONS_S[:1]


def warm_s(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of the second time: the first finds no memory at hand, and libraries choose their kernels."""
    work()
    return seconds_of(device, work)


def steps_s(device: torch.device, step: Callable[[], object]) -> float:
    """The median of steps after the first, as many as go into some seconds."""
    step()
    taken: list[float] = []
    while len(taken) < LEAST_STEPS or (sum(taken) < STEPS_S and len(taken) < MOST_STEPS):
        taken.append(seconds_of(device, step))
    return statistics.median(taken)


def _tflop(whisper: Whisper) -> float:
    counter = FlopCounterMode(display=False)
    features, labels = _batch(whisper, 4.0)
    with counter:
        whisper.loss(features, labels).backward()  # type: ignore[no-untyped-call]
    whisper.model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / 1e12


def product_tflop_per_s(device: torch.device) -> float:
    """What plain products in the device's own type reach: the fastest of some large ones."""
    size = LARGEST_PRODUCT if device.type == "cuda" else SMALL_PRODUCT
    a = torch.randn(size, size, device=device, dtype=product_dtype(device))
    return 2 * size**3 / min(seconds_of(device, lambda: a @ a) for _ in range(20)) / 1e12


def _begun_mb() -> float:
    """What lies on the GPU now, or in this process on a CPU, from where a new peak begins."""
    give_back_memory()
    start_memory_peak()
    return _peak_mb()


def _peak_mb() -> float:
    return torch.cuda.max_memory_allocated() / MB if torch.cuda.is_available() else process_peak_mb()
