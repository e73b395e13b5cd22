"""What is said before a window: whose text it is, what the decoder reads of it, and that no loss is taken of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutput

from wertune.base.config import TrialConfig, with_overrides
from wertune.base.errors import ConfigError
from wertune.base.text import TermFinder, normaliser
from wertune.data.manifest import Recording, Row
from wertune.training.batches import Batch, TrainingData, training_batches, with_longest_before
from wertune.training.objective import Objective
from wertune.training.previous import earlier_in_recording, with_text_before
from wertune.training.train import TrainingState, train
from wertune.training.windows import Heard, Window
from wertune.training.workers import Workers
from wertune.whisper.adapter import add_lora
from wertune.whisper.features import context_positions, log_mel
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet
from wertune.whisper.wording import MAX_TOKENS_BEFORE

MakeRecordings = Callable[..., list[Recording]]
LoadTiny = Callable[..., Whisper]
START, END, NO_TIMES, PREVIOUS = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>", "<|startofprev|>"
SMALL = {
    "nonspeech_ratio": 0.0,
    "replay_ratio": 0.0,
    "joined_ratio": 0.8,
    "window_s": 5.0,
    "batch_size": 4,
    "previous_text_ratio": 0.6,
}


def _segment(number: int, start_s: float, duration_s: float, path: str = "call.wav") -> Recording:
    row = Row(audio_filepath=path, text=f"part {number}", offset=start_s, duration=duration_s)
    return Recording(row, f"train.jsonl:{number + 1}", Path(path), duration_s, f"{number:064x}")


def _window(*clips: Recording, cut_s: float = 0.0, is_stretch: bool = False) -> Window:
    ends = np.cumsum([clip.duration_s for clip in clips])
    heard = tuple(Heard(clip, 0, end_s - clip.duration_s, 0.0) for clip, end_s in zip(clips, ends, strict=True))
    return Window(heard, ends[-1] - cut_s, True, clips[0] if is_stretch else None)


def _given(
    windows: list[Window], earlier: dict[str, Recording] | None = None, ratio: float = 1.0, seed: int = 0
) -> list[str]:
    told = with_text_before(windows, earlier or {}, ratio, np.random.default_rng(seed))
    assert [replace(each, before="") for each in told] == windows
    return [each.before for each in told]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=12), st.randoms())
def test_before_a_stretch_is_all_that_its_recording_says_earlier(gaps_s: list[float], order: Any) -> None:
    starts = [gap_s + number for number, gap_s in enumerate(np.cumsum(gaps_s))]
    parts = [_segment(number, start_s, 1.0) for number, start_s in enumerate(starts)]
    others = [_segment(number, start_s + 0.1, 0.5, "other.wav") for number, start_s in enumerate(starts, start=50)]
    clips = [*parts, *others]
    order.shuffle(clips)
    found = _given([_window(part, is_stretch=True) for part in parts], earlier_in_recording(clips))
    assert found == [" ".join(f"part {each}" for each in range(number)) for number in range(len(parts))]


def test_segments_that_are_said_at_once_are_not_before_one_another() -> None:
    parts = [_segment(0, 0.0, 2.0), _segment(1, 1.0, 2.0), _segment(2, 3.0, 1.0)]
    earlier = earlier_in_recording(parts)
    assert _given([_window(part, is_stretch=True) for part in parts], earlier) == ["", "", "part 1"]


def test_before_joined_clips_is_the_window_drawn_before_them_without_what_its_end_cuts_off() -> None:
    clips = [_segment(number, 0.0, 1.0, f"{number}.wav") for number in range(5)]
    malay = replace(clips[4], row=clips[4].row.model_copy(update={"language": "ms"}))
    windows = [_window(*clips[:2], cut_s=0.4), _window(malay), _window(clips[2]), _window(clips[3], is_stretch=True)]
    assert _given(windows) == ["", "", "part 0", ""]


@given(st.floats(0, 1), st.integers(0, 99))
def test_the_share_of_windows_is_what_is_asked_for(ratio: float, seed: int) -> None:
    windows = [_window(_segment(number, 0.0, 1.0, f"{number}.wav")) for number in range(400)]
    count = sum(map(bool, _given(windows, ratio=ratio, seed=seed)))
    assert abs(count - 399 * ratio) <= 5 * np.sqrt(400 * ratio * (1 - ratio)) + 1


@given(st.text(max_size=2000), st.integers(-3, 500))
def test_the_last_tokens_that_there_is_room_for_are_read(load_tiny: LoadTiny, text: str, most: int) -> None:
    wording = load_tiny().wording
    found = wording.before(text, most)
    assert len(found) <= max(0, min(most, MAX_TOKENS_BEFORE + 1))
    assert (not found) == (not text or most < 2)
    if found:
        assert wording.tokenizer.convert_ids_to_tokens(found[0]) == PREVIOUS
        whole = wording.before(text, 10**6)
        assert found[1:] == whole[len(whole) - len(found) + 1 :]


def test_half_of_the_decoder_s_places_are_for_what_was_said_before(load_tiny: LoadTiny) -> None:
    whisper = load_tiny()
    assert whisper.most_tokens // 2 - 1 == MAX_TOKENS_BEFORE == len(whisper.wording.before("word " * 999, 448)) - 1


def _config(**train: Any) -> TrialConfig:
    return with_overrides(TrialConfig(), {f"train.{key}": value for key, value in (SMALL | train).items()}, "test")


def _data(clips: list[Recording]) -> TrainingData:
    normalise = normaliser("en")
    context = TrialConfig().context
    features = [log_mel(each.samples(), context_positions(each.duration_s, context)) for each in clips[:3]]
    validation = EvaluationSet(clips[:3], features)
    return TrainingData(clips, (), validation, EvaluationSet([], []), normalise, TermFinder([], normalise))


@pytest.fixture(scope="module")
def twenty(make_recordings: MakeRecordings) -> list[Recording]:
    return make_recordings([f"word {number}" for number in range(20)], seconds=[0.4, 0.8, 1.3, 0.6, 2.0] * 4)


@pytest.mark.parametrize("language", ["en", "ms"])
def test_a_row_reads_what_was_said_before_and_learns_its_own_text_alone(
    load_tiny: LoadTiny, twenty: list[Recording], language: str
) -> None:
    whisper = load_tiny()
    whisper.wording.is_multilingual = language != "en"
    whisper.language = whisper.wording.language = language
    whisper.wording._prompts.clear()
    whisper.wording.prompt = whisper.wording.prompt_in("")
    asked = [] if language == "en" else ["<|ms|>", "<|transcribe|>"]
    names = whisper.tokenizer.convert_ids_to_tokens
    with_prompt = 0
    for batch in training_batches(_config(timestamps_ratio=0.0), whisper, _data(twenty), 1):
        read = whisper._before(batch.labels, batch.before)
        for row, label in enumerate(batch.labels):
            before = list(batch.before[row]) if batch.before else []
            said = [token for token in label.tolist() if token != -100]
            assert label.tolist()[: len(before) + len(said)] == [-100] * len(before) + said
            assert read[row].tolist()[: len(before) + len(said)] == [*before, whisper.wording.prompt[0], *said[:-1]]
            assert set(read[row].tolist()[len(before) + len(said) :]) <= {whisper.wording.end}
            assert names(said[: len(asked) + 1]) == [*asked, NO_TIMES]
            assert names(said[-1:]) == [END]
            if before:
                with_prompt += 1
                assert names(before[0]) == PREVIOUS
                assert names(read[row].tolist()[len(before)]) == START
                text = whisper.tokenizer.decode(before[1:])
                assert text.startswith(" word ")
                assert set(text.split()) <= {"word", *map(str, range(20))}
                assert not set(text.split()) & set(whisper.wording.text(said).split()) - {"word"}
        assert batch.tokens == sum(int(label != -100) for row in batch.labels for label in row)
    assert with_prompt >= 2


def test_none_is_read_where_none_is_asked_for_and_the_windows_are_the_same(
    load_tiny: LoadTiny, twenty: list[Recording]
) -> None:
    whisper, data = load_tiny(), _data(twenty)
    plain, read = (list(training_batches(_config(previous_text_ratio=r), whisper, data, 1)) for r in (0.0, 1.0))
    assert all(batch.before == () for batch in plain)
    assert any(batch.before for batch in read)
    for a, b in zip(plain, read, strict=True):
        assert torch.equal(a.features, b.features)
        assert _said(a) == _said(b)
    single = _config(joined_ratio=0.0, previous_text_ratio=1.0)
    assert all(batch.before == () for batch in training_batches(single, whisper, data, 1))


def _said(batch: Batch) -> list[list[int]]:
    return [[token for token in label.tolist() if token != -100] for label in batch.labels]


@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 5))
def test_workers_read_their_own_rows(load_tiny: LoadTiny, twenty: list[Recording], size: int, epoch: int) -> None:
    config, data, whisper = _config(previous_text_ratio=1.0), _data(twenty), load_tiny()
    batches = list(training_batches(config, whisper, data, epoch))
    for rank in range(size):
        for whole, part in zip(
            batches, training_batches(config, whisper, data, epoch, Workers(rank, size)), strict=True
        ):
            rows = list(part.rows)
            assert torch.equal(part.labels, whole.labels[rows])
            assert list(part.before) == [whole.before[row] for row in rows if whole.before]


def _adapted(load_tiny: LoadTiny) -> Whisper:
    whisper = add_lora(load_tiny(), TrialConfig().lora.model_copy(update={"r": 4, "dropout": 0.0}), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (each for each in whisper.model.parameters() if each.requires_grad):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return whisper


def test_loss_and_gradients_are_those_of_transformers_own_forward(load_tiny: LoadTiny) -> None:
    whisper = _adapted(load_tiny)
    features = torch.randn(3, 80, 128, generator=torch.Generator().manual_seed(3))
    before = [whisper.wording.before("what was said before it", 448), [], whisper.wording.before("no", 448)]
    texts = [whisper.label_ids(text) for text in ("my CPF", "a longer one of several words", "yes")]
    labels = whisper.pad_labels([[-100] * len(b) + text for b, text in zip(before, texts, strict=True)])
    by_hand = [[*b, whisper.wording.prompt[0], *text[:-1]] for b, text in zip(before, texts, strict=True)]
    read = torch.tensor([row + [whisper.wording.end] * (labels.shape[1] - len(row)) for row in by_hand])
    encoded = BaseModelOutput(last_hidden_state=whisper.encode(features))
    logits = whisper.bare(encoder_outputs=encoded, decoder_input_ids=read).logits
    plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    lean = whisper.loss(features, labels, before)
    torch.testing.assert_close(lean, plain, rtol=1e-3, atol=1e-4)
    trained = [parameter for parameter in whisper.model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(lean, trained), torch.autograd.grad(plain, trained)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-4)
        assert mine.abs().sum() > 0
    other = [whisper.wording.before("something quite different", 448)[: len(before[0])], [], before[2]]
    assert not torch.isclose(whisper.loss(features, labels, other), lean, rtol=1e-4)


def test_an_update_s_loss_is_of_the_rows_with_what_they_read(load_tiny: LoadTiny, twenty: list[Recording]) -> None:
    whisper, config = _adapted(load_tiny), _config(previous_text_ratio=1.0, epochs=1, max_grad_norm=1e-9)
    batches = list(training_batches(config, whisper, _data(twenty), 1))
    by_hand = [whisper.summed_loss(each.features, each.labels, before=each.before).item() for each in batches]
    states: list[TrainingState] = []
    train(config, whisper, _data(twenty), Objective(0.0, 0.0, 0.0), lambda state, _: states.append(state))
    mean = sum(by_hand) / sum(batch.tokens for batch in batches)
    assert states[0].results[0].train_loss == pytest.approx(mean, rel=1e-2)
    blind = sum(whisper.summed_loss(batch.features, batch.labels).item() for batch in batches)
    assert blind / sum(batch.tokens for batch in batches) != pytest.approx(mean, rel=1e-3)


def test_a_resumed_training_is_that_which_was_not_stopped(load_tiny: LoadTiny, twenty: list[Recording]) -> None:
    config, data, states = _config(epochs=3), _data(twenty), list[TrainingState]()
    objective = Objective(0.0, 0.0, 0.0)
    whole = add_lora(load_tiny(), config.lora, config.seed)
    train(config, whole, data, objective, lambda state, _: states.append(state))
    again = list[TrainingState]()
    resumed = add_lora(load_tiny(), config.lora, config.seed)
    train(config, resumed, data, objective, lambda state, _: again.append(state), states[0])
    assert [each.train_loss for each in again[-1].results] == [each.train_loss for each in states[-1].results]
    ends = states[-1].tensors, again[-1].tensors
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []


def test_memory_is_reckoned_with_as_much_as_any_row_may_read(load_tiny: LoadTiny, twenty: list[Recording]) -> None:
    whisper = load_tiny()
    for batch in training_batches(_config(), whisper, _data(twenty), 1):
        longest = with_longest_before(batch, whisper)
        assert longest.labels.shape[1] == batch.labels.shape[1] + MAX_TOKENS_BEFORE + 1 <= whisper.most_tokens
        assert _said(longest) == _said(batch)
        read = whisper._before(longest.labels, longest.before)
        starts = (read == whisper.wording.prompt[0]).nonzero()
        assert starts.shape == (batch.size, 2)
        for row, column in starts.tolist():
            assert len(longest.before[row]) == column
            assert longest.labels[row, column] != -100


@pytest.mark.parametrize("ratio", [-0.1, 1.5])
def test_a_share_is_from_0_to_1(ratio: float) -> None:
    with pytest.raises(ConfigError, match="previous_text_ratio"):
        _config(previous_text_ratio=ratio)
