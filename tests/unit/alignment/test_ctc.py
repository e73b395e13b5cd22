"""A CTC model's times, of a tiny random Wav2Vec2; and the base's own, of a tiny random Whisper."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import noise

from wertune.alignment.ctc import CtcFollower, WithCtc
from wertune.alignment.cutting import Timed
from wertune.alignment.hearing import Listener
from wertune.alignment.recording import Window
from wertune.base.config import DecodeConfig
from wertune.base.errors import BaseModelError
from wertune.whisper.model import Whisper

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"


@pytest.fixture(scope="module")
def ctc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wav2Vec2ForCTC of random weights whose tokens are letters."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("ctc")
    tokens = {name: number for number, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(tokens))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(tokens), pad_token_id=0, **sizes, **convolutions)).save_pretrained(
        folder
    )
    return folder


def _check(timed: Timed, text: str, window: Window) -> None:
    assert timed.text == text
    assert (np.diff(timed.starts_s) >= 0).all()
    assert (timed.ends_s >= timed.starts_s).all()
    assert timed.starts_s[0] >= window.start_s
    assert timed.ends_s[-1] <= window.end_s + 0.021
    assert (timed.log_probabilities < 0).all()


def test_letters_are_found_in_order(ctc_folder: Path) -> None:
    window, text = Window(10.0, noise(2.0, 0)), "5 Hello, we're all here."
    timed = CtcFollower(ctc_folder).follow(window, text)
    _check(timed, text, window)
    assert timed.starts_s[2] < timed.starts_s[-2]


@pytest.mark.parametrize("text", ["", "…", "much too long for so little " * 9])
def test_what_cannot_be_found_gets_no_times(ctc_folder: Path, text: str) -> None:
    timed = CtcFollower(ctc_folder).follow(Window(3.0, noise(0.5, 0)), text)
    assert set(timed.starts_s) <= {3.0}


def test_the_base_writes_and_the_ctc_model_finds(ctc_folder: Path, load_tiny: Callable[..., Whisper]) -> None:
    listener = Listener(load_tiny(), DecodeConfig(max_new_tokens=8))
    window = Window(1.0, noise(3.0, 0))
    timed = WithCtc(listener, CtcFollower(ctc_folder)).write(window)
    assert timed.text == listener.text(window)


def test_a_folder_without_a_ctc_model_is_refused(tmp_path: Path, tiny_whisper_folder: Path) -> None:
    for folder, said in ((tmp_path / "none", "must be a folder"), (tiny_whisper_folder, "does not hold a Wav2Vec2")):
        with pytest.raises(BaseModelError, match=said):
            CtcFollower(folder)


def test_a_base_follows_a_text(load_tiny: Callable[..., Whisper]) -> None:
    whisper = load_tiny()
    whisper.bare.generation_config.alignment_heads = [[0, 1], [1, 0]]
    listener = Listener(whisper, DecodeConfig(max_new_tokens=8))
    window, text = Window(10.0, noise(2.0, 0)), "Hello, we're all here."
    _check(listener.follow(window, text), text, window)
    assert listener.follow(window, "").text == ""
    written = listener.write(window)
    assert written.text == listener.text(window)


def test_a_base_without_alignment_heads_is_refused(load_tiny: Callable[..., Whisper]) -> None:
    whisper = load_tiny()
    whisper.bare.generation_config.alignment_heads = None
    with pytest.raises(BaseModelError, match="alignment_heads is None"):
        Listener(whisper, DecodeConfig()).follow(Window(0.0, noise(1.0, 0)), "hello")
