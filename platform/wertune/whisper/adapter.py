"""LoRA adapters: put on a Whisper and taken off, saved and loaded, and what a folder of one may hold."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from wertune.base.config import LoraConfig
from wertune.base.errors import AdapterError, ConfigError
from wertune.base.files import replacing_folder, sha256_of, share_mode, storing
from wertune.whisper.model import BatchPart, Whisper, brief, load_whisper

# isort: split
# Once `forward` has imported it.
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

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
# The one form that `add_lora` writes: any other expression could take an age to match.
_LAYERS = r"(?:encoder\\\.layers\\\.\([\d|]{1,200}\)|decoder\\\.layers\\\.\\d\+)"
_MODULES = re.compile(rf"model\\\.\({_LAYERS}(?:\|{_LAYERS})?\)\\\.\(\.\*\\\.\)\?\([A-Za-z0-9_|]{{1,500}}\)")


def add_lora(whisper: Whisper, config: LoraConfig, seed: int) -> Whisper:
    """The model with fresh, trainable adapters on the modules that `config` names; the base stays frozen."""
    if config.dora and whisper.device.type == "cpu" and whisper.is_quantised:
        rule = "PEFT's DoRA cannot train an int8 or nf4 base on the CPU"
        raise ConfigError(f"lora.dora is true, but {rule}; set quantization: none, or use a GPU")
    layers = len(whisper.bare.model.encoder.layers)
    config.check_begins_within(layers)
    numbers = "|".join(str(n) for n in range(config.first_encoder_layer, layers))
    parts = {"encoder": rf"encoder\.layers\.({numbers})", "decoder": r"decoder\.layers\.\d+"}
    chosen = "|".join(parts.values()) if config.scope == "both" else parts[config.scope]
    torch.manual_seed(seed)
    # task_type stays unset: PEFT's SEQ_2_SEQ_LM wrapper passes input_ids, which Whisper does not take.
    peft_config = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"model\.({chosen})\.(.*\.)?({'|'.join(config.target_modules)})",
        use_rslora=config.rslora,
        use_dora=config.dora,
    )
    adapted = whisper.with_model(get_peft_model(whisper.model, peft_config))
    for layer in [module for module in adapted.model.modules() if isinstance(module, LoraLayer)]:
        for name, dropout in layer.lora_dropout.items():
            if isinstance(dropout, torch.nn.Dropout):
                layer.lora_dropout[name] = BatchDropout(dropout.p, adapted.part)
    return adapted


class BatchDropout(torch.nn.Dropout):
    """Dropout whose masks are drawn for a whole batch, of which this process may have a part.

    So the masks of a clip hang neither on how many workers there are nor on which of them has it.
    """

    def __init__(self, p: float, part: BatchPart) -> None:
        super().__init__(p)
        self._part = part

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(clips, …) of the part, as PyTorch's on a CPU."""
        if not self.training:
            return input
        rows, clips = self._part.rows, self._part.clips or len(input)
        mask = input.new_empty((clips, *input.shape[1:])).bernoulli_(1 - self.p).div_(1 - self.p)
        return input * (mask[list(rows)] if 0 < len(rows) < clips else mask)


def remove_lora(base: Whisper) -> None:
    """Takes off in place whatever adapters `add_lora` has put on this model: PEFT puts them between its own layers."""
    for name, module in list(base.bare.named_modules()):
        if isinstance(module, LoraLayer):
            base.bare.set_submodule(name, module.get_base_layer())
    vars(base.bare).pop("peft_config", None)  # or PEFT warns of a second adapter


@contextmanager
def at_strength(whisper: Whisper, strength: float) -> Iterator[None]:
    """Scales what the adapters add to the base inside the block: 1 as they were trained, 0 the base itself.

    A strength between interpolates the tuned model with its base (WiSE-FT, Wortsman et al. 2021, arXiv:2109.01903).
    """
    layers = [module for module in whisper.model.modules() if isinstance(module, LoraLayer)]
    adapters = [(layer, name) for layer in layers for name in layer.active_adapters]
    try:
        for layer, name in adapters:
            layer.set_scale(name, strength)
        yield
    finally:
        for layer, name in adapters:
            layer.set_scale(name, 1.0)


