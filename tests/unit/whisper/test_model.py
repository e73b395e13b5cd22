"""A tiny random Whisper: 8-bit layers, LoRA, short context, and adapters that are saved whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args

import peft.peft_model
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.modeling_outputs import BaseModelOutput

import wertune.whisper.footprint
import wertune.whisper.model
from wertune.base.config import DecodeConfig, Layer, LoraConfig
from wertune.base.errors import AdapterError, BaseModelError, ConfigError, StorageError
from wertune.whisper.adapter import ADAPTER_FILES, add_lora, at_strength, load_adapter, remove_lora, save_adapter
from wertune.whisper.model import Whisper, load_whisper

LoadTiny = Callable[..., Whisper]
DiskFullAfter = Callable[[int], AbstractContextManager[None]]

LINEAR_LAYERS = 2 * 6 + 2 * 10  # q, k, v, out, fc1, fc2 of two encoder layers; the decoder's also attend to the encoder
EVERY_MODULE = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
START, NO_TIMESTAMPS, END = 50257, 50362, 50256
MULTIPLIES_BFLOAT16 = wertune.whisper.footprint._multiplies_bfloat16  # as it is, before conftest replaces it


@pytest.fixture
def base(load_tiny: LoadTiny) -> Whisper:
    return load_tiny("none")


@pytest.fixture
def saved(base: Whisper, tmp_path: Path) -> Path:
    """The folder of an adapter that changes what the model says."""
    save_adapter(_shaken(add_lora(base, LoraConfig(r=4), seed=0)), tmp_path / "adapter", "packaged:whisper-tiny.en")
    return tmp_path / "adapter"


def _shaken(whisper: Whisper, seed: int = 1) -> Whisper:
    """Random adapters: LoRA's own start, B = 0, changes nothing."""
    torch.manual_seed(seed)
    for parameter in whisper.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return whisper


def _features(positions: int = 64, clips: int = 1) -> torch.Tensor:
    return torch.randn(clips, 80, 2 * positions, generator=torch.Generator().manual_seed(positions))


@torch.no_grad()
def _logits(whisper: Whisper) -> torch.Tensor:
    whisper.model.eval()
    states = BaseModelOutput(last_hidden_state=whisper.encode(_features()))
    written = torch.tensor([[START, NO_TIMESTAMPS, 5303]])
    return whisper.bare(encoder_outputs=states, decoder_input_ids=written).logits


def _adapted_layers(whisper: Whisper) -> set[str]:
    return {name.split(".lora_")[0].rpartition("model.model.")[2] for name in _trainable(whisper)}


def _trainable(whisper: Whisper) -> list[str]:
    return [name for name, parameter in whisper.model.named_parameters() if parameter.requires_grad]


def _frozen_bytes(whisper: Whisper) -> dict[str, bytes]:
    """Every weight and buffer that is no adapter, by a name that PEFT does not change."""
    state = {name: value for name, value in whisper.model.state_dict().items() if ".lora_" not in name}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: value.contiguous().view(torch.uint8).numpy().tobytes() for name, value in tensors.items()}


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_int8_quantises_every_linear_layer_of_both_stacks(tiny_whisper_folder: Path) -> None:
    plain = load_whisper(tiny_whisper_folder, "en", "none").size()
    quantised = load_whisper(tiny_whisper_folder, "en", "int8").size()
    assert (plain.int8_layers, quantised.int8_layers) == (0, LINEAR_LAYERS)
    assert quantised.weight_memory_mb < plain.weight_memory_mb
    assert quantised.total_parameters == plain.total_parameters


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_one_machine_stands_for_another(tiny_whisper_folder: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("WERTUNE_PRODUCTS", asked)
    whisper = load_whisper(tiny_whisper_folder, "en", "int8")
    assert str(whisper.product_dtype) == f"torch.{asked}"
    assert whisper.encode(torch.zeros(1, 80, 64)).isfinite().all()


def test_products_of_no_kind_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_PRODUCTS", "float8")
    with pytest.raises(ConfigError, match="WERTUNE_PRODUCTS is 'float8', must be float32 or bfloat16 or float16"):
        wertune.whisper.footprint.product_dtype(torch.device("cpu"))


def test_nf4_counts_its_packed_weights_in_full(tiny_whisper_folder: Path, base: Whisper) -> None:
    packed = load_whisper(tiny_whisper_folder, "en", "nf4").size()
    assert packed.total_parameters == base.size().total_parameters
    assert packed.weight_memory_mb < base.size().weight_memory_mb


def test_the_base_is_frozen_and_ready_for_inference(base: Whisper) -> None:
    assert _trainable(base) == []
    assert not base.model.training
    assert base.size().trainable_percent == 0
    assert base.size().reduction_percent == 100


def test_a_folder_without_a_whisper_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=f"{tmp_path} does not hold a Whisper model in Hugging Face format"):
        load_whisper(tmp_path, "en", "none")


