"""The benchmark's arithmetic, that the recipe it measures against really trains, and its count of bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from click.testing import CliRunner
from tests.support.places import DEMO, ROOT
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import WhisperForConditionalGeneration

from wertune.base.config import LoraConfig
from wertune.base.errors import ConfigError
from wertune.bench import bootstrap, memory, page, search, serving, start_up, training, workers
from wertune.bench.clips import CLIPS, batches
from wertune.bench.counted import OURS, RECIPES, SHAPES, Count, LiveBytes, shape
from wertune.bench.counted import count as count_bytes
from wertune.bench.peer import PeerRecipe, at_context
from wertune.bench.rows import Row, Section, rounded
from wertune.bench.serving import PIPELINE, ServingRow, as_table
from wertune.commands import score
from wertune.data.manifest import Recording
from wertune.training import prepare
from wertune.training.prepare import Prepared
from wertune.whisper.adapter import add_lora
from wertune.whisper.model import Whisper
from wertune.whisper.transcription import EvaluationSet

LoadTiny = Callable[..., Whisper]
SMALL = shape(d_model=64, layers=2, heads=2)
MB = 2**20
ROW = Row("training", "clips/s", (1.0, 1.1, 1.2), (12.0, 12.1, 12.0), less_is_better=False)


@pytest.mark.parametrize(
    ("theirs", "ours", "less_is_better", "ratios"),
    [((10.0, 12.0), (2.0, 3.0), True, [5.0, 4.0]), ((2.0, 3.0), (10.0, 12.0), False, [5.0, 4.0])],
)
def test_a_ratio_says_how_many_times_ours_is_better(
    theirs: tuple[float, ...], ours: tuple[float, ...], less_is_better: bool, ratios: list[float]
) -> None:
    row = Row("training", "s", theirs, ours, less_is_better)
    assert row == Row.of_pairs("training", "s", list(zip(theirs, ours, strict=True)), less_is_better)
    assert row.ratios == ratios
    assert row.cells()[-1] == "4.5 (4.0 to 5.0)"


def test_page_figures_and_picture_are_made_of_the_sections(tmp_path: Path) -> None:
    sections = [Section("limit", {"share": 0.5}, "Half of it.", (ROW,)), Section("levers", [1], "One of them.")]
    written = page.write(tmp_path, {"machine": "a CPU", "clips": {"base": "tiny.en", "count": 32}}, sections)
    assert "| training | 1.1 clips/s | 12 clips/s | 11.0 (10.0 to 12.0) |" in " ".join(written.split())
    assert written.index("Half of it.") < written.index("One of them.") < written.index(page.ON_A_GPU)
    assert page.ON_A_GPU in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert (tmp_path / "benchmarks.md").read_text() == written
    found = json.loads((tmp_path / "benchmarks.json").read_text())
    assert (found["limit"], found["levers"], found["machine"]) == ({"share": 0.5}, [1], "a CPU")
    assert found["rows"][0]["ratios"] == pytest.approx([12.0, 11.0, 10.0])
    assert (tmp_path / "benchmarks.png").stat().st_size > 5_000


def test_the_command_says_what_it_measures_and_hands_on_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[object, ...]] = []
    for part in (serving, search, start_up, memory, workers):
        monkeypatch.setattr(part, "section", lambda *given: asked.append(given) or Section("part", given[1:], "Words."))
    monkeypatch.setattr(training, "sections", lambda prepared: [Section("training", [], "Quicker.", (ROW,))])
    monkeypatch.setattr(prepare, "prepare", lambda folder, project: SimpleNamespace(base=SimpleNamespace(spec="tiny")))
    monkeypatch.setattr(bootstrap, "bench_bootstrap", lambda: "")
    options = ["--project", str(DEMO), "--out", str(tmp_path), "--model-uri", "models:/sg_gov/1", "--of-theirs", "16"]
    done = CliRunner().invoke(score.bench, options, catch_exceptions=False)
    assert done.stderr.splitlines()[:3] == [
        "serving …",
        "training and evaluation …",
        "search, 16 of 16 configurations by the field's recipe …",
    ]
    assert (asked[0][1], asked[1][1]) == ("models:/sg_gov/1", 16)
    assert "Quicker." in done.stdout


def test_a_lever_is_compared_with_the_line_above_and_with_the_first() -> None:
    text = training.as_markdown(
        {"theirs": [1.0, 2.0, 2.0], "shorter": [8.0, 8.0, 1.0], "ours": [16.0]}, {"theirs": [3]}
    )
    assert "| ours | 16 | 2.00 | 8.00 |" in " ".join(text.split())


def test_windows_have_all_the_clips_and_are_fewer_the_longer_they_are(
    load_tiny: LoadTiny, make_recordings: Callable[..., list[Recording]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "ROUNDS", 1)
    recordings = make_recordings(["one", "two", "three", "four"] * 4)
    prepared = SimpleNamespace(dataset={"train": recordings}, normalise=str, finder=None)
    found = training._windows(cast(Prepared, prepared), add_lora(load_tiny(), LoraConfig(r=2), seed=0))
    alone, *joined = found["rows"].values()
    assert alone == 16 > joined[0] >= joined[1] >= joined[2] > 0
    assert found["speech_s"] == pytest.approx(sum(recording.duration_s for recording in recordings))
    text = training.windows_as_markdown({"speech_s": 96.0, "rows": {"alone": 32}, "seconds": {"alone": [4.0]}})
    assert "| alone | 32 | 8 | 24 |" in " ".join(text.split())


def test_an_epoch_is_its_training_and_its_evaluation_of_the_first_way_and_the_last() -> None:
    ways = {training.NOTEBOOK: [8.0], "int8, 30 s": [7.0], "bfloat16, 30 s": [6.0]}
    ways |= {f"bfloat16, {training.SHORT}": [3.0], "ours": [2.0]}
    notebook, best, short, write, both = training.rows(ways, {"theirs": [4.0], "ours": [1.0]}, [0.4, 0.36])
    assert (notebook.theirs, notebook.ours, notebook.ratios) == ((CLIPS / 8,), (CLIPS / 2,), [4.0])
    assert (best.name, best.ratios) == ("training, theirs: bfloat16, 30 s", [3.0])
    assert short.ratios == [1.5]
    assert (write.ratios, both.ratios) == ([4.0], [4.0])
    assert "WER 40.0 and 36.0 %" in write.name


def test_the_page_sets_the_count_beside_what_was_measured_and_full_fine_tuning() -> None:
    peaks = {recipe.name: 1000.0 / (1 + place) for place, recipe in enumerate(memory.COUNTED)}
    counts = {base: {name: Count(10.0, 20.0, peak) for name, peak in peaks.items()} for base in SHAPES}
    measured = {base: {recipe.name: 2 * peaks[recipe.name] for recipe in RECIPES} for base in memory.MEASURED}
    text = " ".join(memory.as_markdown(measured, counts).split())
    assert text.count("2000 (0.50)") == len(memory.MEASURED)
    assert "| full fine-tuning, 30 s | 1000 (1.0) |" in text
    assert f"| {OURS.name} | 200 (5.0) |" in text


def test_the_fields_recipe_trains_its_adapters_alone(
    load_tiny: LoadTiny, tiny_whisper_folder: Path, tmp_path: Path
) -> None:
    recipe = PeerRecipe(tiny_whisper_folder, load_tiny(), LoraConfig(r=2))
    before = {name: p.detach().clone() for name, p in recipe.model.named_parameters()}
    features = [torch.randn(80, 3000) for _ in range(2)]
    assert recipe.train(features, ["yes", "the form"], 1, tmp_path) > 0
    changed = {name for name, p in recipe.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert len(recipe.transcribe(features)) == 2


def test_its_modules_take_a_short_context_and_then_30_s_again(load_tiny: LoadTiny, tiny_whisper_folder: Path) -> None:
    ours = load_tiny()
    recipe = PeerRecipe(tiny_whisper_folder, ours, LoraConfig(r=2), checkpointing=False)
    short = torch.randn(1, 80, 128, generator=torch.Generator().manual_seed(0))
    encoder = recipe.model.eval().base_model.model.get_encoder()
    with at_context(recipe.model, 64), torch.no_grad():
        heard = encoder(short).last_hidden_state
        torch.testing.assert_close(heard, ours.encode(short), rtol=0.05, atol=0.05)
        assert len(recipe.transcribe(list(short))) == 1
    with pytest.raises(ValueError, match="3000"):
        encoder(short)


def test_batches_hold_every_clip_once_in_either_order(
    load_tiny: LoadTiny, make_recordings: Callable[..., list[Recording]]
) -> None:
    recordings = make_recordings(["one", "two", "three"])
    clips = EvaluationSet(recordings, [torch.full((80, frames), float(frames)) for frames in (96, 64, 128)])
    for alike, lengths in ((True, [64, 96, 128]), (False, [96, 64, 128])):
        ((features, labels),) = batches(load_tiny(), clips, of_like_length=alike)
        assert features[:, 0, 0].tolist() == lengths
        assert len(labels) == 3


def test_live_bytes_are_of_storages_and_end_with_them() -> None:
    with FakeTensorMode(), LiveBytes() as live:
        kept = torch.empty(1000)
        view = kept[10:].view(-1)
        assert live.now == 4000
        other = torch.empty(500, dtype=torch.bfloat16)
        assert live.now == 5000
        del other, view
        assert (live.now, live.most) == (4000, 5000)
        del kept
        assert live.now == 0


def test_the_count_has_weights_gradients_and_states() -> None:
    counts = {recipe.name: count_bytes(SMALL, recipe) for recipe in memory.COUNTED}
    full, on_float, on_int8, on_int8_checkpointed, ours, ours_checkpointed, on_bfloat16 = counts.values()
    with torch.device("meta"):
        parameters = sum(p.numel() for p in WhisperForConditionalGeneration(SMALL).parameters())
    assert full.weights == pytest.approx(4 * parameters / MB)
    assert full.between_steps == pytest.approx(3 * full.weights, abs=10)  # and AdamW's two means of every weight
    assert full.peak > 4 * full.weights
    assert on_int8.weights < on_float.weights
    assert on_int8_checkpointed.peak < on_int8.peak
    assert ours_checkpointed.peak < ours.peak < on_int8.peak
    linear = 64 * 64 * (2 * 4 + 2 * 8) + 2 * 64 * 256 * 4  # attention's, and two products of 64 x 256 in 4 layers
    assert (on_bfloat16.weights - ours.weights) * MB == pytest.approx(linear, rel=0.05)


def test_more_layers_are_more_bytes() -> None:
    assert count_bytes(shape(d_model=64, layers=4, heads=2), OURS).peak > count_bytes(SMALL, OURS).peak


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.06071, "0.0607"), (2.0, "2"), (99.96, "100"), (147.3, "147"), (999.9, "1000"), (3148.0, "3150")],
)
def test_a_figure_has_three_digits_and_no_exponent(value: float, said: str) -> None:
    assert rounded(value) == said


def test_serving_rows_say_how_many_times_less_they_take_than_the_pipeline_at_the_same_batch() -> None:
    rows = [
        ServingRow(name, batch, cpu, 2 * cpu, 100.0, 200.0, 0.1, 0.9)
        for batch, theirs in ((1, 0.2), (16, 0.1))
        for name, cpu in ((PIPELINE, theirs), ("ours", 0.02))
    ]
    lines = as_table(rows).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["1.0", "10.0", "1.0", "5.0"]


def test_each_way_to_serve_stands_beside_the_quickest_that_writes_as_well() -> None:
    figures = {  # CPU s/s and WER
        PIPELINE: (0.2, 0.15),
        "faster-whisper int8, 30 s, 8 beams": (0.12, 0.10),
        "ours, torch, 8 beams": (0.05, 0.08),
        "ours, torch, 1 beam": (0.04, 0.12),
        "ours, ctranslate2, 1 beam": (0.01, 0.16),
    }
    rows = [
        ServingRow(name, batch, cpu, cpu, 1.0, 1.0, wer, 0.9)
        for batch in (1, 16)
        for name, (cpu, wer) in figures.items()
    ]
    as_well, best, *_ = serving.ratios(rows)
    # CTranslate2 with one beam writes worse than the pipeline; nobody of theirs writes as well as our best.
    assert as_well.name == f"serving, 1 a request: {PIPELINE} (15.0 %) and ours, torch, 1 beam (12.0 %)"
    assert as_well.ratios == [pytest.approx(5.0)]
    assert best.name.endswith("faster-whisper int8, 30 s, 8 beams (10.0 %) and ours, torch, 8 beams (8.0 %)")
    assert best.ratios == [pytest.approx(2.4)]
    assert len(serving.ratios(rows)) == 4


def test_their_search_is_counted_in_full_and_by_the_epochs_that_asha_granted_ours() -> None:
    ours = [
        search.OurSearch(seconds=10.0, epochs=20, best_wer=0.2, best_point={"lora.r": 4}),
        search.OurSearch(seconds=20.0, epochs=30, best_wer=0.22, best_point={"lora.r": 8}),
    ]
    theirs = [
        search.TheirTrial({"lora.r": 8}, start_s=2.0, epochs_s=40.0, wers=(0.3, 0.25)),
        search.TheirTrial({"lora.r": 4}, start_s=4.0, epochs_s=40.0, wers=(0.3, 0.21)),
    ]
    in_full, granted = search.rows(ours, theirs)
    assert in_full.ratios == pytest.approx([(16 * 3 + 64 * 10) / 10, (16 * 3 + 64 * 10) / 20])
    assert granted.ratios == pytest.approx([(16 * 3 + 20 * 10) / 10, (16 * 3 + 30 * 10) / 20])
    assert "(WER 21.0 and 21.0 %)" in granted.name
    text = search.as_markdown(ours, theirs)
    said = "ours 21.0 % (20.0 to 22.0), theirs with the first seed's configuration 21.0 %, the best of those run 21.0 %"
    assert said in text
    assert "Of theirs 2 were run in full, one after another with all cores, and their mean counted 16 times" in text
    assert "All of theirs were run in full, one after another with all cores; under" in search.as_markdown(
        ours, theirs * 8
    )


def test_both_searches_get_sixteen_configurations_within_the_space() -> None:
    points = search.configurations()
    assert len(points) == 16
    assert len({point["train.learning_rate"] for point in points}) == 16
    assert all(search.RATES.low <= point["train.learning_rate"] <= search.RATES.high for point in points)
    assert {point["lora.r"] for point in points} <= set(search.RANKS.choices)


def test_serving_without_a_version_is_a_hint_and_without_the_package_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert serving.section(tmp_path, "").markdown == serving.WITHOUT
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="faster_whisper is not installed; run `pip install faster-whisper`"):
        serving.section(tmp_path, "models:/any/1")
