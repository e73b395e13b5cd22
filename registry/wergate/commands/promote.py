"""The command `promote`: a report, a decision, an approval for Production, and only then the move."""

from dataclasses import dataclass

from wergate.commands.approve import valid_approval
from wergate.errors import Refused
from wergate.gates.decision import decide, summary
from wergate.gates.page import text_table
from wergate.gates.policy import Policy
from wergate.registry.client import Outcome, RegistryClient
from wergate.trail.moves import Guard
from wergate.trail.records import Approval, Move, Stage, clean_note, new_token, trail
from wergate.trail.registered_model import FoundReport, Snapshot, Version
from wergate.trail.reports import Evaluate, find_report, record_decision, require_report, require_staging


def promote(
    registry: RegistryClient, version: str, to: Stage, policy: Policy, evaluate: Evaluate, reason: str = ""
) -> Outcome:
    """Evaluates where no report fits, decides, records the decision, and only then moves.

    Raises Refused when a gate refuses or Production lacks an approval; then nothing but the decision was written.
    """
    reason = clean_note(reason, "reason")
    candidate = require_report(registry.model, registry.model.look().version(version), policy, evaluate)
    promotion = _Promotion(registry, to, policy, candidate, reason)
    return registry.surviving(lambda: promotion.run(evaluate))


@dataclass(frozen=True)
class _Promotion:
    registry: RegistryClient
    to: Stage
    policy: Policy
    candidate: FoundReport
    reason: str

    def run(self, evaluate: Evaluate) -> Outcome:
        """Decides and moves under one lock, which is left while the champion's report is made: that takes minutes."""
        made: dict[str, FoundReport] = {}
        model = self.registry.model
        while True:
            with self.registry.settled() as (guard, snapshot):
                champion = _champion(snapshot, self.candidate.report.version)
                if champion is None:
                    return self._decide_and_move(guard, snapshot, None)
                found = made.get(champion.number) or find_report(model, champion, self.policy)
                if found:
                    return self._decide_and_move(guard, snapshot, found)
            made[champion.number] = require_report(model, champion, self.policy, evaluate)

    def _decide_and_move(self, guard: Guard, snapshot: Snapshot, champion: FoundReport | None) -> Outcome:
        version = snapshot.version(self.candidate.report.version)
        place = f"{snapshot.name}/{version.number}"
        if version.stage == "Production":
            if self.to == "Staging":
                raise Refused(f"{place} is in Production; promote or roll back to another version first")
            return Outcome(False, f"{place} is in Production already: nothing to do")
        against = champion.report if champion else None
        decision = decide(self.candidate.report, against, self.policy, self.to.lower())
        reference = record_decision(self.registry.model, self.candidate.run_id, decision)
        self.registry.cards.tell_verdict(self.candidate, champion)
        if not decision.passed:
            text = f"{place} may not go to {self.to}: {summary(decision)}"
            raise Refused(text, text_table(decision), decision.model_dump(mode="json"))
        if version.stage == self.to:
            return Outcome(False, f"{place} is in {self.to} already; the new decision is recorded", decision)
        approval = self._approval(snapshot, version) if self.to == "Production" else None
        replaced = next(iter(snapshot.holders(self.to)), "")
        move = Move(
            token=new_token(),
            kind="promote",
            version=version.number,
            from_stage=version.stage,
            to_stage=self.to,
            replaced=replaced,
            who=self.registry.who,
            reason=self.reason,
            decision=reference,
            approval=approval,
        )
        text = f"{place} is in {self.to}" + (f", {replaced} is archived" if replaced else "")
        return self.registry.move(snapshot, move, guard, Outcome(True, text, decision))

    def _approval(self, snapshot: Snapshot, version: Version) -> Approval:
        require_staging(version, self.policy, self.candidate)
        registrar = self.registry.model.registrar(version)
        records = trail(snapshot.tags)
        return valid_approval(version, registrar, self.candidate.report, self.policy, records, self.registry.now())


def _champion(snapshot: Snapshot, candidate: str) -> Version | None:
    """What is in Production, unless that is the candidate: the version that the candidate is compared with."""
    number = next((number for number in snapshot.holders("Production") if number != candidate), None)
    return snapshot.version(number) if number else None
