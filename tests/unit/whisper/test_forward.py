"""The lean forward pass is transformers' and PEFT's own: the same states, losses, gradients and texts."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from wertune.base.config import DecodeConfig, LoraConfig
from wertune.whisper.adapter import add_lora
from wertune.whisper.decoding import beam_search
from wertune.whisper.forward import plain_attention
from wertune.whisper.model import Whisper

LoadTiny = Callable[..., Whisper]
LABELS = torch.tensor([[50362, 5303, 318, 50256], [50362, 12, 50256, -100]])


def _features(clips: int = 2, frames: int = 128) -> torch.Tensor:
    return torch.randn(clips, 80, frames, generator=torch.Generator().manual_seed(3))


def _adapted(load_tiny: LoadTiny, quantization: str, **options: Any) -> Whisper:
    """With adapters that do something: B starts at zero."""
    whisper = add_lora(load_tiny(quantization), LoraConfig(r=4, **{"dropout": 0.0, **options}), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in whisper.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return whisper


def _by_modules(whisper: Whisper, states: torch.Tensor) -> torch.Tensor:
    """The loss as transformers and PEFT work it out, given the encoder's states."""
    encoded = BaseModelOutput(last_hidden_state=states)
    return torch.as_tensor(whisper.bare(encoder_outputs=encoded, labels=LABELS).loss)


def _states_by_modules(whisper: Whisper, features: torch.Tensor) -> torch.Tensor:
    encoder = whisper.bare.get_encoder()
    hidden = torch.nn.functional.gelu(encoder.conv1(features))
    hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return torch.as_tensor(encoder.layer_norm(hidden))


ADAPTERS = [
    {},
    {"target_modules": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")},
    {"scope": "decoder"},
    {"first_encoder_layer": 1},
    {"rslora": True},
]


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("options", ADAPTERS, ids=str)
def test_loss_and_gradients_are_those_of_the_modules(
    load_tiny: LoadTiny, quantization: str, options: dict[str, Any]
) -> None:
    whisper = _adapted(load_tiny, quantization, **options)
    trained = [parameter for parameter in whisper.model.parameters() if parameter.requires_grad]
    whisper.model.train()
    lean = whisper.loss(_features(), LABELS)
    plain = _by_modules(whisper, _states_by_modules(whisper, _features()))
    torch.testing.assert_close(lean, plain, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(torch.autograd.grad(lean, trained), torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}], ids=str)
def test_checkpointed_layers_give_the_same_and_keep_less(load_tiny: LoadTiny, options: dict[str, Any]) -> None:
    whisper = _adapted(load_tiny, "int8", **options)
    trained = [parameter for parameter in whisper.model.parameters() if parameter.requires_grad]
    whisper.model.train()
    found, kept = [], []
    for checkpointed in (False, True):
        whisper.checkpoint_layers(checkpointed)
        torch.manual_seed(0)
        held: list[torch.Size] = []

        def pack(tensor: torch.Tensor, held: list[torch.Size] = held) -> torch.Tensor:
            held.append(tensor.shape)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = whisper.loss(_features(), LABELS)
        found.append([loss, *torch.autograd.grad(loss, trained)])
        kept.append(len(held))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain)
    assert kept[1] < 0.5 * kept[0]