def adapter_digest(whisper: Whisper) -> str:
    """SHA-256 of the adapter as it is loaded: names, weights, and what they are scaled by; empty without one."""
    whole = hashlib.sha256()
    layers = [(name, module) for name, module in whisper.model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        for adapter in layer.active_adapters:
            if adapter not in layer.lora_A:
                continue
            whole.update(f"{name} {adapter} {layer.scaling[adapter]!r}".encode())
            for part in (layer.lora_A[adapter], layer.lora_B[adapter]):
                whole.update(part.weight.detach().float().cpu().numpy().tobytes())
    return whole.hexdigest() if layers else ""


def save_adapter(whisper: Whisper, folder: Path, base_model: str, strength: float = 1.0) -> None:
    """Writes PEFT's adapter folder, whole or not at all, in the place of one that stands there; StorageError."""
    remedy = "free some space there, or name a folder on a writable disk with more"
    with storing("the adapter", folder, remedy), replacing_folder(folder) as writing:
        whisper.model.save_pretrained(str(writing), safe_serialization=True)
        # PEFT writes the local path of the weights; the adapter is for the base by its name, wherever it lies.
        weigh_adapter(writing, strength)
        amend_config(writing, base_model_name_or_path=base_model)
        (writing / "README.md").unlink(missing_ok=True)
        share_mode(writing, of="adapter_config.json")


def weigh_adapter(folder: Path, strength: float) -> None:
    """Multiplies what the folder's adapter adds to its base.

    It is stored as alpha, so that whoever loads the adapter, by plain PEFT too, gets it.
    """
    amend_config(folder, lora_alpha=read_adapter_config(folder)["lora_alpha"] * strength)


def amend_config(folder: Path, **changes: Any) -> None:
    """Writes these values into the folder's adapter_config.json."""
    text = json.dumps(read_adapter_config(folder) | changes, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def average_adapters(folders: Sequence[Path], out: Path, rank: int) -> None:
    """The mean of plain LoRA adapters on the same layers, as one of at most `rank`: AdapterError where it has none.

    What adapters add to a layer are products B A, whose mean is one of the summed ranks; its largest singular values
    are kept. Runs of one configuration from several seeds agree in what they learnt and differ in noise (Wortsman et
    al. 2022, arXiv:2203.05482).
    """
    configs = [read_adapter_config(folder) for folder in folders]
    tensors = [load_file(folder / ADAPTER_FILES[1]) for folder in folders]
    if any(config.get("use_dora") for config in configs) or any(each.keys() != tensors[0].keys() for each in tensors):
        raise AdapterError(f"{folders[0]} and others have no mean: they are of other layers, or learnt lengths, too")
    scales = [_scale_of(config) / len(folders) for config in configs]
    averaged: dict[str, torch.Tensor] = {}
    for name in (name for name in tensors[0] if "lora_A" in name):
        other = name.replace("lora_A", "lora_B")
        down = torch.cat([each[name].double() for each in tensors])
        up = torch.cat([each[other].double() * scale for each, scale in zip(tensors, scales, strict=True)], dim=1)
        (left, left_r), (right, right_r) = torch.linalg.qr(up), torch.linalg.qr(down.T)
        u, s, v = torch.linalg.svd(left_r @ right_r.T)
        kept = min(rank, s.numel(), MAX_RANK)  # of a larger rank no adapter is loaded
        root = s[:kept].sqrt()
        averaged[other] = (left @ u[:, :kept] * root).float().contiguous()
        averaged[name] = (root[:, None] * (v[:kept] @ right.T)).float().contiguous()
    kept = averaged[name].shape[0]
    with storing("the adapter", out, ADAPTER_REMEDY), replacing_folder(out) as writing:
        save_file(averaged, writing / ADAPTER_FILES[1], metadata={"format": "pt"})
        shutil.copyfile(folders[0] / ADAPTER_FILES[0], writing / ADAPTER_FILES[0])
        amend_config(writing, r=kept, lora_alpha=kept, use_rslora=False)


def _scale_of(config: Mapping[str, Any]) -> float:
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def adapter_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a saved adapter."""
    return {name: sha256_of(folder / name) for name in ADAPTER_FILES}


def check_unchanged(folder: Path, stored: Mapping[str, str]) -> None:
    """AdapterError where files are not those that a version was made of; versions of before hold no digests."""
    check_adapter_files(folder)
    now = adapter_files(folder)
    if others := [name for name, digest in stored.items() if now.get(name) != digest]:
        rule = "must be what it was when the version was made, or the version writes other texts than its gates saw"
        remedy = "put it back, or register the adapter as another version"
        raise AdapterError(f"{folder}: {', '.join(others)} has changed, but {rule}; {remedy}")


def load_adapter(whisper: Whisper, folder: Path) -> Whisper:
    """The model with a saved adapter, for inference; AdapterError when the folder is incomplete or does not fit."""
    check_adapter_files(folder)
    try:
        model = PeftModel.from_pretrained(whisper.model, str(folder), is_trainable=False)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # PEFT, safetensors and torch each raise their own kinds for what does not fit
        problem = f"{folder} does not fit this base model or is damaged: {brief(error)}"
        raise AdapterError(f"{problem}; {ADAPTER_REMEDY}") from error
    # PEFT leaves a tensor that the file lacks at its random start, and one without a place unread, both silently.
    expected = get_peft_model_state_dict(model, save_embedding_layers=False).keys()
    with safe_open(folder / ADAPTER_FILES[1], framework="pt") as file:
        strange = sorted(expected ^ file.keys())
    if strange:
        rule = "must hold exactly the tensors that adapter_config.json asks for on this base model"
        many = f"{len(strange)} tensor{'s are' if len(strange) > 1 else ' is'} missing or in excess"
        raise AdapterError(f"{folder}: {many}, such as {strange[0]}, but {rule}; {ADAPTER_REMEDY}")
    return whisper.with_model(model.eval())


def merged(path: Path, adapter: Path, language: str) -> WhisperForConditionalGeneration:
    """The base in float32 with a saved adapter in its weights, on the CPU: rounding to 8 bits comes after, if at all.

    An adapter is never added to weights that are 8-bit already: its small steps would be lost between theirs.
    """
    tuned = load_adapter(load_whisper(path, language, "none", "cpu", dtype=torch.float32), adapter)
    return tuned.model.merge_and_unload().requires_grad_(False).eval()


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _names_modules(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_MODULES.fullmatch(value) or re.fullmatch(r"[a-z_0-9]{1,100}|all-linear", value))
    return isinstance(value, list) and all(isinstance(v, str) and re.fullmatch(_NAME, v) for v in value)


# What each key must hold: where it is not given, what is taken for it; then the rule, and its words.
_RULES: Mapping[str, tuple[Any, Callable[[Any], bool], str]] = {
    "peft_type": (None, lambda value: value == "LORA", "'LORA'"),
    "r": (None, lambda value: type(value) is int and 1 <= value <= MAX_RANK, f"1 to {MAX_RANK}"),
    "lora_alpha": (None, _is_number, "a finite number"),
    "lora_dropout": (0, _is_number, "a finite number"),
    "target_modules": (None, _names_modules, "a list of layers' names"),
    "use_dora": (False, lambda value: type(value) is bool, "true or false"),
    "use_rslora": (False, lambda value: type(value) is bool, "true or false"),
}


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    for name, (usual, holds, rule) in _RULES.items():
        if not holds(value := values.get(name, usual)):
            yield f"{name} is {value!r:.60}, but must be {rule}"
    for name in sorted(values.keys() - _RULES.keys() - _NOTES):
        if values[name] and values[name] != _INERT.get(name):
            yield f"{name:.60} is {values[name]!r:.60}, but must not be set"
