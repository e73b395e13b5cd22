"""What an adapter's folder may hold before PEFT reads it: a configuration that someone else may have written."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from wertune.base.errors import AdapterError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
ADAPTER_REMEDY = "download the version again, or train this adapter anew"
MAX_RANK = 256

# For people: nothing follows them, since PEFT is handed the model.
_NOTES = frozenset({"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"})
_INERT: Mapping[str, Any] = {
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}
_NAME = r"[A-Za-z0-9_.]{1,100}"
# The one form that `model.add_lora` writes: any other expression could take an age to match.
_LAYERS = r"(?:encoder\\\.layers\\\.\([\d|]{1,200}\)|decoder\\\.layers\\\.\\d\+)"
_MODULES = re.compile(rf"model\\\.\({_LAYERS}(?:\|{_LAYERS})?\)\\\.\(\.\*\\\.\)\?\([A-Za-z0-9_|]{{1,500}}\)")


def check_adapter_files(folder: Path) -> None:
    """AdapterError where a file is missing or damaged, or the configuration asks for more than a plain LoRA.

    PEFT's configurations can also name Python modules, pickled files and expressions: none of that is let through.
    """
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        pickled = "; pickled .bin weights are never loaded" if (folder / "adapter_model.bin").exists() else ""
        raise AdapterError(f"{folder} lacks {', '.join(missing)}{pickled}; give the folder that a finished trial wrote")
    faults = list(_faults(read_adapter_config(folder)))
    if faults:
        rule = "save the adapter again as a plain LoRA, in safetensors"
        raise AdapterError(f"{folder / ADAPTER_FILES[0]}: {'; '.join(faults)}; {rule}")
    with reading_adapter(folder / ADAPTER_FILES[1]) as path, safe_open(path, framework="np") as file:
        file.keys()


@contextmanager
def reading_adapter(path: Path) -> Iterator[Path]:
    """Makes an AdapterError that names the file of what a damaged one raises inside the block."""
    try:
        yield path
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise AdapterError(f"{path} is damaged: {error!s:.200}; {ADAPTER_REMEDY}") from error


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The folder's adapter_config.json; AdapterError where it is no JSON object."""
    with reading_adapter(folder / ADAPTER_FILES[0]) as path:
        values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise AdapterError(f"{path} holds a {type(values).__name__}, but must hold an object; save the adapter again")
    return values


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if values.get("peft_type") != "LORA":
        yield f"peft_type is {values.get('peft_type')!r:.60}, but must be 'LORA'"
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        yield f"r is {rank!r:.60}, but must be 1 to {MAX_RANK}"
    if not _is_number(alpha):
        yield f"lora_alpha is {alpha!r:.60}, but must be a finite number"
    if not _is_number(values.get("lora_dropout", 0)):
        yield f"lora_dropout is {values['lora_dropout']!r:.60}, but must be a finite number"
    if not _names_modules(values.get("target_modules")):
        yield f"target_modules is {values.get('target_modules')!r:.60}, but must be a list of layers' names"
    for name in ("use_dora", "use_rslora"):
        if type(values.get(name, False)) is not bool:
            yield f"{name} is {values[name]!r:.60}, but must be true or false"
    known = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora"}
    for name in sorted(values.keys() - known - _NOTES):
        if values[name] and values[name] != _INERT.get(name):
            yield f"{name:.60} is {values[name]!r:.60}, but must not be set"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _names_modules(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_MODULES.fullmatch(value) or re.fullmatch(r"[a-z_0-9]{1,100}|all-linear", value))
    return isinstance(value, list) and all(isinstance(v, str) and re.fullmatch(_NAME, v) for v in value)
