"""Files of other people are read as data: no pickle, no code, no archive, nothing but the files whose digest counts."""

import ast
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.places import ROOT

from wertune.base.config import LoraConfig
from wertune.base.errors import AdapterError, BaseModelError, WertuneError
from wertune.whisper.adapter import ADAPTER_FILES, add_lora, check_adapter_files, load_adapter, save_adapter
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.features import FeatureCache
from wertune.whisper.model import Whisper, load_whisper

SOURCES = sorted(path for folder in ("platform", "registry") for path in (ROOT / folder).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile", "zipfile"}
UNSAFE_CALLS = {
    "eval", "exec", "__import__", "torch.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "os.system",
    "os.popen", "pd.read_pickle", "shutil.unpack_archive", "runpy.run_path", "torch.hub.load",
}  # fmt: skip
COMPUTED_IMPORT = "import_module of a name that does not stand there"
# What gives the names there. Only the last is a file that a stranger may have written: README's Security tells of it.
COMPUTED_IMPORTS = {
    "platform/wertune/base/cli.py": "the table of commands",
    "platform/wertune/synthesis/engine.py": "the built-in speech engines",
    "platform/wertune/synthesis/engines.py": "synthesis.yaml, whose engine may be module:Class",
}


def _unsafe(source: str) -> Iterator[str]:
    """What in a Python source unpickles, unpacks or runs what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES)
        if isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in UNSAFE_CALLS or name.rpartition(".")[2] == "extractall":
                yield name
            if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
                yield f"{name} without allow_pickle=False"
            if "trust_remote_code" in given or given.get("shell", "False") != "False":
                yield f"{name} with trust_remote_code or shell"
            if given.get("weights_only") == "False":
                yield f"{name} with weights_only=False"
            if name.rpartition(".")[2] == "import_module" and not (
                node.args and isinstance(node.args[0], ast.Constant)
            ):
                yield COMPUTED_IMPORT


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_reads_what_could_run(path: Path) -> None:
    known = [COMPUTED_IMPORT] if str(path.relative_to(ROOT)) in COMPUTED_IMPORTS else []
    assert list(_unsafe(path.read_text(encoding="utf-8"))) == known


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from zipfile import ZipFile",
        "import a, tarfile",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval('1')",
        "exec(text)",
        "archive.extractall(folder)",
        "subprocess.run(line, shell=True)",
        "Model.from_pretrained(path, trust_remote_code=True)",
        "load(path, weights_only=False)",
        "__import__(name)",
        "import_module(name)",
        "importlib.import_module(f'{name}.voices')",
        "importlib.import_module(name=found)",
    ],
)
def test_the_rule_finds_what_it_forbids(source: str) -> None:
    assert len(list(_unsafe(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "subprocess.run([a])",
        "import_module('wertune.search.driver')",
    ],
)
def test_the_rule_lets_the_safe_ones_through(source: str) -> None:
    assert list(_unsafe(source)) == []


class _Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def bomb(tmp_path: Path) -> Callable[[Path], Path]:
    """`bomb(path)` writes a pickle there and returns the file that loading it would make."""
    control = tmp_path / "control"
    pickle.loads(pickle.dumps(_Bomb(control)))
    assert control.exists()  # it does go off

    def lay(path: Path) -> Path:
        path.write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
        return tmp_path / "exploded"

    return lay


@pytest.fixture
def base_folder(tiny_whisper_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_whisper_folder, tmp_path / "base"))


@pytest.fixture
def adapter(load_tiny: Callable[..., Whisper], tmp_path: Path) -> Path:
    save_adapter(add_lora(load_tiny(), LoraConfig(r=2), seed=0), tmp_path / "adapter", "tiny")
    return tmp_path / "adapter"


def _amend(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_pickle_beside_the_weights_is_never_opened(base_folder: Path, bomb: Callable[[Path], Path]) -> None:
    names = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "training_args.bin", "tokenizer.pkl")
    exploded = [bomb(base_folder / name) for name in names]
    whisper = load_whisper(resolve_base_model(str(base_folder)).path, "en", "none")
    assert whisper.mel_bins
    assert not exploded[0].exists()


def test_weights_that_are_only_pickled_are_refused_with_the_remedy(
    base_folder: Path, bomb: Callable[[Path], Path]
) -> None:
    (base_folder / "model.safetensors").unlink()
    exploded = bomb(base_folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"pickled \.bin weights are never loaded; save it again with"):
        resolve_base_model(str(base_folder))
    with pytest.raises(WertuneError):  # whoever asks the loader itself
        load_whisper(base_folder, "en", "none")
    assert not exploded.exists()


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.bin", "shard-00000-model-00001-of-00001.safetensors"]
)
def test_a_base_may_not_hold_what_is_loaded_in_its_place(
    base_folder: Path, bomb: Callable[[Path], Path], name: str
) -> None:
    exploded = bomb(base_folder / name)
    with pytest.raises(BaseModelError, match=f"holds {name}, but must hold a whole model and nothing that is loaded"):
        resolve_base_model(str(base_folder))
    assert not exploded.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"transformers_weights": "pytorch_model.bin"},
        {"attn_implementation": "someone/kernel"},
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_base_may_not_say_what_is_loaded(
    base_folder: Path, bomb: Callable[[Path], Path], values: dict[str, Any]
) -> None:
    exploded = bomb(base_folder / "pytorch_model.bin")
    _amend(base_folder / "config.json", **values)
    with pytest.raises(BaseModelError, match=f"has {next(iter(values))}, but must not say what files or code"):
        resolve_base_model(str(base_folder))
    assert not exploded.exists()


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "x.bin", ".."])
def test_a_shard_lies_in_the_folder_and_is_no_pickle(base_folder: Path, name: str) -> None:
    (base_folder / "model.safetensors").unlink()
    (base_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(BaseModelError, match=r"must name \.safetensors files of this folder"):
        resolve_base_model(str(base_folder))


def test_an_adapter_beside_a_pickle_is_loaded_without_it(
    load_tiny: Callable[..., Whisper], adapter: Path, bomb: Callable[[Path], Path]
) -> None:
    exploded = bomb(adapter / "adapter_model.bin")
    load_adapter(load_tiny(), adapter)
    (adapter / ADAPTER_FILES[1]).unlink()
    with pytest.raises(AdapterError, match=r"lacks adapter_model\.safetensors; pickled \.bin weights are never loaded"):
        load_adapter(load_tiny(), adapter)
    assert not exploded.exists()


def test_where_an_adapter_points_is_not_followed(
    load_tiny: Callable[..., Whisper], adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _amend(
        adapter / ADAPTER_FILES[0],
        base_model_name_or_path=str(tmp_path / "nowhere"),
        auto_mapping={"base_model_class": "Evil", "parent_library": "evil"},
    )
    load_adapter(load_tiny(), adapter)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"peft_type": "XLORA"}, "peft_type is 'XLORA', but must be 'LORA'"),
        ({"r": 10**9}, "r is 1000000000, but must be 1 to 256"),
        ({"r": True}, "r is True, but must be"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, but must be a finite number"),
        ({"lora_dropout": "a"}, "lora_dropout is 'a'"),
        ({"use_dora": "yes"}, "use_dora is 'yes', but must be true or false"),
        ({"rank_pattern": {"q_proj": 10**9}}, "rank_pattern is {'q_proj': 1000000000}, but must not be set"),
        ({"megatron_core": "evil", "megatron_config": {"a": 1}}, "megatron_config is {'a': 1}, but must not be set"),
        ({"megatron_core": "evil"}, "megatron_core is 'evil', but must not be set"),
        ({"lora_ga_config": {"cache_file": "x.pt"}}, "lora_ga_config is {'cache_file': 'x.pt'}, but must not be set"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', but must not be set"),
        ({"something_new": "x"}, "something_new is 'x', but must not be set"),
        ({"target_modules": "(a*)*b"}, "target_modules is '(a*)*b', but must be a list of layers' names"),
        ({"target_modules": ["q_proj", 3]}, "target_modules is ['q_proj', 3]"),
        ({"target_modules": None}, "target_modules is None"),
    ],
)
def test_an_adapter_may_ask_for_a_plain_lora_only(adapter: Path, values: dict[str, Any], problem: str) -> None:
    check_adapter_files(adapter)
    _amend(adapter / ADAPTER_FILES[0], **values)
    with pytest.raises(AdapterError) as caught:
        check_adapter_files(adapter)
    assert problem in str(caught.value)
    assert str(caught.value).endswith("save the adapter again as a plain LoRA, in safetensors")


@pytest.mark.parametrize(
    "lora", [{"scope": "encoder"}, {"scope": "decoder"}, {"dora": True}, {"rslora": True}, {"r": 256}]
)
def test_every_adapter_that_can_be_trained_is_let_in(
    load_tiny: Callable[..., Whisper], tmp_path: Path, lora: dict[str, Any]
) -> None:
    save_adapter(add_lora(load_tiny(), LoraConfig(**lora), seed=0), tmp_path / "adapter", "tiny")
    check_adapter_files(tmp_path / "adapter")


def test_a_pickle_in_the_cache_is_computed_again(tmp_path: Path) -> None:
    cache, computed = FeatureCache(tmp_path), torch.zeros(2, 3, dtype=torch.float16)
    cache.get(["a"], lambda: computed)
    (file,) = tmp_path.rglob("*.npy")
    with file.open("wb") as stream:
        np.save(stream, np.array([_Bomb(tmp_path / "exploded")], object), allow_pickle=True)
    torch.testing.assert_close(cache.get(["a"], lambda: computed), computed)
    assert not (tmp_path / "exploded").exists()
