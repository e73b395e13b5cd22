"""The drawings of the method's page: SVG in the page's colours, from measured files and the code's own rules."""

import json
from functools import cache
from pathlib import Path

from wertune.base.config import ContextConfig, LoraConfig, ProjectConfig, load_yaml
from wertune.search.search_space import AshaConfig
from wertune.whisper.features import FULL_CONTEXT_POSITIONS, context_positions

WIDTH = 640
ROW, BAR = 30, 18
OURS = "var(--md-accent-fg-color)"
THEIRS, PALE = "var(--md-default-fg-color--light)", "var(--md-default-fg-color--lighter)"
CONTEXT_SECONDS = (2, 4, 8, 15, 28)
# Radford et al. 2022, table 1: tiny's width, and the layers of each of its halves.
TINY_WIDTH, TINY_LAYERS = 384, 4
PROJECTIONS, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "out_proj"), ("fc1", "fc2")
BLOCKS = {
    "encoder": {"self-attention": PROJECTIONS, "feed-forward": FEED_FORWARD},
    "decoder": {"self-attention": PROJECTIONS, "cross-attention": PROJECTIONS, "feed-forward": FEED_FORWARD},
}


@cache
def figures(folder: Path) -> dict[str, str]:
    """Name and SVG of each figure; `folder` holds benchmarks.json and learning_curves.json."""
    bench = json.loads((folder / "benchmarks.json").read_text(encoding="utf-8"))
    curves = json.loads((folder / "learning_curves.json").read_text(encoding="utf-8"))["curves"]
    lora = load_yaml(folder.parent / "projects/sg_gov/project.yaml", ProjectConfig).trial.lora
    return {
        "context": _context(),
        "memory": _memory(bench["memory"]["counted_mb"]),
        "targets": _targets(lora),
        "halving": _halving(curves),
    }


def _context() -> str:
    """Encoder positions by a clip's length beside Whisper's fixed 1500."""
    full = FULL_CONTEXT_POSITIONS
    positions = {seconds: context_positions(seconds, ContextConfig()) for seconds in CONTEXT_SECONDS}
    bars = [(f"a clip of {seconds} s", float(n), f"{n} of {full}") for seconds, n in positions.items()]
    return _bars("Encoder positions by length of clip", bars, full, left=110, framed=True)


def _memory(counted: dict[str, dict[str, dict[str, float]]]) -> str:
    """Counted bytes of a training step of the largest base, by recipe."""
    peaks = {recipe: found["peak"] for recipe, found in counted["large-v2"].items()}
    bars = [(recipe, peak, f"{peak / 1000:.1f} GB") for recipe, peak in peaks.items()]
    return _bars("Memory of a training step of large-v2 at batch 8", bars, max(peaks.values()), left=285)


def _targets(lora: LoraConfig) -> str:
    """The linear layers of an encoder and of a decoder layer; those with adapters filled, with what each adds."""
    parts, y, added = [], 4, 0
    for half, blocks in BLOCKS.items():
        for block, layers in blocks.items():
            parts.append(_text(150, y + 19, f"{half}, {block}", "end"))
            for place, layer in enumerate(layers):
                chosen = layer in lora.target_modules and lora.scope in (half, "both")
                # A is r times a layer's inputs, B r times its outputs; a feed-forward layer is four times as wide.
                count = lora.r * TINY_WIDTH * (5 if layer in FEED_FORWARD else 2) if chosen else 0
                added += TINY_LAYERS * count
                parts.append(_box(162 + 120 * place, y, layer, f"+{count:,}" if count else "", chosen))
            y += 34
        y += 10
    parts.append(
        _text(162, y + 10, f"r={lora.r}, {TINY_LAYERS} layers of each kind: {added:,} trainable parameters", "start")
    )
    return _svg("Which linear layers of Whisper get adapters in the demo", y + 18, parts)


