"""What openings of a final set say, whatever was opened in whatever order."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.errors import TrackingError
from wertune.scores.final_set import Opening, opened_for, openings, versions_opened

rates = st.floats(0, 1).map(lambda rate: round(rate, 6))
figures = st.fixed_dictionaries(
    {"final_words": st.integers(1, 9999), "final_wer": rates, "baseline_final_wer": rates},
    optional={"final_wer_low": rates, "final_wer_high": rates},
)
opened = st.builds(
    Opening,
    model=st.just("demo"),
    version=st.integers(1, 30).map(str),
    who=st.sampled_from(["ann", ""]),
    at=st.datetimes(timezones=st.just(UTC)),
    set_digest=st.sampled_from(["0" * 64, "a" * 64]),
    clips=st.integers(1, 500),
    run_id=st.just("1a2b"),
    engine=st.just("torch"),
    figures=figures,
)


@given(opened)
def test_a_tag_holds_the_whole_opening(opening: Opening) -> None:
    text = opening.model_dump_json()
    assert openings({opening.key: text, "wertune.engine": "torch"}) == [opening]
    assert len(text) < 5000  # where some databases cut a tag
    assert f"{100 * opening.figures['final_wer']:.2f} %" in opening.text


@given(st.lists(opened, max_size=20), st.randoms())
def test_a_version_counts_once_for_each_set_whatever_the_order(found: list[Opening], random: object) -> None:
    counted = versions_opened(found)
    random.shuffle(found)  # type: ignore[attr-defined]
    assert versions_opened([*found, *found]) == counted
    pairs = {(each.set_digest, each.version) for each in found}
    assert {(digest, version) for digest, versions in counted.items() for version in versions} == pairs
    assert sum(map(len, counted.values())) == len(pairs)


def test_the_count_is_told_with_what_it_means() -> None:
    assert opened_for(1) == "opened for 1 version: the more often, the less it says"
    assert opened_for(3) == "opened for 3 versions: the more often, the less it says"


def test_a_tag_changed_by_hand_is_told_of() -> None:
    with pytest.raises(TrackingError, match=r"tag wertune\.final\.0 is not what this program wrote \(.*\); restore it"):
        openings({"wertune.final.0": '{"version": 3}'})


def test_the_table_has_intervals_where_there_are_any() -> None:
    numbers = {"final_words": 1234, "final_wer": 0.1, "baseline_final_wer": 0.3, "final_wer_low": 0.08}
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    opening = Opening(
        model="demo", version="3", who="ann", at=at, set_digest="ab" * 32, clips=200, run_id="r", engine="torch",
        figures=numbers | {"final_wer_high": 0.125},
    )  # fmt: skip
    head, *table = opening.text.splitlines()
    assert head == "final set abababab, 200 clips, 1,234 words, by torch; opened by ann, 2026-01-02 03:04 UTC"
    assert [cell.strip() for cell in table[2].split("|")] == ["", "WER", "30.00 %", "10.00 % (8.0 to 12.5)", ""]
