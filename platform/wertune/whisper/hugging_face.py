"""Writes a CTranslate2 Whisper as a Hugging Face folder: weights, configuration, tokenizer."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as brief  # whatever its length and depth
from typing import Any

from wertune.base.errors import BaseModelError
from wertune.whisper.ctranslate2_weights import DAMAGED, Dims, read_tensors, to_state

# OpenAI's rule and CTranslate2's: a vocabulary of 51864 is English-only, anything larger knows languages.
MULTILINGUAL_VOCABULARY = 51865
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|>
END = "<|endoftext|>"
# Its id tells of which vocabulary a tokenizer is: GPT-2's, which English-only bases have, or that of all languages.
_LANGUAGES_BY_END = {50256: False, 50257: True}


def write_folder(buffer: memoryview, place: str, side: Path, target: Path) -> None:
    """Fills `target` with a Hugging Face Whisper from model.bin's bytes and `side`'s config.json and tokenizer.json."""
    from safetensors.numpy import save_file

    dims, state = to_state(read_tensors(buffer, place), place)
    tokenizer = _read_tokenizer(side / "tokenizer.json", dims)
    tokens = _special_tokens(tokenizer, dims, side / "tokenizer.json")
    files = {
        "config.json": _config(dims, tokens),
        "generation_config.json": _generation_config(read_json(side / "config.json"), dims, tokens, side),
        "preprocessor_config.json": preprocessor_config(dims.num_mel_bins, dims.max_source_positions),
        "tokenizer.json": _with_timestamps(tokenizer, tokens),
        "tokenizer_config.json": _tokenizer_config(dims, tokens),
    }
    for name, content in files.items():
        (target / name).write_bytes(_as_json(content, side / "tokenizer.json"))
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})


def read_json(path: Path) -> dict[str, Any]:
    """A model folder's JSON object; raises BaseModelError when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path}: {error}; the folder is incomplete: download the model again") from error
    if not isinstance(content, dict):
        raise BaseModelError(f"{path}: holds a {type(content).__name__}, but must be a JSON object; {DAMAGED}")
    return content


def knows_languages(said: object, end: int | None) -> bool:
    """Whether a base knows more than English: as generation_config.json has `said`, or as the id of `end` tells.

    Bases saved before that file was asked for say nothing; taken for English-only, they would write without language
    and task. Raises BaseModelError where neither tells.
    """
    if isinstance(said, bool):
        return said
    if end not in _LANGUAGES_BY_END:
        rule = f"says no is_multilingual ({said!r}), and {END} is token {end}, neither OpenAI's 50256 nor 50257"
        raise BaseModelError(f"generation_config.json {rule}; add is_multilingual: true or false to that file")
    return _LANGUAGES_BY_END[end]


def _as_json(content: Mapping[str, Any], source: Path) -> bytes:
    """What is written of the tokenizer `source`; raises BaseModelError where that is nothing that UTF-8 can hold."""
    try:
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()
    except (ValueError, RecursionError) as error:  # half a surrogate pair; deeper than Python's own encoder goes
        raise BaseModelError(f"{source}: cannot be written again ({error}); download it again") from error


def _read_tokenizer(path: Path, dims: Dims) -> dict[str, Any]:
    """tokenizer.json with the added tokens that it may have; raises BaseModelError with every fault of theirs."""
    tokenizer = read_json(path)
    added = tokenizer.setdefault("added_tokens", [])
    if not isinstance(added, list):
        raise BaseModelError(f"{path}: added_tokens is {brief(added)}, but must be a list; download it again")
    faults = [f"added_tokens[{index}] {fault}" for index, token in enumerate(added) for fault in _faults(token, dims)]
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise BaseModelError(f"{path}: {DAMAGED}\n  " + "\n  ".join(faults[:20]) + more)
    return tokenizer


def _faults(token: object, dims: Dims) -> Iterator[str]:
    if not isinstance(token, dict):
        yield f"is {brief(token)}, but must be an object"
        return
    content, number = token.get("content"), token.get("id")
    if not isinstance(content, str):
        yield f"has the content {brief(content)}, but must have a text"
    if type(number) is not int or not 0 <= number < dims.vocab_size:
        yield f"has the id {brief(number)}, but must have one from 0 to {dims.vocab_size - 1}"


