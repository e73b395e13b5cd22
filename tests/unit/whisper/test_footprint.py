"""What weights take is worked out as the loaded model stores it, and told where 8 bits are not worth it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wertune.whisper import footprint as module
from wertune.whisper.footprint import Footprint, footprint, quantization_advice
from wertune.whisper.model import Whisper


def test_it_is_what_the_loaded_model_stores(load_tiny: Callable[..., Whisper], tiny_whisper_folder: Path) -> None:
    found = footprint(tiny_whisper_folder, torch.float32)
    assert found.int8_mb == pytest.approx(load_tiny("int8").size().weight_memory_mb, rel=1e-3)
    assert found.plain_mb == pytest.approx(load_tiny("none").size().weight_memory_mb, rel=1e-3)
    assert footprint(tiny_whisper_folder, torch.bfloat16).plain_mb == pytest.approx(found.plain_mb / 2)


@pytest.mark.parametrize(("saved_mb", "advised"), [(16.0, True), (99.0, True), (101.0, False), (1400.0, False)])
def test_it_advises_against_8_bits_where_they_save_little(
    monkeypatch: pytest.MonkeyPatch, saved_mb: float, advised: bool
) -> None:
    monkeypatch.setattr(module, "footprint", lambda *_: Footprint(56.0, 56.0 + saved_mb))
    monkeypatch.setattr(module, "products_here", lambda: torch.bfloat16)
    advice = quantization_advice(Path("base"), "int8")
    assert (advice is not None) == advised
    if advice:
        expected = f"8-bit weights: 56 MB; bfloat16 would take {56 + saved_mb:.0f} MB, {saved_mb:.0f} MB more"
        assert advice.startswith(expected)
        assert "quantization=none" in advice


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_who_does_not_ask_for_8_bits_is_not_advised(tiny_whisper_folder: Path, quantization: str) -> None:
    assert quantization_advice(tiny_whisper_folder, quantization) is None
    assert quantization_advice(tiny_whisper_folder, "int8") is not None
