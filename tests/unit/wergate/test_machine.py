"""Any order of commands, kills and meddling hands: never two Productions, never one without decision and approval."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.fake_model import FakeModel, Killed, World, free_lock

from wergate.commands.approve import approve
from wergate.commands.promote import promote
from wergate.commands.rollback import check, rollback
from wergate.errors import RegistryError
from wergate.gates.kinds.delivery import LeakageGate
from wergate.gates.policy import Policy
from wergate.registry.client import RegistryClient
from wergate.trail.moves import drifts
from wergate.trail.records import broken_links, expected, trail
from wertune.base.contract import INTENT_TAG
from wertune.scores.eval_report import Cost, EvalReport, Provenance, SetReport

NUMBERS = ("1", "2", "3", "4")
COST = Cost(
    trainable_parameters=1,
    trainable_percent=1,
    adapter_mb=1,
    peak_memory_mb=1,
    real_time_factor=1,
    baseline_real_time_factor=1,
)
versions = st.sampled_from(NUMBERS)
stages = st.sampled_from(["Staging", "Production"])
deaths = st.one_of(st.none(), st.integers(0, 12))


def _policy(limit: float) -> Policy:
    gates = (LeakageGate(limit=limit),)
    return Policy(staging=gates, production=gates)


class Registry(RuleBasedStateMachine):
    """Commands on four versions, three of which pass; the world remembers what hands have meddled with."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.policy = _policy(0.5)
        self.meddled = False
        for number in NUMBERS:
            self.world.register(number)
        self.ship("1", None)

    def _evaluate(self, name: str, number: str) -> None:
        report = EvalReport(
            model="demo",
            version=number,
            created=str(len(self.world.reports)),
            sets={"test": SetReport(digest="sha256:test", utterances=())},
            baseline={},
            training_terms={},
            leakage=("a clip",) if number == "3" else (),
            cost=COST,
            provenance=Provenance(),
        )
        self.world.evaluate(report)

    def _try(self, command: Any, dies_at: int | None, *arguments: Any) -> None:
        registry = RegistryClient(FakeModel(self.world, dies_at), free_lock, "carol")
        try:
            command(registry, *arguments)
        except (Killed, RegistryError):
            return

    @rule(version=versions, to=stages, dies_at=deaths)
    def promote(self, version: str, to: Any, dies_at: int | None) -> None:
        self._try(promote, dies_at, version, to, self.policy, self._evaluate)

    @rule(version=versions, dies_at=deaths)
    def ship(self, version: str, dies_at: int | None) -> None:
        self._try(promote, None, version, "Staging", self.policy, self._evaluate)
        self._try(approve, None, version, "bob", "", self.policy)
        self._try(promote, dies_at, version, "Production", self.policy, self._evaluate)

    @rule(version=versions, approver=st.sampled_from(["alice", "bob"]))
    def approve(self, version: str, approver: str) -> None:
        self._try(approve, None, version, approver, "", self.policy)

    @rule(dies_at=deaths)
    def rollback(self, dies_at: int | None) -> None:
        self._try(rollback, dies_at, "bad")

    @rule(version=versions)
    def evaluate_again(self, version: str) -> None:
        self._evaluate("demo", version)

    @rule(limit=st.sampled_from([0.4, 0.5]))
    def change_policy(self, limit: float) -> None:
        self.policy = _policy(limit)

    @precondition(lambda self: expected(trail(self.world.tags)).production)
    @rule(version=versions, to=st.sampled_from(["Staging", "Production", "Archived", "None"]))
    def meddle_with_a_stage(self, version: str, to: str) -> None:
        FakeModel(self.world).set_stage(version, to)
        self.meddled = True

    @precondition(lambda self: expected(trail(self.world.tags)).production)
    @rule(version=versions, alias=st.sampled_from(["production", "previous", "staging"]))
    def meddle_with_an_alias(self, version: str, alias: str) -> None:
        FakeModel(self.world).set_alias(alias, version)
        self.meddled = True

    @rule(dies_at=deaths)
    def repair(self, dies_at: int | None) -> None:
        self._try(check, dies_at, True)
        if dies_at is None:
            assert drifts(FakeModel(self.world).look()) == []
            self.meddled = False

    @invariant()
    def at_most_one_production(self) -> None:
        assert len(self.world.holders("Production")) <= 1

    @invariant()
    def every_move_was_cleared_and_the_trail_is_whole(self) -> None:
        records = trail(self.world.tags)
        assert broken_links(records) == []
        approvals = [record.move.approval.id for record in records if record.move.approval]
        assert len(set(approvals)) == len(approvals)
        for move in (record.move for record in records if record.move.kind == "promote"):
            assert move.version != "3"
            assert move.decision is not None
            assert move.decision.passed
            if move.to_stage == "Production":
                assert move.approval is not None
                assert move.approval.approver == "bob"
                assert move.approval.report_digest == move.decision.report_digest

    @invariant()
    def untouched_by_hands_it_is_as_the_trail_says(self) -> None:
        if not self.meddled and INTENT_TAG not in self.world.tags:
            assert drifts(FakeModel(self.world).look()) == []


Registry.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestRegistry = Registry.TestCase
