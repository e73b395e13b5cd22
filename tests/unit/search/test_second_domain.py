"""The program that makes a domain of a language's prompts, with files of our own in the package's place."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.trials import second_domain

from wertune.base.config import load_project
from wertune.base.text import normaliser
from wertune.data.manifest import load_dataset

TEXTS = [
    "; prompts",
    *(f"p{number}: Composez le numéro {number}." for number in range(20)),
    "again: composez le numéro 7",  # as p7, but for case and stop
    "beep: [tone]",
    "word: oui",
    "short: Merci beaucoup.",
    "gone: Il n'y en a pas.",
]


def test_what_is_said_twice_is_in_one_split_and_what_is_no_sentence_in_none(
    tmp_path: Path, write_tone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = tmp_path / "sounds"
    for number, line in enumerate(TEXTS[1:-1]):
        name = line.partition(":")[0]
        write_tone(sounds / f"{name}.wav", seconds=0.4 if name == "short" else 1.0 + number / 100)
    (tmp_path / "texts.gz").write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    monkeypatch.setattr(second_domain, "SOUNDS", sounds)
    monkeypatch.setattr(second_domain, "TEXTS", tmp_path / "texts.gz")
    splits = second_domain.rows()
    project = second_domain.write(tmp_path, splits)
    settings = load_project(project)
    assert settings.language == second_domain.LANGUAGE
    manifests = {split: project / "manifests" / f"{split}.jsonl" for split in ("train", "validation", "test")}
    dataset = load_dataset(manifests, settings.data, normaliser("fr"), len, project)  # which finds what leaks
    assert {split: len(rows) for split, rows in splits.items()} == {split: len(dataset[split]) for split in manifests}
    assert sum(len(dataset[split]) for split in manifests) == 21
