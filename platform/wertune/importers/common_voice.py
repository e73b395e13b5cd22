"""Common Voice: a TSV with `client_id`, `path` and `sentence`, and its recordings in `clips` beside it."""

from pathlib import Path

from wertune.errors import ManifestError
from wertune.importers.item import Bad, Columns, Found, csv_rows, table_item

FILE = "path"


def read_common_voice(source: Path, columns: Columns) -> Found:
    """Rows of the TSV, or of the folder's validated.tsv; `client_id` is the speaker."""
    path = source / "validated.tsv" if source.is_dir() else source
    if not path.is_file():
        raise ManifestError(f"{path} does not exist; give a TSV of the release, such as train.tsv")
    clips = path.parent / "clips"
    for place, row in csv_rows(path, tabs=True):
        if isinstance(row, str):
            yield Bad(place, row)
        else:
            yield table_item(clips, place, row, FILE, columns.names(list(row), place))
