"""Bytes that are nearly right: files of a corpus, flipped, cut, spliced, and with other numbers where lengths stand."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
EDGES = (0, 1, 2, 7, 8, 9, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
MOST_MUTATIONS = 6
LONGEST_PIECE = 200


def _place(draw: Draw, data: bytearray) -> int:
    return int(draw(st.integers(0, len(data))))


def _piece(draw: Draw, data: bytes | bytearray) -> bytes:
    start = draw(st.integers(0, len(data)))
    return bytes(data[start : start + draw(st.integers(0, LONGEST_PIECE))])


def _flip(draw: Draw, data: bytearray, fields: Sequence[tuple[int, int]], corpus: Sequence[bytes]) -> None:
    if data:
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))


def _renumber(draw: Draw, data: bytearray, fields: Sequence[tuple[int, int]], corpus: Sequence[bytes]) -> None:
    """Another number where one stands, or anywhere."""
    anywhere = st.tuples(st.integers(0, len(data)), st.sampled_from((1, 2, 4)))
    start, size = draw(st.sampled_from(fields) | anywhere if fields else anywhere)
    value = draw(st.sampled_from(EDGES) | st.integers(0, 2**32 - 1)) % 2 ** (8 * size)
    data[start : start + size] = value.to_bytes(size, "little")


def _cut(draw: Draw, data: bytearray, fields: Sequence[tuple[int, int]], corpus: Sequence[bytes]) -> None:
    del data[_place(draw, data) :]


def _remove(draw: Draw, data: bytearray, fields: Sequence[tuple[int, int]], corpus: Sequence[bytes]) -> None:
    start = _place(draw, data)
    del data[start : start + draw(st.integers(0, LONGEST_PIECE))]


def _splice(draw: Draw, data: bytearray, fields: Sequence[tuple[int, int]], corpus: Sequence[bytes]) -> None:
    start = _place(draw, data)
    data[start:start] = _piece(draw, draw(st.sampled_from(corpus)))


def _insert(draw: Draw, data: bytearray, fields: Sequence[tuple[int, int]], corpus: Sequence[bytes]) -> None:
    start = _place(draw, data)
    data[start:start] = draw(st.binary(max_size=8) | st.text(max_size=4).map(lambda text: text.encode("utf-8")))


@st.composite
def mutated(draw: Draw, corpus: Sequence[bytes], fields_of: Callable[[bytes], Sequence[tuple[int, int]]]) -> bytes:
    """A file of the corpus with a few mutations; `fields_of` gives (place, size) of the numbers in a file."""
    chosen = draw(st.sampled_from(corpus))
    data, fields = bytearray(chosen), fields_of(chosen)
    for _ in range(draw(st.integers(0, MOST_MUTATIONS))):
        mutate = draw(st.sampled_from((_flip, _renumber, _renumber, _cut, _remove, _splice, _insert)))
        mutate(draw, data, fields, corpus)
    return bytes(data)
