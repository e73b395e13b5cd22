"""What is fuzzed: readers that give a result or a WertuneError for any bytes, in bounded memory and time."""

import atexit
import json
import os
import re
import shutil
import signal
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from hypothesis import target
from tests.support.ctranslate2_file import CONFIG, VOCABULARY, serialize, whisper_tokenizer, whisper_variables

from wertune.base.config import DataConfig
from wertune.base.errors import WertuneError
from wertune.base.text import normaliser
from wertune.data.manifest import load_dataset
from wertune.whisper import ctranslate2_weights as ctranslate2
from wertune.whisper.ctranslate2_weights import read_tensors, to_state
from wertune.whisper.hugging_face import write_folder

CORPUS = Path(__file__).parent / "corpus"
HANG_S = 30
MIB = 2**20


class Hang(Exception):
    """A reader took longer than any file of this size may."""


@dataclass(frozen=True)
class Target:
    """A reader, the folder of its corpus, and the memory that it may take at most."""

    name: str
    read: Callable[[bytes], object]
    fields_of: Callable[[bytes], Sequence[tuple[int, int]]]
    valid: Callable[[], dict[str, bytes]]
    base_bytes: int
    bytes_per_byte: int

    @property
    def corpus(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def check(self, data: bytes) -> WertuneError | None:
        """Fails where `data` raises anything but a WertuneError, or takes too much memory or time."""
        error = None
        with _watched(self.base_bytes + self.bytes_per_byte * len(data)):
            try:
                self.read(data)
            except WertuneError as caught:
                error = caught
        return error


@contextmanager
def _watched(most_bytes: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang(f"more than {HANG_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_S)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
        assert peak <= most_bytes, f"{peak} bytes were allocated, but {most_bytes} are the bound"
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _read_weights(data: bytes) -> None:
    try:
        _, state = to_state(read_tensors(memoryview(data), "model.bin"), "model.bin")
    except WertuneError as error:
        if place := re.search(r"byte (\d+)", str(error)):
            with suppress(Exception):  # outside of a hypothesis test there is nothing to aim at
                target(float(place[1]))
        raise
    assert sum(array.nbytes for array in state.values()) <= len(data)


@lru_cache(maxsize=1000)
def _numbers(data: bytes) -> list[tuple[int, int]]:
    """Where the reader reads numbers: lengths, ranks, dimensions, types, counts."""
    found: list[tuple[int, int]] = []
    sizes = {"B": 1, "H": 2, "I": 4}

    class Cursor(ctranslate2._Cursor):
        def number(self, code: str, what: str) -> int:
            found.append((self.offset, sizes[code]))
            return super().number(code, what)

    before, ctranslate2._Cursor = ctranslate2._Cursor, Cursor  # type: ignore[misc]
    try:
        with suppress(WertuneError):
            read_tensors(memoryview(data), "model.bin")
    finally:
        ctranslate2._Cursor = before  # type: ignore[misc]
    return found


def _valid_weights() -> dict[str, bytes]:
    whole = serialize(whisper_variables())
    lying = bytearray(whole)
    lying[22:26] = (2**32 - 1).to_bytes(4, "little")  # so many variables
    heads = {"nan": np.float32(np.nan), "infinite": np.float16(np.inf), "half": np.float32(2.5)}
    return {
        "float16.bin": whole,
        "float32.bin": serialize(whisper_variables("float32")),
        "no_aliases.bin": serialize(whisper_variables(), aliases=[]),
        "empty.bin": b"",
        "header_only.bin": whole[:26],
        "cut.bin": whole[: len(whole) // 2],
        "lying_count.bin": bytes(lying),
    } | {
        f"{name}_heads.bin": serialize(whisper_variables() | {"encoder/num_heads": np.array(value)})
        for name, value in heads.items()
    }


@lru_cache(maxsize=1)
def _model() -> tuple[memoryview, Path, Path]:
    """A model's weights, the folder of the files beside them, and the one that is written."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("side", "target"):
        (folder / name).mkdir()
    return memoryview(serialize(whisper_variables(vocabulary=VOCABULARY))), folder / "side", folder / "target"


def _read_beside(name: str, data: bytes) -> None:
    """Writes the model with `data` as its tokenizer.json or config.json."""
    buffer, side, target = _model()
    (side / "config.json").write_text(json.dumps(CONFIG))
    (side / "tokenizer.json").write_text(json.dumps(whisper_tokenizer()))
    (side / name).write_bytes(data)
    write_folder(buffer, "model.bin", side, target)
    written = [json.loads((target / file).read_bytes()) for file in ("tokenizer.json", "generation_config.json")]
    assert all(token["id"] in range(VOCABULARY) and str(token["content"]) for token in written[0]["added_tokens"])
    assert all(type(value) is int for heads in written[1]["alignment_heads"] for value in heads)


def _valid_tokenizers() -> dict[str, bytes]:
    whole = whisper_tokenizer()
    tokens = {
        "infinite_id": '{"id": Infinity, "content": "a", "special": true}',
        "nan_id": '{"id": NaN, "content": "a", "special": true}',
        "negative_id": '{"id": -5, "content": "a", "special": true}',
        "no_content": '{"id": 9, "special": false}',
        "list_content": '{"id": 9, "content": ["a"], "special": true}',
        "surrogate": '{"id": 9, "content": "\\ud800"}',
        "no_token": "7",
        "deep": "[" * 600 + "]" * 600,
    }
    text = json.dumps(whole)
    files = {name: text.replace('"added_tokens": [', f'"added_tokens": [{token}, ') for name, token in tokens.items()}
    files |= {"whole": text, "empty": "", "no_object": "[]", "no_list": '{"added_tokens": 5}', "cut": text[:400]}
    return {f"{name}.json": text.encode() for name, text in files.items()}


def _valid_configs() -> dict[str, bytes]:
    values = {
        "whole": CONFIG,
        "infinite_ids": {"suppress_ids": [float("inf")], "suppress_ids_begin": [float("nan"), -1, True]},
        "half_heads": {"alignment_heads": [[0, 0.5]]},
        "no_lists": {"suppress_ids": 5, "alignment_heads": {"ab": 1}},
        "no_object": [],
    }
    files = {f"{name}.json": json.dumps(value).encode() for name, value in values.items()}
    return files | {"deep.json": b'{"suppress_ids": ' + b"[" * 600 + b"]" * 600 + b"}"}


@lru_cache(maxsize=1)
def _folder() -> Path:
    """A project with two recordings, a pipe, and links that lead out of it and round."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-manifest-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    noise = np.random.default_rng(0).standard_normal((2, 8000)).clip(-1, 1) * 0.1
    for name, samples in zip(("a.wav", "b.flac"), noise, strict=True):
        soundfile.write(folder / name, samples, 16_000)
    (folder / "bad.wav").write_bytes(b"RIFF")
    os.mkfifo(folder / "pipe.wav")
    (folder / "out").symlink_to("/")
    (folder / "round").symlink_to("round")
    return folder


_NORMALISE = normaliser("en")


def _read_manifest(data: bytes) -> None:
    folder = _folder()
    path = folder / "train.jsonl"
    path.write_bytes(data)
    for on_bad_row in ("skip", "stop"):
        config = DataConfig(train=path, validation=path, test=path, on_bad_row=on_bad_row)
        dataset = load_dataset({"train": path}, config, _NORMALISE, lambda text: len(text.split()), folder)
        for recording in dataset["train"]:
            assert recording.path.is_relative_to(folder.resolve())
            assert 0.2 <= recording.duration_s <= 30.0
            json.dumps(recording.row.text, ensure_ascii=False).encode()


def _valid_manifests() -> dict[str, bytes]:
    row = {"audio_filepath": "a.wav", "text": "please check the form", "speaker": "ann", "terms": ["form"]}
    other = {"audio_filepath": "b.flac", "text": "and sign it", "duration": 0.3, "offset": 0.1, "weight": 3}
    lines = [json.dumps(row).encode(), json.dumps(other).encode()]
    parts = [{"text": f"part {n}", "start_s": n / 4, "end_s": n / 4 + 0.2, "speaker": "bob"} for n in range(2)]
    call = {"audio_filepath": "a.wav", "speaker": "ann", "language": "en", "segments": parts}
    timed = {"audio_filepath": "a.wav", "text": "<|0.00|> please check<|0.20|><|0.25|> the form<|0.45|>"}
    files = [json.dumps(row | {"audio_filepath": name}).encode() for name in ("out/etc/passwd", "pipe.wav", "round")]
    return {
        "two_rows.jsonl": b"\n".join(lines) + b"\n",
        "segments.jsonl": b"\n".join(json.dumps(row | {"offset": o, "duration": 0.2}).encode() for o in (0, 0.25)),
        "recording.jsonl": json.dumps(call).encode(),
        "timed.jsonl": json.dumps(timed).encode(),
        "elsewhere.jsonl": b"\n".join(files),
        "numbers.jsonl": b'{"audio_filepath": "a.wav", "text": "a", "duration": 1e999, "offset": -0.0, "weight": 1e3}',
        "deep.jsonl": b"[" * 3000,
        "surrogate.jsonl": b'{"audio_filepath": "a.wav", "text": "\\ud800"}',
        "mark.jsonl": b"\xef\xbb\xbf{}",
        "empty.jsonl": b"",
        "cut.jsonl": lines[0][:40],
    }


def _nowhere(data: bytes) -> list[tuple[int, int]]:
    """Text holds no numbers of so many bytes."""
    return []


TARGETS = {
    "ctranslate2": Target("ctranslate2", _read_weights, _numbers, _valid_weights, 4 * MIB, 64),
    "tokenizer": Target("tokenizer", partial(_read_beside, "tokenizer.json"), _nowhere, _valid_tokenizers, 8 * MIB, 64),
    "config": Target("config", partial(_read_beside, "config.json"), _nowhere, _valid_configs, 8 * MIB, 64),
    "manifest": Target("manifest", _read_manifest, _nowhere, _valid_manifests, 32 * MIB, 200),
}
