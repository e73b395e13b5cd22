"""What Hugging Face's `datasets` has saved, or the Hub offers: Arrow and Parquet files, read without that library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from wertune.base.errors import ManifestError
from wertune.base.faults import describe
from wertune.data.importers.item import Columns, Fault, Found, Item, leads_out, read_text

ROWS_AT_ONCE = 16  # each may hold the bytes of a recording
STATE, SPLITS = "state.json", "dataset_dict.json"


class _Splits(BaseModel):
    """dataset_dict.json."""

    splits: tuple[str, ...]


class _DataFile(BaseModel):
    filename: str


class _State(BaseModel):
    """state.json: what of it is read."""

    files: tuple[_DataFile, ...] = Field(alias="_data_files")
    indices: Any = Field(None, alias="_indices_data_files")


Model = TypeVar("Model", bound=BaseModel)


def read_saved(folder: Path, columns: Columns) -> Found:
    """Rows of a saved dataset, or of all splits of a saved DatasetDict."""
    if (folder / SPLITS).is_file():
        for name in _parse(_Splits, folder / SPLITS).splits:
            yield from _read(_inside(folder, name, folder / SPLITS), columns, name)
    else:
        yield from _read(folder, columns, "")


def read_parquet(source: Path, columns: Columns) -> Found:
    """Rows of a Parquet file, or of all of a folder, as a data set on the Hub has them."""
    files = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
    if not files:
        raise ManifestError(f"{source} has no .parquet file; give the folder that holds one")
    for path in files:
        origin = path.name if path == source else path.relative_to(source).as_posix()
        for number, row in enumerate(_parquet_rows(path), start=1):
            yield _item(path.parent, f"{path}:{number}", row, columns, f"{origin}:{number}")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except Exception as error:  # of damaged bytes pyarrow raises a dozen kinds
        raise ManifestError(f"{path} is no Parquet file ({error}); download it again") from None


def _parse(model: type[Model], path: Path) -> Model:
    try:
        return model.model_validate_json(read_text(path))
    except ValidationError as error:
        faults = "; ".join(describe(fault, "it") for fault in error.errors())
        raise ManifestError(f"{path} is not what `datasets` writes ({faults}); save the dataset again") from None


def _inside(folder: Path, name: str, named_by: Path) -> Path:
    if leads_out(folder, name):
        raise ManifestError(f"{named_by} names {name}, which leads out of {folder}; save the dataset again")
    return folder / name


def _read(folder: Path, columns: Columns, split: str) -> Found:
    state = _parse(_State, folder / STATE)
    if state.indices:
        raise ManifestError(
            f"{folder / STATE}: the rows are chosen by a file of indices; save `dataset.flatten_indices()`"
        )
    for file in state.files:
        path = _inside(folder, Path(file.filename).name, folder / STATE)
        for number, row in enumerate(_rows(path), start=1):
            yield _item(folder, f"{path}:{number}", row, columns, f"{(Path(split) / path.name).as_posix()}:{number}")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
            for batch in batches:
                batch.validate(full=True)  # a damaged offset would read outside of the file: that ends the process
                for start in range(batch.num_rows):  # row by row: a batch holds the bytes of a thousand recordings
                    yield batch.slice(start, 1).to_pylist()[0]
    except Exception as error:  # of damaged bytes pyarrow raises a dozen kinds
        raise ManifestError(f"{path} is no Arrow stream ({error}); save the dataset again") from None


def _item(folder: Path, place: str, row: dict[str, Any], columns: Columns, stands: str) -> Item | Fault:
    """The utterance of a row, which `stands` in a file of the source: in several the paths may be the same, or none."""
    names = columns.names([name for name, value in row.items() if not isinstance(value, dict)], place)
    text = names.text
    audio = next(
        (value for value in row.values() if isinstance(value, dict) and {"bytes", "path"} <= value.keys()), None
    )
    if audio is None:
        remedy = 'save it with an Audio feature: `dataset.cast_column("audio", Audio(decode=False))`'
        return Fault(place, f"no column holds a recording's bytes or path; {remedy}")
    if not isinstance(row[text], str):
        return Fault(place, f"{text} is {row[text]!r}, but must be the transcript; mend the row")
    content, name = audio["bytes"], audio["path"] or ""
    # Text in place of bytes would be taken for the name of any file.
    if not isinstance(content, bytes | None) or not isinstance(name, str):
        kinds = f"{type(content).__name__} and {type(name).__name__}"
        return Fault(place, f"the recording's bytes and path are {kinds}, but must be bytes and text; mend the row")
    if content is None and not name:
        return Fault(place, "the recording has neither bytes nor a path; mend the row")
    if content is None and not Path(name).is_absolute() and leads_out(folder, name):  # `datasets` stores absolute paths
        return Fault(place, f"the path is {name}, which leads out of {folder}; put the recording into that folder")
    return Item(
        place,
        folder / name if content is None else content,
        f"{stands} {Path(name).name}".rstrip(),
        row[text],
        names.said_by(row),
        names.spoken_in(row),
        origin=stands.rpartition(":")[0],
    )
