"""The table of what each part brings: its rows, what is logged of it, what it says of itself."""

from collections.abc import Callable

import pytest

from wertune.base.text import Lexicon, Term, TermFinder
from wertune.jobs.ablation import Ablation, ablation, caption, rewritten
from wertune.scores.aliases import alias_writer
from wertune.scores.comparison import Comparison
from wertune.scores.metrics import Clip, Scores, score
from wertune.training.baseline import Way

LEXICON = Lexicon(terms=(Term(term="ElderShield"), Term(term="CPF")))
FINDER = TermFinder(LEXICON.written, str.lower)
REFERENCES = ("my ElderShield", "no CPF here today")


def _scores(*texts: str) -> Scores:
    clips = [Clip(str(n), text, f"s{n}", "clean", 1.0) for n, text in enumerate(REFERENCES)]
    return score(clips, texts, str.lower, FINDER)


def _aliased(scores: Scores) -> Scores:
    return rewritten(scores, alias_writer(LEXICON), str.lower, FINDER)


BASE = {
    Way.PLAIN: _scores("my elder shield", "no sea here today"),
    Way.BOOSTED: _scores("my ElderShield", "no sea here CPF CPF"),
    Way.PROMPTED: _scores("CPF", ""),
}
TEST = Comparison(_scores("my elder shield", "C P F"), _scores("my elder-shield", "no CPF here today"))
SERVED, UNBOOSTED = _scores(*REFERENCES), _scores("my elder shield", REFERENCES[1])


def _table(unboosted: Scores | None = UNBOOSTED, test: Comparison | None = TEST) -> Ablation:
    return ablation(BASE, unboosted, SERVED, test, _aliased, "what it rests on")


def test_each_row_has_its_own_figures_and_test_stands_where_nothing_more_had_to_be_written() -> None:
    lines = _table().table().partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[0], *cells[2:]] == [
        ["", "validation WER", "term recall", "false terms", "test WER", "term recall", "false terms"],
        ["untouched base", "50.00 %", "0.00 %", "0", "100.00 %", "0.00 %", "0"],
        ["base, terms boosted", "50.00 %", "100.00 %", "1", "–", "–", "–"],
        ["base, glossary as prompt", "100.00 %", "0.00 %", "1", "–", "–", "–"],
        ["base, aliases as their terms", "16.67 %", "50.00 %", "0", "50.00 %", "100.00 %", "0"],
        ["adapter", "33.33 %", "50.00 %", "0", "–", "–", "–"],
        ["adapter, terms boosted: as it is served", "0.00 %", "100.00 %", "0", "16.67 %", "50.00 %", "0"],
        ["as it is served, aliases as their terms", "0.00 %", "100.00 %", "0", "0.00 %", "100.00 %", "0"],
    ]  # fmt: skip


def test_of_terms_that_nobody_said_none_is_recalled() -> None:
    silent = score([Clip("0", "no term here", "s", "clean", 1.0)], ["no term here"], str.lower, FINDER)
    table = ablation({Way.PLAIN: silent}, None, silent, None, _aliased, "").table()
    assert "100.00 %" not in table
    assert "| 0.00 %         | –           | 0           |" in table


def test_what_is_logged_has_a_name_of_its_own_and_repeats_nothing() -> None:
    logged = _table().metrics()
    rows = (
        "baseline_boosted",
        "baseline_prompted",
        "baseline_aliased",
        "adapter",
        "adapter_boosted",
        "adapter_aliased",
    )
    on_validation = {f"{row}_val_{name}" for row in rows for name in ("wer", "term_recall", "term_precision")}
    on_test = {
        f"{row}_{name}"
        for row in ("baseline_aliased", "adapter_aliased")
        for name in ("test_wer", "term_recall", "term_precision")
    }
    assert set(logged) == on_validation | on_test
    assert logged["baseline_boosted_val_term_recall"] == 1.0
    assert logged["baseline_aliased_test_wer"] == 0.5
    assert logged["adapter_val_wer"] == pytest.approx(1 / 3)


def test_without_a_boost_the_adapter_is_what_is_served() -> None:
    table = _table(unboosted=None)
    names = [row.name for row in table.rows if row.key.startswith("adapter")]
    assert names == ["adapter: as it is served", "as it is served, aliases as their terms"]
    assert table.metrics()["adapter_val_wer"] == SERVED.wer


def test_without_a_test_set_there_is_no_column_of_it() -> None:
    assert "test" not in _table(test=None).table()


def test_the_artifact_holds_every_figure_once() -> None:
    rows = _table().artifact()
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    boosted = next(row for row in rows if row["written_by"] == "base, terms boosted")
    assert (boosted["validation_false_terms"], boosted["test_wer"]) == (1, None)


@pytest.mark.parametrize(
    ("glossary", "said"),
    [(2, "Glossary: all 2 terms."), (1, "Glossary: the first 1 of 2 terms: Whisper's prompt holds no more.")],
)
def test_it_says_on_what_it_rests_and_what_flatters_it(glossary: int, said: str) -> None:
    told = caption(SERVED, TEST.after, glossary, 2)
    assert told.startswith("Validation: 2 clips, 6 words, 2 terms said. Test: 2 clips, 6 words, 2 terms said.")
    assert "By validation the epoch was chosen" in told
    assert said in told
    assert "Test:" not in caption(SERVED, None, glossary, 2)


@pytest.mark.parametrize("write", [str.upper, lambda text: ""])
def test_only_what_was_written_is_written_anew(write: Callable[[str], str]) -> None:
    anew = rewritten(UNBOOSTED, write, str.lower, FINDER)
    assert [u.hypothesis for u in anew.utterances] == [write(u.hypothesis) for u in UNBOOSTED.utterances]
    kept = ("id", "reference", "speaker", "channel", "duration_s")
    for one, other in zip(anew.utterances, UNBOOSTED.utterances, strict=True):
        assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]
