"""Training and transcribing the same clips: the field's recipe and ours in turn, and how far ours is from the limit."""

import statistics
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wertune.base.config import ContextConfig, DecodeConfig, TrainConfig
from wertune.bench.clips import BATCH, CLIPS, FULL, PLAIN_LORA, ROUNDS, Batches, batches, training_clips
from wertune.bench.peer import PeerRecipe
from wertune.bench.rows import Row, Section, timed
from wertune.training.optimizer import Updater
from wertune.training.prepare import Prepared
from wertune.whisper.evaluate import EvaluationSet, transcribe_features
from wertune.whisper.footprint import product_dtype
from wertune.whisper.model import Whisper, add_lora


def section(prepared: Prepared) -> Section:
    """Seconds a round of each recipe."""
    base = prepared.whisper("int8")
    theirs = PeerRecipe(prepared.base.path, base, PLAIN_LORA)
    ours = add_lora(base, PLAIN_LORA, seed=0)
    long, short = (training_clips(prepared, context, ours.mel_bins) for context in (FULL, ContextConfig()))
    texts = [recording.row.text for recording in short.recordings]
    train: list[tuple[float, float]] = []
    write: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        for turn in range(ROUNDS + 1):
            peer_s = theirs.train(long.features, texts, BATCH, Path(scratch))
            our_s = timed(lambda: train_pass(ours, batches(ours, short)))
            peer_write_s = timed(lambda: theirs.transcribe(long.features))
            our_write_s = timed(lambda: write_greedily(ours, short))
            if turn:  # the first round of each is slower than those that follow
                train.append((peer_s, our_s))
                write.append((peer_write_s, our_write_s))
    both = [(a + c, b + d) for (a, b), (c, d) in zip(train, write, strict=True)]
    rows = (
        Row.of_pairs("training", "clips/s", [(CLIPS / a, CLIPS / b) for a, b in train], less_is_better=False),
        Row.of_pairs("evaluation, greedy", "s", write),
        Row.of_pairs("epoch with evaluation", "s", both),
    )
    limit = _limit(ours, short, CLIPS / statistics.median(s for _, s in train))
    return Section("limit", limit, _as_markdown(limit), rows)


def train_pass(whisper: Whisper, clips: Batches) -> None:
    """One pass over the clips, as a trial makes it."""
    whisper.model.train()
    updater = Updater(TrainConfig(), whisper.model, steps=len(clips))
    for features, labels in clips:
        whisper.loss(features, labels).backward()  # type: ignore[no-untyped-call]
        updater.step()


def write_greedily(whisper: Whisper, clips: EvaluationSet) -> list[str]:
    """The texts of all clips in one batch."""
    whisper.model.eval()
    durations_s = [recording.duration_s for recording in clips.recordings]
    return transcribe_features(whisper, clips.features, durations_s, DecodeConfig(batch_size=CLIPS))


def _limit(whisper: Whisper, clips: EvaluationSet, clips_per_s: float) -> dict[str, float]:
    """Counted products of a clip's training step, times clips a second, beside what plain products reach here."""
    counter = FlopCounterMode(display=False)
    whisper.model.train()
    with counter:
        for features, labels in batches(whisper, clips):
            whisper.loss(features, labels).backward()  # type: ignore[no-untyped-call]
    whisper.model.zero_grad(set_to_none=True)
    flop = counter.get_total_flops() / len(clips.features)
    a = torch.randn(2048, 2048, device=whisper.device, dtype=product_dtype(whisper.device))
    seconds = min(timed(lambda: (a @ a)[0, 0].item()) for _ in range(20))
    most = 2 * 2048**3 / seconds
    return {
        "gflop_per_clip": flop / 1e9,
        "achieved_gflop_per_s": flop * clips_per_s / 1e9,
        "matmul_gflop_per_s": most / 1e9,
        "share_of_limit": flop * clips_per_s / most,
    }


def _as_markdown(limit: dict[str, float]) -> str:
    return (
        "The field's recipe is PEFT's int8 Whisper notebook: 30 s of padding, gradient checkpointing, Seq2SeqTrainer, "
        "greedy `generate` at 30 s (`platform/wertune/bench/peer.py`).\n\n"
        f"Distance to the limit: a clip's training step is {limit['gflop_per_clip']:.1f} GFLOP of products; ours runs "
        f"at {limit['achieved_gflop_per_s']:.0f} GFLOP/s where plain products of 2048 x 2048 reach "
        f"{limit['matmul_gflop_per_s']:.0f}: {limit['share_of_limit']:.2f} of the limit."
    )
