"""Files by their paths."""

from pathlib import Path

import pytest

from wertune.base.errors import StorageError
from wertune.base.files import write_files


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x"])
def test_no_file_is_written_outside_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(StorageError, match="leads out of"):
        write_files({path: b""}, tmp_path / "in")
    assert not list(tmp_path.rglob("x"))
