"""Every fault of a YAML file names place, key, value and rule, and all of them come at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wertune.base.config import (
    LANGUAGES,
    BaseModelConfig,
    ProjectConfig,
    TrialConfig,
    flatten,
    load_yaml,
    parse,
    read_yaml,
    with_overrides,
)
from wertune.base.errors import ConfigError
from wertune.base.text import Lexicon

PROJECT: dict[str, Any] = {
    "name": "sg_gov",
    "base_model": "packaged:whisper-tiny.en",
    "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
}
PLACE = "project.yaml"

# key, bad value, what the rule says
FAULTS = [
    ("lora.r", 0, "but must be at least 1"),
    ("lora.r", 257, "but must be at most 256"),
    ("lora.r", 8.5, "but must be a whole number"),
    ("lora.r", "many", "but must be a whole number"),
    ("lora.alpha", 0, "but must be above 0"),
    ("lora.alpha", float("inf"), "finite number"),
    ("lora.dropout", 1, "but must be below 1"),
    ("lora.dropout", -0.1, "but must be at least 0"),
    ("lora.scope", "middle", "'encoder', 'decoder' or 'both'"),
    ("lora.target_modules", [], "but must hold at least 1"),
    ("lora.target_modules", 3, "but must be a list"),
    ("lora.dora", "perhaps", "but must be true or false"),
    ("quantization", "int4", "'int8', 'nf4' or 'none'"),
    ("train.learning_rate", float("nan"), "finite number"),
    ("train.learning_rate", 1.0, "but must be below 1"),
    ("train.epochs", None, "but must be a whole number"),
    ("train.replay_ratio", 4.5, "but must be at most 4"),
    ("train.clips_per_epoch", 0, "but must be at least 1"),
    ("decode.max_new_tokens", 449, "but must be at most 448"),
    ("decode.tokens_per_second", float("inf"), "finite number"),
    ("context.margin_positions", 1501, "but must be at most 1500"),
    ("augment.time_masks", 11, "but must be at most 10"),
    ("augment.noise_snr_db", 3, "but must be a mapping of keys to values"),
]

names = st.text("abc", min_size=1, max_size=2)
leaves = st.none() | st.integers() | st.lists(st.integers(), max_size=2)
nested = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=6)
)


def _nest(key: str, value: Any) -> dict[str, Any]:
    *parents, last = key.split(".")
    nested_values: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        nested_values = {parent: nested_values}
    return nested_values


def _unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return values


def _project_file(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "project.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_short_project_has_every_default(tmp_path: Path) -> None:
    project = load_yaml(_project_file(tmp_path, PROJECT), ProjectConfig)
    assert project.trial == TrialConfig()
    assert project.base_model == BaseModelConfig(source="packaged:whisper-tiny.en")
    assert project.data.train == Path("train.jsonl")
    assert project.data.replay is None


@pytest.mark.parametrize(("key", "value", "rule"), FAULTS)
def test_a_fault_names_place_key_value_and_rule(key: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TrialConfig, _nest(key, value), PLACE)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{PLACE}: {key} is {value!r}, but must ")
    assert rule in line


@pytest.mark.parametrize("modules", ["q_proj,attention", ["q_proj", "attention"]])
def test_a_layer_that_whisper_lacks_is_refused(modules: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TrialConfig, {"lora": {"target_modules": modules}}, PLACE)
    known = "'q_proj', 'k_proj', 'v_proj', 'out_proj', 'fc1' or 'fc2'"
    assert str(caught.value) == f"{PLACE}: lora.target_modules.1 is 'attention', but must be {known}"


@pytest.mark.parametrize("key", ["lorra", "lora.rank", "train.lr"])
def test_an_unknown_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TrialConfig, _nest(key, 1), PLACE)
    assert str(caught.value) == f"{PLACE}: {key} is not a known key; remove it or mend its spelling"


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment\.gain_db .*low is 4\.0, but must be <= high \(-8\.0\); swap them"):
        parse(TrialConfig, {"augment": {"gain_db": {"low": 4, "high": -8}}}, PLACE)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = _project_file(tmp_path, {"name": "a", "data": {"train": "a", "test": "b"}})
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, ProjectConfig)
    lines = str(caught.value).splitlines()
    assert lines == [f"{path}: {key} is missing; add it" for key in ("base_model", "data.validation")]


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    content = PROJECT | {
        "name": "with blank",
        "langauge": "en",
        "data": {"train": "train.jsonl", "test": "test.jsonl", "max_duration_s": 31},
        "trial": {"seed": -1, "lora": {"r": 0, "scope": "middle"}},
    }
    path = _project_file(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, ProjectConfig)
    lines = str(caught.value).splitlines()
    keys = {"name", "langauge", "data.validation", "data.max_duration_s", "trial.seed", "trial.lora.r"}
    assert {line.removeprefix(f"{path}: ").split(" ")[0] for line in lines} == keys | {"trial.lora.scope"}
    assert any("data.max_duration_s is 31, " in line and "be at most 30" in line for line in lines)


@pytest.mark.parametrize("name", ["", "a b", ".hidden", "-x", "a/b", "名"])
def test_a_project_name_must_suit_the_registry(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(ProjectConfig, PROJECT | {"name": name}, PLACE)
    assert f"{PLACE}: name is {name!r}, but must be letters, digits" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds a list, but must hold a mapping"),
        (b"", "is empty, but must hold a mapping"),
        (b"just words", "holds a text, but must hold a mapping"),
        (b"a: [1, 2", "is not readable YAML"),
        (b"a: \xff\xfe", "is not readable YAML"),
        (b"name: 2024-13-01", "is not readable YAML: month must be in 1..12"),
        (b"name: " + b"[" * 5000, "is not readable YAML"),
        (b"name: !!python/object/apply:os.getcwd []", "is not readable YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "project.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, ProjectConfig)
    assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("name: a\nlanguage: en\nname: b\n", ["3: name stands in line 1 already; remove one of the two"]),
        ("data: {test: a, test: b}\n", ["1: test stands in line 1 already; remove one of the two"]),
        ("a:\n  - {b: 1}\n  - {b: 1}\n", []),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: {<<: *x, c: 4}\n", []),
        ("a: {b: 1}\n'a': {c: 1,\n c: 2}\n", ["3: c stands in line 2 already", "2: a stands in line 1 already"]),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, faults: list[str]) -> None:
    path = tmp_path / "project.yaml"
    path.write_text(text)
    told: list[str] = []
    try:
        read_yaml(path)
    except ConfigError as error:
        told = str(error).splitlines()
    assert len(told) == len(faults)
    assert all(line.startswith(f"{path}:{fault}") for line, fault in zip(told, faults, strict=True))


def test_a_missing_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist; write it, or mend the path"):
        load_yaml(tmp_path / "nowhere.yaml", ProjectConfig)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not readable YAML"):
        load_yaml(tmp_path, ProjectConfig)


def test_a_base_model_may_be_written_in_full() -> None:
    base = {"source": "openai/whisper-base", "revision": "main"}
    assert parse(ProjectConfig, PROJECT | {"base_model": base}, PLACE).base_model.revision == "main"


def test_modules_may_be_written_in_one_string() -> None:
    config = parse(TrialConfig, {"lora": {"target_modules": "q_proj, v_proj,fc1"}}, PLACE)
    assert config.lora.target_modules == ("q_proj", "v_proj", "fc1")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().seed = 1  # type: ignore[misc]


def test_an_override_changes_its_key_alone() -> None:
    before = TrialConfig()
    after = with_overrides(before, {"lora.r": 8, "train.learning_rate": 3e-4}, PLACE)
    changed = {"lora.r": 8, "train.learning_rate": 3e-4}
    assert flatten(after.model_dump()) == flatten(before.model_dump()) | changed
    assert before == TrialConfig()


def test_overriding_every_key_with_its_own_value_changes_nothing() -> None:
    config = parse(TrialConfig, {"seed": 3, "lora": {"r": 4, "scope": "decoder"}}, PLACE)
    assert with_overrides(TrialConfig(), flatten(config.model_dump()), PLACE) == config
    assert with_overrides(config, {}, PLACE) == config


@pytest.mark.parametrize("key", ["lora.rank", "lr", "seed.x", "lora.r.x", "", "lora.", ".lora"])
def test_an_override_of_an_unknown_key_lists_the_known_ones(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(TrialConfig(), {key: 1}, "-P")
    assert str(caught.value).startswith(f"-P: {key} is not a key of the configuration; known keys: ")
    assert all(known in str(caught.value) for known in ("lora.r", "train.learning_rate", "augment.gain_db.low"))


def test_overrides_are_checked_as_the_file_is() -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(TrialConfig(), {"lora.r": 0, "lora.scope": "middle"}, "-P")
    ranks, scopes = str(caught.value).splitlines()
    assert ranks == "-P: lora.r is 0, but must be at least 1"
    assert scopes.startswith("-P: lora.scope is 'middle', but must be 'encoder', 'decoder' or 'both'")


@given(st.integers(-10, 300))
def test_a_rank_is_taken_exactly_within_its_limits(rank: int) -> None:
    if 1 <= rank <= 256:
        assert with_overrides(TrialConfig(), {"lora.r": rank}, PLACE).lora.r == rank
    else:
        with pytest.raises(ConfigError, match=rf"lora\.r is {rank}, but must be at "):
            with_overrides(TrialConfig(), {"lora.r": rank}, PLACE)


@given(nested)
def test_flattened_mappings_can_be_nested_again(values: dict[str, Any]) -> None:
    flat = flatten(values)
    assert not any(isinstance(value, dict) for value in flat.values())
    assert _unflatten(flat) == values


def test_a_language_is_one_of_whispers(tmp_path: Path) -> None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES as WHISPERS

    assert set(LANGUAGES) == set(WHISPERS)
    text = "name: a\nlanguage: english\nbase_model: x\ndata: {train: a, validation: b, test: c}\n"
    (tmp_path / "project.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"language is 'english': must be one of Whisper's: af, am, "):
        load_yaml(tmp_path / "project.yaml", ProjectConfig)


def test_a_rule_between_keys_is_told_without_the_whole_document() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Lexicon, {"terms": [{"term": "CPF"}, {"term": "cpf"}]}, "--term")
    assert str(caught.value) == "--term: terms listed twice: cpf; keep one entry for each"
