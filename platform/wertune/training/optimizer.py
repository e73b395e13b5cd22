"""Steps of training: AdamW with its schedule, the scaling of float16's losses, and the moving average of weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from peft.optimizers import create_loraplus_optimizer
from torch.amp.grad_scaler import GradScaler
from transformers import get_cosine_schedule_with_warmup

from wertune.base.config import TrainConfig

# Each halves the scale, from 65536 to less than one: what overflows then is no matter of scale.
MOST_SKIPPED_IN_A_ROW = 20


class MovingAverage:
    """An exponential moving average of parameters over steps (Polyak and Juditsky 1992), warmed up from the first.

    At the small batches that few clips ask for it takes the noise of the last steps out of the adapter.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self.values = [parameter.detach().clone() for parameter in parameters]
        self._decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each step of the optimiser."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for average, parameter in zip(self.values, self._parameters, strict=True):
            average.lerp_(parameter, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are their averages inside the block."""
        if not self._decay:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(self.values, self._parameters, strict=True):
            held = parameter.clone()
            parameter.copy_(average)
            average.copy_(held)


def adamw(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW on the adapters alone, their B at a rate of its own (LoRA+, Hayou et al. 2024, arXiv:2402.12354)."""
    optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=config.learning_rate,
        loraplus_lr_ratio=config.learning_rate_ratio,
        loraplus_weight_decay=config.weight_decay,
        fused=True,
    )
    return optimizer


class Updater:
    """AdamW, linear warm-up and cosine decay, clipped gradients, and the moving average.

    With the `tensors` that another had after `done` of the steps it goes on in that one's place. Where `products` are
    float16, losses are scaled so that small gradients do not vanish (Micikevicius et al. 2018, arXiv:1710.03740): their
    way back begins at `scaled(loss)`, and a step whose gradients overflow is left out, and halves the scale.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: torch.nn.Module,
        steps: int,
        done: int = 0,
        tensors: Mapping[str, torch.Tensor] | None = None,
        products: torch.dtype = torch.float32,
    ) -> None:
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._max_grad_norm = config.max_grad_norm
        self.parameters = list(self._named.values())
        self._optimizer = adamw(model, config)
        self.average = MovingAverage(self.parameters, config.ema_decay)
        device = self.parameters[0].device
        self._scaler = GradScaler(device.type, enabled=products is torch.float16)
        self._skipped = self._skipped_in_a_row = 0
        if tensors:
            self._restore(tensors)
        for group in self._optimizer.param_groups:  # a schedule that begins in its middle asks for them
            group["initial_lr"] = group["lr"]
        self._scaler.scale(torch.zeros((), device=device))  # it makes its tensors at the first loss: some see none
        warmup = round(config.warmup_share * steps)
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, warmup, steps, last_epoch=done - 1)

    @property
    def learning_rate(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    @property
    def skipped_steps(self) -> int | None:
        """How many were left out for an overflow since the first; None where no loss is scaled."""
        return self._skipped if self._scaler.is_enabled() else None

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What to go back from in the place of `loss`."""
        return torch.as_tensor(self._scaler.scale(loss))

    def step(self) -> float:
        """One step on the gradients gathered so far; returns their norm, unscaled, before it was clipped.

        A step that is left out for an overflow is one of the schedule's all the same, changes neither weights nor
        average, and returns 0; after twenty in a row the norm, which is infinite or no number.
        """
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._scaler.is_enabled() and not torch.isfinite(norm):
            self._skipped += 1
            self._skipped_in_a_row += 1
            return float(norm) if self._skipped_in_a_row > MOST_SKIPPED_IN_A_ROW else 0.0
        self._skipped_in_a_row = 0
        self.average.update()
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy on the CPU of all that steps change: parameters, averages, AdamW's moments and counts, the scale."""
        live: dict[str, torch.Tensor] = {"average_steps": torch.tensor(self.average.steps)}
        if self._scaler.is_enabled():
            scaler = self._scaler.state_dict()
            counts = (scaler["_growth_tracker"], self._skipped, self._skipped_in_a_row)
            live |= {"scaler/scale": torch.tensor(scaler["scale"]), "scaler/counts": torch.tensor(counts)}
        for (name, parameter), average in zip(self._named.items(), self.average.values, strict=True):
            live |= {f"parameter/{name}": parameter, f"average/{name}": average}
            live |= {f"adamw.{key}/{name}": value for key, value in self._optimizer.state[parameter].items()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in live.items()}

    @torch.no_grad()
    def _restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for (name, parameter), average in zip(self._named.items(), self.average.values, strict=True):
            parameter.copy_(tensors[f"parameter/{name}"])
            average.copy_(tensors[f"average/{name}"])
        for name, tensor in tensors.items():
            kind, _, of = name.partition("/")
            if kind.startswith("adamw."):
                held = self._named[of]
                self._optimizer.state[held][kind.removeprefix("adamw.")] = tensor.to(held.device, copy=True)
        self.average.steps = int(tensors["average_steps"])
        if self._scaler.is_enabled() and "scaler/scale" in tensors:  # else a GPU of another kind had the trial before
            tracker, self._skipped, self._skipped_in_a_row = tensors["scaler/counts"].tolist()
            held_now = {"scale": float(tensors["scaler/scale"]), "_growth_tracker": tracker}
            self._scaler.load_state_dict(self._scaler.state_dict() | held_now)
