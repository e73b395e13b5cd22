"""A version's card after verdicts and moves: what was measured as it serves, and where it stands."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fake_model import FakeModel, World, free_lock

from wergate.commands.approve import approve
from wergate.commands.promote import promote
from wergate.commands.rollback import check, rollback
from wergate.errors import Refused
from wergate.gates.kinds.accuracy import WerGate
from wergate.gates.policy import Policy
from wergate.registry.client import RegistryClient
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport

SETTINGS = BootstrapSettings(resamples=200)
POLICY = Policy(bootstrap=SETTINGS, staging=(WerGate(limit=0.5),), production=(WerGate(limit=0.35),))


@pytest.fixture
def world() -> World:
    world = World()
    for number in ("1", "2"):
        world.register(number)
    return world


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def registry(world: World, said: list[str]) -> RegistryClient:
    return RegistryClient(FakeModel(world), free_lock, "carol", say=said.append)


@pytest.fixture
def evaluate(world: World, make_report: Callable[..., EvalReport], make_set: Callable[..., Any]) -> Callable[..., None]:
    """Reports in which version 1 makes two errors in ten words and every later one makes one."""

    def evaluate(name: str, number: str) -> None:
        sets = {"test": make_set([2 if number == "1" else 1] * 30)}
        world.evaluate(make_report(version=number, sets=sets))

    return evaluate


def _ship(registry: RegistryClient, number: str, evaluate: Callable[..., None]) -> None:
    promote(registry, number, "Staging", POLICY, evaluate)
    approve(registry, number, "bob", "heard it", POLICY)
    promote(registry, number, "Production", POLICY, evaluate)


def test_a_verdict_brings_results_as_served_beside_production(
    world: World, registry: RegistryClient, evaluate: Any
) -> None:
    _ship(registry, "1", evaluate)
    assert "No other version was in Production when the gates judged this one." in world.cards["1"]
    promote(registry, "2", "Staging", POLICY, evaluate)
    card = world.cards["2"]
    assert "Measured as it serves in torch" in card
    assert "| test WER           | 35.00 %" in card  # the untouched base
    assert "| version 1 " in card
    assert "-10.00 points (-50.0 %)" in card
    assert "Stage: Staging." in card
    assert card.index("## Standing") < card.index("## Limits\n\nNone.")


def test_several_languages_are_told_each(
    world: World,
    registry: RegistryClient,
    make_report: Callable[..., EvalReport],
    make_set: Callable[..., Any],
) -> None:
    english, malay = make_set([1] * 30), make_set([2] * 30, language="ms")
    both = english.model_copy(update={"utterances": (*english.utterances, *malay.utterances)})

    def evaluate(name: str, number: str) -> None:
        world.evaluate(make_report(version=number, sets={"test": both}, baseline={"test": both}))

    promote(registry, "1", "Staging", POLICY, evaluate)
    assert "| test | ms       | 30    | 20.00%          | 20.00% |" in world.cards["1"]
    assert "in other languages after theirs" in world.cards["1"]
    assert "in other languages" not in world.cards["2"]


def test_a_refusal_stands_on_the_card(world: World, registry: RegistryClient, evaluate: Any) -> None:
    strict = POLICY.model_copy(update={"staging": (WerGate(limit=0.01),)})
    with pytest.raises(Refused):
        promote(registry, "1", "Staging", strict, evaluate)
    assert "Stage: None." in world.cards["1"]
    assert "The gates of Staging: refused by " in world.cards["1"]
    assert "Measured as it serves" in world.cards["1"]


def test_a_move_renews_the_cards_of_both_versions(world: World, registry: RegistryClient, evaluate: Any) -> None:
    _ship(registry, "1", evaluate)
    _ship(registry, "2", evaluate)
    assert "promoted to Production by carol, approved by bob, in place of version 1." in world.cards["2"]
    assert "gave its place in Production to version 2." in world.cards["1"]
    assert "Stage: Archived." in world.cards["1"]
    rollback(registry, "worse on the telephone")
    assert "Stage: Production." in world.cards["1"]
    assert "rolled back to Production by carol, in place of version 2." in world.cards["1"]
    assert "Stage: Archived." in world.cards["2"]


def test_a_card_that_cannot_be_written_stops_no_move_and_is_mended(
    world: World, registry: RegistryClient, said: list[str], evaluate: Any
) -> None:
    world.cards_refuse = True
    _ship(registry, "1", evaluate)
    assert world.holders("Production") == ["1"]
    assert any("the card of version 1 is behind: no room; run check with repair=true" in line for line in said)
    world.cards_refuse = False
    check(registry, mend=True)
    assert "Stage: Production." in world.cards["1"]


def test_a_version_without_a_card_gets_none(world: World, registry: RegistryClient, evaluate: Any) -> None:
    del world.cards["1"]
    _ship(registry, "1", evaluate)
    assert "1" not in world.cards
