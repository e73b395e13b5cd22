"""What is written down in the registry: approvals, decisions' places, moves, and the audit trail that chains them."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ValidationError

from wergate.errors import RegistryError
from wertune.base.config import Frozen
from wertune.base.contract import APPROVAL_PREFIX, AUDIT_PREFIX

Stage = Literal["Staging", "Production"]
Kind = Literal["promote", "rollback", "repair"]

MAX_NOTE_CHARACTERS = 500


class Approval(Frozen):
    """A person's word for one version, one policy and one report; it serves for one move."""

    id: str
    version: str
    approver: str
    at: AwareDatetime
    policy_digest: str
    report_digest: str
    comment: str = ""


class DecisionRef(Frozen):
    """Where a decision lies and what it is bound to."""

    run_id: str
    artifact: str
    passed: bool
    policy_digest: str
    report_digest: str
    test_digest: str
    champion_version: str = ""


class Move(Frozen):
    """One change of a stage: the journal's entry before it, the audit record's body after it."""

    token: str
    kind: Kind
    version: str
    from_stage: str
    to_stage: str
    replaced: str = ""
    who: str
    reason: str = ""
    decision: DecisionRef | None = None
    approval: Approval | None = None


class Record(Frozen):
    """A link of the audit trail; `parent` is the digest of the link before, so that a lost or changed one shows."""

    number: int
    parent: str
    at: AwareDatetime
    move: Move

    @property
    def key(self) -> str:
        return f"{AUDIT_PREFIX}{self.number:06d}.{self.move.token}"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True)
class Expected:
    """What the audit trail says the registry should look like; empty means none."""

    production: str = ""
    previous: str = ""
    staging: str = ""

    @property
    def aliases(self) -> dict[str, str]:
        """In the order they are set: who follows `production` finds `previous` in place."""
        return {"previous": self.previous, "production": self.production, "staging": self.staging}


Model = TypeVar("Model", bound=BaseModel)


def parse_tag(model: type[Model], key: str, value: str) -> Model:
    """The tag's JSON as a `model`; a RegistryError names the tag that somebody has changed by hand."""
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise RegistryError(f"tag {key} is not what this program wrote ({fault}); restore it or delete it") from None


def trail(tags: Mapping[str, str]) -> list[Record]:
    """The model's audit records, oldest first."""
    found = sorted((key, value) for key, value in tags.items() if key.startswith(AUDIT_PREFIX))
    return [parse_tag(Record, key, value) for key, value in found]


def approvals_of(tags: Mapping[str, str]) -> list[Approval]:
    """All approvals that a version's tags hold, oldest first."""
    found = (parse_tag(Approval, key, text) for key, text in tags.items() if key.startswith(APPROVAL_PREFIX))
    return sorted(found, key=lambda approval: approval.at)


def broken_links(records: Iterable[Record]) -> list[str]:
    """What is wrong with the chain: a number missing or taken twice, a record changed afterwards."""
    faults, number, digest = [], 0, ""
    for record in records:
        if record.number != number + 1:
            faults.append(f"audit record {number + 1} is followed by a gap or a double: found {record.number}")
        elif record.parent != digest:
            faults.append(f"audit record {record.number} does not follow from record {number}: one of them was changed")
        number, digest = record.number, record.digest
    return faults


def next_record(records: list[Record], move: Move, now: datetime) -> Record:
    """The link that adds `move` to the trail."""
    last = records[-1] if records else None
    return Record(number=last.number + 1 if last else 1, parent=last.digest if last else "", at=now, move=move)


def expected(records: Iterable[Record]) -> Expected:
    """The trail played from its beginning: a promotion to Production is put on a pile, a rollback takes it off."""
    pile: list[str] = []
    staging = ""
    for move in (record.move for record in records):
        if move.kind == "repair":
            continue
        if move.to_stage == "Staging":
            staging = move.version
            continue
        pile = pile[:-1] if move.kind == "rollback" else [*pile, move.version]
        staging = "" if staging == move.version else staging
    return Expected(pile[-1] if pile else "", pile[-2] if len(pile) > 1 else "", staging)


def new_token() -> str:
    """Eight random bytes as text: tells one command's writes from all others'."""
    return secrets.token_hex(8)


def utc_now() -> datetime:
    return datetime.now(UTC)


def clean_note(text: str, what: str) -> str:
    """One printable line of bounded length: it is stored in a tag, which some databases cut at 5000 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > MAX_NOTE_CHARACTERS:
        raise RegistryError(f"{what} has {len(line)} characters, but at most {MAX_NOTE_CHARACTERS} fit; shorten it")
    return line
