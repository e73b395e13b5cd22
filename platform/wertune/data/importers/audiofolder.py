"""Hugging Face's audiofolder: recordings with a metadata.csv or metadata.jsonl, in the folder or in those below it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wertune.base.errors import ManifestError
from wertune.data.importers.item import Bad, Columns, Found, csv_rows, json_rows, table_item

NAMES = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"


def read_audiofolder(folder: Path, columns: Columns) -> Found:
    """Rows of every metadata file; `file_name` is relative to the file's own folder."""
    files = sorted(path for name in NAMES for path in folder.rglob(name))
    if not files:
        raise ManifestError(f"{folder} has no {' or '.join(NAMES)}; give the folder that holds one")
    for file in files:
        yield from _read(file, columns)


def _read(path: Path, columns: Columns) -> Found:
    rows: Iterator[tuple[str, dict[str, Any] | str]] = csv_rows(path) if path.suffix == ".csv" else json_rows(path)
    names: tuple[str, str] | None = None
    for place, row in rows:
        if isinstance(row, str):
            yield Bad(place, row)
            continue
        # A JSON line may leave out what others have: the names are those of the first that tells.
        names = names or columns.names(list(row), place)
        yield table_item(path.parent, place, row, FILE, names)
