"""A trial that survives: killed, out of memory, on a full disk, with a damaged state."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.support.trial import CLOCKS, FolderStore, Log, prepared_of

import wertune.training.optimizer
import wertune.training.train
import wertune.whisper.footprint
from wertune.base.config import TrialConfig, with_overrides
from wertune.base.errors import OutOfMemory, StateError, StorageError
from wertune.data.manifest import Dataset
from wertune.training.checkpoint import CHECKED, DIGESTS, RECORD, TENSORS, read_state, trial_digest
from wertune.training.memory import halved, is_out_of_memory
from wertune.training.objective import Objective
from wertune.training.prepare import Prepared
from wertune.training.train import EpochResult, TrainingDiverged
from wertune.training.trial import device_name, run_trial
from wertune.whisper.adapter import ADAPTER_FILES
from wertune.whisper.model import Whisper

OBJECTIVE = Objective(retention_baseline_wer=0.0, retention_margin=0.01, penalty=2.0)
CONFIG = with_overrides(
    TrialConfig(quantization="none"),
    {
        "lora.r": 4,
        "lora.dropout": 0.2,
        "lora.strength": 0.8,
        "train.epochs": 3,
        "train.batch_size": 2,
        "train.accumulation_steps": 2,
        "train.learning_rate": 0.01,
        "train.learning_rate_ratio": 4.0,
        "decode.max_new_tokens": 4,
    },
    "test",
)
# Its half is CONFIG.
TWICE = with_overrides(CONFIG, {"train.batch_size": 4, "train.accumulation_steps": 1}, "test")
EPOCHS = CONFIG.train.epochs


Undisturbed = tuple[Any, list[EpochResult], Path]


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module", autouse=True)
def float32_base() -> Iterator[None]:
    """No bfloat16 in what this module's tests share either, above all in the base that stays loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wertune.whisper.footprint, "_multiplies_bfloat16", lambda _: False)
        yield


@pytest.fixture(scope="module")
def prepared(tiny_whisper_folder: Path, make_recordings: Callable[..., Any]) -> Prepared:
    """Nine clips to train on, and three each to validate on and to retain."""
    texts = ["yes please", "check", "check the form", "the form", "no", "my form", "your form", "please", "yes"]
    splits = {
        "train": make_recordings(texts),
        "validation": make_recordings(texts[:3], 0.6),
        "retention_validation": make_recordings(texts[3:6], 0.7),
    }
    return prepared_of(tiny_whisper_folder, splits)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trials keep their own files, and a cache of this test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "stored")


def _run(
    prepared: Prepared, store: FolderStore | None = None, config: TrialConfig = CONFIG, kill_after: int = 0
) -> tuple[Log, list[EpochResult]]:
    """What is logged, and told after each epoch; `kill_after` ends the trial there."""
    log, told = Log(), list[EpochResult]()

    def after_epoch(result: EpochResult) -> None:
        told.append(replace(result, **CLOCKS))
        if result.epoch == kill_after:
            raise Killed

    try:
        run_trial(config, prepared, OBJECTIVE, log, after_epoch, store)
        assert not kill_after
    except Killed:
        pass
    return log, told


def _figures(log: Log) -> dict[int, dict[str, float]]:
    other = {*CLOCKS, "peak_memory_mb"}
    return {step: {k: v for k, v in values.items() if k not in other} for step, values in log.steps.items()}


