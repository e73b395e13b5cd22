"""The page of results, its picture and its raw figures, out of the sections that the parts hand in."""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wertune.base.machine import processor_name
from wertune.bench.clips import BATCH, CLIPS, ROUNDS, SECONDS
from wertune.bench.rows import Row, Section
from wertune.scores.comparison import markdown_table
from wertune.training.prepare import Prepared
from wertune.whisper.footprint import dtype_name, product_dtype

# Where a GPU was at hand, its table takes the place of the last sentence.
ON_A_GPU = (
    "On one GPU `make gpu` prints a table of its own, in at most eight minutes: step, epoch, evaluation and peak "
    "memory of the field's recipe and ours for tiny, base, small and large-v2 of random weights; how near our "
    "step comes to plain products; 1, 2 and 4 trials side by side; what a token costs with one beam and with "
    "five, and how much of that is waiting for launches; `tests/gpu`. Below it stands what must hold: a step at "
    "least 10 times as fast as the recipe's, whisper-base at batch 8 below 1 GB, large-v2 with checkpointing "
    "below 3 GB; status 1 says that something does not. No GPU has run it yet."
)


def setting(prepared: Prepared) -> dict[str, Any]:
    """What was measured, and on what."""
    clips = {"count": CLIPS, "seconds": SECONDS, "batch": BATCH, "rounds": ROUNDS, "base": prepared.base.spec}
    return {"machine": _machine(), "clips": clips}


def _machine() -> str:
    """In words: the device, its threads, and what it multiplies."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    dtype = dtype_name(product_dtype(torch.device("cpu")))
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{processor_name()}, {threads}, {dtype} products, torch {torch.__version__}"


def write(out: Path, found: dict[str, Any], sections: Sequence[Section]) -> str:
    """`benchmarks.json`, `.md` and `.png` in `out`; returns the page."""
    rows = [row for section in sections for row in section.rows]
    raw = {**found, "rows": [asdict(row) | {"ratios": row.ratios} for row in rows]}
    raw |= {section.name: section.found for section in sections}
    text = _as_markdown(found, rows, sections)
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (out / "benchmarks.md").write_text(text, encoding="utf-8")
    _draw(rows, out / "benchmarks.png")
    return text


def _as_markdown(found: dict[str, Any], rows: Sequence[Row], sections: Sequence[Section]) -> str:
    """The table of ratios, and below it what each section has to say."""
    table = [["", "theirs", "ours", "times better (least to most)"], *(row.cells() for row in rows)]
    clips = found["clips"]
    heading = (
        f"Made by `make bench`; raw figures in [benchmarks.json](benchmarks.json). {found['machine']}; "
        f"{clips['base']}, {clips['count']} clips of {SECONDS[0]:g} to {SECONDS[1]:g} s in batches of {BATCH}, "
        f"LoRA r=16 on q_proj and v_proj, the median of {ROUNDS} rounds in turn."
    )
    parts = ["# Benchmarks", heading, markdown_table(table), "![times better](benchmarks.png)"]
    return "\n\n".join([*parts, *(section.markdown for section in sections), ON_A_GPU]) + "\n"


def _draw(rows: Sequence[Row], path: Path) -> None:
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
    axes.set_xlabel("times better than theirs, median of the rounds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
