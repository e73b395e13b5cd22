"""The limits of a text's tokens come from the transcripts and the tokenizer, not from English."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import DecodeConfig, TrialConfig
from wertune.base.errors import ConfigError
from wertune.data.manifest import Recording
from wertune.data.rows import Row
from wertune.training.limits import Need, check_limits, limits_of
from wertune.whisper.loops import MOST_TOKENS, token_limit

# Ten everyday sentences of Telugu of 3 to 5 s: up to 98 tokens, where English has twenty.
TELUGU = ((98, 4.6), (71, 3.2), (60, 3.0), (88, 4.1))


def _needs(*tokens_and_seconds: tuple[int, float]) -> list[Need]:
    return [
        Need(Recording(Row(audio_filepath="a.wav", text="x"), f"m.jsonl:{n}", Path("a.wav"), seconds, ""), tokens)
        for n, (tokens, seconds) in enumerate(tokens_and_seconds, 1)
    ]


def test_english_keeps_its_limits() -> None:
    filled = limits_of(_needs((20, 4.0), (38, 5.0))).fill(TrialConfig())
    assert (filled.decode.tokens_per_second, filled.decode.max_new_tokens) == (10.0, 224)
    assert limits_of([]).fill(TrialConfig()) == filled
    assert not limits_of(_needs((20, 4.0))).told


def test_a_script_of_many_tokens_gets_as_many_as_it_needs_and_a_quarter_more() -> None:
    found = limits_of(_needs(*TELUGU))
    assert found.tokens_per_second == 25  # (71 - 8) / 3.2 = 19.7 a second
    decode = found.fill(TrialConfig()).decode
    assert all(token_limit(seconds, decode) >= tokens for tokens, seconds in TELUGU)
    assert found.told == "texts may have 25 tokens a second: m.jsonl:2 (71 tokens in 3.2 s) needs the most"


def test_what_a_configuration_says_stays_and_is_refused_where_it_would_cut_a_reference() -> None:
    given_ = TrialConfig(decode=DecodeConfig(tokens_per_second=10.0, max_new_tokens=90))
    filled = limits_of(_needs(*TELUGU)).fill(given_)
    assert filled == given_
    with pytest.raises(ConfigError) as caught:
        check_limits(filled.decode, _needs(*TELUGU))
    assert str(caught.value) == (
        "decode.tokens_per_second is 10 and max_new_tokens 90, but the text of m.jsonl:2 (71 tokens in 3.2 s), "
        "m.jsonl:1 (98 tokens in 4.6 s), m.jsonl:4 (88 tokens in 4.1 s) and 1 more has more tokens than a clip of its "
        "length may get, and would be cut; leave both out, so that the transcripts say them, or set them to 25 "
        "and 224 (m.jsonl:2 needs the most a second)"
    )


@given(st.lists(st.tuples(st.integers(1, MOST_TOKENS), st.floats(0.2, 30)), max_size=8))
def test_every_legal_row_can_be_written(rows: list[tuple[int, float]]) -> None:
    needs = _needs(*rows)
    decode = limits_of(needs).fill(TrialConfig()).decode
    check_limits(decode, needs)
    assert decode.max_new_tokens is not None
    assert 224 <= decode.max_new_tokens <= MOST_TOKENS


def test_a_project_whose_texts_are_dense_says_so(
    small_project: Path, monkeypatch: pytest.MonkeyPatch, write_manifest: Callable[..., Path]
) -> None:
    """A row of 443 tokens of text, which Whisper's decoder just holds."""
    import json

    from wertune.base.config import load_project, with_overrides
    from wertune.training.prepare import prepare

    path = small_project / "train.jsonl"
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["text"] = "CPF " * 150
    write_manifest(path, rows)
    prepared = prepare(small_project, load_project(small_project))
    assert prepared.limits is not None
    assert prepared.limits.told.startswith("texts may have ")
    decode = prepared.project.trial.decode
    assert token_limit(prepared.dataset["train"][0].duration_s, decode) > 150
    tight = with_overrides(load_project(small_project), {"trial.decode.tokens_per_second": 10.0}, "test")
    with pytest.raises(ConfigError, match=r"tokens_per_second is 10 .*train\.jsonl:1 \(\d+ tokens"):
        prepare(small_project, tight)