@pytest.fixture(scope="module")
def undisturbed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What a trial logs and tells that nobody disturbs, and its last state."""
    folder = tmp_path_factory.mktemp("undisturbed") / "stored"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WERTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return *_run(prepared, FolderStore(folder)), folder


def test_a_trial_killed_after_every_epoch_ends_as_if_it_had_not_been(
    prepared: Prepared,
    undisturbed: Undisturbed,
    store: FolderStore,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, told, whole = undisturbed
    train_epoch, trained = wertune.training.train._train_epoch, list[int]()

    def counted(*arguments: Any) -> Any:
        trained.append(arguments[3])
        return train_epoch(*arguments)

    monkeypatch.setattr(wertune.training.train, "_train_epoch", counted)
    assert len({result.train_loss for result in told}) == EPOCHS
    for epoch in range(1, EPOCHS + 1):
        torch.seed()  # another process draws from another place
        assert _run(prepared, store, kill_after=epoch)[1] == told[:epoch]
    resumed_log, resumed = _run(prepared, store)
    assert trained == [1, 2, 3]
    assert resumed == told
    assert _figures(resumed_log) == _figures(log)
    assert all("peak_memory_mb" in resumed_log.steps[result.epoch] for result in told)
    assert resumed_log.adapter == log.adapter
    assert resumed_log.adapter.keys() == set(ADAPTER_FILES)
    assert "wertune.state_refused" not in resumed_log.tagged
    expected, found = (load_file(folder / TENSORS) for folder in (whole, store.folder))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert list(scratch.iterdir()) == []


def test_a_trial_that_is_scored_at_its_end_alone_goes_on_from_its_last_epoch(
    prepared: Prepared, undisturbed: Undisturbed, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(CONFIG, {"train.evaluate_every_epochs": 2}, "test")
    train_epoch, trained = wertune.training.train._train_epoch, list[int]()

    def dies(*arguments: Any) -> Any:
        trained.append(arguments[3])
        if trained == [1, 2]:
            raise Killed
        return train_epoch(*arguments)

    monkeypatch.setattr(wertune.training.train, "_train_epoch", dies)
    assert _run(prepared, store, config)[1] == []
    _, told = _run(prepared, store, config)
    assert trained == [1, 2, 2, 3]
    assert [result.epoch for result in told] == [2, EPOCHS]
    # Scoring draws nothing: what is learnt is the same.
    assert told == [undisturbed[1][result.epoch - 1] for result in told]


def test_a_state_holds_all_that_training_needs_and_no_pickle(undisturbed: Undisturbed) -> None:
    folder = undisturbed[2]
    assert {file.name for file in folder.iterdir()} == {*CHECKED, DIGESTS}
    tensors = load_file(folder / TENSORS)
    kinds = {name.partition("/")[0] for name in tensors}
    moments = {"adamw.exp_avg", "adamw.exp_avg_sq", "adamw.step"}
    assert kinds == {"average_steps", "parameter", "average", "random", *moments}
    per_epoch = 3  # nine clips and one without a word, four an update
    assert int(tensors["average_steps"]) == EPOCHS * per_epoch
    assert {int(value) for name, value in tensors.items() if name.startswith("adamw.step/")} == {EPOCHS * per_epoch}
    record = json.loads((folder / RECORD).read_text())
    assert [result["epoch"] for result in record["results"]] == [1, 2, 3]


def test_a_trial_that_is_stopped_leaves_its_state_and_nothing_else(
    prepared: Prepared, store: FolderStore, scratch: Path
) -> None:
    def stop(result: EpochResult) -> None:
        raise SystemExit

    log = Log()
    with pytest.raises(SystemExit):
        run_trial(CONFIG, prepared, OBJECTIVE, log, stop, store)
    assert log.adapter
    assert list(scratch.iterdir()) == []
    with prepared.resident_whisper("none") as whisper:
        assert not [name for name, _ in whisper.bare.named_modules() if "lora" in name]


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncated, _flipped, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", [*CHECKED, DIGESTS])
def test_no_damage_to_a_state_is_overlooked(
    prepared: Prepared, undisturbed: Undisturbed, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    trial = trial_digest(CONFIG, prepared, OBJECTIVE)
    folder = Path(shutil.copytree(undisturbed[2], tmp_path / "state"))
    assert len(read_state(folder, trial, tmp_path / "whole")[0].results) == EPOCHS
    damage(folder / name)
    with pytest.raises(StateError, match="damaged"):
        read_state(folder, trial, tmp_path / "adapter")


def test_a_damaged_state_is_named_in_a_tag_and_the_trial_begins_anew(
    prepared: Prepared, undisturbed: Undisturbed, store: FolderStore
) -> None:
    expected, all_told, whole = undisturbed
    shutil.copytree(whole, store.folder)
    _truncated(store.folder / TENSORS)
    log, told = _run(prepared, store, kill_after=1)
    assert "damaged" in log.tagged["wertune.state_refused"]
    assert told == all_told[:1]
    log, told = _run(prepared, store)
    assert "wertune.state_refused" not in log.tagged
    assert log.adapter == expected.adapter
    assert told == all_told


def test_a_state_of_another_trial_is_not_used(prepared: Prepared, undisturbed: Undisturbed, tmp_path: Path) -> None:
    fewer = {**prepared.dataset.splits, "train": prepared.dataset["train"][1:]}
    digests = [
        trial_digest(with_overrides(CONFIG, {"train.learning_rate": 0.02}, "test"), prepared, OBJECTIVE),
        trial_digest(CONFIG, replace(prepared, base=replace(prepared.base, digest="another")), OBJECTIVE),
        trial_digest(CONFIG, replace(prepared, dataset=Dataset(fewer)), OBJECTIVE),
        trial_digest(CONFIG, prepared, replace(OBJECTIVE, penalty=3.0)),
    ]
    for digest in digests:
        with pytest.raises(StateError, match="it is of another configuration, base model, objective or data set"):
            read_state(undisturbed[2], digest, tmp_path / "adapter")


def test_a_run_says_where_it_ran(prepared: Prepared) -> None:
    log, _ = _run(prepared, config=with_overrides(CONFIG, {"train.epochs": 1}, "test"))
    assert log.tagged["wertune.device"] == device_name(torch.device("cpu"))
    assert log.tagged["wertune.device"].startswith("cpu: ")
    assert len(log.tagged["wertune.device"]) > len("cpu: ")
    assert log.tagged["wertune.precision"] == "float32 products"
    assert log.tagged["wertune.host"] == os.uname().nodename


@pytest.fixture
def loss_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`loss_fails(over, error, from_call)`: the loss of so many clips raises; gives the sizes of all batches."""
    real = Whisper.summed_loss

    def fail(over: int, error: Callable[[], BaseException], from_call: int = 1) -> list[int]:
        sizes: list[int] = []

        def loss(self: Whisper, features: torch.Tensor, labels: torch.Tensor, *part: Any) -> torch.Tensor:
            if self.model.training:
                sizes.append(len(features))
                if len(features) >= over and len(sizes) >= from_call:
                    raise error()
            return real(self, features, labels, *part)

        monkeypatch.setattr(Whisper, "summed_loss", loss)
        return sizes

    return fail


