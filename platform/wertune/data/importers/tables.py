"""Recordings that a table names: Hugging Face's audiofolder, and Common Voice's releases."""

from pathlib import Path

from wertune.base.errors import ManifestError
from wertune.data.importers.item import Chosen, Columns, Fault, Found, csv_rows, json_rows, table_item

NAMES = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"
# The column that names a recording, and the folder of the recordings: of read sentences, and of spontaneous speech.
PLACES = {"path": "clips", "audio_file": "audios"}
MAIN_FILES = ("validated.tsv", "ss-corpus-*.tsv")


def read_audiofolder(folder: Path, columns: Columns) -> Found:
    """Rows of every metadata file in the folder or below; `file_name` is relative to the file's own folder."""
    files = sorted(path for name in NAMES for path in folder.rglob(name))
    if not files:
        raise ManifestError(f"{folder} has no {' or '.join(NAMES)}; give the folder that holds one")
    for path in files:
        rows = list(csv_rows(path) if path.suffix == ".csv" else json_rows(path))
        # A JSON line may leave out what others have.
        named = dict.fromkeys(name for _, row in rows if not isinstance(row, str) for name in row)
        names: Chosen | None = None
        for place, row in rows:
            if isinstance(row, str):
                yield Fault(place, row)
                continue
            names = names or columns.names(list(named), place)
            yield table_item(path.parent, place, row, FILE, names, str(path.relative_to(folder)))


def main_file(folder: Path) -> Path | None:
    """What a release calls its clips that people found right, or that are transcribed; None where it has neither."""
    return next((path for name in MAIN_FILES for path in sorted(folder.glob(name))), None)


def read_common_voice(source: Path, columns: Columns) -> Found:
    """Rows of the TSV, or of the folder's main one; `client_id` is the speaker, and quotes are part of a sentence."""
    path = main_file(source) if source.is_dir() else source
    if path is None or not path.is_file():
        missing = f"{source} has no {' and no '.join(MAIN_FILES)}" if path is None else f"{path} does not exist"
        raise ManifestError(f"{missing}; give a TSV of the release, such as train.tsv")
    for place, row in csv_rows(path, tabs=True):
        if isinstance(row, str):
            yield Fault(place, row)
            continue
        file = next((name for name in PLACES if name in row), None)
        if file is None:
            rule = f"but one must be {' or '.join(PLACES)}; give a TSV of clips, such as train.tsv"
            raise ManifestError(f"{place}: the columns are {', '.join(row)}, {rule}")
        yield table_item(path.parent / PLACES[file], place, row, file, columns.names(list(row), place))
