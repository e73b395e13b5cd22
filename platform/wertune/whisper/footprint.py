"""What a base's weights take in 8 bits and without, worked out from its config.json: is 8-bit worth it?"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wertune.whisper.model import product_dtype

# A step of training takes 300 to 500 MB for tiny and base: less than this is not felt beside it.
LEAST_WORTHWHILE_MB = 100.0


@dataclass(frozen=True)
class Footprint:
    """MB of the weights with the linear layers in 8 bits, and with all of them in `dtype`."""

    int8_mb: float
    plain_mb: float
    dtype: torch.dtype

    @property
    def saved_mb(self) -> float:
        """By 8 bits; embeddings, convolutions and the last product stay in `dtype` either way."""
        return self.plain_mb - self.int8_mb


def footprint(base: Path, dtype: torch.dtype) -> Footprint:
    """Of the Hugging Face folder `base`; no weights are read."""
    config = WhisperConfig.from_pretrained(base, local_files_only=True)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    linear = [m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    plain = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    return Footprint((plain - sum(linear) * (dtype.itemsize - 1)) / 2**20, plain / 2**20, dtype)


def products_here() -> torch.dtype:
    """What a trial on this machine multiplies in."""
    return product_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def quantization_advice(base: Path, quantization: str) -> str | None:
    """What `quantization: none` would cost here, where that is next to nothing; None where 8 bits are worth it."""
    if quantization != "int8":
        return None
    found = footprint(base, products_here())
    if found.saved_mb >= LEAST_WORTHWHILE_MB:
        return None
    plain = str(found.dtype).removeprefix("torch.")
    return (
        f"8-bit weights: {found.int8_mb:.0f} MB; {plain} would take {found.plain_mb:.0f} MB, {found.saved_mb:.0f} MB "
        "more, since embeddings and convolutions are never 8-bit. On a base this small `--set quantization=none` costs "
        "little memory and trains a little faster"
    )
