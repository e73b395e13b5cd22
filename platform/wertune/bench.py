"""Ratios of one run on one machine: the field's recipe and ours in turn, round by round, on the same clips and base.

Nothing here is asserted anywhere: machines differ, and a busy one differs from itself. What is kept is the raw JSON,
from which table and picture are made.
"""

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from wertune.config import ContextConfig, DecodeConfig, LoraConfig, TrainConfig
from wertune.evaluate import EvaluationSet, transcribe_features
from wertune.features import pad_features
from wertune.model import Whisper, add_lora, load_whisper, product_dtype
from wertune.peer import PeerRecipe
from wertune.prepare import Prepared, load_project, prepare
from wertune.report import markdown_table
from wertune.train import Updater, training_batches
from wertune.trial import peak_memory_mb, process_peak_mb, start_memory_peak
from wertune.weights import resolve_base_model

ROUNDS = 3
CLIPS = 32
SECONDS = (2.0, 8.0)
BATCH = 8
PLAIN_LORA = LoraConfig(r=16, alpha=32, dropout=0.05, target_modules=("q_proj", "v_proj"))
FULL = ContextConfig(short=False)
MEMORY_RECIPES = (
    "full fine-tuning, 30 s",
    "LoRA on float, 30 s",
    "LoRA on int8, 30 s",
    "ours: LoRA on int8, short context",
)


@dataclass(frozen=True)
class Row:
    """One quantity of theirs and ours, a figure a round."""

    name: str
    unit: str
    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    less_is_better: bool = True

    @property
    def ratios(self) -> list[float]:
        """How many times ours is better, round by round."""
        pairs = zip(self.theirs, self.ours, strict=True)
        return [theirs / ours if self.less_is_better else ours / theirs for theirs, ours in pairs]

    def cells(self) -> list[str]:
        ratios = self.ratios
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        return [self.name, *(f"{statistics.median(v):.3g} {self.unit}" for v in (self.theirs, self.ours)), spread]


def bench(folder: Path, out: Path) -> str:
    """Runs everything, and writes `benchmarks.json`, `.md` and `.png` into `out`; returns the tables."""
    prepared = prepare(folder, load_project(folder))
    rows, limit = training_and_evaluation(prepared)
    rows.append(start_up(prepared))
    found = {
        "machine": machine(),
        "clips": {"count": CLIPS, "seconds": SECONDS, "batch": BATCH, "rounds": ROUNDS, "base": prepared.base.spec},
        "rows": [asdict(row) | {"ratios": row.ratios} for row in rows],
        "limit": limit,
        "memory_mb": memory(),
    }
    text = as_markdown(rows, found)
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "benchmarks.md").write_text(text, encoding="utf-8")
    draw(rows, out / "benchmarks.png")
    return text


