"""On a GPU that is not there: whatever meets a tensor of another device fails, as it would on one.

By torch's fake tensors (tests/support/fake_cuda.py): what has run on no GPU yet would fail on the day.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from tests.support.fake_cuda import AMPERE, CUDA, TURING, backward, fake_cuda, on_cuda
from torch._subclasses.fake_tensor import unset_fake_temporarily

from wertune.base.config import ContextConfig, DecodeConfig, LoraConfig, TrainConfig
from wertune.data.manifest import Recording
from wertune.training.optimizer import Updater
from wertune.training.train import validation_loss
from wertune.whisper.adapter import add_lora, at_strength
from wertune.whisper.features import context_positions, log_mel
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet, transcribe_features

LORA = LoraConfig(r=4, dropout=0.1, target_modules=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"))
TRAIN = TrainConfig(ema_decay=0.99)
STEPS = 10
LoadTiny = Callable[..., Whisper]
LoadOnGpu = Callable[..., Whisper]


@pytest.fixture(params=[AMPERE, TURING], ids=["bfloat16", "float16"])
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """What is multiplied on the fake GPU of the test."""
    with fake_cuda(request.param):
        yield {AMPERE: torch.bfloat16, TURING: torch.float16}[request.param]


@pytest.fixture
def load_on_gpu(load_tiny: LoadTiny, gpu: torch.dtype) -> LoadOnGpu:
    """`load_on_gpu(quantization)`: the tiny Whisper on it, with adapters."""

    def load(quantization: str, lora: LoraConfig = LORA) -> Whisper:
        with unset_fake_temporarily():
            whisper = add_lora(load_tiny(quantization), lora, seed=0)
        return on_cuda(whisper)

    return load


def _inputs(whisper: Whisper) -> tuple[torch.Tensor, torch.Tensor]:
    """As a loader hands them over: on the CPU."""
    return torch.randn(3, whisper.mel_bins, 128), whisper.pad_labels([whisper.label_ids("my CPF balance")] * 3)


def _gradients(whisper: Whisper) -> list[torch.Tensor]:
    return [p.grad for p in whisper.model.parameters() if p.requires_grad and p.grad is not None]


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize(("quantization", "dora"), [("int8", False), ("none", False), ("none", True)])
def test_a_loss_goes_there_and_back(
    load_on_gpu: LoadOnGpu, gpu: torch.dtype, quantization: str, checkpointed: bool, dora: bool
) -> None:
    whisper = load_on_gpu(quantization, LORA.model_copy(update={"dora": dora}))
    whisper.checkpoint_layers(checkpointed)
    whisper.model.train()
    assert (whisper.device, whisper.product_dtype) == (CUDA, gpu)
    loss = whisper.loss(*_inputs(whisper))
    assert (loss.device, loss.dtype) == (CUDA, torch.float32)
    loss.backward()
    trained = [p for p in whisper.model.parameters() if p.requires_grad]
    gradients = _gradients(whisper)
    assert len(gradients) == len(trained)
    assert {(each.device, each.dtype) for each in gradients} == {(CUDA, torch.float32)}


def test_steps_average_and_state(load_on_gpu: LoadOnGpu, gpu: torch.dtype) -> None:
    """Another goes on from the state's tensors, which are the CPU's."""
    tensors: dict[str, torch.Tensor] = {}
    for done in (0, 2):
        whisper = load_on_gpu("int8")
        whisper.model.train()
        updater = Updater(TRAIN, whisper.model, STEPS, done, tensors, products=whisper.product_dtype)
        for _ in range(2):
            updater.scaled(whisper.loss(*_inputs(whisper))).backward()
            assert len(_gradients(whisper)) > 0
            updater.step()
            assert len(_gradients(whisper)) == 0
        assert {each.device for each in updater.average.values} == {CUDA}
        with updater.average.applied():
            assert {p.device for p in whisper.model.parameters()} == {CUDA}
        tensors = updater.tensors()
        assert {each.device.type for each in tensors.values()} == {"cpu"}
        assert any(name.startswith("adamw.exp_avg_sq/") for name in tensors)
        assert ("scaler/scale" in tensors) == (gpu is torch.float16)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("before", [False, True])
def test_a_text_is_written_with_boost_guard_and_prompt(load_on_gpu: LoadOnGpu, beams: int, before: bool) -> None:
    tuned = load_on_gpu("int8")
    whisper = Whisper(tuned.model.eval(), tuned.tokenizer, "en", terms=["CPF", "MediShield Life"])
    decode = DecodeConfig(num_beams=beams, term_boost=2.0, no_repeat_ngram=2, loop_guard=True)
    features, _ = _inputs(whisper)
    said = whisper.label_ids("what was said")[:4] if before else []
    with at_strength(whisper, 0.5):
        written = whisper.write(whisper.encode(features), [3, 1, 2], decode, said)
    assert len(written) == 3
    whisper.keep_unpacked()
    assert len(whisper.generate(features, [2, 2, 2], decode)) == 3


def test_a_validation_loss_and_a_text_for_each_clip(
    load_on_gpu: LoadOnGpu, make_recordings: Callable[..., list[Recording]]
) -> None:
    with unset_fake_temporarily():
        recordings = make_recordings(["yes please", "check the form"], [0.5, 0.8])
        positions = [context_positions(each.duration_s, ContextConfig()) for each in recordings]
        features = [log_mel(each.samples(), count) for each, count in zip(recordings, positions, strict=True)]
    whisper = load_on_gpu("none")
    whisper.model.eval()
    assert validation_loss(whisper, EvaluationSet(recordings, features), 2) > 0
    durations_s = [each.duration_s for each in recordings]
    assert len(transcribe_features(whisper, features, durations_s, DecodeConfig(max_new_tokens=2))) == 2


def test_what_mixes_devices_fails(gpu: torch.dtype) -> None:
    """Or none of these tests could."""
    on_gpu, on_cpu = torch.randn(2, 2, device=CUDA), torch.randn(2, 2)
    mixes: list[Callable[[], object]] = [
        lambda: on_gpu + on_cpu,
        lambda: on_gpu @ on_cpu,
        lambda: on_gpu.lerp_(on_cpu, 0.5),
        lambda: torch.cat([on_gpu, on_cpu]),
        lambda: torch.nn.functional.embedding(torch.tensor([0]), on_gpu),
    ]
    for mix in mixes:
        with pytest.raises(RuntimeError, match="two different devices"):
            mix()
    with pytest.raises(RuntimeError, match="device"):
        on_gpu[torch.tensor([0])] = on_cpu[0]


def test_what_only_contents_could_say_is_true_and_one(gpu: torch.dtype) -> None:
    found = torch.randn(2, 3, device=CUDA)
    assert (found.tolist(), (found > 0).all().item()) == ([[1.0] * 3] * 2, True)
    assert (found[found > 0].shape, found[found[:, 0] > 0].shape) == ((6,), (2, 3))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_way_back_is_autograds_own(load_tiny: LoadTiny, checkpointed: bool) -> None:
    """With real tensors on the CPU: what stands in for the engine gives its gradients, to the last bit."""
    gradients = []
    for back in (torch.Tensor.backward, backward):
        whisper = add_lora(load_tiny("int8"), LORA, seed=0)
        whisper.checkpoint_layers(checkpointed)
        whisper.model.train()
        torch.manual_seed(1)
        back(whisper.loss(*_inputs(whisper)))
        gradients.append(_gradients(whisper))
    assert len(gradients[0]) > 0
    torch.testing.assert_close(gradients[1], gradients[0])
