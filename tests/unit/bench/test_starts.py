"""The benchmark of starts: its made project is one that `validate` takes, and a command that fails says why."""

from pathlib import Path

import pytest

from wertune.base.config import load_project
from wertune.bench.starts import checked_out, make_project
from wertune.training.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]


def test_the_made_project_holds(tmp_path: Path, tiny_whisper_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "cache"))
    folder = make_project(tmp_path / "made", 30, str(tiny_whisper_folder))
    dataset = prepare(folder, load_project(folder)).dataset
    assert {split: len(clips) for split, clips in dataset.splits.items()} == {"train": 24, "validation": 4, "test": 4}
    assert {clip.duration_s for clips in dataset.splits.values() for clip in clips} == {3.7}
    assert len({clip.digest for clips in dataset.splits.values() for clip in clips}) == 32


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with checked_out(ROOT) as checkout:
        assert checkout.run("-c", "print('yes')") == "yes\n"
        with pytest.raises(RuntimeError, match=r"nowhere/project\.yaml does not exist"):
            checkout.run("-m", "wertune", "validate", "--project", "nowhere")
