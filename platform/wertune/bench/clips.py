"""The clips that every part is measured on, and how many rounds of them."""

import torch

from wertune.base.config import ContextConfig, LoraConfig
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


def training_clips(prepared: Prepared, context: ContextConfig, mel_bins: int) -> EvaluationSet:
    """Training clips of 2 to 8 s, evenly over the split."""
    whole = prepared.evaluation_set("train", context, mel_bins)
    fitting = [i for i, r in enumerate(whole.recordings) if SECONDS[0] <= r.duration_s <= SECONDS[1]]
    chosen = fitting[:: max(1, len(fitting) // CLIPS)][:CLIPS]
    return EvaluationSet([whole.recordings[i] for i in chosen], [whole.features[i] for i in chosen])


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
