"""The clips that every part is measured on, and how many rounds of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from wertune.base.config import AugmentConfig, ContextConfig, DecodeConfig, Draw, LoraConfig, TrainConfig, TrialConfig
from wertune.data.manifest import Dataset, Recording
from wertune.training.prepare import Prepared
from wertune.whisper.features import pad_features
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet

ROUNDS = 3
CLIPS = 32
SECONDS = (2.0, 8.0)
BATCH = 8
PLAIN_LORA = LoraConfig(r=16, alpha=32, dropout=0.05, target_modules=("q_proj", "v_proj"))
FULL = ContextConfig(short=False)

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def fewer_clips(prepared: Prepared, **counts: int) -> Prepared:
    """The project with so many clips of 2 to 8 s of each split, and of no others."""
    splits = {}
    for split, count in counts.items():
        fitting = [r for r in prepared.dataset[split] if SECONDS[0] <= r.duration_s <= SECONDS[1]]
        splits[split] = tuple(evenly(fitting, count))
    return replace(prepared, dataset=Dataset(splits))


def evenly(items: Sequence[Recording], count: int) -> Sequence[Recording]:
    """So many of them, from beginning to end."""
    return items[:: max(1, len(items) // count)][:count]


def plain_trial(**train: Any) -> TrialConfig:
    """What the field's recipe can do, too: no augmentation, no clips but the domain's; `train` is set besides."""
    off = Draw(probability=0, low=1, high=1)
    augment = AugmentConfig(
        variants=1, speed_factor=off, noise_snr_db=off, gain_db=off, band_limit_hz=off, time_masks=0, frequency_masks=0
    )
    settings = TrainConfig(batch_size=BATCH, replay_ratio=0, nonspeech_ratio=0, **train)
    return TrialConfig(lora=PLAIN_LORA, train=settings, augment=augment, decode=DecodeConfig())


def batches(whisper: Whisper, clips: EvaluationSet, of_like_length: bool = True) -> Batches:
    """Features (batch, mel_bins, longest) and labels (batch, tokens), the clips by their length or as they come."""
    order = list(range(len(clips.features)))
    if of_like_length:
        order.sort(key=lambda i: clips.features[i].shape[1])
    groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [
        (
            pad_features([clips.features[i] for i in group]),
            whisper.pad_labels([whisper.label_ids(clips.recordings[i].row.text) for i in group]),
        )
        for group in groups
    ]
