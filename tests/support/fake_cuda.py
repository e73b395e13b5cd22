"""CUDA tensors without a GPU: they have a shape, a type and a device, and what mixes devices fails as it does on one.

Tensors of torch's `FakeTensorMode` have no values. What asks for one is given 1, 1.0 or True, and every mask is taken
to be true throughout: so loops end, and all that has to do with devices is gone through. Autograd's engine wants a
driver where a gradient lies on a GPU: here its nodes are called one after the other.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wertune.whisper.model import Whisper

CUDA = torch.device("cuda", 0)
AMPERE, TURING = (8, 0), (7, 5)


class _Values(TorchDispatchMode):
    """Answers what only contents could: the value of a number, and which elements a mask chooses.

    Of lists of tensors that one kernel goes through, as a fused step of AdamW, torch's fake ones do not check devices.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default):
            indices = chain.from_iterable(_all_of(each) for each in args[1])
            args = (args[0], list(indices), *args[2:])
        if "_fused_" in func.name() or "foreach" in func.name():
            devices = {each.device for each in tree_leaves(args) if isinstance(each, torch.Tensor)}
            assert len(devices) == 1, f"{func} found two different devices: {devices}"
        if func is torch.ops.aten.nonzero.default:
            return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.long, device=args[0].device)
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            dtype = args[0].dtype
            return True if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1


def _all_of(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """A mask as the places of all its elements; another index as it is."""
    if index is None or index.dtype is not torch.bool:
        return [index]
    return [torch.zeros(index.numel(), dtype=torch.long, device=index.device) for _ in index.shape]


@contextmanager
def fake_cuda(capability: tuple[int, int] = AMPERE) -> Iterator[None]:
    """Inside the block tensors are fake, and CUDA's are those of a GPU of this compute capability."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: capability >= AMPERE)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.Tensor, "backward", backward)
        # Or what is checkpointed is worked out again for each of its tensors.
        patch.setattr(torch._C, "_current_graph_task_id", lambda: 0)
        with FakeTensorMode(allow_non_fake_inputs=True), _Values():
            yield


@torch.no_grad()
def backward(loss: torch.Tensor) -> None:
    """As `loss.backward()`: each node once all its gradients are there, held to what it was in the forward pass."""
    assert loss.grad_fn is not None
    waiting = Counter(after for node in _nodes(loss.grad_fn) for after, _ in node.next_functions if after)
    gradients: dict[Any, list[torch.Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        received = [_held_to(*each) for each in zip(gradients.pop(node), node._input_metadata, strict=True)]
        if not node.next_functions:
            parameter = node.variable
            parameter.grad = received[0] if parameter.grad is None else parameter.grad + received[0]
            continue
        made = node.apply(*received) if isinstance(node, BackwardCFunction) else node(*received)
        made = made if isinstance(made, tuple) else (made,)
        # A function of ours answers for arguments that are no tensors, too: those stand at the end.
        assert not any(each is not None for each in made[len(node.next_functions) :])
        for (after, place), gradient in zip(node.next_functions, made, strict=False):
            if after is None:
                continue
            held = gradients.setdefault(after, [None] * len(after._input_metadata))
            before = held[place]
            held[place] = gradient if before is None or gradient is None else before + gradient
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)


def _held_to(gradient: torch.Tensor | None, expected: Any) -> torch.Tensor | None:
    """Summed where the forward pass has broadcast, and of its type, as the engine does it."""
    if gradient is None:
        return None
    assert gradient.device == expected.device
    return gradient.sum_to_size(expected.shape).to(expected.dtype)


def _nodes(first: Any) -> list[Any]:
    """All that the gradient passes through."""
    found, seen = [first], {first}
    for node in found:
        new = [after for after, _ in node.next_functions if after is not None and after not in seen]
        seen.update(new)
        found += dict.fromkeys(new)
    return found


def on_cuda(whisper: Whisper) -> Whisper:
    """A model whose weights and buffers lie on the fake GPU; of a loaded one, which is changed. 8 bits stay 8 bits."""
    moved: dict[int, torch.nn.Parameter] = {}
    for module in whisper.model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in moved:
                moved[id(parameter)] = _moved(parameter)
            module._parameters[name] = moved[id(parameter)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty_like(buffer, device=CUDA)
        if isinstance(module, Linear8bitLt):
            module.weight.CB, module.weight.SCB = module.weight.data, torch.empty(module.out_features, device=CUDA)
    return whisper.with_model(whisper.model)


def _moved(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    data = torch.empty(parameter.shape, dtype=parameter.dtype, device=CUDA)
    return torch.nn.Parameter(data, requires_grad=parameter.requires_grad)
