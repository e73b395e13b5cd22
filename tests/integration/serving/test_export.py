"""A version handed out: plain libraries write from the folder what the version writes, by the code of its card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import wertune.whisper.footprint
from wertune.base.config import LoraConfig
from wertune.base.errors import ExportError
from wertune.data.manifest import Recording
from wertune.scores.eval_report import ExportedLong
from wertune.serving import export as export_module
from wertune.serving import export_card, export_long
from wertune.serving.export import PLAIN, RECORD, export, free_for_export, sample
from wertune.serving.pyfunc import load_registered
from wertune.tracking.versions import RegisteredVersion
from wertune.whisper.adapter import add_lora, load_adapter, save_adapter
from wertune.whisper.model import Whisper, load_whisper

CLIPS = 2
TOKENS = 24  # random weights never end a text


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_whisper_folder: Path,
    write_noise: Callable[..., Path],
    write_manifest: Callable[..., Path],
) -> Path:
    folder = tmp_path_factory.mktemp("project")
    rows = []
    for number in range(5):
        write_noise(folder / f"{number}.wav", 0.5 + 0.1 * number, seed=number)
        rows.append({"audio_filepath": f"{number}.wav", "text": f"please renew form {number}"})
    write_manifest(folder / "test.jsonl", rows)
    data = dict.fromkeys(("train", "validation", "test"), "test.jsonl")
    settings = {"name": "tiny", "base_model": str(tiny_whisper_folder), "data": data}
    (folder / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture
def kept_with_version(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The tags that an export gives its version."""
    kept: dict[str, str] = {}
    monkeypatch.setattr(export_module, "tag_version", lambda _uri, _version, tags: kept.update(tags))
    return kept


@pytest.fixture(autouse=True)
def registry(
    served_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_with_version: dict[str, str]
) -> None:
    """One version, which is a folder; a cache of the test's own; the same arithmetic as in plain libraries."""
    monkeypatch.setattr(wertune.whisper.footprint, "_multiplies_bfloat16", lambda _: False)
    monkeypatch.setattr(export_card, "MAX_NEW_TOKENS", TOKENS)
    pipeline = export_long._PIPELINE.replace(
        "{options})", f'{{options}}, generate_kwargs={{{{"max_new_tokens": {TOKENS}}}}})'
    )
    monkeypatch.setattr(export_long, "_PIPELINE", pipeline)
    faster = export_long._FASTER_WHISPER.replace("{options})", f"{{options}}, max_new_tokens={TOKENS}, temperature=0)")
    monkeypatch.setattr(export_long, "_FASTER_WHISPER", faster)
    monkeypatch.setattr(export_module, "PLAIN", PLAIN.model_copy(update={"max_new_tokens": TOKENS}))
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path / "cache"))
    found = RegisteredVersion("tiny", "1", {}, {}, {"test_wer": 0.1, "baseline_test_wer": 0.3}, {}, ())
    monkeypatch.setattr(export_module, "registered_version", lambda *_: found)
    monkeypatch.setattr(export_module, "load_registered", lambda _, engine: load_registered(str(served_folder), engine))


