"""The figures of `figures.py` drawn: on one page that can be zoomed and read off, and each as a picture."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MultipleLocator
from plotly.offline import get_plotlyjs

from wertune.reports.figures import Figure
from wertune.reports.html_page import PAGES, embedded_json, page, rendered, resource

DOTS_PER_INCH = 110
# Of a plotly pixel, which is a hundredth of an inch here.
POINTS = 0.72
WIDTH_INCHES, HEAD_INCHES, MAX_INCHES = 11.0, 0.9, 200.0
TEXT, FAINT, GRID = "#1b1f24", "#59636e", "#e3e7eb"
DASHES = {"solid": "-", "dot": ":"}
MARKERS = {"circle": "o", "x": "x", "triangle-down": "v", "square": "s", "square-open": "s"}
MOST_IN_LEGEND = 24
LEGEND_CHARACTERS = 150  # side by side


def figures_page(title: str, figures: Sequence[Figure]) -> str:
    """All figures on one page: plotly's script once, nothing fetched."""
    body = rendered(PAGES / "figures.html", title=title, data=embedded_json(figures))
    return page(title, body, resource("figures.css"), get_plotlyjs() + "\n" + resource("figures.js"))


def file_name(figure: Figure) -> str:
    """`wer_by_speaker_test.png`."""
    return "_".join(re.findall(r"\w+", figure["title"].lower())) + ".png"


