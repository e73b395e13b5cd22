"""The plan of a search: measured on a real model, added up as it says, and nothing of it is logged."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from wertune import __main__ as command_line
from wertune.base import machine
from wertune.base.config import ProjectConfig, load_project
from wertune.base.errors import ConfigError
from wertune.base.machine import processor_name
from wertune.search import plan as module
from wertune.search.halving import Estimate
from wertune.search.plan import Machine, Plan, as_text, make_plan
from wertune.search.search_space import SearchConfig
from wertune.training.baseline import EVALUATION_SPLITS, Texts, Wanted, Way, baseline_texts
from wertune.training.prepare import Prepared, prepare
from wertune.training.probe import Probe, probe

SPACE = {"lora.r": {"choices": [2, 4]}}


@pytest.fixture
def project(small_project: Path) -> Path:
    return small_project


def test_the_probe_measures_and_keeps_nothing(project: Path) -> None:
    prepared = prepare(project, load_project(project))
    before = sorted(project.rglob("*"))
    found = probe(prepared, threads=1)
    assert min(found.train_clip_s, found.features_clip_s, found.evaluation_clip_s, found.baseline_clip_s) > 0
    assert 0 < found.share_of_cores <= 1
    assert found.memory_mb > 50
    # Two layers of encoder and decoder, with attention to both: q and v of width 32 at rank 4, in 32 bits.
    assert found.adapter_mb == pytest.approx(2 * (2 + 4) * 2 * 32 * 4 * 4 / 2**20)
    assert sorted(project.rglob("*")) == before
    with prepared.resident_whisper("none") as whisper:
        assert not [name for name, _ in whisper.bare.named_parameters() if "lora" in name]


def _fixed(**values: Any) -> Probe:
    found = Probe(
        train_clip_s=0.1,
        features_clip_s=0.01,
        evaluation_clip_s=0.5,
        final_clip_s=1.0,
        baseline_clip_s=2.0,
        memory_mb=1000,
        adapter_mb=2.0,
        mel_bins=80,
        share_of_cores=1.0,
    )
    return replace(found, **values)


@pytest.fixture
def planned(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """`planned(search, **measured)`: the plan on two cores of what is measured as given."""

    def make(search: dict[str, Any] | None = None, **measured: Any) -> Plan:
        monkeypatch.setattr(module, "probe", lambda *_: _fixed(**measured))
        for place in (module, machine):
            monkeypatch.setattr(place, "cores", lambda: 2)
        monkeypatch.setattr(module, "free_memory_mb", lambda: 4400.0)
        monkeypatch.setattr(module, "free_disk_mb", lambda _: 1000.0)
        return make_plan(project, load_project(project), SearchConfig.model_validate({"space": SPACE} | (search or {})))

    return make


def test_restarts_and_the_battery_take_their_time(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = planned({"trials": 2})
    plan = planned({"trials": 2, "restarts": 3})
    # Three runs of four epochs, the last of which is scored, on two places: one waits for a place.
    restarts_s = pytest.approx(2 * (4 * 9 * 0.1 + 2 * 0.5))
    assert plan.rest_s == plain.rest_s | {"check": plan.rest_s["check"], "restarts": restarts_s}
    assert "the best again from other seeds" in as_text(plan)
    weighed = planned({"trials": 2, "strengths": [0.7, 0.8, 0.9]})
    assert weighed.rest_s["strengths"] == pytest.approx(3 * 2 * 0.5)
    assert "again from other seeds" not in as_text(plain)
    monkeypatch.setattr(module, "project_battery", lambda *_: SimpleNamespace(rows=[None] * 50))
    more = planned({"trials": 2})
    assert more.rest_s["final"] == pytest.approx(plain.rest_s["final"] + 50 * more.probe.final_clip_s)


def test_what_the_base_has_written_is_not_counted_again(planned: Callable[..., Plan], project: Path) -> None:
    prepared = prepare(project, load_project(project))

    def write(_: Prepared, wanted: Wanted) -> Texts:
        return {split: {way: ["said"] * len(prepared.dataset[split]) for way in ways} for split, ways in wanted.items()}

    baseline_texts(prepared, {"validation": (Way.PLAIN,)}, write)
    assert planned({"trials": 1}).rest_s["baseline"] == 1 * 2.0  # the clip of test
    baseline_texts(prepared, dict.fromkeys(EVALUATION_SPLITS, (Way.PLAIN,)), write)
    assert planned({"trials": 1}).rest_s["baseline"] == 0


def test_it_adds_up(planned: Callable[..., Plan]) -> None:
    plan = planned({"trials": 1})
    assert plan.machine == Machine(cores=2, processor=processor_name(), gpus=0, products="float32", trials_at_once=1)
    assert plan.clips_per_epoch == 9  # six of the domain, and half as many without words
    assert plan.epoch_s == pytest.approx(9 * 0.1 + 2 * 0.5)
    assert plan.all_epochs == Estimate(4, 4, 4)
    assert plan.features_s == pytest.approx(6 * 4 * 0.01)  # each clip in four variants
    assert plan.search_s.low == pytest.approx(4 * plan.epoch_s)
    assert plan.search_s.high == pytest.approx(4 * plan.epoch_s + plan.features_s)
    baseline_s, final_s = 3 * 2.0, 1 * 1.0
    check_s = plan.rest_s["check"]
    assert plan.rest_s == {"check": check_s, "baseline": baseline_s, "final": final_s, "start_up": module.START_UP_S}
    assert plan.total_s.high == pytest.approx(plan.search_s.high + sum(plan.rest_s.values()))
    assert plan.total_s.low == pytest.approx(plan.search_s.low + sum(plan.rest_s.values()))
    assert plan.adapters_mb == 4.0
    assert plan.memory_free_mb == 4000
    # 0.5 s of context and a margin of 32 positions are 64 positions, 128 frames; of the baseline 3000.
    assert plan.cache_mb > 3 * 3000 * 80 * 4 / 2**20


def test_epochs_that_are_not_scored_take_less_time(planned: Callable[..., Plan], project: Path) -> None:
    values = yaml.safe_load((project / "project.yaml").read_text())
    for every, scored_s in ((2, 0.5), (9, 0.25)):  # of four epochs the last always is
        values["trial"]["train"]["evaluate_every_epochs"] = every
        (project / "project.yaml").write_text(yaml.safe_dump(values))
        plan = planned({"trials": 2, "restarts": 1, "asha": {"grace_epochs": 9}})
        assert plan.epoch_s == pytest.approx(9 * 0.1 + 2 * 0.5 * scored_s)
        assert plan.rest_s["restarts"] == pytest.approx(4 * 9 * 0.1 + 2 * 0.5)


def test_trials_side_by_side_take_less_time(planned: Callable[..., Plan]) -> None:
    alone, both = planned({"trials": 6, "max_concurrent": 1}), planned({"trials": 6})
    assert (alone.machine.trials_at_once, both.machine.trials_at_once) == (1, 2)
    assert both.search_s.mean < 0.8 * alone.search_s.mean
    assert planned({"trials": 6, "cpus_per_trial": 2}).machine.trials_at_once == 1


def test_what_it_assumes_is_told(planned: Callable[..., Plan]) -> None:
    text = " ".join(as_text(planned()).split())
    assert "ASHA's rule is reckoned with trials in random order; between the ends" in text
    assert "the base's scores 3 s, final evaluation and gates 1 s, processes and reports 72 s" in text
    text = " ".join(as_text(planned({"first_points": [{"lora.r": 2}]})).split())
    assert "in random order, in three of four searches with search.yaml's first_points as the best; between" in text


def test_what_does_not_fit_is_told(planned: Callable[..., Plan]) -> None:
    text = as_text(planned({"trials": 3}))
    assert "!" not in text
    assert "3 trials of at most 4 epochs" in text
    assert "compares trials after epochs 1, 3" in text
    assert "1000 MB a trial, 2 at once; free: 3.9 GB" in text
    assert "! memory: 4.9 GB wanted, 3.9 GB free" in as_text(planned({"trials": 3}, memory_mb=2500))
    assert "! disk: 2.0 GB wanted" in as_text(planned({"trials": 3}, adapter_mb=500.0))
    busy = as_text(planned({"trials": 3}, share_of_cores=0.25))
    assert "! busy: other programs left the probe 25 % of its cores" in busy


def test_the_advice_on_8_bits_is_part_of_it(project: Path, planned: Callable[..., Plan]) -> None:
    assert planned().advice is None
    text = (project / "project.yaml").read_text().replace("quantization: none", "quantization: int8")
    (project / "project.yaml").write_text(text)
    assert "quantization=none" in (planned().advice or "")


def test_gpus_that_are_not_there(planned: Callable[..., Plan]) -> None:
    with pytest.raises(ConfigError, match="gpus_per_trial is 1, but this machine has 0 GPUs"):
        planned({"gpus_per_trial": 1})


def test_a_trial_of_two_workers_takes_two_cores_and_half_the_time_or_a_little_more(
    planned: Callable[..., Plan],
) -> None:
    alone, both = planned({"trials": 6, "max_concurrent": 1}), planned({"trials": 6, "workers_per_trial": 2})
    assert (both.machine.trials_at_once, both.machine.workers) == (1, 2)
    assert alone.epoch_s / 2 < both.epoch_s < alone.epoch_s
    assert both.memory_mb == 2 * alone.memory_mb
    assert "trials at once: 1, each of 2 workers" in " ".join(as_text(both).split())
    with pytest.raises(ConfigError, match="a trial has 64 workers and cpus_per_trial is 1, but this machine has"):
        planned({"workers_per_trial": 64})
    with pytest.raises(ConfigError, match="gpus_per_trial is 2, but this machine has 0 GPUs"):
        planned({"gpus_per_trial": 2})


def test_tune_dry_run_logs_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of it on the tiny model, as people type it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    arguments = ["tune", "--project", str(project), "--trials", "2", "--epochs", "3", "--dry-run", "--json"]
    monkeypatch.setattr(sys, "argv", ["wertune", *arguments])
    command_line.main()
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["trials"], document["epochs"]) == (2, 3)
    assert document["search_s"]["low"] <= document["search_s"]["mean"] <= document["search_s"]["high"]
    assert "2 trials of at most 3 epochs" in captured.err
    assert not (project / "mlflow.db").exists()
    assert not (project / ".wertune").exists()
    assert isinstance(load_project(project), ProjectConfig)