@pytest.fixture
def copied(tiny_whisper_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Whisper that may be damaged."""
    return shutil.copytree(tiny_whisper_folder, tmp_path / "whisper")


def _change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def _load_fails(folder: Path, quantization: str = "none") -> str:
    with pytest.raises(BaseModelError) as caught:
        load_whisper(folder, "en", quantization)
    return str(caught.value)


def _without(part: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_weights_that_are_missing_are_an_error(copied: Path, quantization: str) -> None:
    _change_weights(copied, _without("encoder.layers.1.fc1"))
    assert _load_fails(copied, quantization) == (
        f"{copied}: 2 weights are missing, such as model.encoder.layers.1.fc1.bias, but a base model must be whole; "
        "download it again"
    )


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_layers_that_the_configuration_leaves_out_are_an_error(copied: Path, quantization: str, half: str) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {f"{half}_layers": config[f"{half}_layers"] - 1}))
    assert f"of layers that config.json does not name, such as model.{half}.layers." in _load_fails(
        copied, quantization
    )


def test_the_embeddings_are_missed_though_the_output_is_tied_to_them(copied: Path) -> None:
    _change_weights(copied, _without("embed_tokens"))
    assert "1 weight is missing, such as model.decoder.embed_tokens.weight, but" in _load_fails(copied)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("name", ["model.encoder.layers.0.fc1.weight", "model.encoder.conv1.weight"])
def test_a_weight_of_another_size_is_an_error(copied: Path, quantization: str, name: str) -> None:
    _change_weights(copied, lambda tensors: tensors | {name: tensors[name][:3].clone()})
    problem = f"{copied}: 1 weight is not of the size that config.json says, such as {name}, but"
    assert _load_fails(copied, quantization).startswith(problem)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_weights_that_are_cut_short_are_an_error(copied: Path, share: float) -> None:
    path = copied / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    message = _load_fails(copied)
    assert message.startswith(f"{copied} does not hold a Whisper model in Hugging Face format: ")
    assert message.endswith("; download the model again")


@pytest.mark.parametrize("content", ["[]", "{", "null"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_side_files_of_another_shape_are_an_error(copied: Path, name: str, content: str) -> None:
    (copied / name).write_text(content)
    assert _load_fails(copied).startswith(f"{copied} does not hold a Whisper model in Hugging Face format: ")


def test_an_english_model_refuses_other_languages(tiny_whisper_folder: Path) -> None:
    with pytest.raises(ConfigError, match="language is ta, but base_model knows English only; take a multilingual"):
        load_whisper(tiny_whisper_folder, "ta", "none")


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_lora_trains_its_own_share_and_nothing_else(load_tiny: LoadTiny, quantization: str) -> None:
    whisper = load_tiny(quantization)
    base_parameters = whisper.size().total_parameters
    size = add_lora(whisper, LoraConfig(r=4), seed=0).size()
    layers = 2 * (2 + 4)  # q and v: one attention an encoder layer, two a decoder layer
    assert size.trainable_parameters == layers * 4 * (32 + 32)
    assert size.total_parameters == base_parameters + size.trainable_parameters
    assert size.trainable_percent == pytest.approx(100 * size.trainable_parameters / size.total_parameters)
    assert size.trainable_percent + size.reduction_percent == pytest.approx(100)
    assert size.int8_layers == (LINEAR_LAYERS if quantization == "int8" else 0)


@pytest.mark.parametrize(
    ("scope", "stacks"), [("encoder", {"encoder"}), ("decoder", {"decoder"}), ("both", {"encoder", "decoder"})]
)
def test_adapters_stand_in_the_stacks_that_the_scope_names(base: Whisper, scope: Any, stacks: set[str]) -> None:
    layers = _adapted_layers(add_lora(base, LoraConfig(scope=scope, target_modules=EVERY_MODULE), seed=0))
    assert {layer.split(".")[0] for layer in layers} == stacks
    assert len(layers) == ("encoder" in stacks) * 12 + ("decoder" in stacks) * 20


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_what_adapters_were_put_on_and_taken_off_is_the_base_again(load_tiny: LoadTiny, quantization: str) -> None:
    """And the next trial's adapters on it are those that they would be on a base just loaded."""
    base, label = load_tiny(quantization), torch.tensor([[NO_TIMESTAMPS, 5303, END]])
    names, loss = [name for name, _ in base.bare.named_modules()], base.loss(_features(), label)
    for _ in range(2):
        adapted = _shaken(add_lora(base, LoraConfig(r=4), seed=0), seed=1)
        assert not torch.isclose(adapted.loss(_features(), label), loss)
        remove_lora(base)
        assert [name for name, _ in base.bare.named_modules()] == names
        assert not any(parameter.requires_grad for parameter in base.bare.parameters())
        torch.testing.assert_close(Whisper(base.bare, base.tokenizer, "en").loss(_features(), label), loss)
    again = add_lora(base, LoraConfig(r=8, target_modules=("k_proj",)), seed=2)
    fresh = add_lora(load_tiny(quantization), LoraConfig(r=8, target_modules=("k_proj",)), seed=2)
    assert again.size() == fresh.size()
    torch.testing.assert_close(_shaken(again, 3).loss(_features(), label), _shaken(fresh, 3).loss(_features(), label))


@pytest.mark.parametrize("scope", ["encoder", "both"])
def test_adapters_may_begin_above_the_lower_layers_of_the_encoder(base: Whisper, scope: Any) -> None:
    options = {"scope": scope, "target_modules": EVERY_MODULE, "first_encoder_layer": 1}
    layers = _adapted_layers(add_lora(base, LoraConfig(**options), seed=0))
    assert {layer.split(".")[2] for layer in layers if layer.startswith("encoder")} == {"1"}
    assert len(layers) == 6 + (scope == "both") * 20


def test_a_first_layer_that_the_encoder_lacks_is_refused(base: Whisper) -> None:
    with pytest.raises(ConfigError, match=r"first_encoder_layer is 2, but the encoder has layers 0 to 1; lower it"):
        add_lora(base, LoraConfig(first_encoder_layer=2), seed=0)


def test_adapters_stand_on_the_modules_that_are_named(base: Whisper) -> None:
    layers = _adapted_layers(add_lora(base, LoraConfig(target_modules=("fc1", "k_proj")), seed=0))
    assert {layer.rsplit(".", 1)[1] for layer in layers} == {"fc1", "k_proj"}


def test_a_configuration_can_name_the_linear_layers_that_whisper_has(base: Whisper) -> None:
    found = {
        name.rsplit(".", 1)[1]
        for name, module in base.bare.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert set(get_args(Layer)) == found == set(EVERY_MODULE)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_dora_on_a_quantised_base_is_refused_on_the_cpu(load_tiny: LoadTiny, quantization: str) -> None:
    with pytest.raises(
        ConfigError, match=r"lora\.dora is true, but .* on the CPU; set quantization: none, or use a GPU"
    ):
        add_lora(load_tiny(quantization), LoraConfig(dora=True), seed=0)


def test_fresh_adapters_change_nothing(base: Whisper) -> None:
    before = _logits(base)
    torch.testing.assert_close(_logits(add_lora(base, LoraConfig(), seed=0)), before, rtol=0, atol=0)


def test_a_seed_gives_the_same_adapters_again(load_tiny: LoadTiny) -> None:
    def start(seed: int) -> torch.Tensor:
        whisper = add_lora(load_tiny(), LoraConfig(), seed)
        return torch.cat([p.flatten() for p in whisper.model.parameters() if p.requires_grad])

    assert torch.equal(start(3), start(3))
    assert not torch.equal(start(3), start(4))


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_step_of_training_moves_adapters_and_no_weight_of_the_base(load_tiny: LoadTiny, quantization: str) -> None:
    whisper = add_lora(load_tiny(quantization), LoraConfig(r=4), seed=0)
    adapters = [p for p in whisper.model.parameters() if p.requires_grad]
    whisper.loss(_features(), torch.tensor([[NO_TIMESTAMPS, 5303, END]]))  # bitsandbytes lays its weights out once
    base_before, adapters_before = _frozen_bytes(whisper), [p.detach().clone() for p in adapters]
    optimizer = torch.optim.AdamW(adapters, lr=0.1)
    whisper.loss(_features(), torch.tensor([[NO_TIMESTAMPS, 5303, END]])).backward()
    optimizer.step()
    assert _frozen_bytes(whisper) == base_before
    assert any(not torch.equal(now, before) for now, before in zip(adapters, adapters_before, strict=True))


def test_encoding_at_30_s_is_whispers_own_encoder(base: Whisper) -> None:
    features = _features(1500, clips=2)
    with torch.no_grad():
        own = base.bare.get_encoder()(features).last_hidden_state
        torch.testing.assert_close(base.encode(features), own, rtol=0, atol=1e-6)


@pytest.mark.parametrize("positions", [16, 400, 1500])
def test_encoding_gives_one_state_a_position(base: Whisper, positions: int) -> None:
    with torch.no_grad():
        assert base.encode(_features(positions)).shape == (1, positions, 32)


def test_a_short_context_has_the_embeddings_of_the_first_positions(base: Whisper) -> None:
    weights = base.bare.get_encoder().embed_positions.weight
    with torch.no_grad():
        before = base.encode(_features(64))
        weights[64:] = float("nan")
        torch.testing.assert_close(base.encode(_features(64)), before, rtol=0, atol=0)
        weights[:64] = weights[:64].flip(0)
        assert (base.encode(_features(64)) - before).abs().max() > 1e-3


@pytest.mark.parametrize("text", ["", "hi", "two words"])
def test_a_label_has_no_start_token_begins_with_a_blank_and_ends(base: Whisper, text: str) -> None:
    whole = base.tokenizer(f" {text}" if text else "").input_ids
    assert whole[0] == START == base.bare.config.decoder_start_token_id
    label = base.label_ids(text)
    assert label == whole[1:]
    assert (label[0], label[-1]) == (NO_TIMESTAMPS, END)
    assert len(base.wording.label(text)) == len(label) + 1


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=4))
def test_labels_are_padded_with_what_the_loss_leaves_out(labels: list[list[int]]) -> None:
    padded = Whisper.pad_labels(None, labels)  # type: ignore[arg-type]
    assert padded.shape == (len(labels), max(map(len, labels)))
    for row, label in zip(padded.tolist(), labels, strict=True):
        assert row == label + [-100] * (padded.shape[1] - len(label))


