"""The benchmark's arithmetic, and that the recipe it measures against really trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wertune.bench import MEMORY_RECIPES, Row, as_markdown, draw
from wertune.bench_serving import PIPELINE, ServingRow, as_table
from wertune.config import LoraConfig
from wertune.model import Whisper
from wertune.peer import PeerRecipe


@pytest.mark.parametrize(
    ("theirs", "ours", "less_is_better", "ratios"),
    [((10.0, 12.0), (2.0, 3.0), True, [5.0, 4.0]), ((2.0, 3.0), (10.0, 12.0), False, [5.0, 4.0])],
)
def test_a_ratio_says_how_many_times_ours_is_better(
    theirs: tuple[float, ...], ours: tuple[float, ...], less_is_better: bool, ratios: list[float]
) -> None:
    row = Row("training", "s", theirs, ours, less_is_better)
    assert row.ratios == ratios
    assert row.cells()[-1] == "4.5 (4.0 to 5.0)"


def test_the_page_and_the_picture_are_made_of_the_figures(tmp_path: Path) -> None:
    rows = [Row("training", "clips/s", (1.0, 1.1, 1.2), (12.0, 12.1, 12.0), less_is_better=False)]
    limit = dict.fromkeys(("gflop_per_clip", "achieved_gflop_per_s", "matmul_gflop_per_s", "share_of_limit"), 0.5)
    memory = {"packaged:whisper-base": dict.fromkeys(MEMORY_RECIPES, 1234.0)}
    found = {"machine": "a CPU", "limit": limit, "memory_mb": memory, "clips": {"base": "tiny.en", "count": 32}}
    page = as_markdown(rows, found)
    assert "| training | 1.1 clips/s | 12 clips/s | 11.0 (10.0 to 12.0) |" in " ".join(page.split())
    assert page.count("1234 MB") == len(MEMORY_RECIPES)
    draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5_000


def test_the_fields_recipe_trains_its_adapters_alone(
    load_tiny: Callable[..., Whisper], tiny_whisper_folder: Path, tmp_path: Path
) -> None:
    recipe = PeerRecipe(tiny_whisper_folder, load_tiny(), LoraConfig(r=2))
    before = {name: p.detach().clone() for name, p in recipe.model.named_parameters()}
    features = [torch.randn(80, 3000) for _ in range(2)]
    assert recipe.train(features, ["yes", "the form"], 1, tmp_path) > 0
    changed = {name for name, p in recipe.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert len(recipe.transcribe(features)) == 2


def test_serving_rows_say_how_many_times_less_they_take_than_the_pipeline_at_the_same_batch() -> None:
    rows = [
        ServingRow(name, batch, cpu, 2 * cpu, 100.0, 200.0, 0.1)
        for batch, theirs in ((1, 0.2), (16, 0.1))
        for name, cpu in ((f"{PIPELINE}, float32", theirs), ("ours", 0.02))
    ]
    lines = as_table(rows).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["1.0", "10.0", "1.0", "5.0"]
