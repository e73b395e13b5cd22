"""A new project is one that the commands take, every value in it is the default, and editors know its schema."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from tests.support.places import ROOT

from wergate.gates.decision import decide
from wergate.gates.policy import Policy, load_policy
from wertune import __main__ as command_line
from wertune.base.config import DecodeConfig, Draw, ProjectConfig, flatten, load_project, load_yaml
from wertune.base.errors import ConfigError
from wertune.base.text import Lexicon
from wertune.commands.new_project.scaffold import SPLITS, Wanted, make_project
from wertune.commands.new_project.scaffold_texts import STRENGTHS, TERM_BOOST
from wertune.commands.new_project.schemas import FOLDER, schemas, write_schemas
from wertune.commands.new_project.yaml_page import meaning, yaml_page
from wertune.scores.eval_report import EvalReport
from wertune.search.search_space import SearchConfig, checked_space
from wertune.synthesis.config import SynthesisConfig
from wertune.training.prepare import prepare

DEMO_POLICY = "registry/policies/sg_gov.yaml"
DEMO = [
    ("projects/sg_gov/project.yaml", "project"),
    ("projects/sg_gov/search.yaml", "search"),
    ("projects/sg_gov/lexicon.yaml", "lexicon"),
    ("projects/sg_gov/synthesis.yaml", "synthesis"),
    (DEMO_POLICY, "policy"),
    ("registry/examples/other_domain/project.yaml", "project"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return Path("projects/my-domain")


def _wanted(folder: Path, **values: Any) -> Wanted:
    return Wanted(**({"folder": folder, "name": "my-domain", "language": "en", "base_model": "some/base"} | values))


def _init(*arguments: str) -> int:
    sys.argv = ["wertune", "init", *arguments]
    try:
        command_line.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])


def test_every_value_is_written_and_is_the_default(folder: Path) -> None:
    make_project(_wanted(folder))
    data = {split: Path(f"manifests/{split}.jsonl") for split in ("train", "validation", "test")} | {
        "battery": "shipped"
    }
    plain = ProjectConfig(name="my-domain", base_model={"source": "some/base"}, lexicon="lexicon.yaml", data=data)  # type: ignore[arg-type]
    boosted = {"decode": DecodeConfig(term_boost=TERM_BOOST)}
    assert load_project(folder) == plain.model_copy(update={"trial": plain.trial.model_copy(update=boosted)})
    written = yaml.safe_load((folder / "project.yaml").read_text())
    assert flatten(written).keys() == flatten(plain.model_dump()).keys()
    search = load_yaml(folder / "search.yaml", SearchConfig)
    assert search == SearchConfig(space=search.space, strengths=STRENGTHS)
    assert yaml.safe_load((folder / "search.yaml").read_text()).keys() == SearchConfig.model_fields.keys()
    checked_space(search, plain.trial, "search.yaml")
    policy = load_policy(Path("registry/policies/my-domain.yaml"))
    assert policy == Policy(staging=policy.staging, production=policy.production)


def _sections(config: BaseModel) -> Iterator[BaseModel]:
    yield config
    for name in type(config).model_fields:
        if isinstance(value := getattr(config, name), BaseModel):
            yield from _sections(value)


def test_every_field_says_what_it_means(folder: Path) -> None:
    make_project(_wanted(folder))
    pages = {"project.yaml": load_project(folder), "search.yaml": load_yaml(folder / "search.yaml", SearchConfig)}
    for page, config in pages.items():
        text = (folder / page).read_text()
        assert all(len(line) <= 120 for line in text.splitlines())
        for section in _sections(config):
            for name, field in type(section).model_fields.items():
                words = meaning(field, getattr(section, name))
                assert words, f"{type(section).__name__}.{name} has no description"
                if not isinstance(section, Draw):
                    assert words[:40] in text


def test_the_choices_stand_in_the_comment(folder: Path) -> None:
    make_project(_wanted(folder))
    assert (
        "# int8 | nf4 | none: how the frozen base is stored\n  quantization: int8\n"
        in (folder / "project.yaml").read_text()
    )


def test_it_passes_validate_once_there_are_clips(
    folder: Path, tiny_whisper_folder: Path, write_noise: Callable[..., Path], write_manifest: Callable[..., Path]
) -> None:
    make_project(_wanted(folder, base_model=str(tiny_whisper_folder), terms=[("CPF", "see pee eff")]))
    example = json.loads((folder / "manifests/example.jsonl").read_text())
    for number, split in enumerate(("train", "validation", "test")):
        audio = write_noise(folder / "audio" / f"{split}.wav", seed=number)
        row = {**example, "audio_filepath": f"../audio/{audio.name}", "text": f"CPF {split}", "speaker": split}
        write_manifest(folder / "manifests" / f"{split}.jsonl", [row])
    prepared = prepare(folder, load_project(folder))
    assert [len(prepared.dataset[split]) for split in ("train", "validation", "test")] == [1, 1, 1]
    assert prepared.lexicon.written == ("CPF",)


def test_manifests_are_named_as_the_project_sees_them(folder: Path, tmp_path: Path) -> None:
    retention = {split: tmp_path / "speech" / f"{split}.jsonl" for split in SPLITS[3:]}
    make_project(_wanted(folder, manifests={"train": Path("mine/a.jsonl"), **retention}))
    data = load_project(folder).data
    assert (folder / data.train).resolve() == tmp_path / "mine" / "a.jsonl"
    assert data.test == Path("manifests/test.jsonl")
    assert data.retention_test is not None
    assert (folder / data.retention_test).resolve() == retention["retention_test"]


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({}, {"battery"}),
        ({"terms": [("CPF", "see pee eff")]}, {"term", "battery"}),
        ({"manifests": {"retention_test": Path("r.jsonl")}}, {"forgetting", "battery"}),
        ({"language": "ms"}, set()),
    ],
)
def test_gates_are_those_that_the_project_has_data_for(folder: Path, values: dict[str, Any], kinds: set[str]) -> None:
    make_project(_wanted(folder, **values))
    policy = load_policy(Path("registry/policies/my-domain.yaml"))
    for gates in (policy.staging, policy.production):
        assert {gate.kind for gate in gates} & {"term", "forgetting", "battery"} == kinds
    assert "@" not in Path("registry/policies/my-domain.yaml").read_text()


def test_the_batterys_gates_are_those_of_the_demo(folder: Path) -> None:
    make_project(_wanted(folder))
    made, demo = (load_policy(path) for path in (Path("registry/policies/my-domain.yaml"), ROOT / DEMO_POLICY))
    for transition in ("staging", "production"):
        ours, theirs = (
            {gate.title: gate for gate in policy.gates(transition) if gate.kind == "battery"} for policy in (made, demo)
        )
        blocking = {"battery_wer", "battery_deleted_short_answers", "battery_false_terms"}
        blocking.add("battery_inexact_digits_read_backs_figures_spelled")
        assert {title for title, gate in ours.items() if gate.blocks} == blocking
        assert all(ours[title] == theirs[title] for title in blocking)
        assert ours.keys() <= theirs.keys()


def test_a_language_without_a_battery_is_told_how_one_is_made(folder: Path) -> None:
    make_project(_wanted(folder, language="ms"))
    assert load_project(folder).data.battery is None
    page = (folder / "project.yaml").read_text()
    assert "--form battery.yaml --language ms --out projects/my-domain/battery`, then set `battery: battery`" in page
    policy = Path("registry/policies/my-domain.yaml")
    with_gates = policy.read_text().replace("# - {kind: battery", "- {kind: battery")
    policy.write_text(with_gates)
    staging = load_policy(policy).staging
    assert sum(gate.kind == "battery" and gate.blocks for gate in staging) == 4
    for language, words in (
        ("en", "is also measured on a battery"),
        ("ms", "No battery of ordinary speech is shipped"),
    ):
        make_project(_wanted(Path(language), name=language, language=language))
        assert words in (Path(language) / "README.md").read_text()


def test_a_report_without_the_battery_is_refused_with_place_and_remedy(
    folder: Path, make_report: Callable[..., EvalReport]
) -> None:
    make_project(_wanted(folder))
    decision = decide(make_report(), None, load_policy(Path("registry/policies/my-domain.yaml")), "staging")
    refused = {gate.name: gate for gate in decision.refusals if gate.kind == "battery"}
    assert len(refused) == 4
    for gate in refused.values():
        assert (gate.value, gate.rule) == (None, "<=")
        assert gate.detail == "the report has no battery: project.yaml named none when it was made"
        assert gate.remedy.startswith("set data.battery (shipped for English; ")


@pytest.mark.parametrize(
    ("values", "advised"),
    [({}, {"wer_test"}), ({"terms": [("CPF", "see pee eff")]}, {"wer_test", "term_recall_test"})],
)
def test_a_newcomers_few_clips_pass_validate_and_are_told_what_they_can_show(
    folder: Path,
    tiny_whisper_folder: Path,
    write_noise: Callable[..., Path],
    write_manifest: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    values: dict[str, Any],
    advised: set[str],
) -> None:
    make_project(_wanted(folder, base_model=str(tiny_whisper_folder), **values))
    for number, split in enumerate(("train", "validation", "test")):
        rows = []
        for clip in range(5):
            audio = write_noise(folder / "audio" / f"{split}{clip}.wav", seed=10 * number + clip)
            text = f"I said CPF to {split} number {clip}"
            rows.append({"audio_filepath": f"../audio/{audio.name}", "text": text, "speaker": split})
        write_manifest(folder / "manifests" / f"{split}.jsonl", rows)
    sys.argv = ["wertune", "validate", "--project", str(folder), "--json"]
    command_line.main()
    found = json.loads(capsys.readouterr().out)["can_show"]
    assert found["missing"] == []
    assert found["sets"]["battery"]["asked"] == []
    assert advised <= {each["gate"] for each in found["sets"]["test"]["asked"]}
    assert found["sets"]["test"]["told"] > 0.05


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"language": "ms", "base_model": "packaged:whisper-tiny.en"}, "knows English only"),
        ({"manifests": {"tset": Path("a.jsonl")}}, "--manifest names 'tset', but a split is one of train"),
        ({"name": "my domain"}, "init: name is 'my domain', but must be letters, digits, .* such as my-domain"),
        ({"terms": [("CPF", "x"), ("cpf", "y")]}, "terms listed twice: cpf"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(folder: Path, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_project(_wanted(folder, **values))
    assert not list(Path().iterdir())


def test_nothing_is_overwritten(folder: Path) -> None:
    made = make_project(_wanted(folder))
    assert all(path.is_file() for path in made)
    (folder / "project.yaml").unlink()
    (folder / "search.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"search\.yaml exists already"):
        make_project(_wanted(folder))
    assert (folder / "search.yaml").read_text() == "mine"
    assert not (folder / "project.yaml").exists()


def test_flags_are_enough_where_nobody_can_be_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _init("my-domain", "--language", "ms", "--term", "CPF=see pee eff", "--term", "HDB", "--name", "ours") == 0
    project = load_project(folder)
    assert (project.name, project.language, project.base_model.source) == ("ours", "ms", "packaged:whisper-base")
    terms = load_yaml(folder / "lexicon.yaml", Lexicon).terms
    assert [(term.term, term.spoken) for term in terms] == [("CPF", "see pee eff"), ("HDB", None)]
    assert "made registry/policies/ours.yaml" in capsys.readouterr().out
    assert _init("") == 2
    assert _init("elsewhere/other", "--manifest", "train") == 1
    assert _init("elsewhere/other") == 0
    assert load_project(Path("elsewhere/other")).name == "other"


@pytest.mark.parametrize(
    ("given", "made"), [(".", "."), ("./sub", "sub"), ("sub/", "sub"), ("..", ".."), ("sub", "projects/sub")]
)
def test_only_a_bare_name_goes_below_projects(
    folder: Path, given: str, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer" / "inner")
    assert _init(given) == 0
    assert load_project(Path(made)).name == Path(made).resolve().name
    assert Path("projects").exists() == (made == "projects/sub")


def test_a_program_is_told_what_was_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _init("my-domain", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["project"] == str(folder)
    assert str(folder / "project.yaml") in told["made"]
    sys.argv = ["wertune", "schema", "--out", "mine", "--json"]
    command_line.main()
    wrote = json.loads(capsys.readouterr().out)["wrote"]
    assert [Path(path) for path in wrote] == sorted(Path("mine").iterdir())


def test_a_path_with_blanks_can_be_pasted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _init("projects/my domain", "--name", "mine") == 0
    assert "`wertune validate --project 'projects/my domain'`" in capsys.readouterr().out
    readme = (Path("projects/my domain") / "README.md").read_text()
    assert readme.count("--project 'projects/my domain'") == readme.count("--project ") == 4


def test_schemas_that_are_missing_are_written_beside_others(folder: Path) -> None:
    FOLDER.mkdir()
    for name in ("mine", "lexicon"):
        (FOLDER / f"{name}.json").write_text("mine")
    made = make_project(_wanted(folder))
    assert FOLDER / "project.json" in made
    assert FOLDER / "lexicon.json" not in made
    kept = {path.stem for path in FOLDER.iterdir() if path.read_text() == "mine"}
    assert kept == {"mine", "lexicon"}
    assert {path.stem for path in FOLDER.iterdir()} == {*schemas(), "mine"}


def test_a_person_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["my-domain", "en", "packaged:whisper-tiny.en", "CPF=see pee eff", "HDB", ""])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.prompt", lambda *_, **__: next(answers))
    assert _init() == 0
    assert load_project(folder).base_model.source == "packaged:whisper-tiny.en"
    assert load_yaml(folder / "lexicon.yaml", Lexicon).written == ("CPF", "HDB")


def test_a_page_may_be_cut_and_quoted() -> None:
    config = SynthesisConfig.model_validate(yaml.safe_load((ROOT / "projects/sg_gov/synthesis.yaml").read_text()))
    assert SynthesisConfig.model_validate(yaml.safe_load(yaml_page(config))) == config


def test_the_schemas_are_current(tmp_path: Path) -> None:
    stored = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / FOLDER).glob("*.json")}
    made = {file.stem: file.read_text(encoding="utf-8") for file in write_schemas(tmp_path)}
    assert stored == made, "run `wertune schema`"


@pytest.mark.parametrize(("file", "name"), DEMO)
def test_the_demo_names_its_schemas_and_keeps_to_them(file: str, name: str) -> None:
    path = ROOT / file
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert named.resolve() == ROOT / FOLDER / f"{name}.json"
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), json.loads(named.read_text(encoding="utf-8")))


def test_a_new_project_names_its_schemas_and_keeps_to_them(folder: Path) -> None:
    make_project(_wanted(folder, terms=[("CPF", "see pee eff")], manifests={"retention_test": Path("r.jsonl")}))
    files = {folder / f"{name}.yaml": name for name in ("project", "search", "lexicon")}
    for path, name in (files | {Path("registry/policies/my-domain.yaml"): "policy"}).items():
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
        named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
        assert named.resolve() == (FOLDER / f"{name}.json").resolve()
        jsonschema.validate(yaml.safe_load(rest), json.loads(named.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("project", {"name": "a", "base_model": "b", "data": {"train": "a", "validation": "b"}}),
        ("project", {"name": "a", "base_model": 3, "data": {"train": "a", "validation": "b", "test": "c"}}),
        ("search", {"space": {"lora.r": {"choices": []}}}),
        ("search", {"space": {"lora.r": {"choices": [1]}}, "trails": 3}),
        ("lexicon", {"terms": [{"spoken": "see pee eff"}]}),
        ("policy", {"staging": [{"kind": "wer", "limit": 2}], "production": []}),
        ("policy", {"staging": [{"kind": "were", "limit": 0.2}], "production": []}),
    ],
)
def test_a_schema_marks_what_the_models_refuse(name: str, document: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schemas()[name])


def test_a_folder_that_cannot_be_made_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("")
    assert _init("taken/my-domain") == 1
    assert capsys.readouterr().err == (
        "wertune: taken is a file, but a project is a folder; choose another name or folder\n"
    )
    assert _init("/proc/my-domain") == 1
    assert "/proc/my-domain cannot be made (" in capsys.readouterr().err


def test_a_language_that_whisper_does_not_know_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _init("my-domain", "--language", "klingon") == 1
    assert "language is 'klingon': must be one of Whisper's: af, " in capsys.readouterr().err
    assert not folder.exists()
