"""The field's recipe, ours and the steps between them, in turn on the same clips; how far ours is from the limit."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from wertune.base.config import ContextConfig, DecodeConfig, TrainConfig
from wertune.bench.clips import BATCH, CLIPS, FULL, PLAIN_LORA, ROUNDS, Batches, batches, fewer_clips, plain_trial
from wertune.bench.peer import EVALUATION_BATCH, PeerRecipe, at_context, module_loss
from wertune.bench.rows import Row, Section, rounded, timed
from wertune.scores.comparison import markdown_table
from wertune.training.batches import TrainingData, training_batches
from wertune.training.optimizer import Updater
from wertune.training.prepare import Prepared
from wertune.whisper.adapter import add_lora
from wertune.whisper.features import FRAMES_PER_POSITION, pad_features
from wertune.whisper.footprint import dtype_name, product_dtype
from wertune.whisper.loops import token_limit
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet, transcribe_features

NOTEBOOK = "int8, 30 s, gradient checkpointing: the notebook"
SHORT = "short context in batches of like length"
WINDOWS_S = (10.0, 20.0, 30.0)

Passes = dict[str, Callable[[], float]]
Seconds = dict[str, list[float]]


def sections(prepared: Prepared) -> list[Section]:
    """Training beside the field's recipes, evaluation, and both, with the limit; then all the ways."""
    base, few = prepared.whisper("int8"), fewer_clips(prepared, train=CLIPS)
    peers = _peers(prepared.base.path, base)
    theirs, ours = peers[NOTEBOOK], add_lora(base, PLAIN_LORA, seed=0)
    name, quickest = list(peers.items())[-1]
    long, short = (few.evaluation_set("train", context, base.mel_bins) for context in (FULL, ContextConfig()))
    decode, longest = _same_limit(short)
    ways: dict[str, Callable[[], list[str]]] = {
        "transformers' `generate`, int8, 30 s": lambda: theirs.transcribe(long.features, longest),
        f"transformers' `generate`, {name}": lambda: quickest.transcribe(long.features, longest),
        "at short context, clips of like length": lambda: _write_short(quickest, short.features, longest),
        "ours: int8": lambda: _write_greedily(ours, short, decode),
    }
    # Before anything is trained: adapters add nothing yet, and all write what the base does.
    evaluation = _in_turn({name: partial(timed, write) for name, write in ways.items()})
    first, *_, last = ways.values()
    wers = [prepared.score(short.recordings, write()).wer for write in (first, last)]
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        training = _in_turn(_training_passes(peers, ours, long, short, Path(scratch)))
    windows = _windows(few, ours)
    limit = _limit(ours, short, CLIPS / statistics.median(list(training.values())[-1]))
    speeds = {"training_clips_per_s": clips_per_s(training), "evaluation_clips_per_s": clips_per_s(evaluation)}
    return [
        Section("limit", limit, _limit_in_words(limit), rows(training, evaluation, wers)),
        Section("levers", {**speeds, "evaluation_wers": wers}, as_markdown(*speeds.values())),
        Section("windows", windows, windows_as_markdown(windows)),
    ]


def _peers(path: Path, base: Whisper) -> dict[str, PeerRecipe]:
    """The notebook's recipe, without checkpointing, and without 8 bits; the last is the quickest to multiply."""
    whole = {NOTEBOOK: PeerRecipe(path, base, PLAIN_LORA), "int8, 30 s": _unchecked(path, base, torch.int8)}
    dtypes = dict.fromkeys((torch.float32, product_dtype(base.device)))
    return whole | {f"{dtype_name(each)}, 30 s": _unchecked(path, base, each) for each in dtypes}


def _unchecked(path: Path, base: Whisper, weights: torch.dtype) -> PeerRecipe:
    return PeerRecipe(path, base, PLAIN_LORA, checkpointing=False, weights=weights)


def _same_limit(clips: EvaluationSet) -> tuple[DecodeConfig, int]:
    """Decoding in batches of theirs, and what both may write of a clip at most."""
    decode = DecodeConfig(batch_size=EVALUATION_BATCH)
    return decode, max(token_limit(recording.duration_s, decode) for recording in clips.recordings)


