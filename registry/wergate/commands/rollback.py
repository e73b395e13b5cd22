"""The commands `rollback` and `check`."""

from wergate.errors import Refused
from wergate.registry.cards import tell_standing
from wergate.registry.desk import Desk, Outcome, move_and_look, settled, surviving
from wergate.trail.moves import drifts, repair
from wergate.trail.records import Move, clean_note, expected, new_token, trail


def rollback(desk: Desk, reason: str) -> Outcome:
    """Production goes back to the version that held it before; no gate is asked, but the reason is kept."""
    reason = clean_note(reason, "reason")
    if not reason:
        raise Refused("reason is empty, but a rollback must say why; give --reason")
    return surviving(desk, lambda: _rollback(desk, reason))


def _rollback(desk: Desk, reason: str) -> Outcome:
    with settled(desk) as (guard, snapshot):
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
            who=desk.who,
            reason=reason,
        )
        text = f"{snapshot.name}/{wanted.previous} is back in Production, {wanted.production} is archived"
        outcome = move_and_look(desk, snapshot, move, guard, Outcome(True, text))
        tell_standing(desk, [move.version, move.replaced])
        return outcome


def check(desk: Desk, mend: bool) -> tuple[list[str], list[str]]:
    """What was repaired, and what remains wrong."""
    with desk.lock() as guard:
        done = repair(desk.shelf, guard, desk.who) if mend else []
        if mend:
            tell_standing(desk)
        return done, [drift.text for drift in drifts(desk.shelf.look())]
