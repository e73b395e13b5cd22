"""Whisper's forward pass with as little as it takes: the same layers and weights as transformers' and PEFT's modules.

Frozen layers keep no input for the way back, 8-bit weights are unpacked where they are multiplied, an adapter is added
by the product itself, and nothing is cast back and forth. Measured beside the modules in docs/benchmarks.md.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import WhisperForConditionalGeneration


@contextmanager
def _compiler_when_called() -> Iterator[None]:
    """Inside the block `torch.compile` asks for the compiler, a second of imports, when what it makes is called."""
    compile_now = torch.compile

    def compile_later(model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda model: compile_later(model, **options)
        made: list[Any] = []

        @functools.wraps(model)
        def compiled(*values: Any, **named: Any) -> Any:
            if not made:
                made.append(compile_now(model, **options))
            return made[0](*values, **named)

        return compiled

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


with _compiler_when_called():  # which bitsandbytes asks for as it is imported, and PEFT imports it, too
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from peft.tuners.lora import LoraLayer

Multiply = Callable[[Tensor], Tensor]
CODES_PER_UNIT = 127.0  # an 8-bit row holds round(127 x weight / the row's largest)


class Linear:
    """A linear layer of the base, in 8 bits or not, and the adapter on it if there is one."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self._layer, self._dtype = layer, dtype
        self._base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        adapters = (
            [name for name in layer.active_adapters if name in layer.lora_A] if isinstance(layer, LoraLayer) else []
        )
        self._adapter = adapters[0] if adapters else None
        # What PEFT has beyond plain LoRA, and 4-bit weights, go through the modules themselves.
        has_dora = any(layer.use_dora.get(name) for name in adapters)
        self.is_plain = len(adapters) <= 1 and not has_dora and not isinstance(self._base, Linear4bit)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)."""
        if not self.is_plain:
            with torch.autocast(x.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
                return torch.as_tensor(self._layer(x)).to(self._dtype)
        if self._adapter is None:
            return torch.as_tensor(_Frozen.apply(x, self))  # type: ignore[no-untyped-call]
        first, second, scale = self.adapter()
        dropout = self._layer.lora_dropout[self._adapter]
        heard = dropout(x) if self._layer.training else x
        return torch.as_tensor(_Adapted.apply(x, heard, first, second, scale, self))  # type: ignore[no-untyped-call]

    def weight(self) -> Tensor:
        """The frozen weights (outputs, inputs), unpacked."""
        if not isinstance(self._base, Linear8bitLt):
            return torch.as_tensor(self._base.weight.to(self._dtype))
        packed, state = self._base.weight, self._base.state
        codes, largest = (packed, packed.SCB) if packed.SCB is not None else (state.CB, state.SCB)
        return torch.as_tensor(torch.mul(codes, (largest / CODES_PER_UNIT)[:, None]).to(self._dtype))

    def bias(self) -> Tensor | None:
        bias = self._base.bias
        return None if bias is None else bias.to(self._dtype)

    def adapter(self) -> tuple[Tensor, Tensor, float]:
        """A (r, inputs), B (outputs, r) and what their product is scaled by."""
        name = self._adapter
        return self._layer.lora_A[name].weight, self._layer.lora_B[name].weight, self._layer.scaling[name]

    def merged(self) -> tuple[Tensor, Tensor | None]:
        """Weights with the adapter in them, and the bias: for many products with the same few rows."""
        weight = self.weight()
        if self._adapter is not None:
            first, second, scale = self.adapter()
            weight = torch.addmm(weight, second.to(self._dtype) * scale, first.to(self._dtype))
        return weight, self.bias()


class _Frozen(torch.autograd.Function):
    """x W' + b, of which nothing is kept but how to unpack W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Linear) -> Tensor:
        ctx.linear = linear
        return functional.linear(x, linear.weight(), linear.bias())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.linear.weight(), None