def machine() -> str:
    """In words: the device, its threads, and what it multiplies."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    names = [line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    dtype = str(product_dtype(torch.device("cpu"))).removeprefix("torch.")
    name = names[0] if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {dtype} products, torch {torch.__version__}"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def training_and_evaluation(prepared: Prepared) -> tuple[list[Row], dict[str, float]]:
    """Training and transcribing the same clips: seconds a round of each recipe, and how far ours is from the limit."""
    base = prepared.whisper("int8")
    theirs = PeerRecipe(prepared.base.path, base, PLAIN_LORA)
    ours = add_lora(base, PLAIN_LORA, seed=0)
    long, short = (_clips(prepared, context, ours.mel_bins) for context in (FULL, ContextConfig()))
    texts = [recording.row.text for recording in short.recordings]
    durations_s = [recording.duration_s for recording in short.recordings]
    seconds: dict[str, list[tuple[float, float]]] = {"train": [], "write": []}
    with tempfile.TemporaryDirectory(prefix="wertune-") as scratch:
        for turn in range(ROUNDS + 1):
            peer_s = theirs.train(long.features, texts, BATCH, Path(scratch))
            our_s = _timed(lambda: _train(ours, short))
            peer_write_s = _timed(lambda: theirs.transcribe(long.features))
            ours.model.eval()
            our_write_s = _timed(
                lambda: transcribe_features(ours, short.features, durations_s, DecodeConfig(batch_size=CLIPS))
            )
            if turn:  # the first round of each is slower than those that follow
                seconds["train"].append((peer_s, our_s))
                seconds["write"].append((peer_write_s, our_write_s))
    both = [(a + c, b + d) for (a, b), (c, d) in zip(seconds["train"], seconds["write"], strict=True)]
    rows = [
        _row("training", "clips/s", [(CLIPS / a, CLIPS / b) for a, b in seconds["train"]], less_is_better=False),
        _row("evaluation, greedy", "s", seconds["write"]),
        _row("epoch with evaluation", "s", both),
    ]
    return rows, _limit(ours, short, CLIPS / statistics.median(s for _, s in seconds["train"]))


def _row(name: str, unit: str, pairs: Sequence[tuple[float, float]], less_is_better: bool = True) -> Row:
    return Row(name, unit, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), less_is_better)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _clips(prepared: Prepared, context: ContextConfig, mel_bins: int) -> EvaluationSet:
    """Training clips of 2 to 8 s, evenly over the split."""
    whole = prepared.evaluation_set("train", context, mel_bins)
    fitting = [i for i, r in enumerate(whole.recordings) if SECONDS[0] <= r.duration_s <= SECONDS[1]]
    chosen = fitting[:: max(1, len(fitting) // CLIPS)][:CLIPS]
    return EvaluationSet([whole.recordings[i] for i in chosen], [whole.features[i] for i in chosen])


def _train(whisper: Whisper, clips: EvaluationSet) -> None:
    whisper.model.train()
    updater = Updater(TrainConfig(), whisper, steps=len(clips.features) // BATCH)
    for features, labels in _batches(whisper, clips):
        whisper.loss(features, labels).backward()  # type: ignore[no-untyped-call]
        updater.step()


def _batches(whisper: Whisper, clips: EvaluationSet) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = sorted(range(len(clips.features)), key=lambda i: clips.features[i].shape[1])
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return [
        (
            pad_features([clips.features[i] for i in batch]),
            whisper.pad_labels([whisper.label_ids(clips.recordings[i].row.text) for i in batch]),
        )
        for batch in batches
    ]


def _limit(whisper: Whisper, clips: EvaluationSet, clips_per_s: float) -> dict[str, float]:
    """Counted products of a clip's training step, times clips a second, beside what plain products reach here."""
    batches = _batches(whisper, clips)
    counter = FlopCounterMode(display=False)
    with counter:
        for features, labels in batches:
            whisper.loss(features, labels).backward()  # type: ignore[no-untyped-call]
    whisper.model.zero_grad(set_to_none=True)
    flop = counter.get_total_flops() / len(clips.features)
    a = torch.randn(2048, 2048, device=whisper.device, dtype=product_dtype(whisper.device))
    seconds = min(_timed(lambda: (a @ a)[0, 0].item()) for _ in range(20))
    most = 2 * 2048**3 / seconds
    return {
        "gflop_per_clip": flop / 1e9,
        "achieved_gflop_per_s": flop * clips_per_s / 1e9,
        "matmul_gflop_per_s": most / 1e9,
        "share_of_limit": flop * clips_per_s / most,
    }


def start_up(prepared: Prepared) -> Row:
    """Seconds from asking for a trial to its first batch: in a process just begun, and in one that has run a trial."""
    pairs = []
    for _ in range(ROUNDS):
        # Spawned, so that it imports everything itself, as a worker on another node does.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cold = _timed(lambda: pool.apply(first_batch, (prepared,)))
            pool.apply(first_batch, (prepared,))
            warm = _timed(lambda: pool.apply(first_batch, (prepared,)))
        pairs.append((cold, warm))
    return _row("start of a trial: cold process, warm one", "s", pairs)


def first_batch(prepared: Prepared) -> int:
    """What a trial does before its first step: base, adapters, data, first batch; returns the size of the batch."""
    config = prepared.project.trial
    with prepared.resident_whisper(config.quantization) as base:
        whisper = add_lora(base, config.lora, config.seed)
        data = prepared.training_data(config.context, whisper.mel_bins)
        return next(training_batches(config, whisper, data, epoch=1)).size


