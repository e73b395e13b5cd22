"""What a GPU has to do as a CPU does, which goes through the same lines where there is none: no test here is skipped.

`python -m wertune.bench.gpu` runs them on a machine that has no more than torch, transformers, peft and bitsandbytes.
"""

import math
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from wertune.base.config import AugmentConfig, ContextConfig, DecodeConfig, Draw, LoraConfig, TrialConfig
from wertune.base.text import TermFinder
from wertune.data.manifest import Recording
from wertune.training.batches import TrainingData
from wertune.training.memory import give_back_memory, is_out_of_memory, peak_memory_mb, start_memory_peak
from wertune.training.objective import Objective
from wertune.training.optimizer import Updater
from wertune.training.train import EpochResult, TrainingState, train
from wertune.whisper.adapter import add_lora, load_adapter, save_adapter
from wertune.whisper.features import context_positions, log_mel
from wertune.whisper.footprint import PRODUCTS, product_dtype
from wertune.whisper.model import Whisper, load_whisper
from wertune.whisper.transcription import EvaluationSet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EVERYWHERE = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
OFF = Draw(probability=0, low=1, high=1)
SILENT = AugmentConfig(speed_factor=OFF, noise_snr_db=OFF, gain_db=OFF, band_limit_hz=OFF)


def _inputs(whisper: Whisper, clips: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(clips, whisper.mel_bins, 128, generator=torch.Generator().manual_seed(0))
    return features, whisper.pad_labels([whisper.label_ids("check my CPF balance")] * clips)


def _gradient(whisper: Whisper) -> torch.Tensor:
    """All adapters' gradients (values,), on the CPU."""
    whisper.loss(*_inputs(whisper)).backward()  # type: ignore[no-untyped-call]
    found = [p.grad.flatten().cpu() for p in whisper.model.parameters() if p.grad is not None]
    return torch.cat(found)


def _shaken(whisper: Whisper, std: float = 0.1) -> Whisper:
    """Its adapters add something to every layer: at their start they add nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in whisper.model.parameters():
            if parameter.requires_grad:
                parameter += std * torch.randn(parameter.shape, generator=generator).to(parameter.device)
    return whisper


@pytest.mark.parametrize(
    ("quantization", "products"), [*(("int8", products) for products in PRODUCTS), ("nf4", ""), ("none", "")]
)
def test_steps_lower_the_loss(
    base_folder: Path, quantization: str, products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WERTUNE_PRODUCTS", products)
    config = TrialConfig().train.model_copy(update={"learning_rate": 3e-3, "warmup_share": 0.0})
    lora = LoraConfig(r=4, dropout=0.0, target_modules=EVERYWHERE)
    whisper = add_lora(load_whisper(base_folder, "en", quantization), lora, seed=0)
    whisper.model.train()
    updater, losses = Updater(config, whisper.model, 20, products=whisper.product_dtype), []
    for _ in range(8):
        loss = whisper.loss(*_inputs(whisper))
        updater.scaled(loss).backward()  # type: ignore[no-untyped-call]
        assert math.isfinite(updater.step())
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert (updater.skipped_steps is None) == (whisper.product_dtype is not torch.float16)
    assert {each.device.type for each in updater.tensors().values()} == {"cpu"}
    assert whisper.device.type == DEVICE.type
    assert peak_memory_mb(whisper) > 0


def test_dora_trains_on_int8(base_folder: Path) -> None:
    """On a CPU on plain weights: PEFT cannot unpack 8 bits there."""
    quantization = "int8" if DEVICE.type == "cuda" else "none"
    whisper = add_lora(load_whisper(base_folder, "en", quantization), LoraConfig(r=4, dora=True), seed=0)
    gradient = _gradient(whisper)
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("quantization", ["int8", "none"])
def test_checkpointed_layers_have_the_same_gradients(base_folder: Path, quantization: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        lora = LoraConfig(r=4, dropout=0.2, target_modules=EVERYWHERE)
        whisper = _shaken(add_lora(load_whisper(base_folder, "en", quantization), lora, seed=0))
        whisper.checkpoint_layers(checkpointed)
        whisper.model.train()
        torch.manual_seed(3)
        gradients.append(_gradient(whisper))
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3 * gradients[0].abs().max().item())


@pytest.mark.parametrize("quantization", ["int8", "none"])
def test_gradients_are_those_of_the_cpu(base_folder: Path, quantization: str) -> None:
    """In the device's own products, beside float32 on the CPU."""
    lora = LoraConfig(r=4, dropout=0.0, target_modules=EVERYWHERE)
    here = _shaken(add_lora(load_whisper(base_folder, "en", quantization), lora, seed=0))
    there = _shaken(add_lora(load_whisper(base_folder, "en", quantization, "cpu", dtype=torch.float32), lora, seed=0))
    exact = Whisper(there.model, there.tokenizer, "en", products=torch.float32)
    assert here.product_dtype is product_dtype(DEVICE)
    assert torch.nn.functional.cosine_similarity(_gradient(here), _gradient(exact), dim=0) > 0.99


@pytest.mark.parametrize("beams", [1, 4])
def test_texts_are_written_alone_as_in_a_batch_with_boost_and_after_a_prompt(
    base_folder: Path, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WERTUNE_PRODUCTS", "float32")
    tuned = _shaken(add_lora(load_whisper(base_folder, "en", "int8"), LoraConfig(r=4), seed=0))
    whisper = Whisper(tuned.model.eval(), tuned.tokenizer, "en", terms=["CPF", "MediShield"])
    decode = DecodeConfig(num_beams=beams, term_boost=3.0, max_new_tokens=8)
    states = whisper.encode(_inputs(whisper, clips=3)[0])
    for before in ([], whisper.label_ids("said before")[3:-1]):
        together = whisper.write(states, [8, 5, 6], decode, before)
        alone = [whisper.write(states[i : i + 1], [limit], decode, before)[0] for i, limit in enumerate((8, 5, 6))]
        for one, other in zip(together, alone, strict=True):
            assert one.text == other.text
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-2)


def test_an_adapter_that_was_saved_is_loaded_as_it_was(base_folder: Path, tmp_path: Path) -> None:
    whisper = _shaken(add_lora(load_whisper(base_folder, "en", "int8"), LoraConfig(r=4, dropout=0.0), seed=0))
    whisper.model.eval()
    expected = whisper.loss(*_inputs(whisper)).item()
    save_adapter(whisper, tmp_path / "adapter", "a base")
    again = load_adapter(load_whisper(base_folder, "en", "int8"), tmp_path / "adapter")
    again.keep_unpacked()
    assert again.loss(*_inputs(again)).item() == pytest.approx(expected, rel=1e-3)


def _data(recordings: list[Recording]) -> TrainingData:
    context = ContextConfig()
    features = [log_mel(each.samples(), context_positions(each.duration_s, context)) for each in recordings]
    validation = EvaluationSet(recordings[:2], features[:2])
    return TrainingData(recordings, [], validation, EvaluationSet([], []), str.lower, TermFinder([], str.lower))


@pytest.mark.parametrize("products", ["", "float16"], ids=["own", "float16"])
def test_a_trial_that_goes_on_ends_as_one_that_was_not_stopped(
    base_folder: Path, recordings: list[Recording], products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose generator is the device's, and the loader's processes."""
    monkeypatch.setenv("WERTUNE_PRODUCTS", products)
    config = TrialConfig(augment=SILENT, decode=DecodeConfig(max_new_tokens=4), lora=LoraConfig(r=4, dropout=0.3))
    counts = {"epochs": 3, "batch_size": 2, "accumulation_steps": 2, "nonspeech_ratio": 0.0}  # noise needs torchaudio
    trained = config.train.model_copy(update=counts)
    config = config.model_copy(update={"train": trained})

    def run(state: TrainingState | None) -> list[tuple[EpochResult, TrainingState]]:
        whisper = add_lora(load_whisper(base_folder, "en", config.quantization), config.lora, config.seed)
        told: list[TrainingState] = []
        train(config, whisper, _data(recordings), Objective(0.0, 0.0, 0.0), lambda state, _: told.append(state), state)
        return [(each.results[-1], each) for each in told]

    whole = run(None)
    gone_on = run(whole[0][1])
    assert [_without_times(result) for result, _ in gone_on] == [_without_times(result) for result, _ in whole[1:]]
    ends = whole[-1][1].tensors, gone_on[-1][1].tensors
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-3, atol=1e-5)
    assert (whole[-1][0].skipped_steps is None) == (product_dtype(DEVICE) is not torch.float16)


def _without_times(result: EpochResult) -> EpochResult:
    """Losses to four digits: kernels may sum in another order."""
    losses = (float(f"{loss:.3g}") for loss in (result.train_loss, result.validation_loss))
    untimed = replace(result, train_s=0.0, evaluation_s=0.0, clips_per_s=0.0)
    return replace(untimed, train_loss=next(losses), validation_loss=next(losses))


def test_a_lack_of_memory_is_told_and_what_was_freed_given_back() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**50, dtype=torch.uint8, device=DEVICE)
    assert is_out_of_memory(told.value)
    start_memory_peak()
    before_mb = _held_mb()
    held = torch.ones(2**28, dtype=torch.uint8, device=DEVICE)
    assert _held_mb() > before_mb + 200
    del held
    give_back_memory()
    assert _held_mb() < before_mb + 100


def _held_mb() -> float:
    """By CUDA's allocator, or by this process."""
    held = torch.cuda.memory_reserved() if DEVICE.type == "cuda" else psutil.Process().memory_info().rss
    return float(held) / 2**20
