"""The field's recipe, ours and the steps between them, in turn on the same clips; how far ours is from the limit."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wertune.base.config import ContextConfig, DecodeConfig, TrainConfig
from wertune.bench.clips import BATCH, CLIPS, FULL, PLAIN_LORA, ROUNDS, Batches, batches, fewer_clips
from wertune.bench.peer import EVALUATION_BATCH, PeerRecipe, at_context, module_loss
from wertune.bench.rows import Row, Section, rounded, timed
from wertune.scores.comparison import markdown_table
from wertune.training.optimizer import Updater
from wertune.training.prepare import Prepared
from wertune.whisper.adapter import add_lora
from wertune.whisper.features import FRAMES_PER_POSITION, pad_features
from wertune.whisper.footprint import dtype_name, product_dtype
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet, transcribe_features

Passes = dict[str, Callable[[], float]]
Seconds = dict[str, list[float]]


def sections(prepared: Prepared) -> list[Section]:
    """The first and the last way as a row each of training, evaluation and both, with the limit; then all the ways."""
    base, few = prepared.whisper("int8"), fewer_clips(prepared, train=CLIPS)
    theirs = PeerRecipe(prepared.base.path, base, PLAIN_LORA)
    unchecked = PeerRecipe(prepared.base.path, base, PLAIN_LORA, checkpointing=False)
    ours = add_lora(base, PLAIN_LORA, seed=0)
    long, short = (few.evaluation_set("train", context, base.mel_bins) for context in (FULL, ContextConfig()))
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        training = _in_turn(_training_passes(theirs, unchecked, ours, long, short, Path(scratch)))
    evaluation = _in_turn(
        {
            "transformers' `generate` at 30 s": lambda: timed(lambda: theirs.transcribe(long.features)),
            "at short context, clips of like length": lambda: timed(lambda: _write_short(theirs, short.features)),
            "ours": lambda: timed(lambda: _write_greedily(ours, short)),
        }
    )
    limit = _limit(ours, short, CLIPS / statistics.median(list(training.values())[-1]))
    speeds = {"training_clips_per_s": clips_per_s(training), "evaluation_clips_per_s": clips_per_s(evaluation)}
    return [
        Section("limit", limit, _limit_in_words(limit), rows(training, evaluation)),
        Section("levers", speeds, as_markdown(*speeds.values())),
    ]


def _training_passes(
    theirs: PeerRecipe, unchecked: PeerRecipe, ours: Whisper, long: EvaluationSet, short: EvaluationSet, scratch: Path
) -> Passes:
    texts = [recording.row.text for recording in short.recordings]
    in_float32 = Whisper(ours.model, ours.tokenizer, ours.language, products=torch.float32)
    as_they_come = {"of_like_length": False}
    passes: Passes = {
        "the field's recipe": lambda: theirs.train(long.features, texts, BATCH, scratch),
        "without gradient checkpointing": lambda: unchecked.train(long.features, texts, BATCH, scratch),
        "transformers' modules at short context": lambda: timed(
            lambda: _module_pass(unchecked, batches(ours, short, **as_they_come))
        ),
        "in batches of like length": lambda: timed(lambda: _module_pass(unchecked, batches(ours, short))),
        "ours: lean forward pass, float32 products": lambda: timed(lambda: _pass(in_float32, batches(ours, short))),
    }
    if ours.product_dtype != torch.float32:
        passes[f"ours, {dtype_name(ours.product_dtype)} products"] = lambda: timed(
            lambda: _pass(ours, batches(ours, short))
        )
    return passes


def _module_pass(recipe: PeerRecipe, clips: Batches) -> None:
    """One pass through transformers' and PEFT's modules, without the Trainer around them."""
    model, device = recipe.model.train(), recipe.model.device
    updater = Updater(TrainConfig(), model, steps=len(clips), products=product_dtype(device))
    for features, labels in clips:
        with at_context(model, features.shape[-1] // FRAMES_PER_POSITION):
            loss = module_loss(model, features.to(device), labels.to(device))
            updater.scaled(loss).backward()  # type: ignore[no-untyped-call]
        updater.step()


def _pass(whisper: Whisper, clips: Batches) -> None:
    """One pass over the clips, as a trial makes it."""
    whisper.model.train()
    updater = Updater(TrainConfig(), whisper.model, steps=len(clips), products=whisper.product_dtype)
    for features, labels in clips:
        updater.scaled(whisper.loss(features, labels)).backward()  # type: ignore[no-untyped-call]
        updater.step()


def _write_short(theirs: PeerRecipe, features: Sequence[torch.Tensor]) -> None:
    order = sorted(features, key=lambda clip: clip.shape[1])
    for start in range(0, len(order), EVALUATION_BATCH):
        batch = pad_features(order[start : start + EVALUATION_BATCH])
        with at_context(theirs.model, batch.shape[-1] // FRAMES_PER_POSITION):
            theirs.transcribe(list(batch))


def _write_greedily(whisper: Whisper, clips: EvaluationSet) -> None:
    """All clips in one batch."""
    whisper.model.eval()
    durations_s = [recording.duration_s for recording in clips.recordings]
    transcribe_features(whisper, clips.features, durations_s, DecodeConfig(batch_size=CLIPS))


def _in_turn(passes: Passes) -> Seconds:
    """Of each, a figure a round, after a round that does not count: the first is slower than the others."""
    rounds = [{name: run() for name, run in passes.items()} for _ in range(ROUNDS + 1)][1:]
    return {name: [each[name] for each in rounds] for name in passes}


def clips_per_s(seconds: Seconds) -> Seconds:
    """Of passes over all the clips."""
    return {name: [CLIPS / s for s in each] for name, each in seconds.items()}


def rows(training: Seconds, evaluation: Seconds) -> tuple[Row, ...]:
    """Of the first way of each, the field's, and the last, ours."""
    train, write = (_ends(ways) for ways in (training, evaluation))
    both = [(a + c, b + d) for (a, b), (c, d) in zip(train, write, strict=True)]
    return (
        Row.of_pairs("training", "clips/s", [(CLIPS / a, CLIPS / b) for a, b in train], less_is_better=False),
        Row.of_pairs("evaluation, greedy", "s", write),
        Row.of_pairs("epoch with evaluation", "s", both),
    )


