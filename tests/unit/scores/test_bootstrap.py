"""Confidence ends: against a plain loop, against known answers, and how often they promote the wrong one."""

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.bench import bootstrap as bench
from wertune.scores import bootstrap
from wertune.scores.bootstrap import (
    BootstrapSettings,
    TooFewBlocks,
    choose_blocks,
    corpus_rate,
    draws,
    expanded_level,
    paired_difference,
    resampled_sums,
)

QUICK = BootstrapSettings(resamples=1000)
NO_SPEAKERS = [""] * 40


def _array(values: object) -> bootstrap.Floats:
    return np.array(values, dtype=np.float64)


def test_resampling_is_a_plain_loop_over_the_same_draws() -> None:
    sums = np.random.default_rng(1).integers(0, 20, (37, 2)).astype(float)
    drawn = np.concatenate(list(draws(37, 50, seed=3)))
    expected = [[sum(sums[index, column] for index in row) for column in (0, 1)] for row in drawn]
    assert resampled_sums(sums, 50, seed=3).tolist() == expected


def test_ends_are_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(2)
    words = generator.integers(1, 15, 40).astype(float)
    after, before = generator.binomial(words.astype(int), 0.2), generator.binomial(words.astype(int), 0.3)
    rates = []
    for row in np.concatenate(list(draws(40, 1000, seed=0))):
        rates.append(sum(after[i] - before[i] for i in row) / sum(words[i] for i in row))
    level = expanded_level(0.95, words.sum() ** 2 / (words**2).sum())
    found = paired_difference(_array(after), _array(before), words, NO_SPEAKERS, QUICK)
    assert found.high == pytest.approx(np.quantile(rates, level, method="higher"))
    assert found.low == pytest.approx(np.quantile(rates, 1 - level, method="lower"))
    assert found.point == pytest.approx((after.sum() - before.sum()) / words.sum())


def test_draws_are_bounded_in_memory_and_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draws(50, 300, seed=0)))
    monkeypatch.setattr(bootstrap, "MAX_CELLS", 330)
    chunks = list(draws(50, 300, seed=0))
    assert max(chunk.size for chunk in chunks) <= 330
    assert np.array_equal(np.concatenate(chunks), whole)