def _box(x: float, y: float, name: str, note: str, filled: bool) -> str:
    paint = (
        f'fill="{OURS}" fill-opacity=".25" stroke="{OURS}" stroke-width="2"'
        if filled
        else f'fill="none" stroke="{PALE}"'
    )
    label = f"{name}  {note}" if note else name
    return f'<rect x="{x}" y="{y}" width="112" height="28" rx="4" {paint}/>' + _text(x + 56, y + 18, label, "middle")


def _bars(title: str, bars: list[tuple[str, float, str]], full: float, left: int, framed: bool = False) -> str:
    """A bar a line, labels left of `left`, values in words behind; framed: the full length shown behind each."""
    room = WIDTH - left - 90
    parts = []
    for number, (label, value, told) in enumerate(bars):
        y = 8 + number * ROW
        if framed:
            parts.append(f'<rect x="{left}" y="{y}" width="{room}" height="{BAR}" fill="{PALE}"/>')
        length = max(2.0, room * value / full)
        colour = OURS if framed or label.startswith("ours") else THEIRS
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>')
        parts.append(_text(left - 8, y + 13, label, "end"))
        end = left + (room if framed else length) + 8
        parts.append(_text(end, y + 13, told, "start"))
    return _svg(title, 8 + len(bars) * ROW, parts)


def _halving(curves: list[list[float]]) -> str:
    """Learning curves; beyond a rung only those of the better half of them are drawn strong."""
    longest = max(len(curve) for curve in curves)
    low, high = 0.04, max(max(curve) for curve in curves)
    left, right, top, bottom = 50, WIDTH - 20, 16, 260
    rungs = AshaConfig(grace_epochs=1, reduction_factor=2).rungs(longest)

    def place(epoch: int, value: float) -> str:
        x = left + (right - left) * (epoch - 1) / (longest - 1)
        return f"{x:.1f},{bottom - (bottom - top) * (value - low) / (high - low):.1f}"

    parts = []
    for rung in rungs:
        x = place(rung, low).split(",")[0]
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{PALE}" stroke-dasharray="4 4"/>')
        parts.append(_text(float(x), bottom + 18, str(rung), "middle"))
    ends = _stops(curves, rungs)
    for curve, end in sorted(zip(curves, ends, strict=True), key=lambda pair: pair[1]):
        whole = " ".join(place(epoch, value) for epoch, value in enumerate(curve, 1))
        kept = " ".join(place(epoch, value) for epoch, value in enumerate(curve[:end], 1))
        parts.append(f'<polyline points="{whole}" fill="none" stroke="{PALE}" stroke-width="1"/>')
        parts.append(f'<polyline points="{kept}" fill="none" stroke="{OURS}" stroke-width="1.6" stroke-opacity=".7"/>')
        x, y = place(end, curve[end - 1]).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{OURS}"/>')
    parts.append(_text(right, bottom + 18, "epochs", "end"))
    for value in (0.05, 0.1, 0.15, 0.2):
        y = float(place(1, value).split(",")[1])
        parts.append(_text(left - 8, y + 4, f"{value:.2f}", "end"))
    return _svg("Which learning curves halving lets go on", bottom + 28, parts)


def _stops(curves: list[list[float]], rungs: list[int]) -> list[int]:
    """Epochs that each curve gets where at every rung the better half of those seen so far goes on."""
    seen: dict[int, list[float]] = {rung: [] for rung in rungs}
    ends = []
    for curve in curves:
        end = len(curve)
        for rung in rungs:
            if rung >= len(curve):
                break
            value = min(curve[:rung])
            seen[rung].append(value)
            if sorted(seen[rung]).index(value) >= max(1, len(seen[rung]) // 2):
                end = rung
                break
        ends.append(end)
    return ends


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="currentColor">{text}</text>'


def _svg(title: str, height: int, parts: list[str]) -> str:
    body = "".join(parts)
    return f'<svg class="figure" role="img" aria-label="{title}" viewBox="0 0 {WIDTH} {height}">{body}</svg>'
