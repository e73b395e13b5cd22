"""Memory of training steps by counted bytes: real modules on fake tensors, which have sizes and no contents.

So a model that no machine here could hold costs a few seconds. Counted are the bytes of all tensors that live at once:
weights, gradients, AdamW's states, what is kept for the way back, and every value between two operations. Not counted:
what an allocator rounds up or leaves lying about, what a kernel takes for itself, libraries.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from bitsandbytes.nn import Int8Params, Linear8bitLt
from peft import PeftModel, prepare_model_for_kbit_training
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wertune.bench.clips import BATCH, PLAIN_LORA
from wertune.bench.peer import module_loss, with_adapters
from wertune.whisper.forward import LeanWhisper

MB = 2**20
FRAMES_AT_30_S, FRAMES_AT_4_S, MEL_BINS, TOKENS = 3000, 464, 80, 20

Model: TypeAlias = WhisperForConditionalGeneration | PeftModel
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def shape(d_model: int, layers: int, heads: int, vocabulary: int = 51865) -> WhisperConfig:
    """The dimensions of a Whisper; attention in kernels that keep no scores, as is transformers' default."""
    return WhisperConfig(
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * d_model,
        decoder_ffn_dim=4 * d_model,
        vocab_size=vocabulary,
        attn_implementation="sdpa",
    )


SHAPES = {
    "tiny.en": shape(384, 4, 6, vocabulary=51864),
    "base": shape(512, 6, 8),
    "small": shape(768, 12, 12),
    "large-v2": shape(1280, 32, 20),
}


@dataclass(frozen=True)
class Recipe:
    """A way of training: what is trained, in which form the base is, and at which context."""

    name: str
    is_full: bool = False
    is_int8: bool = False
    is_checkpointed: bool = False
    is_ours: bool = False

    @property
    def frames(self) -> int:
        """Of log-mel features: ours are as long as the clip and a margin."""
        return FRAMES_AT_4_S if self.is_ours else FRAMES_AT_30_S


FULL = Recipe("full fine-tuning, 30 s", is_full=True)
PEER = Recipe("LoRA on int8, 30 s", is_int8=True)
PEER_CHECKPOINTED = Recipe("LoRA on int8, 30 s, gradient checkpointing", is_int8=True, is_checkpointed=True)
OURS = Recipe("ours: LoRA on int8, short context", is_int8=True, is_ours=True)
OURS_CHECKPOINTED = Recipe("ours, gradient checkpointing", is_int8=True, is_checkpointed=True, is_ours=True)
OURS_ON_BFLOAT16 = Recipe("ours, on bfloat16 weights", is_ours=True)
RECIPES = (FULL, Recipe("LoRA on float, 30 s"), PEER, PEER_CHECKPOINTED, OURS, OURS_CHECKPOINTED)


@dataclass(frozen=True)
class Count:
    """MB: of the weights, of what lives after a step (weights, AdamW's states), and at most."""

    weights: float
    between_steps: float
    peak: float


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that operations have made inside the block and that are still in use."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def count(of: WhisperConfig, recipe: Recipe) -> Count:
    """Of two steps at batch 8; at short context clips of 4 s in bfloat16, as a GPU takes them."""
    with torch.device("meta"):
        model = _model(of, recipe)
    loss = (
        partial(_lean_loss, model, recipe.is_checkpointed)
        if recipe.is_ours
        else partial(module_loss, model, products=torch.bfloat16)
    )
    with FakeTensorMode(), LiveBytes() as live:
        _fill(model)
        weights = live.now
        optimizer = adamw(model)
        features, labels = torch.empty(BATCH, MEL_BINS, recipe.frames), torch.empty(BATCH, TOKENS, dtype=torch.long)
        two_steps(optimizer, loss, features, labels)
        return Count(weights / MB, live.now / MB, live.most / MB)


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """Of what is trained."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)


def two_steps(optimizer: torch.optim.AdamW, loss: Loss, features: torch.Tensor, labels: torch.Tensor) -> None:
    """AdamW's states come with the first, and are there in the second from its beginning."""
    for _ in range(2):
        loss(features, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _model(of: WhisperConfig, recipe: Recipe) -> Model:
    """Modules without weights: only shapes and types."""
    model = WhisperForConditionalGeneration(of)
    model.tie_weights()
    if recipe.is_full:
        return model.train()
    if recipe.is_int8:
        _quantise(model)
    model.requires_grad_(False)
    if recipe.is_ours:
        model.bfloat16()
    elif recipe.is_int8:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.is_checkpointed)
    return with_adapters(model, PLAIN_LORA).train()


def _quantise(model: WhisperForConditionalGeneration) -> None:
    """Every linear layer but the last as bitsandbytes stores it."""
    model.is_loaded_in_8bit = True
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and name != "proj_out":
            small = Linear8bitLt(layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False)
            small.weight = Int8Params(torch.empty(layer.weight.shape, dtype=torch.int8), requires_grad=False)
            model.set_submodule(name, small)


def _fill(model: Model) -> None:
    """Fake weights in place of those on the meta device; an 8-bit one has a scale a row."""
    filled: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in filled:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                filled[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
            module._parameters[name] = filled[id(parameter)]
        if isinstance(module, Linear8bitLt):
            module.state.CB, module.state.SCB = module.weight.data, torch.empty(module.out_features)
            module.weight.CB = module.weight.SCB = None  # as after bitsandbytes' first product


def _lean_loss(model: PeftModel, checkpointed: bool, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As `Whisper.loss`, which wants a tokenizer and selects rows by contents, of which there are none here."""
    lean = LeanWhisper(model.base_model.model, torch.bfloat16)
    lean.checkpointed = checkpointed
    states = lean.decode(lean.encode(features), labels)
    return torch.nn.functional.cross_entropy(lean.logits(states.flatten(0, 1)), labels.flatten())