def test_the_seed_makes_the_interval() -> None:
    errors, words = np.arange(40.0) % 5, np.full(40, 10.0)
    first, again, other = (corpus_rate(errors, words, NO_SPEAKERS, BootstrapSettings(seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_corpus_wer_is_not_the_mean_of_the_clips() -> None:
    errors, words = _array([1] + [0] * 9), _array([1] + [11] * 9)
    assert corpus_rate(errors, words, [""] * 10, QUICK).point == pytest.approx(0.01)


def test_the_point_is_jiwers() -> None:
    references = ["the model pays", "apply for a flat today", "call the clinic", "yes", "see the form now", "no fee"]
    hypotheses = ["the bored pays", "apply a flat to day", "call clinic", "yes", "see the the form now", "no"]
    pairs = [jiwer.process_words(r, h) for r, h in zip(references, hypotheses, strict=True)]
    errors = _array([p.substitutions + p.deletions + p.insertions for p in pairs])
    words = _array([len(r.split()) for r in references])
    assert corpus_rate(errors, words, [""] * 6, QUICK).point == pytest.approx(jiwer.wer(references, hypotheses))


def test_many_blocks_agree_with_the_normal_approximation() -> None:
    generator = np.random.default_rng(5)
    errors = generator.poisson(2.0, 2000).astype(float)
    found = corpus_rate(errors, np.full(2000, 10.0), [""] * 2000, BootstrapSettings())
    spread = 1.6449 * errors.std() / 10 / np.sqrt(2000)
    assert found.high - found.point == pytest.approx(spread, rel=0.05)
    assert found.point - found.low == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(
    ("level", "freedom", "tabled"),
    [(0.95, 4, 2.132), (0.95, 5, 2.015), (0.95, 10, 1.812), (0.95, 30, 1.697), (0.9, 2, 1.886), (0.99, 10, 2.764)],
)
def test_students_t_is_that_of_the_tables(level: float, freedom: float, tabled: float) -> None:
    assert bootstrap.t_quantile(level, freedom) == pytest.approx(tabled, rel=0.01)


def test_the_level_nears_the_confidence_with_many_blocks() -> None:
    levels = [expanded_level(0.95, blocks) for blocks in (5, 6, 10, 100, 10_000)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == pytest.approx(0.95, abs=1e-4)


def test_speakers_are_blocks_where_they_are_known() -> None:
    blocks = choose_blocks(["b", "a", "b", "c", "d", "e"], np.ones(6), QUICK)
    assert (blocks.note, blocks.index.tolist()) == ("5 speaker blocks", [1, 0, 1, 2, 3, 4])


def test_a_clip_of_an_unknown_speaker_is_its_own_block() -> None:
    assert choose_blocks(["a", "a", "", "", "b", "c", "d"], np.ones(7), QUICK).count == 6


def test_utterances_are_blocks_where_no_speaker_is_known_or_the_policy_says_so() -> None:
    assert choose_blocks([""] * 8, np.ones(8), QUICK).note == "8 utterance blocks"
    settings = BootstrapSettings(blocks="utterance")
    assert choose_blocks(list("abcdefgh"), np.ones(8), settings).note == "8 utterance blocks"


@pytest.mark.parametrize("speakers", [["a"] * 20 + ["b"] * 20, ["a"] * 35 + list("bcdef")])
def test_few_or_unequal_speakers_are_no_blocks_and_the_note_says_what_then_holds(speakers: list[str]) -> None:
    blocks = choose_blocks(speakers, np.ones(40), QUICK)
    assert blocks.count == 40
    assert "holds for these voices only" in blocks.note


def test_too_few_clips_give_no_interval() -> None:
    with pytest.raises(TooFewBlocks, match=r"3 clip\(s\).*at least 4"):
        choose_blocks([""] * 3, np.ones(3), QUICK)
    with pytest.raises(TooFewBlocks):
        choose_blocks([""] * 9, np.zeros(9), QUICK)


errors_of_clips = st.lists(st.integers(0, 12), min_size=12, max_size=30)


@given(errors_of_clips, st.data())
def test_fewer_errors_never_worsen_an_end(errors: list[int], data: st.DataObject) -> None:
    fewer = [data.draw(st.integers(0, count)) for count in errors]
    words, speakers = np.full(len(errors), 10.0), [f"s{i % 6}" for i in range(len(errors))]
    few = BootstrapSettings(resamples=200)
    worse, better = (corpus_rate(_array(e), words, speakers, few) for e in (errors, fewer))
    assert better.high <= worse.high
    assert better.low <= worse.low


def _promoted(reduction: float, pairs: int, speakers: int, speaker_spread: float) -> float:
    """Share of simulated pairs where the upper end is below 0; the truth is that errors fall by `reduction`."""
    generator = np.random.default_rng(11)
    names = [f"s{i % speakers}" for i in range(24 * speakers)]
    index = np.array([i % speakers for i in range(24 * speakers)])
    promoted = 0
    for _ in range(pairs):
        words = 1.0 + generator.poisson(9.0, len(names))
        hardness = 0.1 * generator.gamma(2.0, 0.5, len(names))
        change = generator.normal(-reduction, speaker_spread, speakers)[index]
        after = generator.poisson(words * hardness * np.maximum(1 + change / 2, 0))
        before = generator.poisson(words * hardness * np.maximum(1 - change / 2, 0))
        promoted += paired_difference(_array(after), _array(before), words, names, QUICK).high < 0
    return promoted / pairs


@pytest.mark.parametrize(("speakers", "spread"), [(6, 0.0), (6, 0.3), (20, 0.3)])
def test_equal_pairs_are_promoted_at_about_the_nominal_rate(speakers: int, spread: float) -> None:
    assert 0.025 <= _promoted(0.0, 800, speakers, spread) <= 0.075


def test_the_plain_percentile_would_promote_twice_as_many_with_six_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "expanded_level", lambda confidence, blocks: confidence)
    assert _promoted(0.0, 800, 6, 0.3) > 0.08


def test_unequal_pairs_are_told_apart() -> None:
    rates = [_promoted(reduction, 200, 6, 0.1) for reduction in (-0.2, 0.15, 0.3, 0.6)]
    assert rates == sorted(rates)
    assert rates[0] < 0.01
    assert rates[-1] > 0.95


def test_the_bench_compares_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RESAMPLES", 20)
    assert "the same rates" in bench.bench_bootstrap()
