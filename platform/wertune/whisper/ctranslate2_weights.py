"""Reads the weights of a CTranslate2 Whisper (a faster-whisper folder) as Hugging Face names them; no library does.

The bytes follow ctranslate2/specs/model_spec.py (ModelSpec._serialize, binary version 6), the names
converters/transformers.py (WhisperLoader). Nothing is unpickled and nothing is believed before it is checked.
"""

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wertune.base.errors import BaseModelError

BINARY_VERSION = 6
SPEC_NAME = "WhisperSpec"
SPEC_REVISION = 3
DAMAGED = "the file is damaged or not a CTranslate2 Whisper: download it again"

_MAX_RANK = 8
_MIN_VARIABLE_BYTES = 10  # name length, NUL, rank, dtype, byte count, one byte of data
_GELU = 3
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", 5: "bfloat16"}
_WEIGHT_DTYPES = ("float16", "float32")
# What Hugging Face's Whisper computes; None leaves the value free (it has no effect with the others as they are).
_SETTINGS: dict[str, int | None] = {
    "decoder/activation": _GELU,
    "decoder/alibi": 0,
    "decoder/alibi_use_positive_positions": None,
    "decoder/alignment_heads": None,
    "decoder/alignment_layer": None,
    "decoder/multi_query_attention": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_alibi": None,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
_HEADS = ("encoder/num_heads", "decoder/num_heads")
_EMBEDDINGS = "decoder/embeddings/weight"
_PROJECTION = "decoder/projection/weight"

Array = npt.NDArray[Any]
_Layout = dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]


class Tensor(NamedTuple):
    """One variable, as a view of the file, and the byte at which its record starts."""

    array: Array
    offset: int


@dataclass(frozen=True)
class Dims:
    """The sizes that Hugging Face's WhisperConfig asks for, under its names."""

    d_model: int
    vocab_size: int
    num_mel_bins: int
    max_source_positions: int
    max_target_positions: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    encoder_attention_heads: int
    decoder_attention_heads: int


def open_weights(parts: Sequence[Path]) -> memoryview:
    """The bytes of model.bin: one file memory-mapped, several joined in memory; raises OSError."""
    if len(parts) > 1:
        return memoryview(b"".join(part.read_bytes() for part in parts))
    with parts[0].open("rb") as file:
        if parts[0].stat().st_size == 0:  # which mmap refuses
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _Cursor:
    """Reads forward and never past the end; every fault names the file and the byte."""

    def __init__(self, buffer: memoryview, place: str) -> None:
        self.buffer = buffer
        self.place = place
        self.offset = 0

    @property
    def left(self) -> int:
        return len(self.buffer) - self.offset

    def fault(self, problem: str, *, at: int | None = None, remedy: str = DAMAGED) -> BaseModelError:
        return BaseModelError(f"{self.place}: byte {self.offset if at is None else at}: {problem}; {remedy}")

    def take(self, count: int, what: str) -> memoryview:
        if count > self.left:
            raise self.fault(f"{what} needs {count} bytes, but must fit in the {self.left} that are left")
        self.offset += count
        return self.buffer[self.offset - count : self.offset]

    def number(self, code: str, what: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0])

    def text(self, what: str) -> str:
        start = self.offset
        raw = bytes(self.take(self.number("H", f"the length of {what}"), what))
        body = raw[:-1]
        if raw[-1:] != b"\0" or not body or not all(32 < byte < 127 for byte in body):
            raise self.fault(f"{what} is {raw[:60]!r}, but must be printable ASCII that ends with one NUL", at=start)
        return body.decode("ascii")


def read_tensors(buffer: memoryview, place: str) -> dict[str, Tensor]:
    """Every variable and alias of a CTranslate2 Whisper by name; raises BaseModelError at the first fault."""
    cursor = _Cursor(buffer, place)
    _expect_header(cursor)
    tensors: dict[str, Tensor] = {}
    for _ in range(_count(cursor, "variables", _MIN_VARIABLE_BYTES)):
        start = cursor.offset
        name = _new_name(cursor, tensors)
        tensors[name] = Tensor(_read_array(cursor, name), start)
    _read_aliases(cursor, tensors)
    if cursor.left:
        raise cursor.fault(f"{cursor.left} bytes follow the last alias, but the file must end there")
    return tensors


