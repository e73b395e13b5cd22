"""What only a GPU shows: 8-bit and 4-bit layers on CUDA, bfloat16 autocast, the allocator's peak."""

from pathlib import Path

import pytest
import torch

from wertune.base.config import LoraConfig
from wertune.training.memory import peak_memory_mb
from wertune.whisper.adapter import add_lora
from wertune.whisper.model import load_whisper

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none is here"),
]


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
def test_a_step_lowers_the_loss_in_bfloat16(tiny_whisper_folder: Path, quantization: str) -> None:
    whisper = add_lora(load_whisper(tiny_whisper_folder, "en", quantization), LoraConfig(r=4), seed=0)
    features = torch.randn(4, whisper.mel_bins, 256)
    labels = whisper.pad_labels([whisper.label_ids("check my CPF balance")] * 4)
    optimizer = torch.optim.AdamW([p for p in whisper.model.parameters() if p.requires_grad], lr=1e-2, fused=True)
    losses = []
    for _ in range(5):
        loss = whisper.loss(features, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert peak_memory_mb(whisper) > 0
