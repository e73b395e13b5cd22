"""A move in steps that survive kill -9 between any two: journal, stage, aliases, audit record, journal cleared.

The stage is the point of no return. A journal entry whose version has not reached its stage is undone (nothing but
the entry was written); one whose version has reached it is finished. Every step may be done twice.
"""

from dataclasses import dataclass
from typing import Protocol

from wergate.trail.records import (
    Expected,
    Move,
    broken_links,
    expected,
    new_token,
    next_record,
    parse_tag,
    trail,
    utc_now,
)
from wergate.trail.registered_model import RegisteredModel, Snapshot
from wertune.base.contract import INTENT_TAG


class Guard(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raises LockLost when the lock is no longer held."""


@dataclass(frozen=True)
class Drift:
    """One difference between the registry and its audit trail."""

    text: str
    repairable: bool = True


def carry_out(model: RegisteredModel, snapshot: Snapshot, move: Move, guard: Guard) -> None:
    """The whole move from where `snapshot` stands; the lock is checked before the journal and around the stage."""
    guard.check()
    model.set_tag(INTENT_TAG, move.model_dump_json())
    guard.check()
    model.set_stage(move.version, move.to_stage)
    guard.check()
    _finish(model, snapshot, move)


def _finish(model: RegisteredModel, snapshot: Snapshot, move: Move) -> None:
    """All that follows the stage. The record comes before the aliases, which are then played from the trail."""
    records = trail(snapshot.tags)
    if move.token not in {record.move.token for record in records}:
        record = next_record(records, move, utc_now())
        model.set_tag(record.key, record.model_dump_json())
        records.append(record)
    _set_aliases(model, snapshot, expected(records))
    model.delete_tag(INTENT_TAG)


def _set_aliases(model: RegisteredModel, snapshot: Snapshot, wanted: Expected) -> None:
    for alias, version in wanted.aliases.items():
        present = snapshot.aliases.get(alias, "")
        if version in snapshot.versions and version != present:
            model.set_alias(alias, version)
        elif present and not version and alias != "production":
            model.delete_alias(alias)


def settle(model: RegisteredModel, guard: Guard) -> tuple[str, Snapshot]:
    """Finishes or undoes what a killed command left; says what it did, or nothing, and how the model stands now."""
    snapshot = model.look()
    text = snapshot.tags.get(INTENT_TAG)
    if text is None:
        return "", snapshot
    move = parse_tag(Move, INTENT_TAG, text)
    guard.check()
    place = f"version {move.version} to {move.to_stage}"
    if move.version in snapshot.holders(move.to_stage):
        _finish(model, snapshot, move)
        return f"finished an interrupted {move.kind} of {place}", model.look()
    model.delete_tag(INTENT_TAG)
    return f"undid an interrupted {move.kind} of {place}; its stage had not been set", model.look()


def drifts(snapshot: Snapshot) -> list[Drift]:
    """Every difference between stages, aliases and the audit trail, and every fault of the trail itself."""
    records = trail(snapshot.tags)
    wanted = expected(records)
    found = [Drift(f"{fault}; compare with a backup of the registry", False) for fault in broken_links(records)]
    if INTENT_TAG in snapshot.tags:
        found.append(Drift("a move was interrupted, or is under way"))
    found += _stage_drifts(snapshot, "Production", wanted.production)
    found += _stage_drifts(snapshot, "Staging", wanted.staging)
    for alias, version in wanted.aliases.items():
        present = snapshot.aliases.get(alias, "")
        if present != version and (version in snapshot.versions or (not version and alias != "production")):
            found.append(Drift(f"alias {alias} names {present or 'nothing'}, the audit trail {version or 'nothing'}"))
    return found


def _stage_drifts(snapshot: Snapshot, stage: str, wanted: str) -> list[Drift]:
    present = snapshot.holders(stage)
    if present == ([wanted] if wanted else []):
        return []
    held = ", ".join(present) or "nothing"
    if wanted and wanted not in snapshot.versions:
        return [Drift(f"{stage} should hold version {wanted}, which was deleted; promote another", False)]
    if not wanted and stage == "Production":
        text = f"Production holds {held} without a decision and an approval; promote a version through the gates"
        return [Drift(text, False)]
    return [Drift(f"{stage} holds {held}, the audit trail {wanted or 'nothing'}")]


def repair(model: RegisteredModel, guard: Guard, who: str) -> list[str]:
    """Brings stages and aliases back to the audit trail, records that it did, and returns what was wrong.

    A Production that the trail does not know is never taken away by this: a service may hang on it.
    """
    text, snapshot = settle(model, guard)
    done = [text] if text else []
    faults = mendable(snapshot)
    if not faults:
        return done
    wanted = expected(trail(snapshot.tags))
    guard.check()
    _restore_stages(model, snapshot, wanted)
    _set_aliases(model, model.look(), wanted)
    move = Move(
        token=new_token(),
        kind="repair",
        version=wanted.production or wanted.staging,
        from_stage="",
        to_stage="",
        who=who,
        reason="; ".join(faults)[:500],
    )
    record = next_record(trail(model.tags()), move, utc_now())
    model.set_tag(record.key, record.model_dump_json())
    return done + faults


def _restore_stages(model: RegisteredModel, snapshot: Snapshot, wanted: Expected) -> None:
    for stage, version in (("Production", wanted.production), ("Staging", wanted.staging)):
        if version in snapshot.versions and snapshot.holders(stage) != [version]:
            model.set_stage(version, stage)
    if not wanted.staging:
        for version in snapshot.holders("Staging"):
            if version != wanted.production:
                model.set_stage(version, "None")


def mendable(snapshot: Snapshot) -> list[str]:
    """Every drift that `repair` would mend."""
    return [drift.text for drift in drifts(snapshot) if drift.repairable]
