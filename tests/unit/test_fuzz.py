"""A few seconds of `python -m tests.trials.fuzz`: the kept corpus, and mutations of it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trials.fuzz.mutations import mutated
from tests.trials.fuzz.targets import CORPUS, TARGETS, Target

from wertune.base.errors import WertuneError

FILES = [(target, path) for name, target in TARGETS.items() for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize(("target", "path"), FILES, ids=lambda value: getattr(value, "name", ""))
def test_every_file_of_the_corpus_is_read_or_refused(target: Target, path: Path) -> None:
    target.check(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_what_code_writes_stands_in_the_corpus(target: Target) -> None:
    assert target.valid().keys() <= {path.name for path in (CORPUS / target.name).iterdir()}


def test_the_good_ones_are_read_and_the_others_refused() -> None:
    weights, manifest = TARGETS["ctranslate2"], TARGETS["manifest"]
    assert weights.check(weights.valid()["float16.bin"]) is None
    assert manifest.check(manifest.valid()["two_rows.jsonl"]) is None
    assert "4294967295 variables are announced" in str(weights.check(weights.valid()["lying_count.bin"]))
    assert "encoder/num_heads is a single float32" in str(weights.check(weights.valid()["nan_heads.bin"]))
    assert isinstance(manifest.check(manifest.valid()["elsewhere.jsonl"]), WertuneError)
    for beside in (TARGETS["tokenizer"], TARGETS["config"]):
        assert [name for name, data in beside.valid().items() if beside.check(data) is None] == ["whole.json"]


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(target.corpus, target.fields_of))
    def attempt(data: bytes) -> None:
        target.check(data)

    attempt()


@given(st.integers(1, 3))
def test_a_reader_that_takes_what_a_header_says_is_found(mebibytes: int) -> None:
    greedy = Target("greedy", lambda data: bytearray(mebibytes * 2**21), lambda _: (), dict, 2**20, 1)
    with pytest.raises(AssertionError, match="bytes were allocated"):
        greedy.check(b"")


def test_a_reader_that_raises_something_else_is_found() -> None:
    careless = Target("careless", lambda data: data[0], lambda _: (), dict, 2**20, 1)
    assert careless.check(b"a") is None
    with pytest.raises(IndexError):
        careless.check(b"")