def picture(figure: Figure) -> Picture:
    """The figure on white paper; what it says under the pointer is left out."""
    layout = figure["layout"]
    height = min(MAX_INCHES, layout.get("height", 400) / 100 + HEAD_INCHES)
    drawn = Picture(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes: Axes = drawn.subplots()
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.tick_params(length=0, labelsize=9, labelcolor=TEXT)
    axes.spines[:].set_visible(False)
    bars = [trace for trace in figure["data"] if trace.get("type") == "bar"]
    for number, trace in enumerate(bars):
        _draw_bars(axes, trace, 0.8 / len(bars), number - (len(bars) - 1) / 2)
    for trace in figure["data"]:
        if trace.get("type") != "bar":
            _draw_points(axes, trace)
    _set_axis(axes, "x", layout.get("xaxis", {}))
    _set_axis(axes, "y", layout.get("yaxis", {}))
    _draw_notes(axes, layout)
    if 1 < len(figure["data"]) <= MOST_IN_LEGEND and layout.get("showlegend", True):
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1 + 0.1 / height), "borderaxespad": 0}
        columns = max(1, min(8, LEGEND_CHARACTERS // (6 + max(len(trace.get("name", "")) for trace in figure["data"]))))
        axes.legend(frameon=False, ncols=min(columns, len(figure["data"])), fontsize=9, **place)
    drawn.suptitle(figure["title"], x=0.01, ha="left", fontsize=14, fontweight="bold", color=TEXT)
    drawn.supxlabel(figure["note"], x=0.01, ha="left", fontsize=9, color=FAINT)
    return drawn


def _draw_bars(axes: Axes, trace: Mapping[str, Any], width: float, place: float) -> None:
    """Bars of one trace; `place` counts widths from the middle of a group."""
    lying = trace.get("orientation") == "h"
    names, values = (trace["y"], trace["x"]) if lying else (trace["x"], trace["y"])
    positions = [number + place * width for number in range(len(names))]
    draw = axes.barh if lying else axes.bar
    drawn = draw(positions, values, width * 0.92, label=trace.get("name"), color=trace["marker"]["color"])
    labels = [name.replace("<br>", "\n") for name in names]
    axis = axes.yaxis if lying else axes.xaxis
    axis.set_ticks(range(len(names)), labels)
    axis.grid(visible=False)
    if not lying and sum(max(map(len, label.split("\n"))) for label in labels) > 130:
        _turn(axis, 35)
    if "text" in trace:
        axes.bar_label(drawn, trace["text"], padding=4, fontsize=8.5, color=FAINT)
        axes.margins(x=0.25)


def _draw_points(axes: Axes, trace: Mapping[str, Any]) -> None:
    line, marker, mode = trace.get("line", {}), trace.get("marker", {}), trace["mode"]
    x, y = trace["x"], [float("nan") if value is None else value for value in trace["y"]]
    style = {"color": line.get("color") or marker.get("color"), "alpha": trace.get("opacity", 1.0)}
    step = "steps-post" if line.get("shape") == "hv" else "default"
    drawn = {"linewidth": line.get("width", 2), "linestyle": DASHES[line.get("dash", "solid")], "drawstyle": step}
    drawn = drawn if "lines" in mode else {"linestyle": "none"}
    axes.plot(x, y, **style, **drawn, solid_capstyle="butt")
    marks = list(zip(_each(marker.get("symbol", "circle"), len(x)), _each(marker.get("size", 6), len(x)), strict=True))
    looks = {mark: _marker(*mark) if "markers" in mode else {} for mark in marks}
    for mark, look in looks.items():
        points = [number for number, each in enumerate(marks) if each == mark]
        axes.plot([x[n] for n in points], [y[n] for n in points], linestyle="none", **style, **look)
    last = looks[marks[-1]] if marks else {}
    axes.plot([], [], label=trace.get("name"), solid_capstyle="butt", **style, **drawn, **last)


def _each(value: Any, count: int) -> list[Any]:
    """One for each point, of a value for all or a list of values."""
    return value if isinstance(value, list) else [value] * count


def _marker(symbol: str, size: float) -> dict[str, Any]:
    look = {"marker": MARKERS[symbol], "markersize": size * POINTS, "markeredgewidth": 2 if symbol == "x" else 1}
    return look | ({"markerfacecolor": "none"} if symbol.endswith("-open") else {})


def _set_axis(axes: Axes, name: str, layout: Mapping[str, Any]) -> None:
    axis = getattr(axes, f"{name}axis")
    axis.set_label_text(layout.get("title", ""), color=FAINT)
    if "range" in layout:
        axes.set(**{f"{name}lim": layout["range"]})
    elif layout.get("rangemode") == "tozero":
        axes.set(**{f"{name}lim": (0, None)})
    if layout.get("tickformat") == ".0%":
        axis.set_major_formatter(lambda value, position: f"{100 * value:g}%")
    if "tickvals" in layout:
        axis.set_ticks(layout["tickvals"], layout.get("ticktext"))
    elif layout.get("dtick") and not axis.have_units():
        axis.set_major_locator(MultipleLocator(layout["dtick"]))
    if layout.get("tickangle"):
        _turn(axis, -layout["tickangle"])


def _turn(axis: Axis, degrees: float) -> None:
    """Labels that rise to end under what they name."""
    axis.set_tick_params(labelrotation=degrees)
    for label in axis.get_ticklabels():
        label.set(ha="right", rotation_mode="anchor")


def _draw_notes(axes: Axes, layout: Mapping[str, Any]) -> None:
    """Lines across the figure with their labels at the foot, and words at points."""
    for shape in layout.get("shapes", []):
        axes.axvline(shape["x0"], color=shape["line"]["color"], linewidth=shape["line"]["width"], linestyle="--")
        foot: dict[str, Any] = {"xy": (shape["x0"], 0), "xycoords": ("data", "axes fraction"), "xytext": (4, 4)}
        axes.annotate(shape["label"]["text"], textcoords="offset points", fontsize=8.5, color=FAINT, **foot)
    for note in layout.get("annotations", []):
        place: dict[str, Any] = {"xy": (note["x"], note["y"]), "xytext": (note["xshift"] * POINTS, 0), "va": "center"}
        paper = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
        text = note["text"].replace("<br>", "\n")
        axes.annotate(text, textcoords="offset points", fontsize=8, color=FAINT, bbox=paper, **place)
