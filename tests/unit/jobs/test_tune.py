"""A search's run: what it is bound to when it begins, and what a refusal to resume leaves of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from wergate.gates.kinds.accuracy import WerGate
from wergate.gates.policy import Policy
from wertune.base.config import ProjectConfig, load_project, with_overrides
from wertune.base.contract import ADAPTER_RUN_TAG, OUTCOME_TAG, POINT_TAG, TRIAL_TAG
from wertune.base.errors import BaseModelError, ConfigError, TrackingError, WertuneError
from wertune.base.text import TermFinder
from wertune.jobs import tune
from wertune.jobs.logged import Results, _histories, describe, log_comparison
from wertune.jobs.opening import start_experiment
from wertune.jobs.trials import BestTrial, best_trial
from wertune.jobs.tune import Task, _evaluate_others, finish, score_baseline, what_brings_it
from wertune.scores.comparison import Comparison
from wertune.scores.metrics import Clip, score
from wertune.search.progress import trial_name
from wertune.search.search_space import SearchConfig
from wertune.tracking.runs import DESCRIPTION_TAG, RunRef, create_run
from wertune.tracking.versions import version_of
from wertune.training.prepare import prepare
from wertune.whisper.adapter import add_lora, save_adapter

POLICY = Policy(staging=(WerGate(limit=1.0),), production=(WerGate(limit=1.0),))
SEARCH: dict[str, Any] = {"trials": 3, "space": {"lora.r": {"choices": [2, 4]}}}


def _search(**values: Any) -> SearchConfig:
    return SearchConfig.model_validate(SEARCH | values)


def _begin(folder: Path, search: SearchConfig, resume: str = "", project: ProjectConfig | None = None) -> str:
    with start_experiment(folder, project or load_project(folder), "tune small", resume, search) as (run, _):
        run.tags({DESCRIPTION_TAG: "the results"})
        return run.run_id


@pytest.fixture
def begun(small_project: Path, mlflow_store: str) -> str:
    """The run of a search that has ended well."""
    return _begin(small_project, _search())


def test_a_run_keeps_what_its_search_depends_on(small_project: Path, begun: str) -> None:
    kept = yaml.safe_load(Path(MlflowClient().download_artifacts(begun, "search_settings.yaml")).read_text())
    assert kept["search"]["space"]["lora.r"]["choices"] == [2, 4]
    assert kept["trial"]["train"]["batch_size"] == 2
    assert set(kept["data"]) == {"train", "validation", "test"}


def test_a_search_may_have_more_trials_other_resources_and_another_end(small_project: Path, begun: str) -> None:
    more = _search(trials=5, max_concurrent=1, cpus_per_trial=2, restarts=2, strengths=[0.5])
    assert _begin(small_project, more, resume=begun) == begun


@pytest.mark.parametrize(
    ("search", "project", "difference"),
    [
        ({"seed": 7}, {}, "search.seed 0, not 7"),
        ({"space": {"lora.r": {"choices": [2]}}}, {}, "search.space.lora.r.choices [2, 4], not [2]"),
        ({}, {"trial.lora.r": 8}, "trial.lora.r 4, not 8"),
        ({}, {"trial.train.epochs": 5}, "trial.train.epochs 4, not 5"),
        ({}, {"retention.penalty": 0.0}, "retention.penalty 2.0, not 0.0"),
    ],
)
def test_what_differs_is_named_and_the_run_stays_as_it_was(
    small_project: Path, begun: str, search: dict[str, Any], project: dict[str, Any], difference: str
) -> None:
    other = with_overrides(load_project(small_project), project, "test")
    with pytest.raises(ConfigError) as caught:
        _begin(small_project, _search(**search), resume=begun, project=other)
    assert f"resume: the search of run {begun} began with {difference}; resume with" in str(caught.value)
    run = MlflowClient().get_run(begun)
    assert run.info.status == "FINISHED"
    assert run.data.tags[DESCRIPTION_TAG] == "the results"


def test_another_clip_is_another_search(small_project: Path, begun: str) -> None:
    manifest = small_project / "train.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ConfigError, match=r"began with data\.train \w+, not \w+; resume with"):
        _begin(small_project, _search(), resume=begun)


def test_other_terms_and_other_weights_of_clips_are_another_search(small_project: Path, begun: str) -> None:
    (small_project / "other.yaml").write_text("terms: [{term: a term of their own}]")
    other = with_overrides(load_project(small_project), {"lexicon": "other.yaml"}, "test")
    with pytest.raises(ConfigError, match=r"began with lexicon \w+, not \w+; resume with"):
        _begin(small_project, _search(), resume=begun, project=other)
    manifest = small_project / "train.jsonl"
    first, *others = manifest.read_text().splitlines()
    manifest.write_text("\n".join([json.dumps(json.loads(first) | {"weight": 50}), *others]))
    with pytest.raises(ConfigError, match=r"began with weights \w+, not \w+; resume with"):
        _begin(small_project, _search(), resume=begun)


def test_a_search_of_before_is_held_to_what_it_kept(small_project: Path, begun: str) -> None:
    client = MlflowClient()
    kept = yaml.safe_load(Path(client.download_artifacts(begun, "search_settings.yaml")).read_text())
    old = {key: kept[key] for key in ("search", "trial", "data", "base_model")}
    client.log_text(begun, yaml.safe_dump(old), "search_settings.yaml")
    assert _begin(small_project, _search(), resume=begun) == begun


@pytest.mark.parametrize("text", ["", "search: {trials: 3", "- 1", "3"])
def test_settings_that_were_damaged_are_told_of(small_project: Path, begun: str, text: str) -> None:
    MlflowClient().log_text(begun, text, "search_settings.yaml")
    with pytest.raises(
        ConfigError, match=rf"resume: search_settings\.yaml of run {begun} cannot be read, .* restore it"
    ):
        _begin(small_project, _search(), resume=begun)


def test_only_a_search_is_resumed(small_project: Path, mlflow_store: str) -> None:
    other = create_run(mlflow_store, "another").run_id
    with pytest.raises(ConfigError, match=rf"resume is {other}, but that run is no search: .*; give the run ID"):
        _begin(small_project, _search(), resume=other)


@pytest.mark.parametrize(
    ("search", "project"),
    [
        ({"space": {"lora.first_encoder_layer": {"choices": [0, 2]}}}, {}),
        ({}, {"trial.lora.first_encoder_layer": 2}),
    ],
)
def test_layers_that_the_base_lacks_are_refused_before_anything_is_scored(
    small_project: Path, mlflow_store: str, search: dict[str, Any], project: dict[str, Any]
) -> None:
    other = with_overrides(load_project(small_project), project, "test")
    with pytest.raises(ConfigError, match=r"lora\.first_encoder_layer is 2, but the encoder has layers 0 to 1; lower"):
        _begin(small_project, _search(**search), project=other)


def test_a_base_that_is_only_scored_needs_no_layers_to_train(small_project: Path) -> None:
    project = with_overrides(load_project(small_project), {"trial.lora.first_encoder_layer": 2}, "test")
    assert prepare(small_project, project, {"test": small_project / "test.jsonl"}).dataset["test"]


def test_a_tokenizer_that_cannot_be_loaded_is_told_of(small_project: Path, tiny_whisper_folder: Path) -> None:
    base = Path(shutil.copytree(tiny_whisper_folder, small_project / "base"))
    (base / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"vocab": 5}}))
    project = with_overrides(load_project(small_project), {"base_model": str(base)}, "test")
    with pytest.raises(BaseModelError, match=r"base holds no tokenizer of Whisper: .*; download the model again"):
        prepare(small_project, project)


def test_a_server_that_does_not_answer_is_told_of_before_the_data_are_read(
    small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wertune.tracking.opening.tracking_uri", lambda: "http://127.0.0.1:1")
    monkeypatch.setattr("wertune.jobs.opening.prepare", lambda *_, **__: pytest.fail("the data were read"))
    with pytest.raises(
        TrackingError, match=r"http://127\.0\.0\.1:1 refused: .*Connection refused; set MLFLOW_TRACKING"
    ):
        _begin(small_project, _search(), resume="1a2b")


def _trial(parent: RunRef, name: str, objective: float, **tags: str) -> None:
    """A child run that finished an epoch."""
    run = RunRef(parent.tracking_uri, _child(parent, name))
    run.metrics({"best_objective": objective}, 1)
    run.tags({POINT_TAG: "{}"} | tags)


def _child(parent: RunRef, name: str) -> str:
    experiment = parent.client.get_run(parent.run_id).info.experiment_id
    tags = {"mlflow.parentRunId": parent.run_id, "mlflow.runName": name}
    return str(parent.client.create_run(experiment, tags=tags).info.run_id)


def test_the_best_trial_is_one_that_ended(small_project: Path, mlflow_store: str) -> None:
    """Resumed with fewer trials, a search takes what is there: an interrupted trial has no adapter yet."""
    parent = create_run(mlflow_store, "search")
    prepared = prepare(small_project, load_project(small_project))
    _trial(parent, "trial 02", 0.1)
    with pytest.raises(WertuneError, match="no trial finished an epoch"):
        best_trial(parent, prepared)
    _trial(parent, "trial 01", 0.5, **{OUTCOME_TAG: "pruned"})
    assert best_trial(parent, prepared).name == "trial 01"


def test_histories_are_the_trials_oldest_first_under_their_own_numbers(mlflow_store: str) -> None:
    parent, client = create_run(mlflow_store, "search"), MlflowClient(mlflow_store)
    experiment = client.get_run(parent.run_id).info.experiment_id
    (alone,) = _histories(parent)
    assert alone.number == 1
    for number in range(101):
        tags = {"mlflow.parentRunId": parent.run_id, TRIAL_TAG: str(number)}
        tags |= {OUTCOME_TAG: "failed"} if number == 6 else {}
        client.create_run(experiment, start_time=1000 + number, tags=tags, run_name=trial_name(number))
    histories = _histories(parent)
    assert [each.number for each in histories] == list(range(1, 102))
    assert [each.name for each in histories[98:]] == ["trial 99", "trial 100", "trial 101"]
    assert histories[6].outcome == "failed"


def test_the_table_of_terms_has_the_base_beside_the_adapter(mlflow_store: str) -> None:
    clips, finder = [Clip("a:1", "top up CPF"), Clip("a:2", "log in")], TermFinder(["CPF", "SERS"], str.lower)
    texts = (["top up sea", "log in SERS"], ["top up CPF", "log in"])
    run = create_run(mlflow_store, "results")
    log_comparison(run, "test", Comparison(*(score(clips, written, str.lower, finder) for written in texts)))
    table = json.loads(Path(MlflowClient().download_artifacts(run.run_id, "test_terms.json")).read_text())
    assert table["columns"] == ["term", "base_hits", "base_misses", "base_false", "hits", "misses", "false"]
    assert table["data"] == [["CPF", 0, 1, 0, 1, 0, 0], ["SERS", 0, 0, 1, 0, 0, 0]]


def _with_terms(folder: Path, boost: float) -> ProjectConfig:
    (folder / "lexicon.yaml").write_text("terms: [{term: CPF}, {term: test number}]")
    values = {"lexicon": "lexicon.yaml", "trial.decode.term_boost": boost, "trial.decode.max_new_tokens": 6}
    values["trial.decode.boost_floor"] = None  # a random model doubts all that it writes
    return with_overrides(load_project(folder), values, "test")


def _register_empty(store: str, run: RunRef) -> None:
    client = MlflowClient(store)
    client.create_registered_model("small")
    client.create_model_version("small", "file:///nowhere", run.run_id)


@pytest.mark.parametrize("boost", [0.0, 20.0])
def test_what_each_part_brings_is_logged_told_and_in_the_description(
    small_project: Path,
    mlflow_store: str,
    load_tiny: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    boost: float,
) -> None:
    prepared, run = prepare(small_project, _with_terms(small_project, boost)), create_run(mlflow_store, "results")
    adapter = small_project / "adapter"
    save_adapter(add_lora(load_tiny(), prepared.project.trial.lora, seed=0), adapter, prepared.base.spec)
    run.artifacts(adapter, "adapter")
    best = BestTrial(run, "this one", prepared.project.trial)
    baseline = score_baseline(run, prepared)
    monkeypatch.setattr(
        "wertune.training.baseline.transcribe_with_base", lambda *_: pytest.fail("the base wrote again")
    )
    comparisons = {"test": Comparison(baseline["test"], baseline["test"])}
    results = Results(comparisons, what_brings_it(run, prepared, best, comparisons, lambda line: None))
    assert results.ablation is not None
    logged = MlflowClient(mlflow_store).get_run(run.run_id).data.metrics
    assert results.ablation.metrics().items() <= logged.items()
    assert ("baseline_boosted_val_wer" in logged, "adapter_boosted_val_wer" in logged) == (boost > 0, boost > 0)
    boosted = [row.scores["validation"].terms.written for row in results.ablation.rows if "boosted" in row.key]
    assert all(boosted)
    kept = json.loads(Path(MlflowClient().download_artifacts(run.run_id, "what_it_brings.json")).read_text())
    assert len(kept["data"]) == len(results.ablation.rows) == (7 if boost else 5)
    _register_empty(mlflow_store, run)
    told = describe(run, prepared, results, "this one", "1", "passed")
    assert results.ablation.table() in told
    assert results.ablation.table() in MlflowClient().get_run(run.run_id).data.tags[DESCRIPTION_TAG]


def test_without_terms_there_is_no_such_table(
    small_project: Path, mlflow_store: str, load_tiny: Callable[..., Any]
) -> None:
    prepared, run = prepare(small_project, load_project(small_project)), create_run(mlflow_store, "results")
    save_adapter(add_lora(load_tiny(), prepared.project.trial.lora, seed=0), small_project / "adapter", "tiny")
    run.artifacts(small_project / "adapter", "adapter")
    best = BestTrial(run, "this one", prepared.project.trial)
    results = Results({}, what_brings_it(run, prepared, best, {}, lambda line: None))
    assert results.ablation is None
    _register_empty(mlflow_store, run)
    assert "What each part brings" not in describe(run, prepared, results, "this one", "1", "passed")


@pytest.mark.parametrize(
    ("stopped", "told"), [(KeyboardInterrupt(), "interrupted before"), (TrackingError("it died"), "it failed before")]
)
def test_a_version_that_could_not_be_evaluated_stays_and_the_way_on_is_said(
    stopped: BaseException, told: str, small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise stopped

    monkeypatch.setattr(tune, "register", lambda *_: "7")
    monkeypatch.setattr(tune, "evaluated", stop)
    project = load_project(small_project)
    said = list[str]()
    task = Task(small_project, project, POLICY, said.append)
    run = RunRef("", "run")
    with pytest.raises(type(stopped)):
        finish(task, run, prepare(small_project, project), {}, BestTrial(run, "this one", project.trial))
    assert said[-1].startswith(told)
    assert f"wergate promote --project {small_project} --version 7 --to Staging" in said[-1]


def test_a_resumed_job_takes_the_version_that_it_has_registered(mlflow_store: str) -> None:
    run, adapter, other = (create_run(mlflow_store, name) for name in ("search", "mean", "trial"))
    client = MlflowClient()
    client.create_registered_model("small")
    assert version_of(run, "small", adapter) == ""
    for by, of in ((run, other), (run, adapter), (other, adapter)):
        version = client.create_model_version("small", "file:///nowhere", by.run_id)
        client.set_model_version_tag("small", version.version, ADAPTER_RUN_TAG, of.run_id)
    assert version_of(run, "small", adapter) == "2"


def test_the_version_is_not_evaluated_again_where_its_test_set_is_not_the_frozen_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = list[str]()
    monkeypatch.setattr(tune, "evaluate_in_a_clean_process", lambda _: lambda name, number: evaluated.append(number))
    evaluate = _evaluate_others(tmp_path, "7")
    evaluate("small", "7")
    evaluate("small", "3")
    assert evaluated == ["3"]


def test_a_resumed_search_may_find_another_best_one(mlflow_store: str) -> None:
    run = create_run(mlflow_store, "search")
    for rate in (0.1, 0.1, 0.2, 0.1):
        run.last_params({"best_learning_rate": rate, "best_seed": 0})
        data = MlflowClient().get_run(run.run_id).data
        assert data.params == {"best_learning_rate": "0.1", "best_seed": "0"}
        assert data.tags.get("best_learning_rate", "0.1") == str(rate)
        assert "best_seed" not in data.tags