def _expect_header(cursor: _Cursor) -> None:
    remedy = f"{DAMAGED}, or convert the model again with ctranslate2 4"
    for what, read, expected in (
        ("binary version", lambda: cursor.number("I", "the binary version"), BINARY_VERSION),
        ("spec name", lambda: cursor.text("the spec name"), SPEC_NAME),
        ("spec revision", lambda: cursor.number("I", "the spec revision"), SPEC_REVISION),
    ):
        start = cursor.offset
        found = read()
        if found != expected:
            raise cursor.fault(f"the {what} is {found!r}, but must be {expected!r}", at=start, remedy=remedy)


def _count(cursor: _Cursor, what: str, least_bytes: int) -> int:
    start = cursor.offset
    count = cursor.number("I", f"the number of {what}")
    if count > cursor.left // least_bytes:
        problem = f"{count} {what} are announced, but the {cursor.left} bytes left hold at most"
        raise cursor.fault(f"{problem} {cursor.left // least_bytes}", at=start)
    return count


def _new_name(cursor: _Cursor, known: Mapping[str, Tensor]) -> str:
    start = cursor.offset
    name = cursor.text("a tensor's name")
    if name in known:
        raise cursor.fault(f"the name {name} comes twice, but must be unique", at=start)
    return name


def _read_array(cursor: _Cursor, name: str) -> Array:
    start = cursor.offset
    rank = cursor.number("B", f"the rank of {name}")
    if rank > _MAX_RANK:
        raise cursor.fault(f"the rank of {name} is {rank}, but must be <= {_MAX_RANK}", at=start)
    shape = tuple(cursor.number("I", f"a dimension of {name}") for _ in range(rank))
    if 0 in shape:
        raise cursor.fault(f"{name} has the shape {list(shape)}, but every dimension must be >= 1", at=start)
    dtype = _read_dtype(cursor, name, rank)
    start = cursor.offset
    size = cursor.number("I", f"the byte count of {name}")
    if size != math.prod(shape) * dtype.itemsize:
        rule = f"{list(shape)} of {dtype.name} takes {math.prod(shape) * dtype.itemsize}"
        raise cursor.fault(f"the byte count of {name} is {size}, but {rule}", at=start)
    return np.frombuffer(cursor.take(size, name), dtype).reshape(shape)


def _read_dtype(cursor: _Cursor, name: str, rank: int) -> np.dtype[Any]:
    start = cursor.offset
    number = cursor.number("B", f"the dtype id of {name}")
    code = _DTYPES.get(number)
    if code is None:
        raise cursor.fault(f"the dtype id of {name} is {number}, but must be 0 to 5", at=start)
    kind = code if code == "bfloat16" else np.dtype(code).name
    if code == "bfloat16" or (rank and kind not in _WEIGHT_DTYPES):
        # Quantised weights have lost what training needs; bitsandbytes quantises again after loading.
        remedy = "take the float16 model, or convert with `ct2-transformers-converter --quantization float16`"
        raise cursor.fault(f"{name} is {kind}, but weights must be float16 or float32", at=start, remedy=remedy)
    if not rank and kind in _WEIGHT_DTYPES:
        raise cursor.fault(f"{name} is a single {kind}, but a single number must be an integer", at=start)
    return np.dtype(code)


def _read_aliases(cursor: _Cursor, tensors: dict[str, Tensor]) -> None:
    for _ in range(_count(cursor, "aliases", 8)):
        start = cursor.offset
        alias = _new_name(cursor, tensors)
        target = cursor.text(f"the tensor that {alias} stands for")
        if target not in tensors:
            raise cursor.fault(f"{alias} stands for {target}, but that must be a tensor of this file", at=start)
        tensors[alias] = Tensor(tensors[target].array, start)


