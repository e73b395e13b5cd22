"""Steps of training: AdamW with its schedule, and the moving average of what it changes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from peft.optimizers import create_loraplus_optimizer
from transformers import get_cosine_schedule_with_warmup

from wertune.base.config import TrainConfig


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

    With the `tensors` that another had after `done` of the steps it goes on in that one's place.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: torch.nn.Module,
        steps: int,
        done: int = 0,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._max_grad_norm = config.max_grad_norm
        self.parameters = list(self._named.values())
        self._optimizer = adamw(model, config)
        self.average = MovingAverage(self.parameters, config.ema_decay)
        if tensors:
            self._restore(tensors)
        for group in self._optimizer.param_groups:  # a schedule that begins in its middle asks for them
            group["initial_lr"] = group["lr"]
        warmup = round(config.warmup_share * steps)
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, warmup, steps, last_epoch=done - 1)

    @property
    def learning_rate(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    def step(self) -> float:
        """One step on the gradients gathered so far; returns their norm before it was clipped."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.average.update()
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy on the CPU of all that steps change: parameters, their averages, AdamW's moments and counts."""
        live: dict[str, torch.Tensor] = {"average_steps": torch.tensor(self.average.steps)}
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
