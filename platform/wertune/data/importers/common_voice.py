"""Common Voice: a TSV of clips with their speaker and sentence, and its recordings in a folder beside it."""

from pathlib import Path

from wertune.base.errors import ManifestError
from wertune.data.importers.item import Bad, Columns, Found, csv_rows, table_item

# The column that names a recording, and the folder of the recordings: of read sentences, and of spontaneous speech.
PLACES = {"path": "clips", "audio_file": "audios"}
MAIN_FILES = ("validated.tsv", "ss-corpus-*.tsv")


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
            yield Bad(place, row)
            continue
        file = next((name for name in PLACES if name in row), None)
        if file is None:
            rule = f"but one must be {' or '.join(PLACES)}; give a TSV of clips, such as train.tsv"
            raise ManifestError(f"{place}: the columns are {', '.join(row)}, {rule}")
        yield table_item(path.parent / PLACES[file], place, row, file, columns.names(list(row), place))
