"""What each lever brings, alone and on top of those before it, on the same clips round by round."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wertune.base.config import ContextConfig, TrainConfig
from wertune.bench.clips import BATCH, CLIPS, FULL, PLAIN_LORA, ROUNDS, Batches, batches, training_clips
from wertune.bench.peer import EVALUATION_BATCH, PeerRecipe, at_context
from wertune.bench.rows import Section, timed
from wertune.bench.training import train_pass, write_greedily
from wertune.scores.comparison import markdown_table
from wertune.training.optimizer import Updater
from wertune.training.prepare import Prepared
from wertune.whisper.evaluate import EvaluationSet
from wertune.whisper.features import FRAMES_PER_POSITION, pad_features
from wertune.whisper.footprint import product_dtype
from wertune.whisper.model import Whisper, add_lora

Passes = dict[str, Callable[[], float]]
Found = dict[str, list[float]]


def section(prepared: Prepared) -> Section:
    """Clips/s of every step on the way from the field's recipe to ours."""
    base = prepared.whisper("int8")
    long, short = (training_clips(prepared, context, base.mel_bins) for context in (FULL, ContextConfig()))
    theirs = PeerRecipe(prepared.base.path, base, PLAIN_LORA)
    unchecked = PeerRecipe(prepared.base.path, base, PLAIN_LORA, checkpointing=False)
    ours = add_lora(base, PLAIN_LORA, seed=0)
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        training = _in_turn(_training_passes(theirs, unchecked, ours, long, short, Path(scratch)))
    evaluation = _in_turn(_evaluation_passes(unchecked, ours, long, short))
    found = {"training_clips_per_s": training, "evaluation_clips_per_s": evaluation}
    return Section("levers", found, as_markdown(training, evaluation))


def _training_passes(
    theirs: PeerRecipe, unchecked: PeerRecipe, ours: Whisper, long: EvaluationSet, short: EvaluationSet, scratch: Path
) -> Passes:
    texts = [recording.row.text for recording in short.recordings]
    as_they_come, alike = batches(ours, short, of_like_length=False), batches(ours, short)
    in_float32 = Whisper(ours.model, ours.tokenizer, ours.language, products=torch.float32)
    passes: Passes = {
        "the field's recipe": lambda: theirs.train(long.features, texts, BATCH, scratch),
        "without gradient checkpointing": lambda: unchecked.train(long.features, texts, BATCH, scratch),
        "transformers' modules at short context": lambda: timed(lambda: _module_pass(unchecked, as_they_come)),
        "in batches of like length": lambda: timed(lambda: _module_pass(unchecked, alike)),
        "ours: lean forward pass, float32 products": lambda: timed(lambda: train_pass(in_float32, alike)),
    }
    if product_dtype(ours.device) == torch.bfloat16:
        passes["ours, bfloat16 products"] = lambda: timed(lambda: train_pass(ours, alike))
    return passes


def _module_pass(recipe: PeerRecipe, clips: Batches) -> None:
    """One pass through transformers' and PEFT's modules, without the Trainer around them."""
    model, device = recipe.model.train(), recipe.model.device
    updater = Updater(TrainConfig(), model, steps=len(clips))
    is_bfloat16 = product_dtype(device) == torch.bfloat16
    for features, labels in clips:
        positions = features.shape[-1] // FRAMES_PER_POSITION
        with at_context(model, positions), torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16):
            model(input_features=features.to(device), labels=labels.to(device)).loss.backward()
        updater.step()


def _evaluation_passes(theirs: PeerRecipe, ours: Whisper, long: EvaluationSet, short: EvaluationSet) -> Passes:
    return {
        "transformers' `generate` at 30 s": lambda: timed(lambda: theirs.transcribe(long.features)),
        "at short context, clips of like length": lambda: timed(lambda: _write_short(theirs, short.features)),
        "ours": lambda: timed(lambda: write_greedily(ours, short)),
    }


def _write_short(theirs: PeerRecipe, features: Sequence[torch.Tensor]) -> None:
    order = sorted(features, key=lambda clip: clip.shape[1])
    for start in range(0, len(order), EVALUATION_BATCH):
        batch = pad_features(order[start : start + EVALUATION_BATCH])
        with at_context(theirs.model, batch.shape[-1] // FRAMES_PER_POSITION):
            theirs.transcribe(list(batch))


def _in_turn(passes: Passes) -> Found:
    """Clips/s of each, a figure a round; the first round is slower and the median leaves it aside."""
    rounds = [{name: CLIPS / run() for name, run in passes.items()} for _ in range(ROUNDS)]
    return {name: [each[name] for each in rounds] for name in passes}


def as_markdown(training: Found, evaluation: Found) -> str:
    """Both tables."""
    words = (
        "What each lever brings, every line on top of the one above it, on the same clips. transformers' modules run "
        "under bfloat16 autocast where the hardware multiplies it, so float32 products are a step back"
    )
    return f"{words}. Training:\n\n{_table(training)}\n\nTranscribing greedily:\n\n{_table(evaluation)}"


def _table(found: Found) -> str:
    medians = {name: statistics.median(values) for name, values in found.items()}
    first = before = next(iter(medians.values()))
    rows = [["", "clips/s", "times the line above", "times the first"]]
    for name, value in medians.items():
        rows.append([name, f"{value:.3g}", f"{value / before:.2f}", f"{value / first:.2f}"])
        before = value
    return markdown_table(rows)
