"""CTranslate2 in the place of torch: the same texts, limits and rules, and a converted model that is made once."""

import json
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from wertune.base import machine
from wertune.base.config import DecodeConfig, LoraConfig
from wertune.base.errors import AdapterError, BaseModelError, ConfigError
from wertune.base.machine import require_engine
from wertune.whisper import ctranslate2_engine as engine
from wertune.whisper.adapter import add_lora, load_adapter, save_adapter
from wertune.whisper.base_model import BaseModel
from wertune.whisper.boost import TermBoost
from wertune.whisper.ctranslate2_engine import CTranslate2Whisper, converted, load_engine
from wertune.whisper.model import Whisper

GREEDY = DecodeConfig(loop_guard=False)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests, but none of the machine's own."""
    folder = tmp_path_factory.getbasetemp() / "engine-cache"
    monkeypatch.setenv("WERTUNE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def base(tiny_whisper_folder: Path) -> BaseModel:
    return BaseModel("tiny", tiny_whisper_folder, "sha256:tiny")


@pytest.fixture
def adapter(load_tiny: Callable[..., Whisper], tmp_path: Path) -> Path:
    """One that changes what is written, saved at half its strength."""
    tuned = add_lora(load_tiny("none"), LoraConfig(r=4), seed=0)
    torch.manual_seed(1)
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path / "adapter"
    save_adapter(tuned, folder, "tiny", strength=0.5)
    return folder


@pytest.fixture
def served(base: BaseModel, adapter: Path) -> CTranslate2Whisper:
    return load_engine(base, adapter, "en", quantization="float32")


@pytest.fixture
def torch_whisper(load_tiny: Callable[..., Whisper], adapter: Path) -> Whisper:
    return load_adapter(load_tiny("none"), adapter)


def _features(clips: int = 3, frames: int = 160) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(clips, 80, frames)


@pytest.mark.parametrize("limits", [[12, 12, 12], [1, 5, 20]])
@pytest.mark.parametrize("may_be_empty", [True, False])
def test_greedy_in_float_it_writes_what_torch_writes(
    served: CTranslate2Whisper, torch_whisper: Whisper, limits: list[int], may_be_empty: bool
) -> None:
    decode = GREEDY.model_copy(update={"may_be_empty": may_be_empty})
    features = _features()
    expected = torch_whisper.generate(features, limits, decode)
    found = served.generate(features, limits, decode)
    assert [written.text for written in found] == [written.text for written in expected]
    assert all(len(written.log_probabilities) <= limit for written, limit in zip(found, limits, strict=True))
    assert any(written.text for written in found)


def test_the_adapter_is_in_it_at_its_strength(
    served: CTranslate2Whisper, load_tiny: Callable[..., Whisper], torch_whisper: Whisper
) -> None:
    found, base, tuned = (
        [written.text for written in model.generate(_features(), [12] * 3, GREEDY)]
        for model in (served, load_tiny("none"), torch_whisper)
    )
    assert found == tuned != base


@pytest.mark.parametrize("num_beams", [1, 4])
def test_log_probabilities_are_the_mean_of_torchs(
    served: CTranslate2Whisper, torch_whisper: Whisper, num_beams: int
) -> None:
    decode = GREEDY.model_copy(update={"num_beams": num_beams})
    limits = [12, 12, 12]
    for mine, torchs in zip(
        served.generate(_features(), limits, decode), torch_whisper.generate(_features(), limits, decode), strict=True
    ):
        assert mine.text == torchs.text
        assert len(mine.log_probabilities) == len(torchs.log_probabilities)
        assert mine.log_probabilities[0] == pytest.approx(
            sum(torchs.log_probabilities) / len(torchs.log_probabilities), rel=0.05
        )


@pytest.mark.parametrize("lengths_s", [[3.2, 3.2, 3.2], [1.0, 2.0, 3.2]])
def test_greedy_in_float_it_writes_the_times_that_torch_writes(
    served: CTranslate2Whisper, torch_whisper: Whisper, lengths_s: list[float]
) -> None:
    features, limits = _features(frames=320), [24] * 3
    expected = torch_whisper.generate(features, limits, GREEDY, windows_s=[30.0] * 3)
    found = served.generate(features, limits, GREEDY, windows_s=lengths_s)
    assert [(written.text, written.segments) for written in found] == [
        (written.text, written.segments) for written in expected
    ]
    assert all(written.segments[0].start_s <= 1.0 for written in found)


@pytest.mark.parametrize("timed", [False, True])
def test_how_likely_nobody_speaks_is_what_torch_says(
    served: CTranslate2Whisper, torch_whisper: Whisper, timed: bool
) -> None:
    features, limits, lengths_s = _features(), [8] * 3, [3.0] * 3 if timed else []
    for mine, torchs in zip(
        served.generate(features, limits, DecodeConfig(num_beams=2), windows_s=lengths_s),
        torch_whisper.generate(features, limits, DecodeConfig(num_beams=2), windows_s=lengths_s),
        strict=True,
    ):
        assert mine.no_speech_prob == pytest.approx(torchs.no_speech_prob, rel=0.01, abs=1e-9)


def test_beams_and_boost_write_times_too(served: CTranslate2Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.wording, "terms", ("CorpPass",))
    decode = DecodeConfig(num_beams=4, term_boost=3.0)
    for written in served.generate(_features(), [24] * 3, decode, windows_s=[3.0] * 3):
        assert written.segments
        assert " ".join(segment.text for segment in written.segments).split() == written.text.split()


def test_windows_and_clips_share_one_copy_of_the_weights(served: CTranslate2Whisper) -> None:
    served.generate(_features(), [8] * 3, GREEDY)
    served.generate(_features(), [8] * 3, GREEDY, windows_s=[3.0] * 3)
    assert len(served._models) == 1


def test_heads_that_a_base_has_not_are_refused_before_the_library_reads_beyond_them(
    served: CTranslate2Whisper,
) -> None:
    with pytest.raises(BaseModelError, match="alignment_heads is"):
        served.time_tokens(_features()[0], _words(served, " one two"), 160)


def test_tokens_are_timed_in_order_and_as_likely_as_torch_holds_them(
    tiny_whisper_folder: Path, adapter: Path, torch_whisper: Whisper, tmp_path: Path
) -> None:
    folder, heads = shutil.copytree(tiny_whisper_folder, tmp_path / "with heads"), [[0, 0], [1, 1]]
    generation = json.loads((folder / "generation_config.json").read_text()) | {"alignment_heads": heads}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    served = load_engine(BaseModel("heads", folder, "sha256:heads"), adapter, "en", quantization="float32")
    torch_whisper.bare.generation_config.alignment_heads = heads
    tokens, features = _words(served, " log in with CorpPass"), _features()[0]
    times, likely = served.time_tokens(features, tokens, 120)
    _, expected = torch_whisper.time_tokens(features, tokens, 120)
    assert list(times) == sorted(times)
    assert (len(times), times[0] >= 0, times[-1] <= 1.2) == (len(tokens) + 1, True, True)
    assert likely == pytest.approx(expected, rel=0.02)


class _Found:
    """What the library gives for one clip."""

    def __init__(self, *texts: tuple[Sequence[int], float]) -> None:
        self.sequences_ids = [list(tokens) for tokens, _ in texts]
        self.scores = [score for _, score in texts]


def _words(served: CTranslate2Whisper, text: str) -> list[int]:
    return list(served.wording.tokenizer(text, add_special_tokens=False).input_ids)


def test_what_ended_goes_before_what_the_limit_cuts_off(served: CTranslate2Whisper) -> None:
    long, short = _words(served, " one two three four five"), _words(served, " one")
    best, _ = served._best(_Found((long, -0.1), (short, -2.0)), limit=3, boost=None)
    assert (best.text, len(best.log_probabilities)) == ("one", 2)
    cut, _ = served._best(_Found((long, -0.1)), limit=3, boost=None)
    assert (cut.text, len(cut.log_probabilities)) == ("one two three", 3)


def test_an_empty_text_is_a_text(served: CTranslate2Whisper) -> None:
    best, _ = served._best(_Found(([], -0.5), (_words(served, " one"), -1.2)), limit=3, boost=None)
    assert (best.text, best.log_probabilities) == ("", (-0.5,))


@pytest.mark.parametrize("num_beams", [1, 4])
def test_where_the_end_is_likeliest_nothing_is_written(
    tiny_whisper_folder: Path, adapter: Path, tmp_path: Path, num_beams: int
) -> None:
    """The library's mean over no token at all is minus infinity, with which no beam would ever be empty."""
    folder = shutil.copytree(tiny_whisper_folder, tmp_path / "ends at once")
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    towards = torch.nn.functional.normalize(torch.randn(model.config.d_model), dim=0)
    with torch.no_grad():
        model.model.decoder.layer_norm.bias += 10 * towards
        model.model.decoder.embed_tokens.weight[model.config.eos_token_id] += 10 * towards
    model.save_pretrained(folder)
    served = load_engine(BaseModel("ends", folder, "sha256:ends"), adapter, "en", quantization="float32")
    decode = DecodeConfig(num_beams=num_beams)
    assert [text.text for text in served.generate(_features(), [8] * 3, decode)] == [""] * 3
    never_empty = decode.model_copy(update={"may_be_empty": False})
    assert any(text.log_probabilities for text in served.generate(_features(), [8] * 3, never_empty))


def test_a_term_among_the_finished_texts_is_preferred(served: CTranslate2Whisper) -> None:
    said, meant = _words(served, " corp pass"), _words(served, " CorpPass")
    boost = TermBoost([meant], bonus=2.0, beyond=2.0)
    found = _Found((said, -0.5), (meant, -1.0))
    assert served._best(found, 20, None)[0].text == "corp pass"
    assert served._best(found, 20, boost)[0].text == "CorpPass"


def test_what_the_model_doubts_is_taken_as_without_a_boost(
    served: CTranslate2Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model doubts all that it writes; the boost here prefers the least likely text."""
    monkeypatch.setattr(served.wording, "terms", ("CorpPass",))
    monkeypatch.setattr(TermBoost, "total", lambda boost, tokens, log_probability: -10 * log_probability)
    texts = {
        (boost, floor): [
            written.text
            for written in served.generate(
                _features(), [8] * 3, DecodeConfig(num_beams=4, term_boost=boost, boost_floor=floor, loop_guard=False)
            )
        ]
        for boost, floor in ((0.0, None), (3.0, None), (3.0, -1.0))
    }
    assert texts[3.0, -1.0] == texts[0.0, None] != texts[3.0, None]


def test_a_loop_goes_behind_what_is_none(served: CTranslate2Whisper) -> None:
    guard = served.wording.guard
    loop, other, spelled = (_words(served, text) for text in (" no" * 9, " no", " 2" * 9))
    best, loops = served._best(_Found((loop, -0.5), (other, -1.0)), 20, None, guard)
    assert (best.text, loops) == ("no", False)
    assert served._best(_Found((loop, -0.5)), 20, None, guard)[1]
    assert served._best(_Found((spelled, -0.5), (other, -1.0)), 20, None, guard)[0].text.startswith("2 2 2")
    best, loops = served._best(_Found((loop, -0.5), (other, -1.0)), 20, None)
    assert (best.text, loops) == (" ".join(["no"] * 9), False)


def test_where_all_texts_loop_the_library_writes_again_without_a_repeated_ngram(
    served: CTranslate2Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [30, 20, 30]
    texts = [written.text for written in served.generate(_features(), limits, GREEDY)]
    again = GREEDY.model_copy(update={"no_repeat_ngram": 6})
    expected = [texts[0], served.generate(_features(), limits, again)[1].text, texts[2]]
    monkeypatch.setattr("wertune.whisper.loops.LoopGuard.is_loop", lambda guard, tokens: False)
    monkeypatch.setattr(engine, "shrinks", lambda text: text == texts[1])
    assert [written.text for written in served.generate(_features(), limits, DecodeConfig())] == expected


@pytest.mark.parametrize(
    ("tokens", "total"),
    [((1, 2, 3), 3), ((1, 2), 0), ((9, 1, 2, 3, 9), 3), ((1, 2, 4), 1), ((1, 2, 3, 1, 2, 3, 1, 2, 3), 6)],
)
def test_a_texts_gain_is_that_of_its_finished_terms(tokens: Sequence[int], total: float) -> None:
    # The second term stands within the first, and a term said twice ends all gain.
    assert TermBoost([(1, 2, 3), (4,)], bonus=1.0, beyond=1.0).total(tokens, -50.0) == total


def test_the_gain_of_a_text_is_what_the_search_would_have_added() -> None:
    boost = TermBoost([(1, 2, 3), (2, 4), (2,), (5, 5)], bonus=1.5, beyond=1.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        tokens = torch.randint(1, 7, (8,), generator=generator).tolist()
        places, added = boost.start(1, torch.device("cpu")), 0.0
        for token in [*tokens, 0]:  # 0 ends it
            scores = torch.zeros(1, 8)
            places.change(scores)
            added += float(scores[0, token])
            places.go_on(torch.tensor([0]), torch.tensor([token]), torch.zeros(1))
        assert boost.total(tokens, -50.0) == pytest.approx(added)


def test_the_converted_model_is_made_once_and_mended_where_damaged(
    base: BaseModel, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = converted(base, adapter, "en", "float32")
    made = (folder / "model.bin").read_bytes()
    conversions: list[Any] = []
    real = engine._convert
    monkeypatch.setattr(engine, "_convert", lambda *given: (conversions.append(given), real(*given)))
    assert converted(base, adapter, "en", "float32") == folder
    assert not conversions
    (folder / "model.bin").write_bytes(made[:-9])
    assert converted(base, adapter, "en", "float32") == folder
    assert (folder / "model.bin").read_bytes() == made
    assert len(conversions) == 1


def test_another_strength_base_or_rounding_is_another_model(
    base: BaseModel, adapter: Path, load_tiny: Callable[..., Whisper], tmp_path: Path
) -> None:
    save_adapter(load_adapter(load_tiny("none"), adapter), tmp_path / "weaker", "tiny", strength=0.5)
    folders = {
        converted(base, adapter, "en", "float32"),
        converted(base, adapter, "en", "int8"),
        converted(base, tmp_path / "weaker", "en", "float32"),
        converted(BaseModel("tiny", base.path, "sha256:other"), adapter, "en", "float32"),
    }
    assert len(folders) == 4


def test_many_at_once_get_one_whole_folder(
    base: BaseModel, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path))
    found: list[Path] = []
    work = [threading.Thread(target=lambda: found.append(converted(base, adapter, "en", "int8"))) for _ in range(3)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "engines").iterdir() if path.is_dir()] == [found[0].name]
    assert {path.suffix for path in found[0].iterdir()} == {".bin", ".json"}


def test_a_failed_conversion_leaves_nothing(
    base: BaseModel, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WERTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "merged", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        converted(base, adapter, "en")
    assert not [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]


def test_an_adapter_that_is_not_whole_is_refused(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"lacks adapter_config\.json, adapter_model\.safetensors"):
        load_engine(base, tmp_path / "none", "en")


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    require_engine("torch")
    require_engine("ctranslate2")
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    require_engine("torch")
    with pytest.raises(ConfigError, match=r"engine is ctranslate2, but .*pip install 'wertune\[ctranslate2\]'"):
        require_engine("ctranslate2")


def test_the_command_line_starts_without_it() -> None:
    import subprocess

    code = "import sys, wertune.__main__, wertune.whisper.ctranslate2_engine; print('ctranslate2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
