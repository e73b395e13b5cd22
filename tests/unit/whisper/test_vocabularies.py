"""Bases of other vocabularies: tokens are found by their names, and what a file leaves out is derived or refused."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import WhisperTokenizerFast

from wertune.base.errors import BaseModelError, ConfigError
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.model import Whisper, load_whisper
from wertune.whisper.wording import Wording, load_wording

ENGLISH_END, VOCABULARY = 50256, 51864


@pytest.fixture
def tokenizer(load_tiny: Callable[..., Whisper]) -> WhisperTokenizerFast:
    return copy.deepcopy(load_tiny().tokenizer)


def _generation(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**({"suppress_tokens": None, "begin_suppress_tokens": None} | values))


def test_timestamps_are_those_with_names_and_a_token_behind_them_may_be_written(
    tokenizer: WhisperTokenizerFast,
) -> None:
    tokenizer.add_tokens(["⟨KidSTART⟩"])
    added = tokenizer.convert_tokens_to_ids("⟨KidSTART⟩")
    assert added >= VOCABULARY
    wording = Wording(tokenizer, _generation(), added + 4, "en")  # weights are padded to a round number
    never = set(wording.rules(True).never)
    stamps = {tokenizer.convert_tokens_to_ids(f"<|{step * 0.02:.2f}|>") for step in range(1501)}
    assert len(stamps) == 1501
    assert stamps <= never
    assert added not in never
    assert {added + 1, added + 2, added + 3} <= never  # nothing has these numbers
    assert added in wording.label("⟨KidSTART⟩ is here")


def test_a_language_without_a_token_is_refused_and_not_taken_for_the_next(tokenizer: WhisperTokenizerFast) -> None:
    """By its place yue, the hundredth, would be <|translate|> in a base of ninety-nine."""
    generation = _generation(is_multilingual=True)
    assert Wording(tokenizer, generation, VOCABULARY, "te").prompt_names == (
        "<|startoftranscript|>", "<|te|>", "<|transcribe|>", "<|notimestamps|>",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="language is yue, but base_model has no token for it; take one that has"):
        Wording(tokenizer, generation, VOCABULARY, "yue")


def test_weights_that_end_before_a_token_are_refused(tokenizer: WhisperTokenizerFast) -> None:
    with pytest.raises(BaseModelError, match=r"no token <\|startoftranscript\|> below 50257, which every Whisper has"):
        Wording(tokenizer, _generation(), 50257, "en")


@pytest.mark.parametrize("key", ["suppress_tokens", "begin_suppress_tokens"])
def test_ids_of_another_vocabulary_are_refused(tokenizer: WhisperTokenizerFast, key: str) -> None:
    wording = Wording(tokenizer, _generation(**{key: [220, VOCABULARY]}), VOCABULARY, "en")
    with pytest.raises(BaseModelError, match=rf"{key} holds {VOCABULARY}, but must hold ids from 0 to 51863"):
        wording.rules(True)


def test_what_is_no_id_is_refused(tokenizer: WhisperTokenizerFast) -> None:
    wording = Wording(tokenizer, _generation(suppress_tokens=["a"]), VOCABULARY, "en")
    with pytest.raises(BaseModelError, match="suppress_tokens holds 'a', but must hold ids"):
        wording.rules(True)


def test_what_is_said_of_no_language_follows_from_the_vocabulary(tokenizer: WhisperTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == ENGLISH_END
    assert not Wording(tokenizer, _generation(), VOCABULARY, "en").is_multilingual
    other = Renumbered(tokenizer, 1)
    assert Wording(other, _generation(), VOCABULARY + 1, "te").prompt_names[1] == "<|te|>"  # type: ignore[arg-type]
    with pytest.raises(BaseModelError, match=r"says no is_multilingual \(None\), and .* token 50258, neither OpenAI's"):
        Wording(Renumbered(tokenizer, 2), _generation(), VOCABULARY + 2, "en")  # type: ignore[arg-type]


class Renumbered:
    """A tokenizer whose ids are so many more: OpenAI's of all languages has one token more before its special ones."""

    def __init__(self, tokenizer: WhisperTokenizerFast, more: int) -> None:
        self._tokenizer, self._more = tokenizer, more
        self.all_special_ids = [number + more for number in tokenizer.all_special_ids]

    def convert_tokens_to_ids(self, name: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(name)) + self._more

    def convert_ids_to_tokens(self, ids: int | list[int]) -> Any:
        one = isinstance(ids, int)
        names = self._tokenizer.convert_ids_to_tokens([each - self._more for each in ([ids] if one else ids)])
        return names[0] if one else names


def test_a_base_of_before_generation_config_loads_and_begins_no_text_with_a_lone_blank(
    tiny_whisper_folder: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(tiny_whisper_folder, tmp_path / "old"))
    (old / "generation_config.json").unlink()
    config = json.loads((old / "config.json").read_text())
    for key in ("begin_suppress_tokens", "suppress_tokens"):
        config.pop(key, None)
    (old / "config.json").write_text(json.dumps(config | {"suppress_tokens": [1, 2]}))
    wording, _ = load_wording(old, "en")
    blank = wording.tokenizer(" ", add_special_tokens=False).input_ids
    for each in (wording, load_whisper(old, "en", "none").wording):
        assert each.rules(False).never_first == (*blank, ENGLISH_END)
        assert {1, 2} < set(each.rules(False).never)


def test_a_mended_tokenizer_is_another_base_and_a_version_of_before_says_so(
    tiny_whisper_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_whisper_folder, tmp_path / "base"))
    before = resolve_base_model(str(folder))
    generation = json.loads((folder / "generation_config.json").read_text())
    same = json.dumps({"transformers_version": "99", **dict(reversed(generation.items()))}, indent=7)
    (folder / "generation_config.json").write_text(same)
    assert resolve_base_model(str(folder)).texts_digest == before.texts_digest  # written in another way
    (folder / "generation_config.json").write_text(json.dumps(generation | {"suppress_tokens": [5]}))
    after = resolve_base_model(str(folder))
    assert after.digest == before.digest
    assert after.texts_digest != before.texts_digest
    after.check_files({})  # of a version of before there is nothing to compare with
    with pytest.raises(BaseModelError, match=r"generation_config\.json has changed, .* put those files back"):
        after.check_files(dict(before.files))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(BaseModelError, match=r"base: generation_config\.json, merges\.txt has changed"):
        resolve_base_model(str(folder)).check_files(dict(before.files))