def memory() -> dict[str, dict[str, float]]:
    """MB at most beyond an empty process in two steps at batch 8 of 4 s, by base and recipe, each in a process."""
    found: dict[str, dict[str, float]] = {}
    for base in ("packaged:whisper-tiny.en", "packaged:whisper-base"):
        found[base] = {}
        for recipe in MEMORY_RECIPES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[base][recipe] = pool.apply(_peak_mb, (base, recipe))
    return found


def _peak_mb(base: str, recipe: str) -> float:
    path = resolve_base_model(base).path
    is_int8, is_short = "int8" in recipe, "short" in recipe
    start_memory_peak()
    before = process_peak_mb()
    whisper = load_whisper(path, "en", "int8" if is_int8 else "none")
    if recipe.startswith("full"):
        whisper.model.requires_grad_(True)
        step = _module_step
    else:
        whisper = add_lora(whisper, PLAIN_LORA, seed=0)
        step = _lean_step if is_short else _module_step
    features = torch.randn(BATCH, whisper.mel_bins, 464 if is_short else 3000)
    labels = torch.randint(1000, 40_000, (BATCH, 20))
    start_memory_peak()
    optimizer = torch.optim.AdamW([p for p in whisper.model.parameters() if p.requires_grad], lr=1e-5)
    whisper.model.train()
    for _ in range(2):
        step(whisper, features, labels)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return peak_memory_mb(whisper) - (0.0 if whisper.device.type == "cuda" else before)


def _lean_step(whisper: Whisper, features: torch.Tensor, labels: torch.Tensor) -> None:
    whisper.loss(features, labels).backward()  # type: ignore[no-untyped-call]


def _module_step(whisper: Whisper, features: torch.Tensor, labels: torch.Tensor) -> None:
    """As peers do it: transformers' modules under autocast, at 30 s."""
    device = whisper.device
    with torch.autocast(device.type, torch.bfloat16, enabled=product_dtype(device) == torch.bfloat16):
        loss = whisper.bare(input_features=features.to(device), labels=labels.to(device)).loss
    loss.backward()


def as_markdown(rows: Sequence[Row], found: dict[str, Any]) -> str:
    """The page of results."""
    limit = found["limit"]
    table = markdown_table(
        [["", "the field's recipe", "ours", "times better (least to most)"], *(r.cells() for r in rows)]
    )
    bases = list(found["memory_mb"])
    memory_rows = [["", *bases]] + [
        [recipe, *(f"{found['memory_mb'][base][recipe]:.0f} MB" for base in bases)] for recipe in MEMORY_RECIPES
    ]
    clips = found["clips"]
    return (
        f"# Benchmarks\n\nMade by `make bench`; raw figures in `benchmarks.json`. {found['machine']}; {clips['base']}, "
        f"{clips['count']} clips of {SECONDS[0]:g} to {SECONDS[1]:g} s in batches of {BATCH}, LoRA r=16 on q_proj and "
        f"v_proj, the median of {ROUNDS} rounds in turn.\n\n{table}\n\n![times better](benchmarks.png)\n\n"
        f"The field's recipe is PEFT's int8 Whisper notebook: 30 s of padding, gradient checkpointing, Seq2SeqTrainer, "
        f"greedy `generate` at 30 s (`platform/wertune/peer.py`). A cold start is that of a new process with the "
        f"features already on disk.\n\n"
        f"Distance to the limit: a clip's training step is {limit['gflop_per_clip']:.1f} GFLOP of products; ours runs "
        f"at {limit['achieved_gflop_per_s']:.0f} GFLOP/s where plain products of 2048 x 2048 reach "
        f"{limit['matmul_gflop_per_s']:.0f}: {limit['share_of_limit']:.2f} of the limit.\n\n"
        f"Peak memory of two training steps at batch {BATCH} beyond an empty process, 4 s clips:\n\n"
        f"{markdown_table(memory_rows)}\n"
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """How many times ours is better, each quantity a bar, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.7 * len(rows) + 1.2))
    medians = [statistics.median(row.ratios) for row in rows]
    bars = axes.barh([row.name for row in rows], medians, color="#3b6ea5")
    axes.bar_label(bars, [f"{median:.1f} x" for median in medians], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(left=1, right=max(medians) * 2)
    axes.invert_yaxis()
    axes.set_xlabel("times better than the field's recipe, median of the rounds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