def test_dora_goes_through_the_modules(load_tiny: LoadTiny) -> None:
    whisper = _adapted(load_tiny, "none", dora=True)
    trained = [parameter for parameter in whisper.model.parameters() if parameter.requires_grad]
    lean, plain = whisper.loss(_features(), LABELS), _by_modules(whisper, _states_by_modules(whisper, _features()))
    for mine, theirs in zip(torch.autograd.grad(lean, trained), torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_dropout_is_of_what_the_adapter_hears_and_of_training_alone(load_tiny: LoadTiny) -> None:
    whisper = _adapted(load_tiny, "int8", dropout=0.5)
    trained = [parameter for parameter in whisper.model.parameters() if parameter.requires_grad]
    whisper.model.train()
    torch.manual_seed(0)
    lean = whisper.loss(_features(), LABELS)
    torch.manual_seed(0)
    plain = _by_modules(whisper, _states_by_modules(whisper, _features()))
    torch.testing.assert_close(lean, plain, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(torch.autograd.grad(lean, trained), torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-4)
    whisper.model.eval()
    torch.testing.assert_close(whisper.loss(_features(), LABELS), whisper.loss(_features(), LABELS))


@pytest.mark.parametrize("no_repeat", [0, 2, 3])
@pytest.mark.parametrize("num_beams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_texts_are_those_of_transformers(load_tiny: LoadTiny, num_beams: int, seed: int, no_repeat: int) -> None:
    whisper = _adapted(load_tiny, "none")
    whisper.model.eval()
    features = torch.randn(3, 80, 96, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        ids = whisper.bare.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=whisper.encode(features)),
            num_beams=num_beams,
            max_new_tokens=12,
            no_repeat_ngram_size=no_repeat,
        )
    expected = [whisper.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]
    decode = DecodeConfig(num_beams=num_beams, may_be_empty=False, loop_guard=False, no_repeat_ngram=no_repeat)
    found = whisper.generate(features, [12, 12, 12], decode)
    assert [written.text for written in found] == expected


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_after_a_prompt_are_those_of_transformers(load_tiny: LoadTiny, num_beams: int) -> None:
    whisper = _adapted(load_tiny, "none")
    whisper.model.eval()
    before = whisper.tokenizer.get_prompt_ids("CPF, MediShield Life", return_tensors="pt")
    features = torch.randn(3, 80, 96, generator=torch.Generator().manual_seed(0))
    states = whisper.encode(features)
    with torch.no_grad():
        ids = whisper.bare.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            num_beams=num_beams,
            max_new_tokens=12,
            prompt_ids=before,
        )
    expected = [whisper.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]
    decode = DecodeConfig(num_beams=num_beams, may_be_empty=False, loop_guard=False)
    found = [written.text for written in whisper.write(states, [12] * 3, decode, before.tolist())]
    assert found == expected
    assert found != [written.text for written in whisper.write(states, [12] * 3, decode)]


def test_what_heads_attend_to_is_what_transformers_says(load_tiny: LoadTiny) -> None:
    whisper, heads = load_tiny("none"), [(1, 0), (0, 1), (1, 1)]
    states = whisper.encode(_features())
    scores, attended = whisper.follow(states, LABELS, heads)
    whisper.bare.set_attn_implementation("eager")
    read = whisper._before(LABELS)
    found = whisper.bare.model.decoder(input_ids=read, encoder_hidden_states=states, output_attentions=True)
    expected = torch.stack([found.cross_attentions[layer][:, head] for layer, head in heads], dim=1)
    torch.testing.assert_close(attended, expected)
    logits = whisper.bare.proj_out(found.last_hidden_state).log_softmax(dim=-1)
    torch.testing.assert_close(scores[0], logits[0].gather(1, LABELS[0][:, None])[:, 0])


def test_no_more_is_written_than_the_decoder_has_positions_for(load_tiny: LoadTiny) -> None:
    whisper = _adapted(load_tiny, "none")
    before = [0] * (whisper._lean.positions - 8)
    for told, room in ((before, 7), ([], 40)):
        (written,) = whisper.write(
            whisper.encode(_features()[:1]), [40], DecodeConfig(may_be_empty=False, loop_guard=False), told
        )
        assert len(written.log_probabilities) == room


@pytest.mark.parametrize("num_beams", [1, 3])
def test_no_loop_is_written(load_tiny: LoadTiny, num_beams: int) -> None:
    whisper = _adapted(load_tiny, "none")
    states = whisper.encode(_features())
    (plain, *_), (kept, *_) = (
        beam_search(whisper._lean, states, [40, 40], whisper.wording.rules(True), num_beams, None, size)
        for size in (0, 2)
    )
    pairs, kept_pairs = (list(pairwise(found.tokens)) for found in (plain, kept))
    assert len(set(pairs)) < len(pairs)
    assert len(set(kept_pairs)) == len(kept_pairs)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_guard_changes_loops_and_nothing_else(load_tiny: LoadTiny, num_beams: int, seed: int) -> None:
    whisper = _adapted(load_tiny, "none")
    features = torch.randn(6, 80, 96, generator=torch.Generator().manual_seed(seed))
    states, guard, rules = whisper.encode(features), whisper.wording.guard, whisper.wording.rules(True)
    plain, guarded = (
        [found.tokens for found in beam_search(whisper._lean, states, [40] * 6, rules, num_beams, guard=each)]
        for each in (None, guard)
    )
    assert not any(map(guard.is_loop, guarded))
    straight = [clip for clip, tokens in enumerate(plain) if not guard.is_loop(tokens)]
    assert len(straight) < 6
    if num_beams == 1:  # with more, a loop that never wins may keep others from being followed
        assert [guarded[clip] for clip in straight] == [plain[clip] for clip in straight]


def test_what_loops_all_the_same_is_written_again(load_tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = _adapted(load_tiny, "none")
    plain = DecodeConfig(loop_guard=False)
    texts = [written.text for written in whisper.generate(_features(3), [30, 20, 30], plain)]
    again = plain.model_copy(update={"no_repeat_ngram": 6})
    expected = [texts[0], whisper.generate(_features(3), [30, 20, 30], again)[1].text, texts[2]]
    assert expected[1] != texts[1] not in (texts[0], texts[2])
    monkeypatch.setattr("wertune.whisper.restraints.allowed", lambda size: 100)
    monkeypatch.setattr("wertune.whisper.model.shrinks", lambda text: text == texts[1])
    assert [written.text for written in whisper.generate(_features(3), [30, 20, 30], DecodeConfig())] == expected


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_kept_decoder_writes_the_same_and_is_not_unpacked_again(
    load_tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    whisper = _adapted(load_tiny, quantization)
    whisper.model.eval()
    before = whisper.generate(_features(), [12, 12], DecodeConfig(num_beams=2))
    whisper.keep_unpacked()
    monkeypatch.setattr("wertune.whisper.decoding.unpacked", lambda model: pytest.fail("unpacked again"))
    assert whisper.generate(_features(), [12, 12], DecodeConfig(num_beams=2)) == before


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_pytorchs_own(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, rows, 16, generator=generator) for rows in (5, 7, 7))
    mask = torch.randn(5, 7, generator=generator) if masked else None
    expected = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, mask)
    torch.testing.assert_close(plain_attention(queries, keys, values, mask), expected)
