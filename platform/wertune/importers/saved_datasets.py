"""A folder that Hugging Face's `datasets` has saved: Arrow files, read without that library."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wertune.errors import ManifestError
from wertune.importers.item import Bad, Columns, Found, Item, read_text

STATE, SPLITS = "state.json", "dataset_dict.json"


def read_saved(folder: Path, columns: Columns) -> Found:
    """Rows of a saved dataset, or of all splits of a saved DatasetDict."""
    if (folder / SPLITS).is_file():
        names = _json(folder / SPLITS).get("splits", [])
        for name in names:
            yield from _read(folder / str(name), columns)
    else:
        yield from _read(folder, columns)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ManifestError(f"{path} is not JSON ({error}); save the dataset again") from None
    if not isinstance(content, dict):
        raise ManifestError(f"{path} must hold an object; save the dataset again")
    return content


def _read(folder: Path, columns: Columns) -> Found:
    state = _json(folder / STATE)
    if state.get("_indices_data_files"):
        raise ManifestError(
            f"{folder / STATE}: the rows are chosen by a file of indices; save `dataset.flatten_indices()`"
        )
    for entry in state.get("_data_files", []):
        path = folder / Path(str(entry["filename"])).name
        for number, row in enumerate(_rows(path), start=1):
            yield _item(folder, f"{path}:{number}", row, columns)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
            for batch in batches:
                for start in range(batch.num_rows):  # row by row: a batch holds the bytes of a thousand recordings
                    yield batch.slice(start, 1).to_pylist()[0]
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ManifestError(f"{path} is no Arrow stream ({error}); save the dataset again") from None


def _item(folder: Path, place: str, row: dict[str, Any], columns: Columns) -> Item | Bad:
    text, speaker = columns.names([name for name, value in row.items() if not isinstance(value, dict)], place)
    audio = next(
        (value for value in row.values() if isinstance(value, dict) and {"bytes", "path"} <= value.keys()), None
    )
    if audio is None:
        remedy = 'save it with an Audio feature: `dataset.cast_column("audio", Audio(decode=False))`'
        return Bad(place, f"no column holds a recording's bytes or path; {remedy}")
    if not isinstance(row[text], str):
        return Bad(place, f"{text} is {row[text]!r}, but must be the transcript; mend the row")
    said_by = str(row[speaker] if row[speaker] is not None else "") if speaker else ""
    name = str(audio["path"] or "")
    if audio["bytes"] is not None:
        return Item(place, audio["bytes"], Path(name).name, row[text], said_by)
    if not name:
        return Bad(place, "the recording has neither bytes nor a path; mend the row")
    path = folder / name  # an absolute path stays as it is: such is what `datasets` stores
    return Item(place, path, path.name, row[text], said_by)
