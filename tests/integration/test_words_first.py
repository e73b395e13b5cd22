"""The shell blocks of the how-to on words alone, run in their order in an empty folder as a reader would."""

import shutil
from pathlib import Path

import pytest
import yaml
from tests.support.forked import Forks
from tests.support.places import ROOT
from tests.support.reader import typed
from tests.support.shown_commands import FENCE, shell_blocks

from wertune.synthesis.config import SynthesisConfig

PAGE = ROOT / "docs" / "howto" / "words-first.md"


@pytest.mark.skipif(
    not all(map(shutil.which, ("espeak-ng", "flite"))), reason="espeak-ng and flite, which the page names, are needed"
)
def test_a_reader_who_types_the_page_has_a_search_before_him(tmp_path: Path, forks: Forks) -> None:
    said = typed("\n".join(shell_blocks(PAGE)), tmp_path, forks)
    made, first, second = said.split("# What was spoken")
    assert "wertune synthesize" in made
    for spoken in (first, second):
        assert "Sentences are missing" not in spoken
        assert "next:" not in spoken
    assert "N O ay *" in first
    assert "my_voices:Klatt" not in first
    assert "my_voices:Klatt" in second
    assert "trials of at most 1 epochs" in second


def test_the_shown_synthesis_yaml_is_one() -> None:
    (shown,) = [
        match["body"] for match in FENCE.finditer(PAGE.read_text(encoding="utf-8")) if match["language"] == "yaml"
    ]
    assert SynthesisConfig.model_validate(yaml.safe_load(shown)).seed == 1
