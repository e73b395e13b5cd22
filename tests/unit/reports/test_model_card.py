"""The card says what a version is and was made of, and no more than a database keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import CardConfig, ProjectConfig, TrialConfig
from wertune.base.text import Lexicon
from wertune.data.manifest import Dataset, Recording
from wertune.reports.card_text import card_page, renewed, shortened
from wertune.reports.model_card import CardOf, model_card
from wertune.training.prepare import Prepared
from wertune.whisper.base_model import BaseModel

LIMITS = ("Speech is <b>synthetic</b>.",)


@pytest.fixture
def prepared(make_recordings: Callable[..., list[Recording]]) -> Prepared:
    manifests = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}
    card = CardConfig(about="A domain.", data_licence="CC0", limits=LIMITS)
    project = ProjectConfig.model_validate({"name": "words", "base_model": "a/b", "data": manifests, "card": card})
    dataset = Dataset({"test": tuple(make_recordings(["pay your cpf", "log in"] * 4))})
    return Prepared(project, Lexicon(terms=()), BaseModel("a/b", Path("base"), "sha256:123"), dataset)


@pytest.fixture
def card_of() -> CardOf:
    sizes = {"trainable_parameters": 1234.0, "trainable_percent": 1.5, "adapter_mb": 2.1}
    return CardOf("3", "run", TrialConfig(), sizes)


def test_a_card_tells_limits_licences_data_and_use(prepared: Prepared, card_of: CardOf) -> None:
    card = model_card(card_of, prepared)
    for told in (
        "# words version 3",
        "Not measured as it serves yet.",
        f"- {LIMITS[0]}",
        "licence of the data: CC0",
        "licence of the base: not stated in `project.yaml`",
        "sha256:123",
        "r=16, alpha=32",
        "1,234 parameters, 1.50 % of all",
        prepared.dataset.digest("test")[:16],
        'load_model("models:/words/3")',
    ):
        assert told in card
    page = card_page("words", card)
    assert "<table>" in page
    assert "&lt;b&gt;synthetic" in page


def test_a_card_of_several_languages_names_them(prepared: Prepared, card_of: CardOf) -> None:
    first, *others = prepared.dataset["test"]
    malay = replace(first, row=first.row.model_copy(update={"language": "ms"}))
    dataset = Dataset({"test": (malay, *others)}).spoken_in("en")
    assert "language `en`, with clips in `ms`." in model_card(card_of, replace(prepared, dataset=dataset))


def test_sections_are_renewed_in_their_places_and_nothing_else_changes(prepared: Prepared, card_of: CardOf) -> None:
    card = model_card(card_of, prepared)
    assert renewed(card, {}) == card
    new = renewed(card, {"Standing": "Stage: Production.", "More": "words"})
    titles = [line for line in new.splitlines() if line.startswith("## ")]
    assert titles == [line for line in card.splitlines() if line.startswith("## ")] + ["## More"]
    assert (
        new.replace("Stage: Production.", "Registered; no gate has judged it.").removesuffix("\n## More\n\nwords\n")
        == card
    )


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.integers(60, 200))
def test_a_shortened_card_fits_and_ends_with_its_link(sections: list[str], characters: int) -> None:
    card = "\n## ".join(sections)
    short = shortened(card, characters, "[all](#/x)")
    assert len(short) <= characters
    assert short.endswith("[all](#/x)")
