"""CTranslate2 Whispers of a few kilobytes, written byte by byte, for tests of the reader."""

import struct
from typing import Any

import numpy as np

TYPE_IDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
WIDTH, FFN, MELS, VOCABULARY = 4, 8, 2, 1512
SPECIAL = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startofprev", "notimestamps"]
CONFIG = {"suppress_ids": [1], "suppress_ids_begin": [2], "alignment_heads": [[0, 1]]}
ALIASES = [("decoder/projection/weight", "decoder/embeddings/weight")]
Variables = dict[str, np.ndarray[Any, Any]]


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: str, value: np.ndarray[Any, Any]) -> bytes:
    head = text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return head + struct.pack("<BI", TYPE_IDS[value.dtype.name], value.nbytes) + value.tobytes()


def serialize(
    variables: Variables,
    aliases: list[tuple[str, str]] = ALIASES,
    version: int = 6,
    name: str = "WhisperSpec",
    revision: int = 3,
) -> bytes:
    """What ctranslate2.specs.model_spec.ModelSpec._serialize writes."""
    head = struct.pack("<I", version) + text(name) + struct.pack("<II", revision, len(variables))
    body = b"".join(variable(key, value) for key, value in sorted(variables.items()))
    return head + body + struct.pack("<I", len(aliases)) + b"".join(text(a) + text(b) for a, b in aliases)


def whisper_variables(dtype: str = "float16", vocabulary: int = 3) -> Variables:
    """A Whisper with one encoder and one decoder layer, random weights and no bias on k_proj."""
    rng = np.random.default_rng(7)
    out: Variables = {}

    def add(name: str, *shape: int) -> None:
        out[name] = rng.standard_normal(shape).astype(dtype)

    def linear(name: str, rows: int, columns: int = WIDTH) -> None:
        add(f"{name}/weight", rows, columns)
        add(f"{name}/bias", rows)

    def norm(name: str) -> None:
        add(f"{name}/gamma", WIDTH)
        add(f"{name}/beta", WIDTH)

    add("decoder/embeddings/weight", vocabulary, WIDTH)
    add("encoder/conv1/weight", WIDTH, MELS, 3)
    add("encoder/conv1/bias", WIDTH)
    add("encoder/conv2/weight", WIDTH, WIDTH, 3)
    add("encoder/conv2/bias", WIDTH)
    for side, positions in (("encoder", 50), ("decoder", 5)):
        add(f"{side}/position_encodings/encodings", positions, WIDTH)
        norm(f"{side}/layer_norm")
        out[f"{side}/num_heads"] = np.array(2, np.int16)
        layer = f"{side}/layer_0"
        linear(f"{layer}/self_attention/linear_0", 3 * WIDTH)
        out[f"{layer}/self_attention/linear_0/bias"][WIDTH : 2 * WIDTH] = 0
        linear(f"{layer}/self_attention/linear_1", WIDTH)
        linear(f"{layer}/ffn/linear_0", FFN)
        linear(f"{layer}/ffn/linear_1", WIDTH, FFN)
        norm(f"{layer}/self_attention/layer_norm")
        norm(f"{layer}/ffn/layer_norm")
    for index, rows in enumerate((WIDTH, 2 * WIDTH, WIDTH)):
        linear(f"decoder/layer_0/attention/linear_{index}", rows)
    out["decoder/layer_0/attention/linear_1/bias"][:WIDTH] = 0
    norm("decoder/layer_0/attention/layer_norm")
    out["decoder/activation"] = np.array(3, np.int8)
    out["decoder/pre_norm"] = np.array(1, np.int8)
    return out


def whisper_tokenizer() -> dict[str, Any]:
    """tokenizer.json with the special tokens only; with its timestamps it has 3 tokens less than VOCABULARY."""
    added = [{"id": index, "content": f"<|{name}|>", "special": True} for index, name in enumerate(SPECIAL)]
    return {"added_tokens": added, "model": {"vocab": {}}}