def _training_passes(
    peers: Mapping[str, PeerRecipe], ours: Whisper, long: EvaluationSet, short: EvaluationSet, scratch: Path
) -> Passes:
    texts = [recording.row.text for recording in short.recordings]
    in_float32 = Whisper(ours.model, ours.tokenizer, ours.language, products=torch.float32)
    as_they_come = {"of_like_length": False}
    name, quickest = list(peers.items())[-1]
    weights = name.partition(",")[0]
    passes: Passes = {
        name: partial(peer.train, long.features, texts, BATCH, scratch) for name, peer in peers.items()
    } | {
        f"{weights}, short context": lambda: timed(
            lambda: _module_pass(quickest, batches(ours, short, **as_they_come))
        ),
        f"{weights}, {SHORT}": lambda: timed(lambda: _module_pass(quickest, batches(ours, short))),
        "ours: int8, lean forward pass, float32 products": lambda: timed(
            lambda: _pass(in_float32, batches(ours, short))
        ),
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


def _windows(prepared: Prepared, ours: Whisper) -> dict[str, Any]:
    """Passes over the same clips as a trial draws them, alone and joined, half of the windows with their times."""
    nothing = EvaluationSet([], [])
    train = prepared.dataset["train"]
    data = TrainingData(train, [], nothing, nothing, prepared.normalise, prepared.finder)
    trials = {"clips alone": plain_trial()} | {
        f"windows of up to {most_s:g} s": plain_trial(joined_ratio=1.0, window_s=most_s) for most_s in WINDOWS_S
    }
    drawn = {name: list(training_batches(trial, ours, data, epoch=1)) for name, trial in trials.items()}
    passes: Passes = {
        name: partial(timed, partial(_pass, ours, [(batch.features, batch.labels) for batch in epoch]))
        for name, epoch in drawn.items()
    }
    return {
        "speech_s": sum(recording.duration_s for recording in train),
        "rows": {name: sum(batch.size for batch in epoch) for name, epoch in drawn.items()},
        "seconds": _in_turn(passes),
    }


def windows_as_markdown(found: Mapping[str, Any]) -> str:
    """What a clip, and an hour of speech, cost in windows."""
    lines = [["", "windows", "clips/s", "hours of speech an hour"]]
    for name, each in found["seconds"].items():
        seconds = statistics.median(each)
        speeds = (rounded(CLIPS / seconds), rounded(found["speech_s"] / seconds))
        lines.append([name, str(found["rows"][name]), *speeds])
    return (
        f"Training on windows (`train.joined_ratio: 1`, half with times), ours, the same {CLIPS} clips with "
        f"{found['speech_s']:.0f} s of speech, in batches of {BATCH} clips:\n\n{markdown_table(lines)}"
    )


def _write_short(theirs: PeerRecipe, features: Sequence[torch.Tensor], longest: int) -> list[str]:
    order = sorted(range(len(features)), key=lambda i: features[i].shape[1])
    texts = dict[int, str]()
    for start in range(0, len(order), EVALUATION_BATCH):
        chosen = order[start : start + EVALUATION_BATCH]
        batch = pad_features([features[i] for i in chosen])
        with at_context(theirs.model, batch.shape[-1] // FRAMES_PER_POSITION):
            texts |= zip(chosen, theirs.transcribe(list(batch), longest), strict=True)
    return [texts[i] for i in range(len(features))]


def _write_greedily(whisper: Whisper, clips: EvaluationSet, decode: DecodeConfig) -> list[str]:
    whisper.model.eval()
    durations_s = [recording.duration_s for recording in clips.recordings]
    return transcribe_features(whisper, clips.features, durations_s, decode)


def _in_turn(passes: Passes) -> Seconds:
    """Of each, a figure a round, after a round that does not count: the first is slower than the others."""
    rounds = [{name: run() for name, run in passes.items()} for _ in range(ROUNDS + 1)][1:]
    return {name: [each[name] for each in rounds] for name in passes}


def clips_per_s(seconds: Seconds) -> Seconds:
    """Of passes over all the clips."""
    return {name: [CLIPS / s for s in each] for name, each in seconds.items()}


def rows(training: Seconds, evaluation: Seconds, wers: Sequence[float]) -> tuple[Row, ...]:
    """Ours, the last way, beside the notebook's recipe, the quickest of theirs at 30 s, and theirs at short context."""
    at_30_s = {name: statistics.median(each) for name, each in training.items() if "30 s" in name}
    short = next(name for name in training if SHORT in name)
    peers = dict.fromkeys((NOTEBOOK, min(at_30_s, key=lambda name: at_30_s[name]), short))
    ours, write = list(training.values())[-1], _ends(evaluation)
    pairs = {name: list(zip(training[name], ours, strict=True)) for name in peers}
    both = [(a + c, b + d) for (a, b), (c, d) in zip(pairs[NOTEBOOK], write, strict=True)]
    written = f"{EVALUATION_BATCH} at once, WER {100 * wers[0]:.1f} and {100 * wers[1]:.1f} %"
    return (
        *(
            Row.of_pairs(
                f"training, theirs: {name}", "clips/s", [(CLIPS / a, CLIPS / b) for a, b in each], less_is_better=False
            )
            for name, each in pairs.items()
        ),
        Row.of_pairs(f"evaluation, greedy, {written}", "s", write),
        Row.of_pairs("epoch of the notebook's with evaluation", "s", both),
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
        "The notebook is PEFT's for Whisper in int8: 30 s of padding, gradient checkpointing, Seq2SeqTrainer, greedy "
        "`generate` at 30 s (`platform/wertune/bench/peer.py`). Beside it stand its modules at their best: without "
        "checkpointing and without 8 bits, and at short context, as whisper.cpp's `--audio-ctx` hears and FUTO's "
        "fine-tuning for it trains (https://github.com/futo-org/whisper-acft), in batches of like length. All take "
        f"batches of {BATCH}, {torch.get_num_threads()} threads and, writing, as many tokens; what is learnt in "
        "as many epochs stands with the search.\n\n"
        f"Distance to the limit: a clip's training step is {limit['gflop_per_clip']:.1f} GFLOP of products; ours runs "
        f"at {limit['achieved_gflop_per_s']:.0f} GFLOP/s where plain products of 2048 x 2048 reach "
        f"{limit['matmul_gflop_per_s']:.0f}: {limit['share_of_limit']:.2f} of the limit."
    )


def as_markdown(training: Seconds, evaluation: Seconds) -> str:
    """Clips/s of every way, each on top of the one above it."""
    words = (
        "What each lever brings, every line on top of the one above it, on the same clips; the first word is what the "
        "frozen weights are stored in. transformers' modules run under autocast where the hardware multiplies 16 "
        "bits, so float32 products are a step back"
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