SHORT_OF_MEMORY = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
    "driver": lambda: RuntimeError("CUDA error: out of memory"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you"),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "onednn": lambda: RuntimeError("could not create a primitive"),
    "python": MemoryError,
}


@pytest.mark.parametrize("error", SHORT_OF_MEMORY.values(), ids=SHORT_OF_MEMORY)
def test_a_lack_of_memory_is_told_from_other_errors(error: Callable[[], BaseException]) -> None:
    assert is_out_of_memory(error())
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a matmul"))
    assert not is_out_of_memory(RuntimeError("expected scalar type Float"))
    assert not is_out_of_memory(OSError(28, "not enough memory"))


def test_a_batch_that_does_not_fit_is_halved_and_the_trial_is_that_of_the_half_batch(
    prepared: Prepared, undisturbed: Undisturbed, loss_fails: Callable[..., list[int]]
) -> None:
    sizes = loss_fails(3, SHORT_OF_MEMORY["gpu"])
    log, told = _run(prepared, config=TWICE)
    assert told == undisturbed[1]
    assert log.adapter == undisturbed[0].adapter
    assert max(sizes[1:]) == 2
    assert (log.logged["batch_size"], log.logged["accumulation_steps"]) == (4, 1)
    assert (log.logged["ran_batch_size"], log.logged["ran_accumulation_steps"]) == (2, 2)
    assert log.tagged["wertune.batch_halved"] == "CUDA out of memory. Tried to allocate 2.00 GiB."