class _Adapted(torch.autograd.Function):
    """x W' + b + scale (heard A') B', the last product added in place."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heard: Tensor, first: Tensor, second: Tensor, scale: float, linear: Linear
    ) -> Tensor:
        rows, a, b = heard.flatten(0, -2), first.to(x.dtype), second.to(x.dtype) * scale
        low = rows @ a.T
        y = functional.linear(x, linear.weight(), linear.bias())
        y.view(-1, y.shape[-1]).addmm_(low, b.T)
        ctx.save_for_backward(rows, low, a, b)
        ctx.linear, ctx.scale, ctx.is_dropped = linear, scale, heard is not x
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        rows, low, a, b = ctx.saved_tensors
        dy = gradient.reshape(-1, gradient.shape[-1])
        d_low = dy @ b
        d_first, d_second = d_low.T @ rows, dy.T @ low * ctx.scale
        d_x = dy @ ctx.linear.weight() if ctx.needs_input_grad[0] else None
        d_heard = None
        if ctx.is_dropped:
            d_heard = (d_low @ a).view(*gradient.shape[:-1], -1)
        elif d_x is not None:
            d_x.addmm_(d_low, a)
        return (
            None if d_x is None else d_x.view(*gradient.shape[:-1], -1),
            d_heard,
            d_first.float(),
            d_second.float(),
            None,
            None,
        )


class Norm:
    """A layer's normalisation."""

    def __init__(self, layer: torch.nn.LayerNorm) -> None:
        self._layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self._layer
        weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
        return functional.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)


