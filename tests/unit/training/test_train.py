"""Training a tiny Whisper: it learns, it is repeatable, and every clip gets its turn."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wertune.base.config import AugmentConfig, ContextConfig, DecodeConfig, Draw, TrialConfig, with_overrides
from wertune.base.text import TermFinder, normaliser
from wertune.data.manifest import Recording
from wertune.training import optimizer
from wertune.training import train as training
from wertune.training.batches import TrainingData, training_batches
from wertune.training.objective import Objective
from wertune.training.optimizer import MovingAverage, adamw
from wertune.training.train import EpochResult, TrainingDiverged, TrainingState, train, validation_loss
from wertune.training.workers import Workers
from wertune.whisper.adapter import add_lora
from wertune.whisper.features import FeatureCache, context_positions, log_mel
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet, score_set

MakeRecordings = Callable[..., list[Recording]]
LoadTiny = Callable[..., Whisper]
Results = list[tuple[EpochResult, bool]]

OFF = Draw(probability=0, low=1, high=1)
NO_AUGMENTATION = AugmentConfig(
    speed_factor=OFF, noise_snr_db=OFF, gain_db=OFF, band_limit_hz=OFF, time_masks=0, frequency_masks=0
)
PLAIN = with_overrides(
    TrialConfig(quantization="none", augment=NO_AUGMENTATION),
    {
        "lora.r": 8,
        "lora.dropout": 0.0,
        "lora.target_modules": "q_proj,k_proj,v_proj,out_proj,fc1,fc2",
        "train.learning_rate": 0.01,
        "train.epochs": 2,
        "train.batch_size": 4,
        "train.nonspeech_ratio": 0.0,
        "decode.max_new_tokens": 5,
    },
    "test",
)
VALIDATION_WER = Objective(0.0, 0.0, 0.0)
NOTHING = EvaluationSet([], [])

configured = partial(with_overrides, PLAIN, place="test")
rates = st.floats(0, 3)
figures = st.tuples(rates, rates, rates, st.floats(0, 1), st.floats(0, 10))


class Numbering:
    """Stands for a Whisper whose label of a clip is the number that the clip's text holds."""

    mel_bins = 80
    device = torch.device("cpu")

    def label_ids(self, text: str, language: str = "") -> list[int]:
        return [int(text)]

    def pad_labels(self, labels: Sequence[list[int]]) -> torch.Tensor:
        return torch.tensor(labels)


def _set(recordings: list[Recording]) -> EvaluationSet:
    return EvaluationSet(
        recordings, [log_mel(r.samples(), context_positions(r.duration_s, ContextConfig())) for r in recordings]
    )


def _data(clips: list[Recording], replay: Sequence[Recording] = (), retention: EvaluationSet = NOTHING) -> TrainingData:
    normalise = normaliser("en")
    return TrainingData(clips, replay, _set(clips[:4]), retention, normalise, TermFinder([], normalise))


def _train(
    load_tiny: LoadTiny, config: TrialConfig, data: TrainingData, objective: Objective = VALIDATION_WER
) -> tuple[EpochResult, Results]:
    results: Results = []
    whisper = add_lora(load_tiny(config.quantization), config.lora, config.seed)
    torch.seed()  # what others did to the global generator must not matter
    best = train(config, whisper, data, objective, lambda state, is_best: results.append((state.results[-1], is_best)))
    return best, results


def _losses(results: Results) -> list[tuple[float, float]]:
    return [(result.train_loss, result.validation_loss) for result, _ in results]


def _numbers(config: TrialConfig, data: TrainingData, epoch: int) -> list[list[int]]:
    """The clips of an epoch by number, batch by batch."""
    batches = training_batches(config, Numbering(), data, epoch)  # type: ignore[arg-type]
    return [batch.labels.flatten().tolist() for batch in batches]


def _flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


def _numbered(make_recordings: MakeRecordings, count: int, **options: Any) -> list[Recording]:
    return make_recordings([str(number) for number in range(count)], **options)


@pytest.fixture(scope="module")
def many_clips(make_recordings: MakeRecordings) -> list[Recording]:
    """Nine clips whose texts are their numbers."""
    return _numbered(make_recordings, 9)


