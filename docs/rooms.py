"""The rooms and what each uses, from the imports: `python docs/rooms.py` draws them, `--check` only looks.

Fails where rooms use each other in a circle, or where the drawing is not of the code as it is. What a room's other
rooms use anyway has no line of its own.
"""

import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from html import escape
from pathlib import Path

import grimp

DRAWING = Path(__file__).with_name("rooms.svg")
PACKAGES = {"wertune": "#00897b", "wergate": "#d84315"}
BOX_PX, GAP_PX, FLOOR_PX, TEXT_PX = (112, 30), 14, 74, 14

Graph = Mapping[str, set[str]]


def rooms() -> Graph:
    """What each room uses; a room is a folder directly in a package."""
    imports = grimp.build_graph(*PACKAGES)
    folders = {room for room in map(_room, imports.modules) if room and imports.find_children(room)}
    found: dict[str, set[str]] = {room: set() for room in folders}
    for module in imports.modules:
        for used in imports.find_modules_directly_imported_by(module):
            if (room := _room(module)) in found and (other := _room(used)) in found and room != other:
                found[room].add(other)
    return found


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2]) if "." in module else ""


def floors(graph: Graph) -> list[list[str]]:
    """Each room one above the highest that it uses, the top first; raises CycleError for a circle."""
    heights: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        heights[room] = 1 + max((heights[used] for used in graph[room]), default=-1)
    return [sorted(r for r, h in heights.items() if h == floor) for floor in range(max(heights.values()), -1, -1)]


def arrows(graph: Graph) -> Iterator[tuple[str, str]]:
    """The graph's least arrows that lead to the same rooms."""
    for room, used in graph.items():
        beyond = {far for near in used for far in _reached(graph, near)}
        yield from ((room, near) for near in used - beyond)


def _reached(graph: Graph, room: str) -> set[str]:
    return {far for near in graph[room] for far in {near, *_reached(graph, near)}}


def drawing(graph: Graph) -> str:
    """An SVG, a row a floor."""
    rows = floors(graph)
    width = max(len(row) for row in rows) * (BOX_PX[0] + GAP_PX) + GAP_PX
    corners = {room: corner for y, row in enumerate(rows) for room, corner in _corners(row, y, width)}
    lines = [_arrow(corners[one], corners[other]) for one, other in sorted(arrows(graph))]
    boxes = [_box(room, *corner) for room, corner in corners.items()]
    size = f'width="{width}" height="{len(rows) * FLOOR_PX}"'
    style = f'font-family="sans-serif" font-size="{TEXT_PX}" text-anchor="middle"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return "\n".join([head, "<title>An arrow: uses</title>", *lines, *boxes, "</svg>", ""])


def _corners(row: list[str], floor: int, width: int) -> Iterator[tuple[str, tuple[int, int]]]:
    step = BOX_PX[0] + GAP_PX
    left = (width - len(row) * step + GAP_PX) // 2
    yield from ((room, (left + step * place, FLOOR_PX * floor + GAP_PX)) for place, room in enumerate(row))


def _arrow(one: tuple[int, int], other: tuple[int, int]) -> str:
    middle = BOX_PX[0] // 2
    start, end = f"{one[0] + middle} {one[1] + BOX_PX[1]}", f"{other[0] + middle} {other[1]}"
    bend = f"{one[0] + middle} {one[1] + FLOOR_PX} {other[0] + middle} {other[1] - FLOOR_PX + BOX_PX[1]}"
    return f'<path d="M {start} C {bend} {end}" fill="none" stroke="#9e9e9e"/>'


def _box(room: str, x: int, y: int) -> str:
    package, name = room.split(".")
    colour, (width, height) = PACKAGES[package], BOX_PX
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{colour}"/>'
        f'<text x="{x + width // 2}" y="{y + height // 2 + TEXT_PX // 3}" fill="white">{escape(name)}</text>'
    )


def main(only_check: bool) -> str:
    """What is wrong, empty when nothing is."""
    try:
        drawn = drawing(rooms())
    except CycleError as error:
        return f"rooms use each other in a circle: {' -> '.join(error.args[1])}; see what points up, and move it down"
    if not only_check:
        DRAWING.write_text(drawn, encoding="utf-8")
    elif not DRAWING.exists() or DRAWING.read_text(encoding="utf-8") != drawn:
        return f"{DRAWING} is not of the code as it is; draw it anew: python docs/rooms.py"
    return ""


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]) or 0)