class Attention:
    """Queries, keys, values and output of one attention block, split into heads."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self.heads, self.head_dim = int(block.num_heads), int(block.head_dim)
        self.q, self.k, self.v, self.out = (
            Linear(layer, dtype) for layer in (block.q_proj, block.k_proj, block.v_proj, block.out_proj)
        )

    def __call__(self, x: Tensor, heard: Tensor, mask: Tensor | None = None) -> Tensor:
        """What `x` (batch, rows, d_model) takes from `heard` (batch, others, d_model), `mask` (rows, others) added."""
        queries, keys, values = self.split(self.q(x)), self.split(self.k(heard)), self.split(self.v(heard))
        return self.out(self.join(queries, keys, values, mask))

    def split(self, states: Tensor) -> Tensor:
        """(batch, rows, d_model) → (batch, heads, rows, head_dim)."""
        return states.view(*states.shape[:-1], self.heads, self.head_dim).transpose(1, 2)

    def join(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of (batch, heads, rows, head_dim) each, as (batch, rows, d_model)."""
        attend = plain_attention if queries.device.type == "cpu" else functional.scaled_dot_product_attention
        return attend(queries, keys, values, mask).transpose(1, 2).flatten(-2)


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """What PyTorch's fused attention gives, in a third of its time on CPUs with bfloat16 (README)."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    return torch.softmax(scores if mask is None else scores + mask, dim=-1) @ values


class Layer:
    """A layer of the encoder, or of the decoder, which also hears."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self.first_norm, self.attention = Norm(layer.self_attn_layer_norm), Attention(layer.self_attn, dtype)
        if hasattr(layer, "encoder_attn"):
            self.heard_norm, self.hears = Norm(layer.encoder_attn_layer_norm), Attention(layer.encoder_attn, dtype)
        self.last_norm = Norm(layer.final_layer_norm)
        self.fc1, self.fc2, self.activation = Linear(layer.fc1, dtype), Linear(layer.fc2, dtype), layer.activation_fn

    def __call__(self, x: Tensor, heard: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        normed = self.first_norm(x)
        x = x + self.attention(normed, normed, mask)
        if heard is not None:
            x = x + self.hears(self.heard_norm(x), heard)
        return x + self.fc2(self.activation(self.fc1(self.last_norm(x))))

    def follow(self, x: Tensor, heard: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same of a decoder's layer, and what its heads attend to of `heard`: (batch, heads, rows, others)."""
        normed, hears = self.first_norm(x), self.hears
        x = x + self.attention(normed, normed, mask)
        queries, keys, values = (
            hears.split(each) for each in (hears.q(self.heard_norm(x)), hears.k(heard), hears.v(heard))
        )
        attended = torch.softmax((queries * hears.head_dim**-0.5) @ keys.transpose(-1, -2), dim=-1)
        x = x + hears.out((attended @ values).transpose(1, 2).flatten(-2))
        return x + self.fc2(self.activation(self.fc1(self.last_norm(x)))), attended


class LeanWhisper:
    """The forward pass over a model's own weights and adapters, in `dtype`; dropout is the adapters' alone.

    OpenAI's checkpoints have no other.
    """

    def __init__(self, model: WhisperForConditionalGeneration, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.checkpointed = False
        # The decoder's layers as decoding.py has unpacked them, where nothing changes between texts; else None.
        self.kept: list[Any] | None = None
        self._encoder, self._decoder, self._projection = model.model.encoder, model.model.decoder, model.proj_out
        self.encoder_layers = [Layer(layer, dtype) for layer in self._encoder.layers]
        self.decoder_layers = [Layer(layer, dtype) for layer in self._decoder.layers]
        # The latter stands between the decoder's last layer and its logits.
        self._encoder_norm, self.last_norm = Norm(self._encoder.layer_norm), Norm(self._decoder.layer_norm)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(self._projection.weight.shape[0])

    @property
    def positions(self) -> int:
        """How many tokens the decoder reads, what was said before a text included."""
        return int(self._decoder.embed_positions.weight.shape[0])

    def encode(self, features: Tensor) -> Tensor:
        """Encoder states (batch, positions, d_model) of log-mel features (batch, mel_bins, 2 x positions).

        Whisper's own encoder takes 30 s and nothing else; its layers take any length, with the first positions'
        embeddings. That is all there is to a short context.
        """
        hidden = functional.gelu(self._convolve(self._encoder.conv1, features.to(self.dtype)))
        hidden = functional.gelu(self._convolve(self._encoder.conv2, hidden)).transpose(1, 2).contiguous()
        hidden = hidden + self._encoder.embed_positions.weight[: hidden.shape[1]].to(self.dtype)
        for layer in self.encoder_layers:
            hidden = self._through(layer, hidden)
        return self._encoder_norm(hidden)

    def _convolve(self, layer: torch.nn.Conv1d, x: Tensor) -> Tensor:
        weight, bias = layer.weight.to(self.dtype), cast(Tensor, layer.bias).to(self.dtype)
        return functional.conv1d(x, weight, bias, layer.stride, layer.padding)

    def decode(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The decoder's last states (batch, length, d_model) after each of the `tokens` (batch, length)."""
        length = tokens.shape[1]
        hidden = self.embed(tokens, slice(0, length))
        mask = torch.full((length, length), -torch.inf, dtype=self.dtype, device=states.device).triu(1)
        for layer in self.decoder_layers:
            hidden = self._through(layer, hidden, states, mask)
        return self.last_norm(hidden)

    def follow(self, states: Tensor, tokens: Tensor, heads: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """As `decode`, and what each of the `heads` (layer, head) attends to: (batch, heads, length, positions)."""
        length, found = tokens.shape[1], dict[int, Tensor]()
        hidden = self.embed(tokens, slice(0, length))
        mask = torch.full((length, length), -torch.inf, dtype=self.dtype, device=states.device).triu(1)
        for index, layer in enumerate(self.decoder_layers):
            hidden, attended = layer.follow(hidden, states, mask)
            if any(of == index for of, _ in heads):
                found[index] = attended
        return self.last_norm(hidden), torch.stack([found[of][:, head].float() for of, head in heads], dim=1)

    def _through(self, layer: Layer, *inputs: Tensor) -> Tensor:
        """Its output. Checkpointed, its inputs alone are kept, and it is gone through again on the way back.

        A third more products for less than half of the memory (Chen et al. 2016, arXiv:1604.06174).
        """
        return torch.as_tensor(checkpoint(layer, *inputs, use_reentrant=False) if self.checkpointed else layer(*inputs))

    def embed(self, tokens: Tensor, positions: slice) -> Tensor:
        """(…, length) tokens at these positions of their texts → (…, length, d_model)."""
        table = self._decoder.embed_positions.weight[positions]
        return torch.as_tensor(self._decoder.embed_tokens(tokens) + table).to(self.dtype)

    def logits(self, states: Tensor) -> Tensor:
        """(…, d_model) of the decoder's last states → (…, vocabulary), float32."""
        return functional.linear(states, self._projection.weight.to(self.dtype)).float()