@pytest.fixture
def clips(make_recordings: MakeRecordings) -> list[Recording]:
    return make_recordings(["yes please", "check", "check the form", "the form"])


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_handful_of_clips_is_learnt_by_heart(
    load_tiny: LoadTiny, make_recordings: MakeRecordings, quantization: str
) -> None:
    config = configured({"train.epochs": 15, "quantization": quantization})
    best, results = _train(load_tiny, config, _data(make_recordings(4 * ["yes"])))
    losses = [train_loss for train_loss, _ in _losses(results)]
    assert losses[-1] < losses[0] / 4
    assert results[0][0].validation_wer >= 1
    assert best.validation_wer == 0
    assert best.validation_cer == 0


def test_a_seed_gives_identical_losses_whatever_was_drawn_before(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    config = TrialConfig(quantization="none", train=PLAIN.train, decode=PLAIN.decode)  # with dropout and augmentation
    first = _losses(_train(load_tiny, config, _data(clips))[1])
    again = _losses(_train(load_tiny, config, _data(clips))[1])
    other = _losses(_train(load_tiny, with_overrides(config, {"seed": 1}, "test"), _data(clips))[1])
    assert first == again
    assert first != other


def test_checkpointed_layers_train_the_same(
    load_tiny: LoadTiny, clips: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, checkpointed = configured({}), configured({"train.gradient_checkpointing": True})
    expected = _losses(_train(load_tiny, plain, _data(clips))[1])
    told: list[bool] = []
    checkpoint_layers = Whisper.checkpoint_layers

    def listening(self: Whisper, checkpointed: bool) -> None:
        told.append(checkpointed)
        checkpoint_layers(self, checkpointed)

    monkeypatch.setattr(Whisper, "checkpoint_layers", listening)
    found = _losses(_train(load_tiny, checkpointed, _data(clips))[1])
    assert told == [True]
    for losses, others in zip(found, expected, strict=True):
        assert losses == pytest.approx(others, rel=1e-4)


def _as_text(batches: Any) -> list[tuple[list[list[int]], float]]:
    return [(batch.labels.tolist(), batch.features.double().sum().item()) for batch in batches]


def test_seed_and_epoch_decide_the_batches(make_recordings: MakeRecordings) -> None:
    data = _data(_numbered(make_recordings, 12))

    def batches(seed: int, epoch: int) -> list[tuple[list[list[int]], float]]:
        config = configured({"seed": seed, "augment.noise_snr_db.probability": 1.0})
        return _as_text(training_batches(config, Numbering(), data, epoch))  # type: ignore[arg-type]

    assert batches(0, 1) == batches(0, 1)
    orders = [[labels for labels, _ in batches(seed, epoch)] for seed, epoch in ((0, 1), (1, 1), (0, 2))]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_kept_features_are_those_worked_out_and_only_other_variants_are_new(
    make_recordings: MakeRecordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clips an epoch and two variants: epochs 1 and 3 hear the same, under other masks."""
    plain = _data(_numbered(make_recordings, 2))
    kept = replace(plain, cache=FeatureCache(tmp_path))
    config = configured({"augment.noise_snr_db.probability": 1.0, "augment.variants": 2})

    def batches(data: TrainingData, epoch: int, **changes: Any) -> list[tuple[list[list[int]], float]]:
        chosen = with_overrides(config, changes, "test")
        return _as_text(training_batches(chosen, Numbering(), data, epoch))  # type: ignore[arg-type]

    def files() -> int:
        return len(list(tmp_path.rglob("*.npy")))

    assert [batches(kept, epoch) for epoch in (1, 2, 3)] == [batches(plain, epoch) for epoch in (1, 2, 3)]
    assert files() == 4
    heard = [batches(kept, epoch, **{"augment.time_masks": 2}) for epoch in (1, 2, 3)]
    assert files() == 4
    assert heard != [batches(kept, epoch) for epoch in (1, 2, 3)]
    others = [batches(kept, epoch, **{"seed": 1, "augment.waveform_seed": config.seed}) for epoch in (1, 2, 3)]
    assert files() == 4  # another order, other masks, the same waveforms
    assert others != [batches(kept, epoch) for epoch in (1, 2, 3)]
    batches(kept, 1, seed=1)
    assert files() == 6
    monkeypatch.setattr(Recording, "samples", lambda _: 1 / 0)
    batches(kept, 1)


def test_a_clip_is_augmented_anew_in_every_epoch(make_recordings: MakeRecordings) -> None:
    data = _data(_numbered(make_recordings, 1))
    noisy = configured({"augment.noise_snr_db.probability": 1.0})

    def features(config: TrialConfig, epoch: int) -> torch.Tensor:
        (batch,) = training_batches(config, Numbering(), data, epoch)  # type: ignore[arg-type]
        return batch.features

    assert torch.equal(features(PLAIN, 1), features(PLAIN, 2))
    assert torch.equal(features(noisy, 1), features(noisy, 1))
    assert not torch.equal(features(noisy, 1), features(noisy, 2))


@pytest.mark.parametrize(("value", "batch"), [(float("nan"), 1), (float("inf"), 2), (float("-inf"), 1)])
def test_a_loss_that_is_no_number_ends_the_training(
    load_tiny: LoadTiny, clips: list[Recording], value: float, batch: int
) -> None:
    config = configured({"train.batch_size": 2})
    whisper, calls = add_lora(load_tiny(), config.lora, 0), []

    def loss(features: torch.Tensor, labels: torch.Tensor, *part: Any) -> torch.Tensor:
        calls.append(labels)
        return torch.tensor(value if len(calls) == batch else 1.0, requires_grad=True)

    whisper.summed_loss = loss  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged) as caught:
        train(config, whisper, _data(clips), VALIDATION_WER, lambda *_: None)
    remedy = "lower train.learning_rate or train.max_grad_norm"
    assert str(caught.value) == f"epoch 1, batch {batch}: loss is {value}, must be finite; {remedy}"


def test_weights_that_are_no_numbers_end_the_training(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    whisper = add_lora(load_tiny(), PLAIN.lora, 0)
    with torch.no_grad():
        next(p for p in whisper.model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="epoch 1, batch 1: loss is nan, must be finite; lower"):
        train(PLAIN, whisper, _data(clips), VALIDATION_WER, lambda *_: None)


@pytest.fixture
def in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that is too large at first: some steps overflow before one holds."""
    monkeypatch.setenv("WERTUNE_PRODUCTS", "float16")
    monkeypatch.setattr(optimizer, "GradScaler", partial(optimizer.GradScaler, init_scale=2.0**26))


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_in_float16_it_learns_and_tells_how_many_steps_overflowed(
    load_tiny: LoadTiny, make_recordings: MakeRecordings, quantization: str, in_float16: None
) -> None:
    config = configured({"quantization": quantization, "train.epochs": 15, "train.batch_size": 2})
    best, results = _train(load_tiny, config, _data(make_recordings(4 * ["yes"])))
    losses, skipped = zip(*((each.train_loss, each.metrics()["skipped_steps"]) for each, _ in results), strict=True)
    assert losses[-1] < losses[0] / 4
    assert best.validation_wer == 0
    assert 0 < skipped[0] <= 2
    assert list(skipped) == sorted(skipped)
    assert skipped[-1] == skipped[-2] < 20


def test_in_float32_no_step_is_skipped_and_none_is_told(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    best, _ = _train(load_tiny, PLAIN, _data(clips))
    assert "skipped_steps" not in best.metrics()


def test_in_float16_a_resumed_training_is_that_which_was_not_stopped(
    load_tiny: LoadTiny, clips: list[Recording], in_float16: None
) -> None:
    config, data = configured({"train.epochs": 12, "train.batch_size": 2}), _data(clips)
    states: list[TrainingState] = []
    whole = add_lora(load_tiny(), config.lora, config.seed)
    train(config, whole, data, VALIDATION_WER, lambda state, _: states.append(state))
    kept = states[3]
    assert kept.tensors["scaler/scale"] < 2.0**26
    resumed = add_lora(load_tiny(), config.lora, config.seed)
    again: list[TrainingState] = []
    train(config, resumed, data, VALIDATION_WER, lambda state, _: again.append(state), kept)
    assert [result.train_loss for result in again[-1].results] == [each.train_loss for each in states[-1].results]
    ends = states[-1].tensors, again[-1].tensors
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []
    assert ends[0].keys() == ends[1].keys()


def test_the_seconds_of_an_epoch_that_is_not_scored_count_with_the_next(
    monkeypatch: pytest.MonkeyPatch, load_tiny: LoadTiny, make_recordings: MakeRecordings
) -> None:
    a_pass = training._train_epoch
    monkeypatch.setattr(training, "_train_epoch", lambda *given: replace(a_pass(*given), seconds=1.0))
    config, states = configured({"train.epochs": 3, "train.evaluate_every_epochs": 2}), list[TrainingState]()
    whisper, data = add_lora(load_tiny(), PLAIN.lora, 0), _data(make_recordings(2 * ["yes"]))
    train(config, whisper, data, VALIDATION_WER, lambda state, _: states.append(state))
    assert [(result.epoch, result.train_s) for result in states[-1].results] == [(2, 2.0), (3, 1.0)]


def test_what_overflows_for_ever_ends_the_training(
    load_tiny: LoadTiny, clips: list[Recording], in_float16: None
) -> None:
    config = configured({"train.epochs": 30, "train.batch_size": 4})
    whisper = add_lora(load_tiny(), config.lora, config.seed)
    next(p for p in whisper.model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient * torch.inf)
    done: list[TrainingState] = []
    with pytest.raises(TrainingDiverged, match=r"epoch 21, batch 1: gradient norm is (inf|nan), must be finite; lower"):
        train(config, whisper, _data(clips), VALIDATION_WER, lambda state, _: done.append(state))
    assert [state.results[-1].skipped_steps for state in done] == list(range(1, 21))


def test_dropout_is_on_in_training_and_off_in_scoring(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    whisper, modes = add_lora(load_tiny(), PLAIN.lora, 0), []
    encode = whisper.encode

    def spy(features: torch.Tensor) -> torch.Tensor:
        modes.append((whisper.model.training, torch.is_grad_enabled()))
        return encode(features)

    whisper.encode = spy  # type: ignore[method-assign]
    train(PLAIN, whisper, _data(clips), VALIDATION_WER, lambda *_: None)
    assert modes == 2 * [(True, True), (False, False), (False, False)]  # a batch, generation, validation loss


def test_what_is_scored_is_what_is_kept(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    whisper, data = add_lora(load_tiny(), PLAIN.lora, 0), _data(clips)
    losses: list[tuple[float, float]] = []

    def on_epoch(state: TrainingState, is_best: bool) -> None:
        losses.append((state.results[-1].validation_loss, validation_loss(whisper, data.validation, 4)))

    train(configured({"train.epochs": 4}), whisper, data, VALIDATION_WER, on_epoch)
    assert all(scored == kept for scored, kept in losses)


def test_the_average_is_scored_and_the_training_goes_on_without_it(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    def run(decay: float) -> tuple[list[float], list[float]]:
        _, results = _train(load_tiny, configured({"train.epochs": 5, "train.ema_decay": decay}), _data(clips))
        return [result.train_loss for result, _ in results], [result.validation_loss for result, _ in results]

    (trained, scored), (averaged_trained, averaged_scored) = run(0.0), run(0.99)
    assert averaged_trained == trained
    assert averaged_scored[2:] != scored[2:]
    assert scored[:-1] == pytest.approx(trained[1:])  # the same clips and no dropout: an epoch begins where one ended


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0.01, 0.999))
def test_the_moving_average_forgets_by_its_decay_and_sooner_at_the_start(values: list[float], decay: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average, expected = MovingAverage([parameter], decay), 0.0
    for step, value in enumerate(values, start=1):
        parameter.data.fill_(value)
        average.update()
        keep = min(decay, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    with average.applied():
        assert parameter.item() == pytest.approx(expected)
    assert parameter.item() == values[-1]


def test_the_weights_come_back_when_scoring_fails() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = MovingAverage([parameter], 0.9)
    parameter.data.fill_(1.0)

    def score_and_fail() -> None:
        with average.applied():
            raise RuntimeError(f"the weight is {parameter.item():g}")

    with pytest.raises(RuntimeError, match="the weight is 0"):
        score_and_fail()
    assert parameter.item() == 1.0


def test_a_decay_of_zero_averages_nothing() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = MovingAverage([parameter], 0.0)
    parameter.data.fill_(1.0)
    with average.applied():
        assert parameter.item() == 1.0


@given(figures)
def test_the_objective_is_wer_and_a_penalty_beyond_the_margin(figures: tuple[float, ...]) -> None:
    wer, retention, baseline, margin, penalty = figures
    value = Objective(baseline, margin, penalty)(wer, retention)
    assert value >= wer
    if retention <= baseline + margin:
        assert value == pytest.approx(wer)
    else:
        assert value == pytest.approx(wer + penalty * (retention - baseline - margin))


@given(figures)
def test_without_retention_clips_the_objective_is_wer(figures: tuple[float, ...]) -> None:
    wer, _, baseline, margin, penalty = figures
    assert Objective(baseline, margin, penalty)(wer, None) == wer


@given(figures, rates)
def test_a_worse_retention_is_never_cheaper(figures: tuple[float, ...], other: float) -> None:
    wer, retention, baseline, margin, penalty = figures
    better, worse = sorted((retention, other))
    objective = Objective(baseline, margin, penalty)
    assert objective(wer, better) <= objective(wer, worse)


def test_an_epoch_is_judged_by_validation_and_retention(
    load_tiny: LoadTiny, clips: list[Recording], make_recordings: MakeRecordings
) -> None:
    retention = _set(make_recordings(["some other words"]))
    objective = Objective(retention_baseline_wer=0.1, retention_margin=0.01, penalty=2.0)
    _, results = _train(load_tiny, configured({"train.epochs": 1}), _data(clips, retention=retention), objective)
    ((result, _),) = results
    assert result.retention_wer is not None
    assert result.objective == result.validation_wer + 2.0 * (result.retention_wer - 0.11)
    metrics = result.metrics()
    assert metrics["objective"] == result.objective
    assert metrics["retention_val_wer"] == result.retention_wer
    assert metrics["val_wer"] == result.validation_wer


def test_without_retention_clips_none_are_logged(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    best, results = _train(load_tiny, configured({"train.epochs": 1}), _data(clips))
    assert "retention_val_wer" not in best.metrics()
    assert best.objective == best.validation_wer
    assert [is_best for _, is_best in results] == [True]


def test_the_best_epoch_is_the_first_with_the_lowest_objective(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    best, results = _train(load_tiny, configured({"train.epochs": 8}), _data(clips))
    assert [result.epoch for result, _ in results] == list(range(1, 9))
    objectives = [result.objective for result, _ in results]
    assert len(set(objectives)) > 1
    assert [is_best for _, is_best in results] == [
        all(value < earlier for earlier in objectives[:i]) for i, value in enumerate(objectives)
    ]
    assert best.epoch == 1 + objectives.index(min(objectives))


def test_who_is_told_of_an_epoch_may_stop_the_trial(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    def stop(state: TrainingState, is_best: bool) -> None:
        raise SystemExit(f"after epoch {state.epoch}")

    with pytest.raises(SystemExit, match="after epoch 1"):
        train(PLAIN, add_lora(load_tiny(), PLAIN.lora, 0), _data(clips), VALIDATION_WER, stop)


@settings(max_examples=15)
@given(count=st.integers(1, 9), batch_size=st.integers(1, 4), seed=st.integers(0, 99), epoch=st.integers(1, 5))
def test_every_clip_comes_exactly_once_an_epoch(
    many_clips: list[Recording], count: int, batch_size: int, seed: int, epoch: int
) -> None:
    config = configured({"train.batch_size": batch_size, "seed": seed})
    batches = _numbers(config, _data(many_clips[:count]), epoch)
    assert sorted(_flat(batches)) == list(range(count))
    assert len(batches) == ceil(count / batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_a_clip_comes_as_often_as_its_weight_says(many_clips: list[Recording]) -> None:
    heavy = replace(many_clips[0], row=many_clips[0].row.model_copy(update={"weight": 3}))
    data = _data([heavy, *many_clips[1:5]])
    config = configured({"train.clips_per_epoch": 5})
    turns = Counter(clip for epoch in range(1, 8) for clip in _flat(_numbers(config, data, epoch)))
    assert turns == {0: 15, 1: 5, 2: 5, 3: 5, 4: 5}  # five passes over seven


@settings(max_examples=15)
@given(count=st.integers(1, 9), wanted=st.integers(1, 12), seed=st.integers(0, 99))
def test_clips_are_dealt_out_over_the_epochs(many_clips: list[Recording], count: int, wanted: int, seed: int) -> None:
    config = configured({"train.clips_per_epoch": wanted, "seed": seed})
    data, turns = _data(many_clips[:count]), Counter(dict.fromkeys(range(count), 0))
    for epoch in range(1, ceil(count / min(count, wanted)) + 1):
        clips = _flat(_numbers(config, data, epoch))
        assert len(clips) == min(count, wanted)
        turns.update(clips)
        assert max(turns.values()) - min(turns.values()) <= 1
    assert min(turns.values()) >= 1


@pytest.mark.parametrize(
    ("ratio", "available", "replayed"), [(0.0, 4, 0), (0.5, 4, 3), (0.3, 4, 2), (0.2, 4, 1), (4.0, 4, 4), (1.0, 0, 0)]
)
def test_replay_clips_join_by_the_ratio(
    many_clips: list[Recording], make_recordings: MakeRecordings, ratio: float, available: int, replayed: int
) -> None:
    replay = make_recordings([str(100 + number) for number in range(available)])
    batches = _numbers(configured({"train.replay_ratio": ratio}), _data(many_clips[:6], replay), epoch=1)
    numbers = _flat(batches)
    assert sorted(number for number in numbers if number < 100) == list(range(6))
    assert len({number for number in numbers if number >= 100}) == len(numbers) - 6 == replayed


def test_a_batch_holds_clips_of_like_length(make_recordings: MakeRecordings) -> None:
    data = _data(_numbered(make_recordings, 12, seconds=[0.5, 1.0, 2.0] * 4))
    for epoch in range(1, 4):
        for batch in _numbers(PLAIN, data, epoch):
            assert len({number % 3 for number in batch}) == 1


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 4))
def test_each_clip_of_a_batch_is_one_worker_s(
    many_clips: list[Recording], clips: int, batch_size: int, size: int
) -> None:
    data = _data(many_clips[:clips])
    config = configured({"train.batch_size": batch_size})
    whole = list(training_batches(config, Numbering(), data, 1))  # type: ignore[arg-type]
    parts = [
        list(training_batches(config, Numbering(), data, 1, Workers(rank, size)))  # type: ignore[arg-type]
        for rank in range(size)
    ]
    for batch, *of_workers in zip(whole, *parts, strict=True):
        assert {(part.size, part.tokens) for part in of_workers} == {(len(batch.labels), len(batch.labels))}
        counted = {row: part for part in of_workers if not part.mirrors for row in part.rows}
        assert sorted(counted) == list(range(batch.size)) == list(batch.rows)
        assert all(part.rows == range(1) for part in of_workers if part.mirrors)
        for part in of_workers:
            assert part.labels.tolist() == [batch.labels.tolist()[row] for row in part.rows]


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The gradient of every step that an optimizer takes from here on."""
    found: list[torch.Tensor] = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters: list[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
        found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        return clip(parameters, max_norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    return found


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 2), (1, 4)])
def test_accumulated_batches_have_the_gradient_of_a_larger_one(
    load_tiny: LoadTiny,
    make_recordings: MakeRecordings,
    gradients: list[torch.Tensor],
    batch_size: int,
    accumulation: int,
) -> None:
    data = _data(make_recordings(["yes please", "no please", "the form", "my form"]))  # labels of equal length
    for size, steps in ((4, 1), (batch_size, accumulation)):
        _train(
            load_tiny,
            configured({"train.batch_size": size, "train.accumulation_steps": steps, "train.epochs": 1}),
            data,
        )
    whole, accumulated = gradients
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("clips", "accumulation"), [(1, 4), (2, 4), (4, 4), (4, 5)])
def test_a_smaller_last_group_has_the_gradient_of_its_own_mean(
    load_tiny: LoadTiny, make_recordings: MakeRecordings, gradients: list[torch.Tensor], clips: int, accumulation: int
) -> None:
    data = _data(make_recordings(["yes please", "no please", "the form", "my form"][:clips]))
    for size, steps in ((4, 1), (1, accumulation)):
        values = {"train.batch_size": size, "train.accumulation_steps": steps, "train.epochs": 1}
        _train(load_tiny, configured(values), data)
    whole, accumulated = gradients
    torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 2), (1, 4)])
def test_what_a_token_weighs_does_not_hang_on_the_batch_that_it_is_in(
    load_tiny: LoadTiny,
    make_recordings: MakeRecordings,
    gradients: list[torch.Tensor],
    batch_size: int,
    accumulation: int,
) -> None:
    data = _data(make_recordings(["yes", "check the form please", "no", "my form and the form of the check"]))
    for size, steps in ((4, 1), (batch_size, accumulation)):
        values = {"train.batch_size": size, "train.accumulation_steps": steps, "train.epochs": 1}
        _train(load_tiny, configured(values), data)
    whole, halved = gradients
    torch.testing.assert_close(halved, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("batch_size", "accumulation", "steps"), [(4, 1, 3), (4, 2, 2), (4, 3, 1), (2, 4, 2)])
def test_the_last_batches_of_an_epoch_take_their_step(
    load_tiny: LoadTiny,
    make_recordings: MakeRecordings,
    gradients: list[torch.Tensor],
    batch_size: int,
    accumulation: int,
    steps: int,
) -> None:
    config = configured({"train.batch_size": batch_size, "train.accumulation_steps": accumulation, "train.epochs": 2})
    _train(load_tiny, config, _data(make_recordings(10 * ["yes"], seconds=0.2)))
    assert len(gradients) == 2 * steps


def test_the_rate_rises_and_then_falls_to_nothing(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    config = configured({"train.batch_size": 1, "train.warmup_share": 0.5, "train.epochs": 4})
    _, results = _train(load_tiny, config, _data(clips))
    first, peak, falling, last = (result.learning_rate for result, _ in results)
    assert first == pytest.approx(0.005)
    assert peak == pytest.approx(0.01)
    assert peak > falling > last == pytest.approx(0)


def test_the_second_matrix_of_an_adapter_has_its_own_rate(load_tiny: LoadTiny) -> None:
    config = configured({"train.learning_rate": 0.001, "train.learning_rate_ratio": 4.0})
    whisper = add_lora(load_tiny("none"), config.lora, seed=0)
    names = {parameter: name for name, parameter in whisper.model.named_parameters()}
    rates = {
        names[p]: group["lr"] for group in adamw(whisper.model, config.train).param_groups for p in group["params"]
    }
    assert rates == {n: 0.004 if "lora_B" in n else 0.001 for p, n in names.items() if p.requires_grad}


@pytest.mark.parametrize(("asked", "used"), [(None, 3), (1, 1)])
def test_an_epoch_is_scored_with_its_own_beams_or_those_of_the_decoding(
    load_tiny: LoadTiny, clips: list[Recording], monkeypatch: pytest.MonkeyPatch, asked: int | None, used: int
) -> None:
    beams = []

    def scored(whisper: Whisper, clips: EvaluationSet, decode: DecodeConfig, *others: Any) -> Any:
        beams.append(decode.num_beams)
        return score_set(whisper, clips, decode, *others)

    monkeypatch.setattr("wertune.training.train.score_set", scored)
    config = configured({"train.epochs": 1, "decode.num_beams": 3, "train.evaluation_beams": asked})
    _train(load_tiny, config, _data(clips, retention=_set(clips[:2])))
    assert beams == [used, used]


def test_the_validation_loss_is_the_mean_over_tokens(load_tiny: LoadTiny, clips: list[Recording]) -> None:
    whisper, clips_with_features = load_tiny(), _set(clips)
    labels = [whisper.label_ids(recording.row.text) for recording in clips]
    alone = [
        whisper.summed_loss(features[None], torch.tensor([label])).item()
        for label, features in zip(labels, clips_with_features.features, strict=True)
    ]
    mean = sum(alone) / sum(map(len, labels))
    assert validation_loss(whisper, clips_with_features, batch_size=1) == pytest.approx(mean)


def test_an_epoch_holds_its_share_of_clips_without_a_word(make_recordings: MakeRecordings) -> None:
    data = _data(_numbered(make_recordings, 8))

    class Marking(Numbering):
        def label_ids(self, text: str, language: str = "") -> list[int]:
            return [int(text or "-1")]

    def labels(epoch: int) -> list[int]:
        batches = training_batches(configured({"train.nonspeech_ratio": 0.5}), Marking(), data, epoch)  # type: ignore[arg-type]
        return _flat([batch.labels.flatten().tolist() for batch in batches])

    for epoch in (1, 2):
        assert sorted(labels(epoch)) == [-1, -1, -1, -1, *range(8)]
