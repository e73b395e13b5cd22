"""The log-probabilities of what is written: those of the model itself, of each clip's own tokens, and no other text."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

import wertune.whisper.footprint
from wertune.base.config import ContextConfig, DecodeConfig
from wertune.data.audio import SAMPLE_RATE_HZ
from wertune.data.pauses import split_at_pauses
from wertune.whisper.decoding import beam_search
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import transcribe_samples
from wertune.whisper.wording import Written

LIMITS = [3, 6, 5]


@pytest.fixture
def whisper(load_tiny: Callable[..., Whisper], monkeypatch: pytest.MonkeyPatch) -> Whisper:
    """In float32 everywhere: in bfloat16 a pass over all tokens differs from one token after the other."""
    monkeypatch.setattr(wertune.whisper.footprint, "_multiplies_bfloat16", lambda device: False)
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
    for clip, written in enumerate(whisper.generate(_features(), [6, 6, 6], DecodeConfig())):
        expected = [float(step[clip, token]) for step, token in zip(steps, chosen[clip], strict=True)]
        assert written.log_probabilities == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_sum_is_the_models_loss_on_what_was_written(whisper: Whisper, num_beams: int) -> None:
    """Of the model itself: a boost and what may not be written change the choice and not its probability."""
    whisper.wording.terms = ("CPF", "MediShield Life")
    prompt = whisper.label_ids("")[:-1]
    rules, boost = whisper.wording.rules(True), whisper.wording.boost(DecodeConfig(term_boost=3.0))
    states = whisper.encode(_features())
    for clip, found in enumerate(beam_search(whisper._lean, states, LIMITS, rules, num_beams, boost)):
        whole, start = (torch.tensor([label]) for label in ([*prompt, *found.tokens], prompt))
        features = _features()[clip : clip + 1]
        loss = whisper.loss(features, whole) * whole.numel() - whisper.loss(features, start) * start.numel()
        assert len(found.log_probabilities) == len(found.tokens) <= LIMITS[clip]
        assert -sum(found.log_probabilities) == pytest.approx(float(loss), rel=1e-4)


def test_a_clips_score_does_not_depend_on_its_batch(whisper: Whisper) -> None:
    together = whisper.generate(_features(), [6, 6, 6], DecodeConfig())
    for clip, expected in enumerate(together):
        (alone,) = whisper.generate(_features()[clip : clip + 1], [6], DecodeConfig())
        assert alone.text == expected.text
        assert alone.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)


class FakeWhisper:
    """Writes a word for each second that it hears, each token less likely the longer the piece."""

    mel_bins = 80

    def generate(
        self, features: torch.Tensor, token_limits: list[int], decode: DecodeConfig, language: str = ""
    ) -> list[Written]:
        seconds = features.shape[2] // 100
        return [Written(" ".join(["word"] * seconds), (-0.01 * seconds,) * seconds) for _ in features]


def test_a_clip_cut_in_pieces_has_the_mean_over_all_its_tokens() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, round(s * SAMPLE_RATE_HZ)).astype(np.float32) for s in (50.0, 3.0)]
    context, decode = ContextConfig(margin_positions=0, multiple=1), DecodeConfig(batch_size=1)
    whisper: Any = FakeWhisper()
    transcripts = transcribe_samples(whisper, clips, context, decode)
    for clip, transcript in zip(clips, transcripts, strict=True):
        seconds = [math.ceil(piece.samples.size / SAMPLE_RATE_HZ * 50) * 2 // 100 for piece in split_at_pauses(clip)]
        expected = sum(-0.01 * s * s for s in seconds) / sum(seconds)
        assert transcript.avg_logprob == pytest.approx(expected)