def test_a_trial_goes_on_halved_after_its_last_epoch_and_when_it_is_resumed(
    prepared: Prepared, store: FolderStore, tmp_path: Path, loss_fails: Callable[..., list[int]]
) -> None:
    config = TWICE
    sizes = loss_fails(3, MemoryError, from_call=4)  # an epoch has three batches
    log, told = _run(prepared, FolderStore(tmp_path / "whole"), config)
    assert [result.epoch for result in told] == [1, 2, 3]  # each once, the first one before it was halved
    assert max(sizes[:3]) == 4
    assert max(sizes[-10:]) == 2  # two epochs of five
    sizes.clear()
    _run(prepared, store, config, kill_after=2)
    sizes.clear()
    resumed_log, resumed = _run(prepared, store, config)
    assert max(sizes) == 2
    assert resumed == told
    assert resumed_log.adapter == log.adapter
    assert resumed_log.tagged["wertune.batch_halved"] == "MemoryError"
    assert resumed_log.logged["ran_batch_size"] == 2


def test_a_trial_whose_process_was_ended_for_want_of_memory_goes_on_halved_once(
    prepared: Prepared, undisturbed: Undisturbed, store: FolderStore
) -> None:
    config = TWICE
    whole = _run(prepared, store, config, kill_after=1)[1]
    store.short = ["Ray ended its process at noon"]
    log, told = _run(prepared, store, config, kill_after=2)
    assert told[:1] == whole
    assert (log.logged["ran_batch_size"], log.logged["ran_accumulation_steps"]) == (2, 2)
    assert log.tagged["wertune.batch_halved"] == "Ray ended its process at noon"
    log, resumed = _run(prepared, store, config)  # the same death does not count again
    assert resumed[:2] == told
    assert len(resumed) == EPOCHS
    store.short += ["Ray ended its process at one"]
    with pytest.raises(OutOfMemory, match=r"epoch 4: train.batch_size is 2, halved already.*\(Ray ended .* at one\)"):
        _run(prepared, store, config)


@pytest.mark.parametrize(
    ("batch_size", "told"), [(4, "train.batch_size is 2, halved already"), (1, "is 1, which cannot be halved")]
)
def test_a_trial_that_does_not_fit_at_all_fails_alone(
    prepared: Prepared, loss_fails: Callable[..., list[int]], scratch: Path, batch_size: int, told: str
) -> None:
    loss_fails(1, lambda: RuntimeError("CUDA out of memory, again"))
    with pytest.raises(OutOfMemory) as caught:
        _run(prepared, config=with_overrides(CONFIG, {"train.batch_size": batch_size}, "test"))
    assert str(caught.value).startswith("epoch 1: ")
    assert f"{told}, but a trial must fit the memory (CUDA out of memory, again); lower" in str(caught.value)
    assert list(scratch.iterdir()) == []
    with prepared.resident_whisper("none") as whisper:
        assert not [name for name, _ in whisper.bare.named_modules() if "lora" in name]


def test_another_error_is_not_taken_for_a_lack_of_memory(
    prepared: Prepared, loss_fails: Callable[..., list[int]]
) -> None:
    sizes = loss_fails(1, lambda: RuntimeError("expected scalar type Float"))
    with pytest.raises(RuntimeError, match="expected scalar type"):
        _run(prepared)
    assert len(sizes) == 1


@given(st.integers(2, 64), st.integers(1, 8), st.integers(1, 500))
def test_half_a_batch_has_as_many_clips_an_update_as_can_be(size: int, accumulation: int, clips: int) -> None:
    values = {"train.batch_size": size, "train.accumulation_steps": accumulation}
    config = with_overrides(TrialConfig(), values, "test")
    train = halved(config).train
    assert train.batch_size == size // 2
    wanted, given_now = size * accumulation, train.batch_size * train.accumulation_steps
    assert abs(given_now - wanted) <= train.batch_size / 2
    if size % 2 == 0:
        assert train.accumulation_steps == 2 * accumulation
        updates = [ceil(ceil(clips / of.batch_size) / of.accumulation_steps) for of in (config.train, train)]
        assert updates[0] == updates[1]


