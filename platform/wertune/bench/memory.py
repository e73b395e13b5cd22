"""Peak memory of training: measured in processes of their own, and counted where a model is too large for that."""

import multiprocessing
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from wertune.bench.clips import BATCH, PLAIN_LORA
from wertune.bench.counted import (
    FULL,
    MEL_BINS,
    OURS,
    OURS_CHECKPOINTED,
    OURS_ON_BFLOAT16,
    PEER,
    PEER_CHECKPOINTED,
    RECIPES,
    SHAPES,
    STEPS,
    TOKENS,
    Count,
    Recipe,
    count,
)
from wertune.bench.peer import peer_model, with_adapters
from wertune.bench.rows import Section
from wertune.scores.comparison import markdown_table
from wertune.training.prepare import Prepared
from wertune.training.trial import process_peak_mb, start_memory_peak
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.footprint import product_dtype
from wertune.whisper.model import add_lora, load_whisper

MEASURED = ("tiny.en", "base")
COUNTED = (*RECIPES, OURS_ON_BFLOAT16)

Peaks = dict[str, dict[str, float]]
Counts = dict[str, dict[str, Count]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def section(prepared: Prepared) -> Section:
    """MB at most in two steps at batch 8 of 4 s, by base and recipe."""
    measured = {base: {recipe.name: _in_a_process(_peak_mb, base, recipe) for recipe in RECIPES} for base in MEASURED}
    counts = {base: {recipe.name: count(shape, recipe) for recipe in COUNTED} for base, shape in SHAPES.items()}
    found = {
        "measured_mb": measured,
        "counted_mb": {base: {name: asdict(each) for name, each in row.items()} for base, row in counts.items()},
    }
    return Section("memory", found, as_markdown(measured, counts))


def _in_a_process(work: Callable[[str, Recipe], float], base: str, recipe: Recipe) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (base, recipe))


def _peak_mb(base: str, recipe: Recipe) -> float:
    """Beyond an empty process, or what CUDA's allocator gave out."""
    start_memory_peak()
    empty_mb = process_peak_mb()
    model, loss = _model_and_loss(resolve_base_model(f"packaged:whisper-{base}").path, recipe)
    device = next(model.parameters()).device
    features, labels = torch.randn(BATCH, MEL_BINS, recipe.frames), torch.randint(1000, 40_000, (BATCH, TOKENS))
    start_memory_peak()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    model.train()
    for _ in range(STEPS):
        loss(features.to(device), labels.to(device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else process_peak_mb() - empty_mb


def _model_and_loss(path: Path, recipe: Recipe) -> tuple[torch.nn.Module, Loss]:
    """What the count takes apart, with real weights: of peers in float32, and products in bfloat16 where there are."""
    if recipe.is_ours:
        whisper = add_lora(load_whisper(path, "en", "int8"), PLAIN_LORA, seed=0)
        whisper.checkpoint_layers(recipe.is_checkpointed)
        return whisper.model, whisper.loss
    if recipe.is_int8:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = peer_model(path, device, PLAIN_LORA, recipe.is_checkpointed)
    else:
        bare = load_whisper(path, "en", "none").bare.float()
        model = bare.requires_grad_(True) if recipe.is_full else with_adapters(bare, PLAIN_LORA)
    return model, partial(_module_loss, model)


def _module_loss(model: torch.nn.Module, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    device = features.device
    with torch.autocast(device.type, torch.bfloat16, enabled=product_dtype(device) == torch.bfloat16):
        return torch.as_tensor(model(input_features=features, labels=labels, use_cache=False).loss)


def as_markdown(measured: Peaks, counts: Counts) -> str:
    """Measured beside counted, the count for all sizes, and what 8 bits are good for."""
    return "\n\n".join(
        [
            f"Peak memory of two training steps at batch {BATCH} of 4 s clips beyond an empty process, in MB; in "
            "brackets the bytes counted (below), as a share of what was measured:",
            _measured_table(measured, counts),
            "The same by counted bytes, for sizes that are not measured here too: the real modules run on tensors that "
            "have a shape and no contents, and every storage that lives is counted: weights, gradients, AdamW's "
            "states, activations, intermediate values (`platform/wertune/bench/counted.py`). Real tensors give the "
            "same count, so what a process takes beyond it is no tensor: what kernels take for themselves and the "
            "allocator leaves lying about. In MB, in brackets how many times less than full fine-tuning:",
            _counted_table(counts),
            _large(counts),
            "8-bit or not, by the same count: weights, and the peak of our training step, with the linear layers in "
            "8 bits and in bfloat16. The embeddings (half of tiny.en), the convolutions and the last product stay in "
            "bfloat16 either way. Below small, 8 bits save less than a tenth of what a step takes.",
            _bits_table(counts),
        ]
    )


def _measured_table(measured: Peaks, counts: Counts) -> str:
    rows = [["", *measured]]
    for recipe in RECIPES:
        pairs = [(measured[base][recipe.name], counts[base][recipe.name].peak) for base in measured]
        rows.append([recipe.name, *(f"{peak:.0f} ({counted / peak:.2f})" for peak, counted in pairs)])
    for theirs, ours in ((PEER, OURS), (PEER_CHECKPOINTED, OURS_CHECKPOINTED)):
        times = [f"{row[theirs.name] / row[ours.name]:.1f}" for row in measured.values()]
        rows.append([f"times less: {ours.name}, than {theirs.name}", *times])
    return markdown_table(rows)


def _counted_table(counts: Counts) -> str:
    rows = [["", *counts]]
    full = {base: row[FULL.name].peak for base, row in counts.items()}
    for recipe in RECIPES:
        peaks = {base: row[recipe.name].peak for base, row in counts.items()}
        rows.append([recipe.name, *(f"{peak:.0f} ({full[base] / peak:.1f})" for base, peak in peaks.items())])
    return markdown_table(rows)


def _large(counts: Counts) -> str:
    row = counts["large-v2"]
    ours, checkpointed = row[OURS.name], row[OURS_CHECKPOINTED.name]
    return (
        f"Of large-v2's {ours.peak:.0f} MB {ours.weights:.0f} are weights and adapters; nearly all others are kept by "
        f"its 64 layers for the way back. With `train.gradient_checkpointing: true` they keep their inputs alone, and "
        f"{checkpointed.peak:.0f} MB do, for a third more products."
    )


def _bits_table(counts: Counts) -> str:
    rows = [["", "weights, 8-bit", "weights, bfloat16", "step, 8-bit", "step, bfloat16", "a step saves"]]
    for base, row in counts.items():
        ours, plain = row[OURS.name], row[OURS_ON_BFLOAT16.name]
        cells = [f"{value:.0f} MB" for value in (ours.weights, plain.weights, ours.peak, plain.peak)]
        rows.append([base, *cells, f"{100 * (1 - ours.peak / plain.peak):.0f} %"])
    return markdown_table(rows)