@pytest.mark.parametrize("form", ["peft", "merged", "ctranslate2"])
def test_the_card_s_own_code_writes_what_the_version_writes(
    form: str, project: Path, tmp_path: Path, kept_with_version: dict[str, str]
) -> None:
    # Texts of random weights turn on the last digit: only in float32 throughout are they the same.
    exported = export(project, "models:/tiny/1", form, tmp_path / "out", CLIPS, limit=0 if form == "peft" else 1e9)
    record = json.loads((tmp_path / "out" / RECORD).read_text(encoding="utf-8"))
    assert record == exported.record
    _check_long(form, record["long"], kept_with_version, exported.text)
    assert len(record["texts"]) == CLIPS
    assert form != "peft" or [row["exported"] for row in record["texts"]] == [row["version"] for row in record["texts"]]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{record['wer']['exported']:.2%}" in card
    assert "| test WER | 30.00% | 10.00% |" in card
    told = "Nothing longer than a clip was tried" if form == "peft" else "1 recordings joined of the test split's clips"
    assert told in card
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def _check_long(form: str, long: dict[str, Any], kept: dict[str, str], text: str) -> None:
    """What plain libraries write of a long recording in their own ways, and what a gate may ask for."""
    ways = {
        "peft": [],
        "merged": ["transformers-chunked", "transformers-sequential"],
        "ctranslate2": ["faster-whisper", "faster-whisper-no-timestamps"],
    }[form]
    assert list(kept) == [f"wertune.export.{way}" for way in ways]
    assert bool(long["not_tried"]) == (form == "peft")
    assert [row["words"] for row in long["rows"]] == [20] * (len(ways) + bool(ways))
    for value, row in zip(kept.values(), long["rows"], strict=False):
        found = ExportedLong.model_validate_json(value)
        assert (found.recordings, found.wer) == (1, row["wer"])
    # The clips alone are written in the first way.
    assert [row["clips_wer"] is not None for row in long["rows"]] == [True, False, False][: len(long["rows"])]
    assert ("long recordings were not tried: their pipelines take whole models" in text) == (form == "peft")


def test_one_that_is_worse_than_allowed_is_refused_and_left_for_a_look(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "run_cards", lambda *_: [["quite another text of many more words"] * CLIPS])
    with pytest.raises(ExportError, match=r"may be at most -1e\+11 points worse; the folder is left"):
        export(project, "models:/tiny/1", "peft", tmp_path / "out", CLIPS, limit=-1e9)
    assert json.loads((tmp_path / "out" / RECORD).read_text(encoding="utf-8"))["passed"] is False


def test_one_that_does_not_load_leaves_nothing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "loading_code", lambda *_: "import no_such_library")
    place = tmp_path / "place"  # the cache lies beside it
    place.mkdir()
    with pytest.raises(ExportError, match=r"No module named 'no_such_library'\), but what was exported must load"):
        export(project, "models:/tiny/1", "peft", place / "out", CLIPS)
    assert [path.name for path in place.iterdir()] == []


def test_only_an_export_is_replaced_and_only_by_force(tmp_path: Path) -> None:
    free_for_export(tmp_path / "new", force=False)
    free_for_export(tmp_path, force=False)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is not empty; name another folder, or replace"):
        free_for_export(tmp_path, force=False)
    with pytest.raises(ExportError, match=r"has no export\.json and so is no export"):
        free_for_export(tmp_path, force=True)
    (tmp_path / RECORD).write_text("{}")
    free_for_export(tmp_path, force=True)


def test_plain_peft_adds_the_adapter_at_its_strength(tiny_whisper_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import WhisperForConditionalGeneration

    def float32() -> Whisper:
        return load_whisper(tiny_whisper_folder, "en", "none", dtype=torch.float32)

    tuned = add_lora(float32(), LoraConfig(r=4, alpha=6, rslora=True), seed=0)
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(tuned, tmp_path / "adapter", "tiny", strength=0.7)
    plain = PeftModel.from_pretrained(
        WhisperForConditionalGeneration.from_pretrained(tiny_whisper_folder), tmp_path / "adapter"
    ).eval()
    ours = load_adapter(float32(), tmp_path / "adapter")
    features, ids = torch.randn(1, 80, 3000), torch.tensor([[50257, 50362, 464]])
    with torch.no_grad():
        expected = plain(input_features=features, decoder_input_ids=ids).logits
        found = ours._lean.logits(ours._lean.decode(ours.encode(features), ids))
        base = float32().bare(input_features=features, decoder_input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (expected - base).abs().max() > 0.1


def test_a_sample_is_spread_over_the_set_and_never_more_than_it(make_recordings: Callable[..., list[Any]]) -> None:
    recordings: list[Recording] = make_recordings(["a", "b", "c", "d", "e"])
    assert [recording.text for recording in sample(recordings, 3)] == ["a", "b", "d"]
    assert sample(recordings, 9) == recordings