@pytest.mark.parametrize("what", ["gradient norm", "weights", "validation loss"])
def test_what_is_no_number_ends_the_trial_before_anything_is_kept(
    prepared: Prepared, store: FolderStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "gradient norm":
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
        expected = "epoch 1, batch 2: gradient norm is inf"
    elif what == "weights":
        step = wertune.training.optimizer.MovingAverage.update

        def update(self: Any) -> None:
            if self.steps == 2:  # the epoch's last step
                self._parameters[0].data.view(-1)[1] = float("nan")
            step(self)

        monkeypatch.setattr(wertune.training.optimizer.MovingAverage, "update", update)
        expected = r"epoch 1, after its last step: parameter/base_model\S+ is nan"
    else:
        monkeypatch.setattr(wertune.training.train, "validation_loss", lambda *_: float("nan"))
        expected = "epoch 1: validation loss is nan"
    log = Log()
    with pytest.raises(TrainingDiverged, match=rf"{expected}, must be finite; lower train\.learning_rate or"):
        run_trial(CONFIG, prepared, OBJECTIVE, log, store=store)
    assert not store.folder.exists()
    assert not log.adapter
    assert set(log.steps) == {0}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(kilobytes)`: a disk of its own."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"no tmpfs can be mounted: {made.stderr.strip()}")
        mounted.append(folder)
        return folder

    if os.geteuid():
        pytest.skip("only root can mount a tmpfs")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kilobytes", [4, 40, 100])  # in the adapter, in the state
def test_on_a_full_disk_a_trial_fails_alone_and_leaves_nothing(
    prepared: Prepared, store: FolderStore, small_disk: Callable[[int], Path], kilobytes: int, monkeypatch: Any
) -> None:
    disk = small_disk(kilobytes)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    told = rf"{disk}\S*: .* cannot be stored \(.*\); free some space there, or"
    with pytest.raises(StorageError, match=told) as caught:
        run_trial(CONFIG, prepared, OBJECTIVE, Log(), store=store)
    assert "No space left" in str(caught.value)
    assert list(disk.iterdir()) == []
    assert not store.folder.exists()


def test_a_full_store_keeps_the_state_before_and_the_trial_goes_on_from_it(
    prepared: Prepared, undisturbed: Undisturbed, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(4096)
    store = FolderStore(disk / "stored")
    expected, told, roomy = undisturbed
    size_kb = sum(file.stat().st_size for file in roomy.iterdir()) // 1024
    _run(prepared, store, kill_after=1)
    before = {file.name: file.read_bytes() for file in store.folder.iterdir()}
    filler = disk / "filler"
    filler.write_bytes(bytes(1024 * (4096 - size_kb - size_kb // 2)))
    problem = r"FolderStore: the trial's state cannot be stored \(.*No space left.*\); free"
    with pytest.raises(StorageError, match=problem):
        _run(prepared, store)
    assert {file.name: file.read_bytes() for file in store.folder.iterdir()} == before
    assert {file.name for file in disk.iterdir()} == {"stored", "filler"}
    filler.unlink()
    log, resumed = _run(prepared, store)
    assert resumed == told
    assert log.adapter == expected.adapter


def test_with_a_full_cache_a_trial_is_the_same(
    prepared: Prepared, small_disk: Callable[[int], Path], monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_overrides(CONFIG, {"train.epochs": 1}, "test")
    expected, _ = _run(prepared, config=config)
    disk = small_disk(64)
    monkeypatch.setenv("WERTUNE_CACHE", str(disk))
    log, _ = _run(prepared, config=config)
    assert log.adapter == expected.adapter
    (message,) = caplog.messages
    assert message.startswith(f"{disk / 'features'}: the features cannot be stored (")
    assert not [file for file in disk.rglob("*") if file.is_file() and file.suffix != ".npy"]