def to_state(tensors: Mapping[str, Tensor], place: str) -> tuple[Dims, dict[str, Array]]:
    """Sizes and Hugging Face state (views, proj_out tied and left out); raises BaseModelError with every fault."""
    dims = _dims(tensors, place)
    layout = _layout(dims)
    faults = [*_name_faults(tensors, layout), *_setting_faults(tensors, dims), *_shape_faults(tensors, layout)]
    if not faults:
        faults = list(_value_faults(tensors, layout))
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise BaseModelError(
            f"{place}: not a Whisper that can be read; {DAMAGED}\n  " + "\n  ".join(faults[:20]) + more
        )
    pieces = ((blocks, np.split(tensors[name].array, len(blocks))) for name, (_, blocks) in layout.items())
    return dims, {block: row for pair in pieces for block, row in zip(*pair, strict=True) if block is not None}


def _dims(tensors: Mapping[str, Tensor], place: str) -> Dims:
    def axis(name: str, index: int, rank: int) -> int:
        tensor = tensors.get(name)
        if tensor is None:
            raise BaseModelError(f"{place}: the tensor {name} is missing, but every Whisper has it; {DAMAGED}")
        if tensor.array.ndim != rank:
            problem = f"{name} has the shape {list(tensor.array.shape)}, but must have {rank} dimensions"
            raise BaseModelError(f"{place}: byte {tensor.offset}: {problem}; {DAMAGED}")
        return int(tensor.array.shape[index] if rank else tensor.array)

    def layers(side: str) -> int:
        # Distinct names are counted, not the highest number: one bad name must not ask for 4 billion layers.
        pattern = re.compile(rf"{side}/layer_\d+(?=/)")
        return len({match[0] for match in map(pattern.match, tensors) if match})

    return Dims(
        d_model=axis(_EMBEDDINGS, 1, 2),
        vocab_size=axis(_EMBEDDINGS, 0, 2),
        num_mel_bins=axis("encoder/conv1/weight", 1, 3),
        max_source_positions=axis("encoder/position_encodings/encodings", 0, 2),
        max_target_positions=axis("decoder/position_encodings/encodings", 0, 2),
        encoder_layers=layers("encoder"),
        decoder_layers=layers("decoder"),
        encoder_ffn_dim=axis("encoder/layer_0/ffn/linear_0/weight", 0, 2),
        decoder_ffn_dim=axis("decoder/layer_0/ffn/linear_0/weight", 0, 2),
        encoder_attention_heads=axis("encoder/num_heads", 0, 0),
        decoder_attention_heads=axis("decoder/num_heads", 0, 0),
    )


def _layout(dims: Dims) -> _Layout:
    """CTranslate2 name -> shape and the Hugging Face names of its equal row blocks (None: a block of zeros)."""
    width, head = dims.d_model, "model.encoder"
    layout: _Layout = {
        "encoder/conv1/weight": ((width, dims.num_mel_bins, 3), (f"{head}.conv1.weight",)),
        "encoder/conv1/bias": ((width,), (f"{head}.conv1.bias",)),
        "encoder/conv2/weight": ((width, width, 3), (f"{head}.conv2.weight",)),
        "encoder/conv2/bias": ((width,), (f"{head}.conv2.bias",)),
        _EMBEDDINGS: ((dims.vocab_size, width), ("model.decoder.embed_tokens.weight",)),
    }
    for side, layers, ffn, positions in (
        ("encoder", dims.encoder_layers, dims.encoder_ffn_dim, dims.max_source_positions),
        ("decoder", dims.decoder_layers, dims.decoder_ffn_dim, dims.max_target_positions),
    ):
        name = f"model.{side}.embed_positions.weight"
        layout[f"{side}/position_encodings/encodings"] = ((positions, width), (name,))
        layout |= _norm(f"{side}/layer_norm", f"model.{side}.layer_norm", width)
        for index in range(layers):
            layout |= _layer(f"{side}/layer_{index}", f"model.{side}.layers.{index}", width, ffn, side == "decoder")
    return layout