def test_padded_labels_do_not_count_in_the_loss(base: Whisper) -> None:
    label = [NO_TIMESTAMPS, 5303, END]
    alone = base.loss(_features(), torch.tensor([label]))
    padded = base.loss(_features(), torch.tensor([[*label, -100, -100]]))
    torch.testing.assert_close(padded, alone)


def test_generation_writes_one_text_a_clip_and_no_more_tokens_than_allowed(base: Whisper) -> None:
    features = _features(64, clips=3)
    texts, longer = (
        [written.text for written in base.generate(features, limits, DecodeConfig())]
        for limits in ([4, 1, 1], [4, 4, 4])
    )
    assert texts[0] == longer[0]
    for cut, whole in zip(texts[1:], longer[1:], strict=True):
        # Half a character is the replacement character.
        assert whole.startswith(cut.rstrip("\ufffd"))
        assert len(cut) <= len(whole)
    assert texts != longer
    assert not any("<|" in text for text in texts)


@pytest.mark.parametrize(
    ("quantization", "options"),
    [
        ("none", {}),
        ("none", {"dora": True}),
        ("none", {"scope": "encoder"}),
        ("int8", {}),
        ("int8", {"rslora": True, "scope": "decoder"}),
    ],
    ids=str,
)
def test_a_saved_adapter_gives_identical_logits(
    load_tiny: LoadTiny, tmp_path: Path, quantization: str, options: dict[str, Any]
) -> None:
    trained = _shaken(add_lora(load_tiny(quantization), LoraConfig(**options), seed=0))
    save_adapter(trained, tmp_path / "adapter", "packaged:whisper-tiny.en")
    loaded = load_adapter(load_tiny(quantization), tmp_path / "adapter")
    torch.testing.assert_close(_logits(loaded), _logits(trained), rtol=0, atol=0)
    untouched = _logits(load_tiny(quantization))
    assert (_logits(loaded) - untouched).abs().max() > 0.01


