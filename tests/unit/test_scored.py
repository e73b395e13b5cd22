"""The log-probabilities of what is written: those of the model itself, of each clip's own tokens, and no other text."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

import wertune.model
from wertune.audio import SAMPLE_RATE_HZ
from wertune.config import ContextConfig, DecodeConfig
from wertune.evaluate import split_at_pauses, transcribe_samples, transcribe_scored
from wertune.model import Whisper, Written

END, LANGUAGE = 50256, 50258
LIMITS = [3, 6, 5]


@pytest.fixture
def whisper(load_tiny: Callable[..., Whisper], monkeypatch: pytest.MonkeyPatch) -> Whisper:
    """In float32 everywhere: in bfloat16 a pass over all tokens differs from one token after the other."""
    monkeypatch.setattr(wertune.model, "_multiplies_bfloat16", lambda device: False)
    return load_tiny("none")


def _features(clips: int = 3) -> torch.Tensor:
    return torch.randn(clips, 80, 128, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def test_greedy_log_probabilities_are_those_that_transformers_chose_by(whisper: Whisper) -> None:
    """Its own logits, step by step, before it ruled any token out."""
    out = whisper.bare.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=whisper.encode(_features())),
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_logits=True,
    )
    chosen = out.sequences[:, -len(out.logits) :]
    steps = [torch.log_softmax(step, dim=-1) for step in out.logits]
    for clip, written in enumerate(whisper.generate_scored(_features(), [6, 6, 6], DecodeConfig())):
        expected = [float(step[clip, token]) for step, token in zip(steps, chosen[clip], strict=True)]
        assert written.log_probabilities == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_scoring_changes_no_text(whisper: Whisper, num_beams: int) -> None:
    written = whisper.generate_scored(_features(), LIMITS, DecodeConfig(num_beams=num_beams))
    assert [w.text for w in written] == whisper.generate(_features(), LIMITS, DecodeConfig(num_beams=num_beams))
    assert all(value < 0 for w in written for value in w.log_probabilities)


@pytest.mark.parametrize(
    ("row", "most", "kept"),
    [
        ([5303, 318, 257], 3, [5303, 318, 257]),
        ([5303, 318, 257], 2, [5303, 318]),  # cut at the clip's own limit: it did not end
        ([5303, 318, 257], 4, [5303, 318, 257, END]),
        ([5303, 318, END, END], 5, [5303, 318, END]),
        ([5303, 318, END, END], 2, [5303, 318]),
        ([LANGUAGE, 5303, LANGUAGE, 318, 257], 2, [LANGUAGE, 5303, LANGUAGE, 318]),
        ([END, END], 3, [END]),
        ([], 3, [END]),
    ],
)
def test_a_clips_tokens_end_with_its_text(whisper: Whisper, row: list[int], most: int, kept: list[int]) -> None:
    assert whisper._cut(row, most, longest=8) == kept


def test_what_fills_the_longest_limit_did_not_end(whisper: Whisper) -> None:
    assert whisper._cut([LANGUAGE, 5303, 318], 4, longest=3) == [LANGUAGE, 5303, 318]


@torch.no_grad()
def test_the_sum_is_the_models_loss_on_what_was_written(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[5303, END], [5303, 318, 257, 12, 99, 7], [END]]
    monkeypatch.setattr(whisper, "_write", lambda *_: rows)
    prompt = whisper.label_ids("")[:-1]
    for clip, written in enumerate(whisper.generate_scored(_features(), LIMITS, DecodeConfig())):
        whole, start = (torch.tensor([label]) for label in (prompt + rows[clip], prompt))
        features = _features()[clip : clip + 1]
        loss = whisper.loss(features, whole) * whole.numel() - whisper.loss(features, start) * start.numel()
        assert len(written.log_probabilities) == len(rows[clip])
        assert -sum(written.log_probabilities) == pytest.approx(float(loss), rel=1e-4)


def test_a_clips_score_does_not_depend_on_its_batch(whisper: Whisper) -> None:
    together = whisper.generate_scored(_features(), [6, 6, 6], DecodeConfig())
    for clip, expected in enumerate(together):
        (alone,) = whisper.generate_scored(_features()[clip : clip + 1], [6], DecodeConfig())
        assert alone.text == expected.text
        assert alone.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)


class FakeWhisper:
    """Writes a word for each second that it hears, each token less likely the longer the piece."""

    mel_bins = 80

    def generate(self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig) -> list[str]:
        return [written.text for written in self.generate_scored(features, token_limits, decode)]

    def generate_scored(self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig) -> list[Written]:
        seconds = features.shape[2] // 100
        return [Written(" ".join(["word"] * seconds), (-0.01 * seconds,) * seconds) for _ in features]


def test_a_clip_cut_in_pieces_has_the_mean_over_all_its_tokens() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, round(s * SAMPLE_RATE_HZ)).astype(np.float32) for s in (50.0, 3.0)]
    context, decode = ContextConfig(margin_positions=0, multiple=1), DecodeConfig(batch_size=1)
    whisper: Any = FakeWhisper()
    transcripts = transcribe_scored(whisper, clips, context, decode)
    assert [t.text for t in transcripts] == transcribe_samples(whisper, clips, context, decode)
    for clip, transcript in zip(clips, transcripts, strict=True):
        seconds = [math.ceil(piece.size / SAMPLE_RATE_HZ * 50) * 2 // 100 for piece in split_at_pauses(clip)]
        expected = sum(-0.01 * s * s for s in seconds) / sum(seconds)
        assert transcript.avg_logprob == pytest.approx(expected)