def _layer(source: str, target: str, width: int, ffn: int, crosses: bool) -> _Layout:
    layout = _norm(f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm", width)
    layout |= _linear(f"{source}/self_attention/linear_0", f"{target}.self_attn", "qkv", width)
    layout |= _linear(f"{source}/self_attention/linear_1", f"{target}.self_attn", ("out",), width)
    if crosses:
        layout |= _norm(f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm", width)
        for index, parts in enumerate(("q", "kv", ("out",))):
            layout |= _linear(f"{source}/attention/linear_{index}", f"{target}.encoder_attn", parts, width)
    layout |= _norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm", width)
    for index, (rows, columns) in enumerate(((ffn, width), (width, ffn))):
        layout[f"{source}/ffn/linear_{index}/weight"] = ((rows, columns), (f"{target}.fc{index + 1}.weight",))
        layout[f"{source}/ffn/linear_{index}/bias"] = ((rows,), (f"{target}.fc{index + 1}.bias",))
    return layout


def _norm(source: str, target: str, width: int) -> _Layout:
    return {f"{source}/gamma": ((width,), (f"{target}.weight",)), f"{source}/beta": ((width,), (f"{target}.bias",))}


def _linear(source: str, target: str, parts: Sequence[str], width: int) -> _Layout:
    """Projections that CTranslate2 fused by rows; Whisper's k_proj has no bias, so zeros stand in its place."""
    rows = len(parts) * width
    biases = tuple(None if part == "k" else f"{target}.{part}_proj.bias" for part in parts)
    return {
        f"{source}/weight": ((rows, width), tuple(f"{target}.{part}_proj.weight" for part in parts)),
        f"{source}/bias": ((rows,), biases),
    }


def _name_faults(tensors: Mapping[str, Tensor], layout: _Layout) -> Iterator[str]:
    required = layout.keys() | {_PROJECTION, *_HEADS}
    for name in sorted(required - tensors.keys()):
        yield f"the tensor {name} is missing, but every Whisper of this size has it"
    for name in sorted(tensors.keys() - required - _SETTINGS.keys()):
        yield f"byte {tensors[name].offset}: the tensor {name} is unknown, but only Whisper's may stand here"


def _setting_faults(tensors: Mapping[str, Tensor], dims: Dims) -> Iterator[str]:
    for name, expected in _SETTINGS.items():
        tensor = tensors.get(name)
        if tensor is None:  # older converters wrote fewer settings
            continue
        if tensor.array.ndim:
            yield f"byte {tensor.offset}: {name} has the shape {list(tensor.array.shape)}, but must be a single number"
        elif expected is not None and tensor.array != expected:
            yield f"byte {tensor.offset}: {name} is {tensor.array}, but Hugging Face's Whisper computes with {expected}"
    for side, heads in (("encoder", dims.encoder_attention_heads), ("decoder", dims.decoder_attention_heads)):
        if heads < 1 or dims.d_model % heads:
            yield f"{side}/num_heads is {heads}, but must be >= 1 and divide the model's width {dims.d_model}"


def _shape_faults(tensors: Mapping[str, Tensor], layout: _Layout) -> Iterator[str]:
    expected = {name: shape for name, (shape, _) in layout.items()}
    expected[_PROJECTION] = expected[_EMBEDDINGS]
    for name in sorted(expected.keys() & tensors.keys()):
        array, offset = tensors[name]
        if array.shape != expected[name]:
            yield f"byte {offset}: {name} has the shape {list(array.shape)}, but must have {list(expected[name])}"


def _value_faults(tensors: Mapping[str, Tensor], layout: _Layout) -> Iterator[str]:
    for name, (_, blocks) in layout.items():
        rows = np.split(tensors[name].array, len(blocks))
        if any(block is None and row.any() for block, row in zip(blocks, rows, strict=True)):
            yield f"byte {tensors[name].offset}: {name} gives k_proj a bias, but Hugging Face's Whisper has none"
    projection, embeddings = tensors[_PROJECTION], tensors[_EMBEDDINGS]
    if projection.array is not embeddings.array and not np.array_equal(projection.array, embeddings.array):
        yield f"byte {projection.offset}: {_PROJECTION} differs from {_EMBEDDINGS}, but Whisper ties them"
