"""Steps of an update: with float16's scaled losses they are the same, and what overflows is left out and counted."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from wertune.base.config import TrainConfig
from wertune.training.optimizer import MOST_SKIPPED_IN_A_ROW, Updater

CONFIG = TrainConfig(learning_rate=0.01, max_grad_norm=1.0, ema_decay=0.9, warmup_share=0.2)
STEPS = 40
INITIAL_SCALE = 2.0**16

float16 = partial(Updater, CONFIG, products=torch.float16)
Inputs = Iterator[torch.Tensor]


def _model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(5, 3, generator=generator) for _ in range(1000))


def _step(updater: Updater, model: torch.nn.Module, x: torch.Tensor, times: float = 1.0) -> float:
    updater.scaled(times * (model(x) - 1).square().mean()).backward()
    return updater.step()


def _overflow(updater: Updater, model: torch.nn.Module) -> float:
    return _step(updater, model, torch.full((1, 3), 1e20), times=1e20)


def _of(updater: Updater, kind: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in updater.tensors().items() if name.startswith(kind)}


@pytest.mark.parametrize("kind", ["parameter", "average", "adamw"])
def test_scaled_steps_are_those_of_plain_ones(inputs: Inputs, kind: str) -> None:
    plain_model, scaled_model = _model(), _model()
    plain, scaled = Updater(CONFIG, plain_model, STEPS), float16(scaled_model, STEPS)
    for x, _ in zip(inputs, range(10), strict=False):
        expected = _step(plain, plain_model, x)
        assert _step(scaled, scaled_model, x) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(_of(scaled, kind), _of(plain, kind), rtol=1e-5, atol=1e-7)
    assert (plain.skipped_steps, scaled.skipped_steps) == (None, 0)
    assert _of(plain, "scaler") == {}


def test_a_loss_is_multiplied_only_where_small_gradients_would_vanish() -> None:
    for products, times in ((torch.float32, 1.0), (torch.bfloat16, 1.0), (torch.float16, INITIAL_SCALE)):
        assert Updater(CONFIG, _model(), STEPS, products=products).scaled(torch.tensor(2.0)) == 2.0 * times


def test_a_step_that_overflows_changes_the_schedule_and_the_scale_alone(inputs: Inputs) -> None:
    model = _model()
    updater = float16(model, STEPS)
    _step(updater, model, next(inputs))
    before, rate = updater.tensors(), updater.learning_rate
    assert _overflow(updater, model) == 0
    after = updater.tensors()
    for name in before.keys() - {"scaler/scale", "scaler/counts"}:
        assert torch.equal(before[name], after[name]), name
    assert any(name.startswith("adamw.step") for name in before)
    assert (after["scaler/scale"].item(), updater.skipped_steps) == (INITIAL_SCALE / 2, 1)
    assert updater.learning_rate > rate  # of the next step: still in the warm-up
    assert all(parameter.grad is None for parameter in model.parameters())
    assert _step(updater, model, next(inputs)) > 0
    assert updater.skipped_steps == 1


def test_what_overflows_for_ever_is_returned(inputs: Inputs) -> None:
    model = _model()
    updater = float16(model, STEPS)
    for number in range(2 * MOST_SKIPPED_IN_A_ROW):  # one that holds begins the count anew
        assert _overflow(updater, model) == 0
        if number == MOST_SKIPPED_IN_A_ROW - 1:
            assert _step(updater, model, next(inputs)) > 0
    assert not _overflow(updater, model) < float("inf")
    assert updater.skipped_steps == 2 * MOST_SKIPPED_IN_A_ROW + 1
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_without_a_scale_an_overflow_is_returned_at_once() -> None:
    model = _model()
    assert not _overflow(Updater(CONFIG, model, STEPS, products=torch.bfloat16), model) < float("inf")


def test_who_goes_on_from_the_tensors_does_what_the_first_would_have_done(inputs: Inputs) -> None:
    """The scale, how long it has held, what was left out, and the rate are those after as many steps."""
    first_model = _model()
    first = float16(first_model, STEPS)
    for x, _ in zip(inputs, range(5), strict=False):
        _step(first, first_model, x)
    for _ in range(4):
        _overflow(first, first_model)
    _step(first, first_model, next(inputs))
    second_model = torch.nn.Linear(3, 2)
    second = float16(second_model, STEPS, done=10, tensors=first.tensors())
    assert second.skipped_steps == 4
    for x, _ in zip(inputs, range(7), strict=False):
        assert _step(second, second_model, x) == _step(first, first_model, x)
        assert second.learning_rate == first.learning_rate
    one, other = first.tensors(), second.tensors()
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_an_overflow_before_the_end_of_a_state_counts_in_the_row_after_it() -> None:
    first_model, second_model = _model(), _model()
    first = float16(first_model, STEPS)
    for _ in range(MOST_SKIPPED_IN_A_ROW):
        assert _overflow(first, first_model) == 0
    second = float16(second_model, STEPS, done=MOST_SKIPPED_IN_A_ROW, tensors=first.tensors())
    assert _overflow(second, second_model) != 0


@pytest.mark.parametrize(("before", "after"), [(torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16)])
def test_a_trial_goes_on_on_a_gpu_of_another_kind(before: torch.dtype, after: torch.dtype, inputs: Inputs) -> None:
    first_model, second_model = _model(), _model()
    first = Updater(CONFIG, first_model, STEPS, products=before)
    _step(first, first_model, next(inputs))
    second = Updater(CONFIG, second_model, STEPS, done=1, tensors=first.tensors(), products=after)
    torch.testing.assert_close(_of(second, "adamw"), _of(first, "adamw"))
    assert _step(second, second_model, next(inputs)) > 0
    assert second.skipped_steps == (0 if after is torch.float16 else None)


def test_a_process_that_saw_no_loss_takes_the_step_of_the_others(inputs: Inputs) -> None:
    """Of a batch with fewer clips than workers some have none; gradients, scaled alike, come from the others."""
    models = [_model(), _model()]
    seeing, other = (float16(model, STEPS) for model in models)
    seeing.scaled(models[0](next(inputs)).mean()).backward()
    for one, same in zip(*(model.parameters() for model in models), strict=True):
        same.grad = one.grad.clone()  # type: ignore[union-attr]
    assert other.step() == seeing.step()
    assert torch.equal(models[0].weight, models[1].weight)