def _ends(ways: Seconds) -> list[tuple[float, float]]:
    first, *_, last = ways.values()
    return list(zip(first, last, strict=True))


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
    most = 2 * 2048**3 / min(timed(lambda: (a @ a)[0, 0].item()) for _ in range(20))
    return {
        "gflop_per_clip": flop / 1e9,
        "achieved_gflop_per_s": flop * clips_per_s / 1e9,
        "matmul_gflop_per_s": most / 1e9,
        "share_of_limit": flop * clips_per_s / most,
    }


def _limit_in_words(limit: dict[str, float]) -> str:
    return (
        "The field's recipe is PEFT's int8 Whisper notebook: 30 s of padding, gradient checkpointing, Seq2SeqTrainer, "
        "greedy `generate` at 30 s (`platform/wertune/bench/peer.py`).\n\n"
        f"Distance to the limit: a clip's training step is {limit['gflop_per_clip']:.1f} GFLOP of products; ours runs "
        f"at {limit['achieved_gflop_per_s']:.0f} GFLOP/s where plain products of 2048 x 2048 reach "
        f"{limit['matmul_gflop_per_s']:.0f}: {limit['share_of_limit']:.2f} of the limit."
    )


def as_markdown(training: Seconds, evaluation: Seconds) -> str:
    """Clips/s of every way, each on top of the one above it."""
    words = (
        "What each lever brings, every line on top of the one above it, on the same clips. transformers' modules run "
        "under autocast where the hardware multiplies 16 bits, so float32 products are a step back"
    )
    return f"{words}. Training:\n\n{_table(training)}\n\nTranscribing greedily:\n\n{_table(evaluation)}"


def _table(found: Seconds) -> str:
    medians = {name: statistics.median(values) for name, values in found.items()}
    first = before = next(iter(medians.values()))
    lines = [["", "clips/s", "times the line above", "times the first"]]
    for name, value in medians.items():
        lines.append([name, rounded(value), f"{value / before:.2f}", f"{value / first:.2f}"])
        before = value
    return markdown_table(lines)
