"""A trial of several workers comes to what one comes to, and whatever befalls one of them is told by all."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from tests.support.team import Fault, Team, team, trained
from tests.support.trial import CLOCKS, FolderStore, Log, prepared_of

from wertune.base.config import TrialConfig, with_overrides
from wertune.base.contract import HALVED_TAG
from wertune.base.errors import WorkersLost
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult, TrainingDiverged
from wertune.training.workers import ALONE, Workers

MOST = 3
# Ten clips an epoch (seven, two of replay, one without a word) in batches of four: the last has fewer than there are
# workers. The augmentation is that of the defaults.
CONFIG = with_overrides(
    TrialConfig(),
    {
        "lora.r": 4,
        "lora.dropout": 0.2,
        "lora.strength": 0.8,
        "train.epochs": 2,
        "train.batch_size": 4,
        "train.accumulation_steps": 2,
        "train.learning_rate": 0.01,
        "train.nonspeech_ratio": 0.15,
        "decode.max_new_tokens": 4,
        "decode.batch_size": 2,
    },
    "test",
)
Trained = list[tuple[EpochResult, Log, int]]


@pytest.fixture(scope="module")
def workers() -> Iterator[Team]:
    with team(MOST) as found:
        yield found


@pytest.fixture(scope="module")
def prepared(tiny_whisper_folder: Path, make_recordings: Callable[..., Any]) -> Prepared:
    texts = ["yes please", "check", "check the form", "the form", "no", "my form", "your form, please", "please", "yes"]
    splits = {
        "train": make_recordings(texts[:7], [0.5, 0.8, 1.1, 1.4, 0.6, 0.9, 2.0]),
        "replay": make_recordings(texts[7:], [0.7, 1.6]),
        "validation": make_recordings(texts[:5], [0.6, 1.2, 0.8, 0.5, 0.9]),
        "retention_validation": make_recordings(texts[3:6], 0.7),
    }
    return prepared_of(tiny_whisper_folder, splits)


@pytest.fixture(scope="module")
def by_size(workers: Team, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Trained]:
    """What one, two and three workers come to."""
    caches = tmp_path_factory.mktemp("caches")
    return {size: workers.run(size, trained, prepared, CONFIG, caches / str(size)) for size in range(1, MOST + 1)}


def _adapter(said: Log) -> dict[str, torch.Tensor]:
    return load(said.adapter["adapter_model.safetensors"])


def _same(adapter: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert adapter.keys() == other.keys()
    for name, tensor in adapter.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=1e-3, atol=1e-6, msg=lambda told, name=name: f"{name}: {told}"
        )


@pytest.mark.parametrize("size", [2, 3])
def test_the_adapter_does_not_hang_on_how_many_workers_there_are(by_size: dict[int, Trained], size: int) -> None:
    _same(_adapter(by_size[size][0][1]), _adapter(by_size[1][0][1]))


@pytest.mark.parametrize("size", [2, 3])
def test_nor_do_texts_and_metrics(by_size: dict[int, Trained], size: int) -> None:
    (alone, said, _), (best, together, _) = by_size[1][0], by_size[size][0]
    assert replace(best, **CLOCKS).metrics() == pytest.approx(replace(alone, **CLOCKS).metrics(), rel=1e-4)
    for epoch, figures in said.steps.items():
        for name in ("val_wer", "val_cer", "retention_val_wer", "objective"):
            assert together.steps[epoch].get(name) == figures.get(name)
    assert together.logged == said.logged


@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_come_to_the_same_and_the_first_one_alone_keeps_it(by_size: dict[int, Trained], size: int) -> None:
    results = {str(replace(best, **CLOCKS)) for best, _, _ in by_size[size]}
    assert len(results) == 1
    assert [bool(said.adapter) for _, said, _ in by_size[size]] == [True] + [False] * (size - 1)


@pytest.mark.parametrize("size", [2, 3])
def test_only_the_adapters_gradients_travel_once_an_update(by_size: dict[int, Trained], size: int) -> None:
    """With them the loss, whether one failed, and how long the next parts of each are."""
    values = by_size[1][0][1].steps[0]["trainable_parameters"]
    updates = CONFIG.train.epochs * math.ceil(math.ceil(10 / 4) / 2)
    assert {sent for _, _, sent in by_size[size]} == {
        updates * 4 * (values + 2 + size * CONFIG.train.accumulation_steps)
    }
    assert by_size[1][0][2] == 0


def test_devices_are_told_of_all_and_memory_of_the_worst(by_size: dict[int, Trained]) -> None:
    alone, together = by_size[1][0][1], by_size[3][0][1]
    assert together.tagged["wertune.device"] == f"3 x {alone.tagged['wertune.device']}"
    assert together.steps[1]["peak_memory_mb"] > 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_trial_goes_on_with_another_number_of_workers(
    workers: Team, prepared: Prepared, by_size: dict[int, Trained], tmp_path: Path, size: int
) -> None:
    store = FolderStore(tmp_path / "state")
    other = size % MOST + 1
    faults = workers.faults(other, trained, prepared, CONFIG, tmp_path / "a", store, 1)
    assert isinstance(faults[0], InterruptedError)
    assert all(isinstance(fault, WorkersLost) for fault in faults[1:]), "they know that the first one has left"
    (_, said, _), *_ = workers.run(size, trained, prepared, CONFIG, tmp_path / "b", store)
    _same(_adapter(said), _adapter(by_size[1][0][1]))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_no_number_in_one_worker_is_told_once_by_all(
    workers: Team, prepared: Prepared, tmp_path: Path, rank: int
) -> None:
    faults = workers.faults(2, trained, prepared, CONFIG, tmp_path, None, 0, Fault(rank, 2, "nan"))
    assert all(isinstance(fault, TrainingDiverged) for fault in faults)
    assert {str(fault) for fault in faults} == {
        "epoch 1, batch 2: loss is nan, must be finite; lower train.learning_rate or train.max_grad_norm"
    }


@pytest.mark.parametrize("rank", [0, 1])
def test_one_worker_without_memory_halves_the_batches_of_all(
    workers: Team, prepared: Prepared, tmp_path: Path, rank: int
) -> None:
    found = workers.run(2, trained, prepared, CONFIG, tmp_path, None, 0, Fault(rank, 2, "memory"))
    said = found[0][1]
    assert said.tagged[HALVED_TAG] == "CUDA out of memory. Tried to allocate 2.00 GiB."
    assert said.logged["ran_batch_size"] == 2
    assert len({str(replace(best, **CLOCKS)) for best, _, _ in found}) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_raises_all_raise(workers: Team, prepared: Prepared, tmp_path: Path, rank: int) -> None:
    faults = workers.faults(2, trained, prepared, CONFIG, tmp_path, None, 0, Fault(rank, 1, "disk"))
    assert [(type(fault), str(fault)) for fault in faults] == [(ValueError, f"disk of worker {rank}")] * 2


def test_a_silent_worker_is_found_by_the_time_limit(workers: Team, prepared: Prepared, tmp_path: Path) -> None:
    fault = Fault(1, 1, "silent")
    first, _ = workers.faults(2, trained, prepared, CONFIG, tmp_path, None, 0, fault, wait_s=8.0)
    assert isinstance(first, WorkersLost)
    assert first.is_silent
    assert "a worker of 2 was silent for 8 s, which worker_timeout_s allows" in str(first)


def test_a_worker_that_is_killed_is_missed_at_once(prepared: Prepared, tmp_path: Path) -> None:
    with team(2) as others:
        first, _ = others.start(2, trained, prepared, CONFIG, tmp_path, None, 0, Fault(1, 1, "killed"))
        # The pool breaks with a process that dies, and may say so before the other one's fault comes through.
        assert first.exception(timeout=120) is not None


def test_alone_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.all_gather_object", lambda *_: pytest.fail("sent"))
    monkeypatch.setattr("torch.distributed.all_reduce", lambda *_: pytest.fail("sent"))
    assert ALONE.across([1, 2, 3], lambda n: 2 * n) == [2, 4, 6]
    assert ALONE.summed(lambda: 3.0, [], lambda: [2, 1], 2) == (3.0, [[2, 1]])
    assert ALONE.same("value") == "value"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_items_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    items = list(range(7))

    def gather(into: list[Any], _: object) -> None:
        into[:] = [([-item for item in items[rank::size]], None) for rank in range(size)]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    assert Workers(0, size).across(items, lambda item: -item) == [-item for item in items]
