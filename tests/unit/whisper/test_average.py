"""The mean of adapters is what a mean of their weights in the base would be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wertune.base.config import LoraConfig
from wertune.base.errors import AdapterError
from wertune.whisper.adapter import add_lora, average_adapters, check_adapter_files, load_adapter, save_adapter
from wertune.whisper.model import Whisper

LoadTiny = Callable[..., Whisper]


def _adapter(load_tiny: LoadTiny, folder: Path, seed: int, strength: float = 1.0, **values: object) -> Path:
    tuned = add_lora(load_tiny(), LoraConfig.model_validate({"r": 4, "alpha": 8} | values), seed)
    torch.manual_seed(seed)
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(tuned, folder, "tiny", strength)
    return folder


def _added(folder: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to each layer's weight."""
    config = json.loads((folder / "adapter_config.json").read_text())
    rank = config["r"] ** 0.5 if config["use_rslora"] else config["r"]
    tensors = load_file(folder / "adapter_model.safetensors")
    names = [name for name in tensors if "lora_A" in name]
    return {n: config["lora_alpha"] / rank * tensors[n.replace("lora_A", "lora_B")] @ tensors[n] for n in names}


@pytest.mark.parametrize("rslora", [False, True])
def test_of_enough_rank_it_is_exact_and_loads_as_any_adapter(load_tiny: LoadTiny, tmp_path: Path, rslora: bool) -> None:
    folders = [_adapter(load_tiny, tmp_path / str(n), n, (1.0, 0.5, 0.7)[n], rslora=rslora) for n in range(3)]
    average_adapters(folders, tmp_path / "mean", rank=12)
    check_adapter_files(tmp_path / "mean")
    each, mean = [_added(folder) for folder in folders], _added(tmp_path / "mean")
    assert mean.keys() == each[0].keys()
    for name, added in mean.items():
        torch.testing.assert_close(added, sum(one[name] for one in each) / 3, rtol=1e-4, atol=1e-5)
    features = torch.randn(1, 80, 64)
    loaded = load_adapter(load_tiny(), tmp_path / "mean")
    assert not torch.equal(loaded.encode(features), load_tiny().encode(features))


def test_a_lower_rank_keeps_the_largest_of_it(load_tiny: LoadTiny, tmp_path: Path) -> None:
    folders = [_adapter(load_tiny, tmp_path / str(n), n) for n in range(2)]
    average_adapters(folders, tmp_path / "mean", rank=5)
    each, mean = [_added(folder) for folder in folders], _added(tmp_path / "mean")
    for name, added in mean.items():
        whole = (each[0][name] + each[1][name]) / 2
        lost = torch.linalg.svdvals(whole)[5:].square().sum().sqrt()  # Eckart and Young: no other loses less
        torch.testing.assert_close((whole - added).norm(), lost, rtol=1e-3, atol=1e-5)
    assert json.loads((tmp_path / "mean" / "adapter_config.json").read_text())["r"] == 5


def test_no_mean_has_a_rank_that_is_refused_when_it_is_loaded(
    load_tiny: LoadTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wertune.whisper.adapter.MAX_RANK", 6)
    folders = [_adapter(load_tiny, tmp_path / str(n), n) for n in range(2)]
    average_adapters(folders, tmp_path / "mean", rank=8)
    assert json.loads((tmp_path / "mean" / "adapter_config.json").read_text())["r"] == 6
    load_adapter(load_tiny(), tmp_path / "mean")


def test_of_one_it_is_the_same(load_tiny: LoadTiny, tmp_path: Path) -> None:
    folder = _adapter(load_tiny, tmp_path / "one", 1, 0.7)
    average_adapters([folder, folder], tmp_path / "mean", rank=64)
    for name, added in _added(tmp_path / "mean").items():
        torch.testing.assert_close(added, _added(folder)[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("other", [{"target_modules": ["fc1"]}, {"dora": True}])
def test_what_has_no_mean_is_refused(load_tiny: LoadTiny, tmp_path: Path, other: dict[str, object]) -> None:
    folders = [_adapter(load_tiny, tmp_path / "a", 1), _adapter(load_tiny, tmp_path / "b", 2, **other)]
    with pytest.raises(AdapterError, match="have no mean: they are of other layers, or learnt lengths"):
        average_adapters(folders, tmp_path / "mean", rank=8)
    assert not (tmp_path / "mean").exists()
