"""The commands `rollback` and `check`."""

from wergate.errors import Refused
from wergate.registry.client import Outcome, RegistryClient
from wergate.trail.moves import drifts, repair
from wergate.trail.records import Move, clean_note, expected, new_token, trail


def rollback(registry: RegistryClient, reason: str) -> Outcome:
    """Production goes back to the version that held it before; no gate is asked, but the reason is kept."""
    reason = clean_note(reason, "reason")
    if not reason:
        raise Refused("reason is empty, but a rollback must say why; give --reason")
    return registry.surviving(lambda: _rollback(registry, reason))


def _rollback(registry: RegistryClient, reason: str) -> Outcome:
    with registry.settled() as (guard, snapshot):
        wanted = expected(trail(snapshot.tags))
        if not wanted.previous:
            raise Refused(f"{snapshot.name} has no version that was in Production before; promote another one")
        if wanted.previous not in snapshot.versions:
            raise Refused(f"version {wanted.previous}, in Production before, was deleted; promote another one")
        move = Move(
            token=new_token(),
            kind="rollback",
            version=wanted.previous,
            from_stage=snapshot.version(wanted.previous).stage,
            to_stage="Production",
            replaced=wanted.production,
            who=registry.who,
            reason=reason,
        )
        text = f"{snapshot.name}/{wanted.previous} is back in Production, {wanted.production} is archived"
        return registry.move(snapshot, move, guard, Outcome(True, text))


def check(registry: RegistryClient, mend: bool) -> tuple[list[str], list[str]]:
    """What was repaired, and what remains wrong."""
    with registry.lock() as guard:
        done = repair(registry.model, guard, registry.who) if mend else []
        if mend:
            registry.cards.tell_standing()
        return done, [drift.text for drift in drifts(registry.model.look())]