def test_a_loaded_adapter_is_for_inference(saved: Path, load_tiny: LoadTiny) -> None:
    loaded = load_adapter(load_tiny(), saved)
    assert _trainable(loaded) == []
    assert not loaded.model.training


def test_an_adapter_folder_names_the_base_and_holds_two_files(saved: Path, tiny_whisper_folder: Path) -> None:
    assert sorted(_content(saved)) == sorted(ADAPTER_FILES)
    config = (saved / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == "packaged:whisper-tiny.en"
    assert str(tiny_whisper_folder) not in config


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_an_adapter_that_lacks_a_file_is_an_error(base: Whisper, saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(AdapterError) as caught:
        load_adapter(base, saved)
    assert str(caught.value) == f"{saved} lacks {name}; give the folder that a finished trial wrote"


def test_a_folder_that_is_not_there_lacks_both_files(base: Whisper, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"gone lacks adapter_config\.json, adapter_model\.safetensors"):
        load_adapter(base, tmp_path / "gone")


@pytest.mark.parametrize("name", ADAPTER_FILES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_adapter_is_an_error_and_leaves_the_base_as_it_was(
    load_tiny: LoadTiny, saved: Path, name: str, share: float
) -> None:
    fresh = load_tiny()
    before, good = _logits(fresh), (saved / name).read_bytes()
    (saved / name).write_bytes(good[: int(share * len(good))])
    with pytest.raises(AdapterError, match=f"{saved / name} is damaged: .+; download the version again, or train"):
        load_adapter(fresh, saved)
    torch.testing.assert_close(_logits(fresh), before, rtol=0, atol=0)


def test_an_adapter_of_another_size_is_an_error(load_tiny: LoadTiny, saved: Path) -> None:
    config = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(
        AdapterError, match=r"does not fit this base model or is damaged: .*size mismatch for"
    ) as caught:
        load_adapter(load_tiny(), saved)
    assert len(str(caught.value).splitlines()) == 1
    assert " (and 23 more); download the version again" in str(caught.value)  # A and B of 12 layers


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: dict(list(tensors.items())[::2]),
        lambda tensors: {name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()},
        lambda tensors: tensors | {"base_model.model.extra.lora_A.weight": torch.zeros(2)},
    ],
    ids=["missing", "of another model", "in excess"],
)
def test_an_adapter_whose_tensors_have_no_place_is_an_error(
    load_tiny: LoadTiny, saved: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    save_file(change(load_file(saved / ADAPTER_FILES[1])), saved / ADAPTER_FILES[1])
    with pytest.raises(
        AdapterError, match=rf"{saved}: \d+ tensors? (is|are) missing or in excess, such as base_model\."
    ):
        load_adapter(load_tiny(), saved)


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_saved_adapter_is_readable_as_the_umask_allows(base: Whisper, tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "trial" / "adapter"
    save_adapter(add_lora(base, LoraConfig(r=4), seed=0), folder, "first")
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}


def test_saving_again_replaces_the_adapter(base: Whisper, tmp_path: Path) -> None:
    whisper, folder = _shaken(add_lora(base, LoraConfig(r=4), seed=0)), tmp_path / "adapter"
    save_adapter(whisper, folder, "first")
    first = _content(folder)
    save_adapter(_shaken(whisper, seed=2), folder, "second")
    assert _content(folder).keys() == first.keys()
    assert all(_content(folder)[name] != first[name] for name in ADAPTER_FILES)
    assert _names(tmp_path) == ["adapter"]


def test_what_a_killed_process_left_does_not_stop_a_save(base: Whisper, tmp_path: Path) -> None:
    whisper, folder = _shaken(add_lora(base, LoraConfig(r=4), seed=0)), tmp_path / "adapter"
    save_adapter(whisper, folder, "first")
    shutil.copytree(folder, tmp_path / ".adapter-old")
    save_adapter(whisper, folder, "second")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "second"
    assert _names(tmp_path) == ["adapter"]


def _save_file_fails(error: Exception) -> Callable[[pytest.MonkeyPatch], None]:
    def fail(tensors: Any, path: Any, **options: Any) -> None:
        Path(path).write_bytes(b"the first half")
        raise error

    return lambda patch: patch.setattr(peft.peft_model, "safe_save_file", fail)


def _config_fails(patch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, **changes: Any) -> None:
        (folder / "adapter_config.json").write_text("{")
        raise OSError(28, "No space left on device")

    patch.setattr(wertune.whisper.adapter, "amend_config", fail)


def _rename_fails(time: int) -> Callable[[pytest.MonkeyPatch], None]:
    """The first rename moves the old adapter away, the second moves the new one into its place."""

    def patch_replace(patch: pytest.MonkeyPatch) -> None:
        real, renamed = Path.replace, []

        def replace(path: Path, target: Path) -> Path:
            renamed.append(path)
            if len(renamed) == time:
                raise OSError(28, "No space left on device")
            return real(path, target)

        patch.setattr(Path, "replace", replace)

    return patch_replace


FAILURES = {
    "OSError": _save_file_fails(OSError(28, "No space left on device")),
    "SafetensorError": _save_file_fails(SafetensorError("I/O error: No space left on device (os error 28)")),
    "config": _config_fails,
    "first rename": _rename_fails(1),
    "second rename": _rename_fails(2),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failed_save_leaves_the_old_adapter_whole_and_nothing_else(
    base: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[pytest.MonkeyPatch], None]
) -> None:
    whisper, folder = _shaken(add_lora(base, LoraConfig(r=4), seed=0)), tmp_path / "adapter"
    save_adapter(whisper, folder, "first")
    before = _content(folder)
    failure(monkeypatch)
    with pytest.raises(StorageError, match=f"{folder}: the adapter cannot be stored .*No space left on device.*; free"):
        save_adapter(_shaken(whisper, seed=2), folder, "second")
    assert _content(folder) == before
    assert _names(tmp_path) == ["adapter"]


@pytest.mark.parametrize("failure", ["OSError", "SafetensorError", "config", "first rename"])
def test_a_failed_first_save_leaves_nothing(
    base: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    FAILURES[failure](monkeypatch)
    with pytest.raises(StorageError, match="No space left on device"):
        save_adapter(add_lora(base, LoraConfig(r=4), seed=0), tmp_path / "adapter", "first")
    assert _names(tmp_path) == []


def test_a_full_disk_leaves_the_old_adapter_whole(
    base: Whisper, tmp_path: Path, disk_full_after: DiskFullAfter
) -> None:
    whisper, folder = _shaken(add_lora(base, LoraConfig(r=4), seed=0)), tmp_path / "adapter"
    save_adapter(whisper, folder, "first")
    before = _content(folder)
    with disk_full_after(5000), pytest.raises(StorageError, match="too large"):
        save_adapter(_shaken(whisper, seed=2), folder, "second")
    assert _content(folder) == before
    assert _names(tmp_path) == ["adapter"]


def test_a_saved_strength_is_what_a_reload_writes(load_tiny: Callable[..., Whisper], tmp_path: Path) -> None:
    whisper = _shaken(add_lora(load_tiny(), LoraConfig(r=4), seed=0), seed=1)
    labels = torch.tensor([[NO_TIMESTAMPS, 5303, END]])
    whisper.model.eval()
    full = whisper.loss(_features(), labels)
    with at_strength(whisper, 0.5):
        half = whisper.loss(_features(), labels)
        save_adapter(whisper, tmp_path / "adapter", "base", strength=0.5)
    assert not torch.isclose(half, full)
    torch.testing.assert_close(whisper.loss(_features(), labels), full)
    reloaded = load_adapter(load_tiny(), tmp_path / "adapter")
    torch.testing.assert_close(reloaded.loss(_features(), labels), half)


def test_bfloat16_is_for_hardware_that_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert MULTIPLIES_BFLOAT16(torch.device("cpu")) is expected
    assert not MULTIPLIES_BFLOAT16(torch.device("meta"))


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("P100", (6, 0), torch.float32),
        ("V100", (7, 0), torch.float16),
        ("T4", (7, 5), torch.float16),
        ("A100", (8, 0), torch.bfloat16),
        ("H100", (9, 0), torch.bfloat16),
        ("RTX 5090", (12, 0), torch.bfloat16),
    ],
)
def test_a_gpu_multiplies_in_what_its_generation_has(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda asked: {torch.device("cuda", 1): capability}[asked])
    assert wertune.whisper.footprint.product_dtype(torch.device("cuda", 1)) is expected
    monkeypatch.setenv("WERTUNE_PRODUCTS", "float32")
    assert wertune.whisper.footprint.product_dtype(torch.device("cuda", 1)) is torch.float32


@pytest.mark.parametrize("products", ["bfloat16", "float16"])
@pytest.mark.parametrize("quantization", ["int8", "none", "nf4"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_in_16_bits_point_where_those_in_float32_do(
    load_tiny: LoadTiny, quantization: str, products: str, checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients, losses = [], []
    for asked in ("float32", products):
        monkeypatch.setenv("WERTUNE_PRODUCTS", asked)
        whisper = _shaken(add_lora(load_tiny(quantization), LoraConfig(r=4, dropout=0.0), seed=0))
        whisper.checkpoint_layers(checkpointed)
        whisper.model.train()  # bitsandbytes repacks 4 bits in evaluation, but not of so small a model
        assert str(whisper.product_dtype) == f"torch.{asked}"
        loss = whisper.loss(_features(clips=2), whisper.pad_labels([whisper.label_ids("my CPF")] * 2))
        assert loss.dtype is torch.float32
        loss.backward()
        found = [p.grad.flatten() for p in whisper.model.parameters() if p.grad is not None]
        assert {each.dtype for each in found} == {torch.float32}
        gradients.append(torch.cat(found))
        losses.append(loss.item())
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_in_float16_are_those_in_float32(
    load_tiny: LoadTiny, num_beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks and forbidden tokens are infinite, sums of scores float32: nothing of them is lost in sixteen bits."""
    written = []
    for asked in ("float32", "float16"):
        monkeypatch.setenv("WERTUNE_PRODUCTS", asked)
        tiny = load_tiny("int8")
        whisper = Whisper(tiny.model, tiny.tokenizer, "en", terms=["CPF", "MediShield Life"])
        decode = DecodeConfig(num_beams=num_beams, term_boost=2.0)
        states = whisper.encode(_features(clips=3))
        assert str(states.dtype) == f"torch.{asked}"
        before = whisper.label_ids("what was said")[:4]
        written.append([*whisper.write(states, [4, 8, 6], decode), *whisper.write(states, [4, 8, 6], decode, before)])
    for one, other in zip(*written, strict=True):
        assert one.text == other.text
        assert other.log_probabilities == pytest.approx(one.log_probabilities, abs=0.05)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_model_that_would_write_timestamps_writes_none(
    load_tiny: LoadTiny, num_beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a damaged adapter did: transformers took them for the end of a segment and failed."""
    whisper = load_tiny("none")

    def logits(states: torch.Tensor) -> torch.Tensor:
        """Wants the timestamp of 0.2 s more than anything, and of the rest one word."""
        wanted = torch.zeros(*states.shape[:-1], NO_TIMESTAMPS + 1502)
        wanted[..., NO_TIMESTAMPS + 11], wanted[..., 5303] = 9.0, 1.0
        return wanted

    monkeypatch.setattr(whisper._lean, "logits", logits)
    found = whisper.generate(_features(clips=3), [4, 6, 5], DecodeConfig(num_beams=num_beams))
    assert [written.text for written in found] == [
        whisper.tokenizer.decode([5303] * count).strip() for count in (4, 6, 5)
    ]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_text_is_empty_only_where_it_may_be(load_tiny: LoadTiny, num_beams: int) -> None:
    whisper = load_tiny()
    with torch.no_grad():  # sure of its end at once
        whisper.bare.proj_out.weight[whisper.tokenizer.eos_token_id] *= 50
        states = whisper.bare.model.decoder.layer_norm
        states.bias.copy_(whisper.bare.proj_out.weight[whisper.tokenizer.eos_token_id])
    may, may_not = (DecodeConfig(num_beams=num_beams, may_be_empty=empty) for empty in (True, False))
    assert [written.text for written in whisper.generate(_features(clips=2), [4, 4], may)] == ["", ""]
    assert all(written.text for written in whisper.generate(_features(clips=2), [4, 4], may_not))
