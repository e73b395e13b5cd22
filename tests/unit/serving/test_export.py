"""What is said of an export: by which library it was read, and by which it was not."""

from pathlib import Path
from typing import Any

import pytest

from wertune.serving.export import _judged

RATES = {"exported": 0.1, "version_same_decoding": 0.1, "version_as_served": 0.08}


def _record(form: str, **libraries: str) -> dict[str, Any]:
    shared = {"model": "demo 1", "clips": 4, "wer": RATES, "difference": 0.0, "limit": 0.03, "passed": True}
    return shared | {"format": form, "libraries": libraries}


@pytest.mark.parametrize(
    ("record", "library", "is_missing"),
    [
        (_record("ctranslate2", **{"faster-whisper": "1.2.0", "ctranslate2": "4.6"}), "faster-whisper 1.2.0", False),
        (_record("ctranslate2", ctranslate2="4.6", transformers="5.0"), "ctranslate2 4.6", True),
        (_record("peft", peft="0.18", transformers="5.0"), "peft 0.18", False),
    ],
)
def test_the_library_that_read_the_folder_is_named(record: dict[str, Any], library: str, is_missing: bool) -> None:
    text = _judged(Path("out"), record).text
    assert f"10.00% in {library}, " in text
    assert ("faster-whisper is not installed, so that CTranslate2 alone has read the folder" in text) == is_missing