def _special_tokens(tokenizer: Mapping[str, Any], dims: Dims, path: Path) -> dict[str, int]:
    """Token -> id of tokenizer.json's special tokens, in the order of their ids."""
    pairs = [(token["content"], token["id"]) for token in tokenizer["added_tokens"] if token.get("special")]
    tokens = dict(sorted(pairs, key=lambda pair: pair[1]))
    required = ("endoftext", "startoftranscript", "translate", "transcribe", "startofprev", "notimestamps")
    missing = [name for name in required if f"<|{name}|>" not in tokens]
    if missing:
        raise BaseModelError(f"{path}: the tokens {missing} are missing, but Whisper needs them; download it again")
    last = tokens["<|notimestamps|>"] + TIMESTAMPS
    if last >= dims.vocab_size:
        rule = f"must be below the model's {dims.vocab_size} tokens"
        raise BaseModelError(f"{path}: <|30.00|> is token {last}, but {rule}; take the tokenizer of this very model")
    return tokens


def _ids(tokens: Mapping[str, int]) -> dict[str, int]:
    end = tokens["<|endoftext|>"]
    start = tokens["<|startoftranscript|>"]
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}


def _config(dims: Dims, tokens: Mapping[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        **asdict(dims),
        **_ids(tokens),
        "num_hidden_layers": dims.encoder_layers,
        "activation_function": "gelu",
        "scale_embedding": False,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        # What it is loaded in, whatever the file stores: float16 arithmetic is slow or missing on CPUs.
        "dtype": "float32",
    }


def _generation_config(source: Mapping[str, Any], dims: Dims, tokens: Mapping[str, int], side: Path) -> dict[str, Any]:
    config = {
        **_ids(tokens),
        "suppress_tokens": _token_list(source, "suppress_ids", dims, side),
        "begin_suppress_tokens": _token_list(source, "suppress_ids_begin", dims, side),
        "alignment_heads": _alignment_heads(source, dims, side),
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "max_initial_timestamp_index": 50,
        "max_length": dims.max_target_positions,
        "return_timestamps": False,
        "is_multilingual": dims.vocab_size >= MULTILINGUAL_VOCABULARY,
    }
    if config["is_multilingual"]:
        # Not from config.json's lang_ids: in converted .en models these are one too high.
        first, last = tokens["<|startoftranscript|>"], tokens["<|translate|>"]
        config["lang_to_id"] = {name: number for name, number in tokens.items() if first < number < last}
        config["task_to_id"] = {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return config


def _token_list(source: Mapping[str, Any], key: str, dims: Dims, side: Path) -> list[int]:
    found = source.get(key) or []
    if not isinstance(found, list) or not all(type(item) is int and 0 <= item < dims.vocab_size for item in found):
        rule = f"must be a list of token ids below {dims.vocab_size}"
        raise BaseModelError(f"{side / 'config.json'}: {key} is {brief(found)}, but {rule}; download it again")
    return found


def _alignment_heads(source: Mapping[str, Any], dims: Dims, side: Path) -> list[list[int]]:
    found = source.get("alignment_heads") or []
    limits = (dims.decoder_layers, dims.decoder_attention_heads)
    try:
        values = [(value, limit) for pair in found for value, limit in zip(pair, limits, strict=True)]
        right = all(type(value) is int and 0 <= value < limit for value, limit in values)
    except (TypeError, ValueError):
        right = False
    if not right:
        rule = f"must be pairs of a layer below {limits[0]} and a head below {limits[1]}"
        raise BaseModelError(
            f"{side / 'config.json'}: alignment_heads is {brief(found)}, but {rule}; download it again"
        )
    return [list(pair) for pair in found]


def preprocessor_config(mel_bins: int, positions: int = 1500) -> dict[str, Any]:
    """How a Whisper of so many mel bins and encoder positions has its features made."""
    seconds = positions // 50  # a position is two frames of 10 ms
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": mel_bins,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": seconds,
        "n_samples": seconds * 16000,
        "nb_max_frames": seconds * 100,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _with_timestamps(tokenizer: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """The tokenizer with <|0.00|> to <|30.00|>, which OpenAI's first release left out of its file."""
    known = {token["content"] for token in tokenizer["added_tokens"]}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    first = tokens["<|notimestamps|>"] + 1
    stamps = [{"id": first + step, "content": f"<|{step * 0.02:.2f}|>", **plain} for step in range(TIMESTAMPS)]
    added = [*tokenizer["added_tokens"], *(stamp for stamp in stamps if stamp["content"] not in known)]
    return {**tokenizer, "added_tokens": added}


def _tokenizer_config(dims: Dims, tokens: Mapping[str, int]) -> dict[str, Any]:
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), end),
        "additional_special_tokens": list(tokens),
        "add_prefix_space": False,
        # Tidying "do n't" or " ," would change what the model said, and with it the WER.
        "clean_up_tokenization_spaces": False,
        "model_max_length": dims.max_target_positions,
    }
