"""What may move, what a move leaves behind, and what the next command makes of one that was killed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.fake_model import FakeModel, Killed, World, free_lock

from wergate.commands.approve import approve
from wergate.commands.promote import promote
from wergate.commands.rollback import check, rollback
from wergate.errors import LockLost, Refused, RegistryError
from wergate.gates.kinds.accuracy import WerGate
from wergate.gates.kinds.delivery import ProvenanceGate
from wergate.gates.policy import ApprovalSettings, Policy
from wergate.registry.client import Outcome, RegistryClient
from wergate.trail.history import history, history_table
from wergate.trail.moves import drifts
from wergate.trail.records import Record, Stage, broken_links, trail
from wertune.base.contract import ENGINE_TAG, INTENT_TAG
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = Policy(
    bootstrap=BootstrapSettings(resamples=200), staging=(WerGate(limit=0.5),), production=(WerGate(limit=0.35),)
)


class Office:
    """A registry with reports to be had, and the commands on it."""

    def __init__(self, make_report: Callable[..., EvalReport], make_set: Callable[..., Any]) -> None:
        self.world = World()
        self.policy = POLICY
        self.now = NOW
        self.evaluated: list[str] = []
        self.errors: dict[str, int] = {}
        self._make_report, self._make_set = make_report, make_set

    def register(self, *numbers: str) -> None:
        for number in numbers:
            self.world.register(number)

    def evaluate(self, name: str, number: str) -> None:
        self.evaluated.append(number)
        sets = {"test": self._make_set([self.errors.get(number, 1)] * 12)}
        created = f"report {len(self.world.reports)}"
        self.world.evaluate(self._make_report(version=number, created=created, sets=sets))

    def registry(self, dies_at: int | None = None) -> RegistryClient:
        return RegistryClient(FakeModel(self.world, dies_at), free_lock, "carol", now=lambda: self.now)

    def promote(self, version: str, to: Stage, dies_at: int | None = None, **values: Any) -> Outcome:
        return promote(self.registry(dies_at), version, to, self.policy, self.evaluate, **values)

    def approve(self, version: str, approver: str = "bob") -> None:
        approve(self.registry(), version, approver, "heard it", self.policy)

    def ship(self, *numbers: str) -> None:
        for number in numbers:
            self.promote(number, "Staging")
            self.approve(number)
            self.promote(number, "Production")

    @property
    def records(self) -> list[Record]:
        return trail(self.world.tags)

    @property
    def drift(self) -> list[str]:
        return [drift.text for drift in drifts(FakeModel(self.world).look())]


@pytest.fixture
def office(make_report: Callable[..., EvalReport], make_set: Callable[..., Any]) -> Office:
    office = Office(make_report, make_set)
    office.register("1", "2", "3")
    return office


def test_a_version_climbs_with_decision_approval_aliases_and_audit_record(office: Office) -> None:
    office.ship("1", "2")
    assert office.world.holders("Production") == ["2"]
    assert office.world.holders("Archived") == ["1"]
    assert office.world.aliases == {"production": "2", "previous": "1"}
    assert office.drift == []
    last = office.records[-1].move
    assert (last.who, last.from_stage, last.to_stage, last.replaced) == ("carol", "Staging", "Production", "1")
    assert last.approval is not None
    assert last.approval.approver == "bob"
    assert last.decision is not None
    assert last.decision.champion_version == "1"
    decision = json.loads(office.world.artifacts[f"{last.decision.run_id}/{last.decision.artifact}"])
    assert decision["policy_digest"] == last.decision.policy_digest == POLICY.digest
    assert decision["report_digest"] == last.decision.report_digest
    assert "<html" in office.world.artifacts[f"{last.decision.run_id}/{last.decision.artifact[:-4]}html"]
    assert office.world.versions["2"].tags["wergate.production"].startswith("passed")


def test_each_version_is_evaluated_once(office: Office) -> None:
    office.ship("1", "2")
    assert office.evaluated == ["1", "2"]


def test_the_champion_is_evaluated_where_the_policy_froze_another_test_set(office: Office) -> None:
    office.ship("1")
    frozen = ProvenanceGate(test_digest="sha256:new", limit=0)
    office.policy = POLICY.model_copy(update={"staging": (*POLICY.staging, frozen)})
    with pytest.raises(Refused, match="provenance"):
        office.promote("2", "Staging")
    assert office.evaluated == ["1", "2", "1"]


def test_a_report_of_another_engine_is_none_of_the_version(office: Office) -> None:
    version = office.world.versions["1"]
    office.world.versions["1"] = replace(version, tags={ENGINE_TAG: "ctranslate2"})
    office.evaluate("demo", "1")
    with pytest.raises(RegistryError, match="carries its report in the engine ctranslate2"):
        office.promote("1", "Staging")
    assert office.evaluated == ["1", "1"]
    report = office.world.reports[-1].report
    provenance = report.provenance.model_copy(update={"engine": "ctranslate2"})
    office.world.evaluate(report.model_copy(update={"provenance": provenance}))
    outcome = office.promote("1", "Staging")
    assert outcome.decision
    assert outcome.decision.engine == "ctranslate2"
    assert office.evaluated == ["1", "1"]


def test_a_refusal_changes_nothing_but_the_recorded_decision(office: Office) -> None:
    office.ship("1")
    office.errors["2"] = 9
    before = office.world.state()
    with pytest.raises(Refused, match=r"demo/2 may not go to Staging: refused by wer_test") as refused:
        office.promote("2", "Staging")
    assert office.world.state() == before
    assert "wer_test" in refused.value.table
    assert (refused.value.decision or {})["version"] == "2"
    assert office.world.versions["2"].tags["wergate.staging"].startswith("refused")


def test_production_refused_by_its_own_gate_stays_in_staging(office: Office) -> None:
    office.errors["1"] = 4
    office.promote("1", "Staging")
    office.approve("1")
    with pytest.raises(Refused, match="may not go to Production: refused by"):
        office.promote("1", "Production")
    assert office.world.holders("Staging") == ["1"]


def test_production_needs_the_gates_of_staging_first(office: Office) -> None:
    with pytest.raises(Refused, match="has not passed the gates of Staging"):
        office.promote("1", "Production")


def test_production_needs_an_approval(office: Office) -> None:
    office.promote("1", "Staging")
    before = office.world.state()
    with pytest.raises(Refused, match="it has no approval; run approve"):
        office.promote("1", "Production")
    assert office.world.state() == before


def _new_report(office: Office) -> None:
    office.evaluate("demo", "1")
    office.promote("1", "Staging")


def _new_policy(office: Office) -> None:
    office.policy = POLICY.model_copy(update={"production": (WerGate(limit=0.3),)})
    office.promote("1", "Staging")


def _a_month_later(office: Office) -> None:
    office.now = NOW + timedelta(days=31)


def _self_approved(office: Office) -> None:
    office.world.registrar = "Bob "


def _used(office: Office) -> None:
    office.promote("1", "Production")
    office.ship("2")
    office.promote("1", "Staging")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_new_report, "evaluated again since bob approved"),
        (_new_policy, "the policy has changed since bob approved"),
        (_a_month_later, "it is of 2026-01-02 and held for 30 days"),
        (_self_approved, "approver is 'bob', who registered the version"),
        (_used, "it has served for a move already"),
    ],
)
def test_an_approval_is_void_when(office: Office, change: Callable[[Office], None], reason: str) -> None:
    office.promote("1", "Staging")
    office.approve("1")
    change(office)
    with pytest.raises(Refused, match=reason):
        office.promote("1", "Production")


def test_an_approval_that_never_expires_holds(office: Office) -> None:
    settings = ApprovalSettings(expires_after_days=None)
    office.policy = POLICY.model_copy(update={"approval": settings})
    office.promote("1", "Staging")
    office.approve("1")
    office.now = NOW + timedelta(days=5000)
    assert office.promote("1", "Production").moved


def test_an_older_approval_holds_although_a_newer_one_is_void(office: Office) -> None:
    office.world.registrar = ""
    office.policy = POLICY.model_copy(update={"approval": ApprovalSettings(forbid_self=False)})
    office.promote("1", "Staging")
    office.approve("1", "first")
    lax = office.policy
    office.policy = POLICY.model_copy(update={"approval": ApprovalSettings(forbid_self=False, expires_after_days=1)})
    office.promote("1", "Staging")
    office.now += timedelta(hours=1)
    office.approve("1", "second")
    office.policy = lax
    office.promote("1", "Staging")
    assert office.promote("1", "Production").moved
    approval = office.records[-1].move.approval
    assert approval is not None
    assert approval.approver == "first"


@pytest.mark.parametrize(
    ("registrar", "approver", "reason"),
    [
        ("alice", " ALICE", "who registered the version"),
        ("", "bob", "nobody knows who registered the version"),
        ("alice", "  ", "approver is empty"),
    ],
)
def test_an_approver_is_refused(office: Office, registrar: str, approver: str, reason: str) -> None:
    office.promote("1", "Staging")
    office.world.registrar = registrar
    with pytest.raises(Refused, match=reason):
        office.approve("1", approver)


def test_nothing_is_approved_that_nobody_could_have_looked_at(office: Office) -> None:
    with pytest.raises(Refused, match="version 1 has no report"):
        office.approve("1")
    office.evaluate("demo", "1")
    with pytest.raises(Refused, match="has not passed the gates of Staging"):
        office.approve("1")
    office.errors["2"] = 9
    with pytest.raises(Refused):
        office.promote("2", "Staging")
    with pytest.raises(Refused, match="has not passed the gates of Staging"):
        office.approve("2")


def test_a_comment_must_fit_into_a_tag(office: Office) -> None:
    office.promote("1", "Staging")
    with pytest.raises(RegistryError, match="comment has 501 characters, but at most 500 fit"):
        approve(office.registry(), "1", "bob", "x" * 501, POLICY)


def test_an_unknown_version_is_refused_with_the_known_ones(office: Office) -> None:
    with pytest.raises(RegistryError, match="version is '7', but demo has 1, 2, 3"):
        office.promote("7", "Staging")


def test_what_is_there_already_is_not_moved(office: Office) -> None:
    office.promote("1", "Staging")
    again = office.promote("1", "Staging")
    assert not again.moved
    assert len(office.records) == 1
    office.approve("1")
    office.promote("1", "Production")
    assert not office.promote("1", "Production").moved
    with pytest.raises(Refused, match="is in Production; promote or roll back"):
        office.promote("1", "Staging")


def test_rollback_goes_back_step_by_step_and_not_in_a_circle(office: Office) -> None:
    office.ship("1", "2", "3")
    assert rollback(office.registry(), "loops on silence").moved
    assert office.world.holders("Production") == ["2"]
    assert office.world.aliases == {"production": "2", "previous": "1"}
    rollback(office.registry(), "still")
    assert office.world.holders("Production") == ["1"]
    assert office.world.aliases == {"production": "1"}
    with pytest.raises(Refused, match="has no version that was in Production before"):
        rollback(office.registry(), "again")
    assert office.records[-2].move.reason == "loops on silence"
    assert office.drift == []


def test_a_rolled_back_version_needs_a_new_approval(office: Office) -> None:
    office.ship("1", "2")
    rollback(office.registry(), "bad")
    with pytest.raises(Refused, match="it has served for a move already"):
        office.promote("2", "Production")
    office.approve("2")
    assert office.promote("2", "Production").moved


def test_rollback_takes_the_version_out_of_staging(office: Office) -> None:
    office.ship("1", "2")
    office.promote("1", "Staging")
    rollback(office.registry(), "bad")
    assert office.world.aliases == {"production": "1"}
    assert office.drift == []


def test_rollback_wants_a_reason_and_a_version_that_is_still_there(office: Office) -> None:
    office.ship("1", "2")
    with pytest.raises(Refused, match="reason is empty"):
        rollback(office.registry(), " \n")
    del office.world.versions["1"], office.world.aliases["previous"]
    with pytest.raises(Refused, match="version 1, in Production before, was deleted"):
        rollback(office.registry(), "bad")


def _promotion(office: Office, dies_at: int | None) -> None:
    office.promote("2", "Production", dies_at)


def _staging(office: Office, dies_at: int | None) -> None:
    office.promote("3", "Staging", dies_at)


def _rollback(office: Office, dies_at: int | None) -> None:
    rollback(office.registry(dies_at), "bad")


def _writes(make: Callable[[], Office], command: Callable[[Office, int | None], None]) -> int:
    """How many writes the whole command makes."""
    office = make()
    registry = office.registry()
    office.registry = lambda dies_at=None: registry  # type: ignore[method-assign]
    command(office, None)
    return registry.model.writes  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def ready(make_report: Callable[..., EvalReport], make_set: Callable[..., Any]) -> Callable[[], Office]:
    """Version 1 in Production after 3, version 2 in Staging and approved."""

    def make() -> Office:
        office = Office(make_report, make_set)
        office.register("1", "2", "3")
        office.ship("3", "1")
        office.promote("2", "Staging")
        office.approve("2")
        return office

    return make


@pytest.mark.parametrize(("command", "target"), [(_promotion, "2"), (_staging, "1"), (_rollback, "3")])
def test_kill_before_every_write_leaves_one_production_and_the_next_command_mends(
    ready: Callable[[], Office], command: Callable[[Office, int | None], None], target: str
) -> None:
    for dies_at in range(_writes(ready, command)):
        office = ready()
        with pytest.raises(Killed):
            command(office, dies_at)
        assert len(office.world.holders("Production")) == 1
        for died_again_at in range(3):
            with suppress(Killed):
                check(office.registry(died_again_at), mend=True)
        check(office.registry(), mend=True)
        assert office.drift == []
        assert office.world.holders("Production") in (["1"], [target])
        _every_production_was_cleared(office)


def _every_production_was_cleared(office: Office) -> None:
    assert broken_links(office.records) == []
    promoted = {r.move.version for r in office.records if r.move.kind == "promote" and r.move.to_stage == "Production"}
    assert set(office.world.holders("Production")) <= promoted
    for record in office.records:
        move = record.move
        if move.kind == "promote":
            assert move.decision is not None
            assert move.decision.passed
            assert move.to_stage == "Staging" or move.approval is not None


def test_an_interrupted_move_is_reported_and_finished_by_any_next_command(ready: Callable[[], Office]) -> None:
    said = []
    for dies_at in range(_writes(ready, _promotion)):
        office = ready()
        with pytest.raises(Killed):
            _promotion(office, dies_at)
        registry = office.registry()
        heard = SimpleNamespace(texts=[])
        promote(
            RegistryClient(registry.model, registry.lock, registry.who, now=registry.now, say=heard.texts.append),
            "2",
            "Production",
            POLICY,
            office.evaluate,
        )
        said += heard.texts
        assert office.world.holders("Production") == ["2"]
        assert office.drift == []
        assert [record.move.version for record in office.records].count("2") == 2
    assert any(text.startswith("undid an interrupted promote of version 2") for text in said)
    assert any(text.startswith("finished an interrupted promote of version 2") for text in said)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda model: model.set_alias("production", "1"), "alias production names 1, the audit trail 2"),
        (lambda model: model.delete_alias("previous"), "alias previous names nothing, the audit trail 1"),
        (lambda model: model.set_stage("3", "Production"), "Production holds 3, the audit trail 2"),
        (lambda model: model.set_stage("3", "Staging"), "Staging holds 3, the audit trail nothing"),
        (lambda model: model.set_stage("2", "Archived"), "Production holds nothing, the audit trail 2"),
        (lambda model: model.set_alias("staging", "3"), "alias staging names 3, the audit trail nothing"),
    ],
)
def test_drift_is_told_stops_promotions_and_is_repaired(
    office: Office, tamper: Callable[[FakeModel], None], told: str
) -> None:
    office.ship("1", "2")
    tamper(FakeModel(office.world))
    assert told in check(office.registry(), mend=False)[1]
    with pytest.raises(RegistryError, match="has drifted from its audit trail"):
        office.promote("3", "Staging")
    done, left = check(office.registry(), mend=True)
    assert told in done
    assert left == []
    assert office.world.aliases == {"production": "2", "previous": "1"}
    assert told in office.records[-1].move.reason
    office.ship("3")


def test_two_productions_are_told_and_become_one(office: Office) -> None:
    office.ship("1", "2")
    office.world.versions["1"] = office.world.versions["2"].__class__("1", "Production")
    assert "Production holds 1, 2, the audit trail 2" in office.drift
    check(office.registry(), mend=True)
    assert office.world.holders("Production") == ["2"]


def test_a_production_set_by_hand_is_told_but_not_taken_away(office: Office) -> None:
    model = FakeModel(office.world)
    model.set_stage("1", "Production")
    model.set_alias("production", "1")
    done, left = check(office.registry(), mend=True)
    assert done == []
    assert "Production holds 1 without a decision and an approval" in left[0]
    assert office.world.aliases == {"production": "1"}
    office.ship("2")
    assert office.world.holders("Production") == ["2"]
    assert office.drift == []


def test_a_changed_or_missing_audit_record_shows(office: Office) -> None:
    office.ship("1", "2")
    keys = [record.key for record in office.records]
    text = office.world.tags[keys[1]]
    office.world.tags[keys[1]] = text.replace('"carol"', '"mallory"')
    assert any("audit record 3 does not follow from record 2" in fault for fault in office.drift)
    del office.world.tags[keys[1]]
    assert any("audit record 2 is followed by a gap" in fault or "found 3" in fault for fault in office.drift)
    office.world.tags[keys[1]] = "nonsense"
    with pytest.raises(RegistryError, match=f"tag {keys[1]} is not what this program wrote"):
        office.promote("3", "Staging")


def test_the_history_tells_moves_and_approvals_in_order(office: Office) -> None:
    office.ship("1")
    office.now = datetime.now(UTC)
    office.ship("2")
    rollback(office.registry(), "loops")
    table = history_table(history(FakeModel(office.world).look()))
    lines = table.splitlines()
    assert lines[0].split()[:2] == ["no", "when"]
    assert "rollback" in lines[-1]
    assert lines[-1].endswith("loops")
    assert sum(" approve " in line for line in lines) == 2
    assert history_table([]) == "nothing was moved or approved yet"


class Losing:
    """A lock whose holder is told at check number `lost_at` that it was taken over."""

    def __init__(self, world: World, lost_at: int, meanwhile: Callable[[], None]) -> None:
        self.world, self.lost_at, self.meanwhile, self.checks = world, lost_at, meanwhile, 0

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.lost_at:
            self.meanwhile()
            raise LockLost("taken over")

    @contextmanager
    def lock(self) -> Iterator["Losing"]:
        yield self


@pytest.mark.parametrize("lost_at", [1, 2, 3])
@pytest.mark.parametrize("settled_by_another", [False, True])
def test_a_lock_lost_on_the_way_moves_once_whoever_settles_it(
    ready: Callable[[], Office], lost_at: int, settled_by_another: bool
) -> None:
    office, seen = ready(), []

    def meanwhile() -> None:
        seen.append((INTENT_TAG in office.world.tags, *office.world.holders("Production")))
        if settled_by_another:
            check(office.registry(), True)

    losing = Losing(office.world, lost_at, meanwhile)
    registry = RegistryClient(FakeModel(office.world), losing.lock, "carol", now=lambda: office.now)
    assert promote(registry, "2", "Production", POLICY, office.evaluate).moved
    assert office.world.holders("Production") == ["2"]
    assert office.drift == []
    moves = [record.move for record in office.records if record.move.version == "2"]
    assert [move.to_stage for move in moves] == ["Staging", "Production"]
    assert seen == [{1: (False, "1"), 2: (True, "1"), 3: (True, "2")}[lost_at]]


def test_a_late_write_of_another_is_mended_after_the_move(ready: Callable[[], Office]) -> None:
    """Over HTTP a request may hang on its way for longer than its sender's lease."""
    office = ready()
    registry = office.registry()
    set_alias = registry.model.set_alias

    def late(alias: str, version: str) -> None:
        set_alias(alias, version)
        FakeModel(office.world).set_stage("3", "Production")

    registry.model.set_alias = late  # type: ignore[method-assign]
    assert promote(registry, "2", "Production", POLICY, office.evaluate).moved
    assert office.world.holders("Production") == ["2"]
    assert office.records[-1].move.kind == "repair"


def test_who_loses_every_lock_is_told_so(ready: Callable[[], Office]) -> None:
    office = ready()

    def lock() -> Any:
        losing = Losing(office.world, 1, lambda: None)
        return losing.lock()

    registry = RegistryClient(FakeModel(office.world), lock, "carol", now=lambda: office.now)
    with pytest.raises(LockLost, match="taken over"):
        promote(registry, "2", "Production", POLICY, office.evaluate)
    assert office.world.holders("Production") == ["1"]
    assert office.drift == []
