"""What a base is multiplied in, and what its weights take in 8 bits and without: is 8-bit worth it?"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from wertune.base.errors import ConfigError
from wertune.whisper.base_model import weight_files

# A step of training takes 300 to 500 MB for tiny and base: less than this is not felt beside it.
LEAST_WORTHWHILE_MB = 100.0

_LINEAR = re.compile(r"\.(?:[qkv]_proj|out_proj|fc[12])\.weight$")
PRODUCTS_VARIABLE = "WERTUNE_PRODUCTS"
PRODUCTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Of NVIDIA's devices, by compute capability: bfloat16 since Ampere (A100; before it is emulated), float16 on tensor
# cores since Volta (V100, T4). AMD's are numbered so that they stand above both.
SINCE_BFLOAT16, SINCE_FLOAT16 = (8, 0), (7, 0)


def product_dtype(device: torch.device) -> torch.dtype:
    """What the hardware multiplies fast: bfloat16 on GPUs since Ampere and CPUs with AVX-512 BF16 or AMX, else float32.

    GPUs between Volta and Ampere get float16, whose gradients are scaled (training/optimizer.py). $WERTUNE_PRODUCTS,
    one of the three, says otherwise: so one machine shows what a version becomes on another. On a CPU float16 is for
    tests: it is slow there, or emulated.
    Raises ConfigError for another value.
    """
    asked = os.environ.get(PRODUCTS_VARIABLE, "")
    if asked not in ("", *PRODUCTS):
        raise ConfigError(f"{PRODUCTS_VARIABLE} is {asked!r}, must be {' or '.join(PRODUCTS)}, or not be set")
    if asked:
        return PRODUCTS[asked]
    if device.type == "cuda":
        return dtype_of_capability(torch.cuda.get_device_capability(device))
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def dtype_of_capability(capability: tuple[int, int]) -> torch.dtype:
    """Of a CUDA device with this compute capability."""
    if capability >= SINCE_BFLOAT16:
        return torch.bfloat16
    return torch.float16 if capability >= SINCE_FLOAT16 else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def dtype_name(dtype: torch.dtype) -> str:
    """Such as `float16`."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Footprint:
    """MB of the weights with the linear layers in 8 bits, and with all of them plain, as the others are either way."""

    int8_mb: float
    plain_mb: float


def footprint(base: Path, dtype: torch.dtype) -> Footprint:
    """Of the Hugging Face folder `base`, by the shapes of its weights; none of them is read."""
    sizes: dict[str, int] = {}
    for file in weight_files(base):
        with safe_open(file, framework="numpy") as weights:
            sizes |= {name: math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    sizes.pop("proj_out.weight", None)  # the last product's weights are the embeddings
    linear = sum(size for name, size in sizes.items() if _LINEAR.search(name))
    plain = sum(sizes.values()) * dtype.itemsize
    return Footprint((plain - linear * (dtype.itemsize - 1)) / 2**20, plain / 2**20)


def products_here() -> torch.dtype:
    """What a trial on this machine multiplies in."""
    return product_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def quantization_advice(base: Path, quantization: str) -> str | None:
    """What `quantization: none` would cost here, where that is next to nothing; None where 8 bits are worth it."""
    if quantization != "int8":
        return None
    dtype = products_here()
    found = footprint(base, dtype)
    saved_mb = found.plain_mb - found.int8_mb
    if saved_mb >= LEAST_WORTHWHILE_MB:
        return None
    return (
        f"8-bit weights: {found.int8_mb:.0f} MB; {dtype_name(dtype)} would take {found.plain_mb:.0f} MB, "
        f"{saved_mb:.0f} MB more, since embeddings and convolutions are never 8-bit. On a base this small "
        "`--set quantization=none` costs little memory and trains a little faster"
    )
