"""The glossary as the real tiny.en reads it: the prompt and the texts after it are those of transformers."""

from collections.abc import Iterator

import pytest
import torch
from tests.support.places import DEMO

from wertune.base.config import ContextConfig, DecodeConfig
from wertune.base.text import load_lexicon
from wertune.data.audio import load_audio
from wertune.data.rows import Row
from wertune.whisper.base_model import resolve_base_model
from wertune.whisper.features import context_positions, log_mel, pad_features
from wertune.whisper.footprint import PRODUCTS_VARIABLE
from wertune.whisper.model import Whisper, load_whisper


@pytest.fixture(scope="module")
def whisper() -> Iterator[Whisper]:
    """With products in float32, as transformers' are: of two texts that are as likely bfloat16 may take the other."""
    terms = load_lexicon(DEMO / "lexicon.yaml").written
    path = resolve_base_model("packaged:whisper-tiny.en").path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PRODUCTS_VARIABLE, "float32")
        yield load_whisper(path, "en", "none", "cpu", terms=terms, dtype=torch.float32)


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    lines = (DEMO / "manifests" / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:40:20]
    clips = [load_audio(DEMO / "manifests" / Row.model_validate_json(line).audio_filepath) for line in lines]
    full = ContextConfig(short=False)
    return pad_features([log_mel(clip, context_positions(clip.size / 16000, full), 80) for clip in clips])


def test_the_glossary_is_the_prompt_of_transformers_cut_at_a_whole_term(whisper: Whisper) -> None:
    glossary, terms = whisper.wording.glossary, whisper.wording.terms
    assert 20 < len(glossary.terms) < len(terms)
    assert glossary.terms == terms[: len(glossary.terms)]
    assert list(glossary.tokens) == whisper.tokenizer.get_prompt_ids(", ".join(glossary.terms)).tolist()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_after_the_glossary_the_texts_are_those_of_transformers(
    whisper: Whisper, features: torch.Tensor, num_beams: int
) -> None:
    before = whisper.wording.glossary.tokens
    with torch.no_grad():
        ids = whisper.bare.generate(
            features, prompt_ids=torch.tensor(before), num_beams=num_beams, max_new_tokens=60, return_timestamps=False
        )
    expected = [whisper.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]
    decode = DecodeConfig(num_beams=num_beams, may_be_empty=False, loop_guard=False)
    limits = [60] * len(features)
    assert [each.text for each in whisper.write(whisper.encode(features), limits, decode, before)] == expected
    assert [each.text for each in whisper.generate(features, limits, decode)] != expected
